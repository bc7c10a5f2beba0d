"""The HTTP server: a socket, the application behind it, and an orderly end."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

import uvicorn
from typing_extensions import override

from stanflow.errors import UsageError, reason
from stanflow.service.app import service
from stanflow.service.context import Context
from stanflow.service.settings import Settings
from stanflow.service.slow_clients import TimedProtocol

_SECONDS_TO_END_REQUESTS = 5
_OBJECTS_BETWEEN_COLLECTIONS = 50_000  # a large body is read in half the time, which others wait
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """Ends at a signal without passing it on, so that what is around it can end, too.

    Parameters
    ----------
    config : uvicorn.Config
    context : Context
        It is told at once: nobody is to wait for what takes long.
    """

    def __init__(self, config: uvicorn.Config, context: Context) -> None:
        super().__init__(config)
        self._context = context

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._context.closing = True
        super().handle_exit(sig, frame)

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(settings: Settings, port: int, started: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Parameters
    ----------
    settings : Settings
    port : int
        0 takes a free one.
    started : callable
        Called with the server's URL.

    Raises
    ------
    UsageError
        It cannot listen there, or has no data folder or database.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    with _listening(settings.host, port) as listener, service(settings) as app:
        address, taken = listener.getsockname()[:2]
        started(f"http://{f'[{address}]' if ':' in address else address}:{taken}")
        config = uvicorn.Config(
            app,
            http=partial(TimedProtocol, settings.request_seconds),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=_SECONDS_TO_END_REQUESTS,
        )
        _Server(config, app.state.context).run(sockets=[listener])


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UsageError(f"cannot listen at {host}, port {port}: {reason(error)}") from None
    with listener:
        yield listener
