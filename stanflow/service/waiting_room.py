"""A waiting room of bounded length, in which clients have turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator


class FullError(Exception):
    """As many wait as may, and nobody else has more of them than this client."""


class WaitingRoom:
    """Lets in some at a time: each client in turn, and no client all of them.

    Where it is full, the last of whoever has most waiting is sent away.

    Parameters
    ----------
    places : int
        How many are let in at a time. One client has all but one of them at most.
    most_waiting : int
        How many may wait.

    Examples
    --------
    ::

        async with room.place("192.0.2.1"):
            ...
    """

    def __init__(self, places: int, most_waiting: int) -> None:
        self._places, self._most_waiting = places, most_waiting
        self._most_of_one = max(1, places - 1)
        self._inside: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def place(self, client: str) -> AsyncIterator[None]:
        """Wait for a place, and have it until the block ends.

        Raises
        ------
        FullError
            There is no room to wait in.
        """
        await self._enter(client)
        try:
            yield
        finally:
            self._leave(client)

    async def _enter(self, client: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        self._let_in()
        if sum(map(len, self._waiting.values())) > self._most_waiting:
            self._send_one_away()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._leave(client)  # its turn came as it went
            else:
                self._forget(client, turn)
            raise

    def _leave(self, client: str) -> None:
        self._inside[client] -= 1
        self._inside += Counter()  # who has none is forgotten
        self._let_in()

    def _let_in(self) -> None:
        while self._inside.total() < self._places:
            client = next((c for c in self._waiting if self._inside[c] < self._most_of_one), None)
            if client is None:
                return
            turn = self._waiting[client].popleft()
            self._waiting.move_to_end(client)
            if not self._waiting[client]:
                del self._waiting[client]
            if not turn.done():
                self._inside[client] += 1
                turn.set_result(None)

    def _send_one_away(self) -> None:
        client = max(reversed(self._waiting), key=lambda c: len(self._waiting[c]))
        turn = self._waiting[client][-1]
        self._forget(client, turn)
        turn.set_exception(FullError)

    def _forget(self, client: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(client)
        if waiting is None or turn not in waiting:
            return
        waiting.remove(turn)
        if not waiting:
            del self._waiting[client]
