"""The command line.

Results go to standard output, progress and messages to standard error. Exit status: 0 done, 1 the
run failed, 2 wrong use or bad input, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import io
import signal
import sys
import warnings
from types import FrameType
from typing import Annotated

import typer

import stanflow
from stanflow.cli.check import check
from stanflow.cli.compare import compare
from stanflow.cli.doctor import doctor
from stanflow.cli.fit import fit
from stanflow.cli.messages import print_json, tell
from stanflow.cli.nuts import nuts
from stanflow.cli.serve import serve, token
from stanflow.errors import StanFlowError

app = typer.Typer(
    name="stanflow",
    help="Black-box variational inference with normalizing flows for any Stan program.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (fit, nuts, compare, check, doctor, serve, token):
    app.command()(command)

_INTERRUPTED = 130  # what typer returns after Ctrl-C
_TERMINATED = 128 + signal.SIGTERM


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stanflow {stanflow.__version__}")
        raise typer.Exit


@app.callback()
def _stanflow(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line; every error is one sentence on standard error, or JSON if asked."""
    as_json = "--json" in sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that cannot be shown is no error
            stream.reconfigure(errors="backslashreplace")
    termination = _Termination()
    warnings.showwarning = _tell_warning
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except StanFlowError as error:
        _fail(str(error), error.kind, error.detail, error.exit_status, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except typer.TyperException as error:
        message = error.format_message()
        _fail(message[:1].lower() + message[1:], "usage", "", 2, as_json=as_json)
    except OSError as error:
        what = error.filename or "the result cannot be printed"
        _fail(f"{what}: {error.strerror}", "usage", "", 1, as_json=False)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        _fail(
            "there is not enough memory; try a smaller --batch", "numerics", "", 1, as_json=as_json
        )
    if status == _INTERRUPTED and termination.came:
        said = "stopped by SIGTERM; a fit that has a checkpoint goes on with --resume"
        _fail(said, "usage", "", _TERMINATED, as_json=as_json)
    if status == _INTERRUPTED:
        _fail("interrupted; nothing was saved", "usage", "", 1, as_json=as_json)
    sys.exit(status if isinstance(status, int) else 0)


def _tell_warning(message: Warning | str, *place: object, **more: object) -> None:
    tell(f"warning: {message}")


class _Termination:
    """Lets SIGTERM end what runs as Ctrl-C does, and remembers it.

    Without a handler it would leave files and processes behind, and the first process of a
    container, which the kernel lets ignore it, would go on.
    """

    def __init__(self) -> None:
        self.came = False
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs do
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)


def _fail(message: str, kind: str, detail: str, status: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"error": message, "kind": kind, "detail": detail})
    else:
        tell(f"stanflow: {message}")
        if detail and kind == "program":
            tell(detail)
    sys.exit(status)
