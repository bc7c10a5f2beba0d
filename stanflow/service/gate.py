"""What every request passes before it is answered: rate, origin, token, and what its body is."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stanflow.service.problems import ProblemError, respond, try_later
from stanflow.service.settings import LOOPBACK, Settings
from stanflow.service.tokens import is_token

API = "/v1/"
OPEN_TO_ALL = frozenset({"/v1/health"})
_MOST_CLIENTS_REMEMBERED = 10_000
_SECONDS = 60.0
_SLOWEST = 2**14  # bytes of a body in a second
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS = {"http": ":80", "https": ":443"}  # which need not be said
_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
}


@dataclass
class _Allowance:
    """Requests that a client has left: they come back at a steady rate."""

    left: float
    at: float


class Gate:
    """ASGI middleware that lets requests through, or not.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                of_api = scope["path"].startswith(API)
                headers.setdefault("Cache-Control", "no-store" if of_api else "no-cache")
            await send(message)

        try:
            self._check(scope)
        except ProblemError as refused:
            response = respond(refused.problem, refused.headers)
            await response(scope, receive, send_with_headers)
            return
        await self._app(scope, self._limited(receive, lambda: answered), send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        client = (scope.get("client") or ("",))[0]
        if wait := self._wait(client):
            most = self._settings.requests_a_minute
            said = f"more than {most} requests in a minute; try again in a while"
            raise try_later(said, 429, math.ceil(wait))
        self._check_host(headers)
        if scope["method"] not in _READING:
            _check_origin(headers)
        self._check_token(scope["path"], headers)
        length = int(headers.get("content-length", "0"))
        if length or "transfer-encoding" in headers:
            _check_type(headers)
        if length > self._settings.largest_body:
            raise self._too_large()

    def _check_host(self, headers: Headers) -> None:
        """Refuse what another site's page sends by a name of its own for this machine.

        With a token there is no need to: that page has none.
        """
        try:
            host = urlsplit(f"//{headers.get('host', '')}").hostname
        except ValueError:
            host = None
        if self._settings.token_hash is None and host not in LOOPBACK:
            raise ProblemError(421, "this server answers to localhost and 127.0.0.1 only")

    def _check_token(self, path: str, headers: Headers) -> None:
        expected = self._settings.token_hash
        if expected is None or not path.startswith(API) or path in OPEN_TO_ALL:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not is_token(token, expected):
            said = "this server asks for a token; send it as `Authorization: Bearer TOKEN`"
            raise ProblemError(401, said, headers={"WWW-Authenticate": "Bearer"})

    def _too_large(self) -> ProblemError:
        most = self._settings.largest_body
        return ProblemError(413, f"the body has more than {most} bytes, the most that is taken")

    def _limited(self, receive: Receive, answered: Callable[[], bool]) -> Receive:
        """Count the body as it comes, whose length need not have been told, and time it."""
        received, waited, whole = 0, 0.0, False

        async def receive_some() -> Message:
            nonlocal received, waited, whole
            if whole:
                return await receive()
            begun = time.monotonic()
            left = self._settings.request_seconds + received / _SLOWEST - waited
            refused: ProblemError | None = None
            try:
                async with asyncio.timeout(left):
                    message = await receive()
            except TimeoutError:
                refused = self._too_slow()
            else:
                waited += time.monotonic() - begun
                received += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if received > self._settings.largest_body:
                    refused = self._too_large()
            if refused is None:
                return message
            if answered():
                return {"type": "http.disconnect"}
            raise refused

        return receive_some

    def _too_slow(self) -> ProblemError:
        said = (
            f"the body came too slowly; {self._settings.request_seconds:g} seconds are waited for "
            f"it, and one more for each {_SLOWEST} bytes"
        )
        return ProblemError(408, said, headers={"Connection": "close"})

    def _wait(self, client: str) -> float:
        """Take a request from a client's allowance; return the seconds until it has one, or 0."""
        most, now = float(self._settings.requests_a_minute), time.monotonic()
        allowance = self._allowances.setdefault(client, _Allowance(most, now))
        self._allowances.move_to_end(client)
        if len(self._allowances) > _MOST_CLIENTS_REMEMBERED:
            self._allowances.popitem(last=False)  # who has not asked for longest
        back = (now - allowance.at) * most / _SECONDS
        allowance.left, allowance.at = min(most, allowance.left + back), now
        if allowance.left < 1:
            return (1 - allowance.left) * _SECONDS / most
        allowance.left -= 1
        return 0.0


def _check_origin(headers: Headers) -> None:
    """Refuse what a page of another site sends: browsers send it, and then keep back the answer.

    The scheme may differ, as it does behind a proxy that encrypts.
    """
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is None:
        return
    scheme, _, address = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    if port is None or address.removesuffix(port) != host.lower().removesuffix(port):
        said = (
            f"only a page of {host} may ask for this, not one of {origin}; a proxy in between must "
            "pass on the Host header"
        )
        raise ProblemError(403, said)


def _check_type(headers: Headers) -> None:
    """Take what FastAPI reads as JSON, which no page may send to another site unasked."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    family, _, form = kind.partition("/")
    if family != "application" or not (form == "json" or form.endswith("+json")):
        said = "the body must be JSON; send it as `Content-Type: application/json`"
        raise ProblemError(415, said)
