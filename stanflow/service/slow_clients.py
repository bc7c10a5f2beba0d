"""Connections whose clients keep the server waiting: they are closed."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

_SECONDS_TO_TAKE_ANY = 60.0
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that waits for clients only so long.

    For the body of a request that is being answered the gate waits; here it is for the head, for
    the rest of a body whose request was refused before, and for the client to take the answer.

    Parameters
    ----------
    seconds : float
        From when a connection is opened, or from the first byte of a later request, until the head
        is whole.
    **what
        What uvicorn gives.
    """

    def __init__(self, seconds: float, **what: Any) -> None:
        super().__init__(**what)
        self._seconds = seconds
        self._asking: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # to be told of whatever is not taken
        self._asking = self.loop.call_later(self._seconds, self._asked_too_slowly)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._asking, self._taking):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self._asking is None and self._waits():
            self._asking = self.loop.call_later(self._seconds, self._asked_too_slowly)
        super().data_received(data)
        if self._asking is not None and not self._waits():
            self._asking.cancel()
            self._asking = None

    def _waits(self) -> bool:
        """Return whether no request is being answered: none came, or its body has not ended yet."""
        return self.conn.our_state in {h11.IDLE, h11.DONE}

    def _asked_too_slowly(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self.transport.write(_TOO_SLOW)
        self.transport.close()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again(self.transport.get_write_buffer_size())

    @override
    def resume_writing(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
        super().resume_writing()

    def _look_again(self, left: int) -> None:
        self._taking = self.loop.call_later(_SECONDS_TO_TAKE_ANY, self._taken_too_slowly, left)

    def _taken_too_slowly(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._look_again(left)
        else:
            self.transport.abort()
