"""Bodies of requests: kept in a file until they are whole, then read beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from tempfile import SpooledTemporaryFile
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect
from typing_extensions import override

from stanflow.service.problems import ProblemError
from stanflow.service.settings import Settings

_BYTES_IN_MEMORY = 2**16
_BEFORE_VALUES = b",:[{"  # one of them comes before every value but the first, and before no other
_LARGEST, _LITTLE = 1000, 10


class BodyRoute(APIRoute):
    """A route that reads its request's body without holding up others.

    What a body says takes many times its size in memory. So as many are read and answered at a time
    as make up two of the largest, and of one client as make up one; others wait, in files.
    """

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer, field = super().get_route_handler(), self.body_field
        if field is None:
            return answer

        def read(file: SpooledTemporaryFile[bytes]) -> Any:
            file.seek(0)
            value, errors = field.validate(_parsed(file.read()), loc=("body",))
            if errors:
                raise RequestValidationError(errors)
            return value

        async def read_and_answer(request: Request) -> Response:
            settings = request.app.state.context.settings
            with SpooledTemporaryFile(_BYTES_IN_MEMORY, dir=settings.calls_dir) as file:
                share = await _keep(request, file, settings)
                client = request.client.host if request.client is not None else ""
                async with _ROOM.of(client, share):
                    given = await run_in_threadpool(read, file) if share else None
                    return await answer(_Given(request, given))

        return read_and_answer


class _Given(Request):
    """A request whose body has been read: FastAPI takes what is validated as it is."""

    def __init__(self, request: Request, given: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._given = given

    @override
    async def body(self) -> bytes:
        return b"" if self._given is None else b"see json()"

    @override
    async def json(self) -> Any:
        return self._given


class _Room:
    """Memory for what bodies say, in thousandths of what the largest says."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def of(self, client: str, share: int) -> AsyncIterator[None]:
        """Have some of it, once there is; little there always is."""

        def is_there() -> bool:
            of_all, of_one = self._taken.total() + share, self._taken[client] + share
            return share <= _LITTLE or (of_all <= 2 * _LARGEST and of_one <= _LARGEST)

        async with self._changed:
            await self._changed.wait_for(is_there)
            self._taken[client] += share
        try:
            yield
        finally:
            async with self._changed:
                self._taken[client] -= share
                self._taken += Counter()  # who has none is forgotten
                self._changed.notify_all()


_ROOM = _Room()  # of the process, as its memory is


async def _keep(request: Request, file: SpooledTemporaryFile[bytes], settings: Settings) -> int:
    """Put a request's body into a file, and return its share of the memory.

    Raises
    ------
    ProblemError
        It has too many values, or did not come as a whole.
    """
    most, values, size = settings.most_values, 0, 0
    try:
        async for part in request.stream():
            size += len(part)
            values += len(part) - len(part.translate(None, _BEFORE_VALUES))
            if values > most:
                said = f"the body has more than {most} values and names, the most that is taken"
                raise ProblemError(413, said)
            await run_in_threadpool(file.write, part)
    except ClientDisconnect:
        raise ProblemError(400, "the connection ended before the body did") from None
    return math.ceil(_LARGEST * max(size / settings.largest_body, values / most))


def _parsed(text: bytes) -> Any:
    """Return what JSON says; NaN and Infinity are numbers, as in Stan's data.

    Raises
    ------
    ProblemError
        It is not JSON, is nested deeper than can be read, or has text that is no Unicode.
    """
    try:
        return from_json(text)
    except ValueError as error:
        why = str(error).replace("recursion limit exceeded", "nested too deeply")
        said = f"the body cannot be read as JSON: {why}"
        raise ProblemError(400, said, kind="usage") from None
