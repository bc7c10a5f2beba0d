"""`stanflow serve` and `stanflow token`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stanflow.cli.messages import tell
from stanflow.errors import UsageError, reason

_HASH_CHARACTERS = 64


def serve(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = 8000,
    data_dir: Annotated[
        Path, typer.Option(help="Folder for programs, runs and the database.")
    ] = Path("stanflow-data"),
    database_url: Annotated[
        str | None,
        typer.Option(
            help="Database, as SQLAlchemy names it: postgresql+psycopg://...  [default: SQLite in "
            "--data-dir]",
            envvar="STANFLOW_DATABASE_URL",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the hash of the token that clients must bring; see `stanflow token`.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Jobs at a time.  [default: half the cores]", show_default=False),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each job.")] = 2,
    queue: Annotated[int, typer.Option(min=1, help="Jobs that may wait.")] = 100,
    memory_mb: Annotated[int, typer.Option(min=256, help="Memory of each job, in MiB.")] = 4096,
    job_seconds: Annotated[float, typer.Option(help="Wall time of each job.")] = 4 * 3600.0,
    call_seconds: Annotated[
        float, typer.Option(help="Wall time to compile a program or evaluate a density.")
    ] = 60.0,
    most_values: Annotated[
        int, typer.Option(min=1, help="Numbers, texts and names in the JSON of a request.")
    ] = 4_000_000,
    requests_a_minute: Annotated[
        int, typer.Option(min=1, help="Requests of one client in a minute.")
    ] = 60_000,
    request_seconds: Annotated[
        float,
        typer.Option(
            help="Time that the head of a request may take, and its body, which has one more "
            "second for each 16 KiB."
        ),
    ] = 20.0,
) -> None:
    """Serve StanFlow over HTTP until it is stopped."""
    try:
        from stanflow.service import landlock
        from stanflow.service.server import run
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the service needs the package {error.name}: pip install 'stanflow[serve]'"
        ) from None
    from stanflow.service.settings import Settings, jobs_at_a_time

    settings = Settings(
        data_dir=data_dir,
        database_url=database_url,
        host=host,
        token_hash=None if token_file is None else _read_hash(token_file),
        jobs=jobs or jobs_at_a_time(),
        threads=threads,
        most_queued=queue,
        memory_mb=memory_mb,
        job_seconds=job_seconds,
        call_seconds=call_seconds,
        most_values=most_values,
        requests_a_minute=requests_a_minute,
        request_seconds=request_seconds,
    )

    def started(url: str) -> None:
        tell(f"StanFlow at {url}; Ctrl-C ends it")
        if not landlock.version():
            tell(
                "the system has no Landlock: a program that gets an engine to do more than "
                "compute may do what this user may"
            )

    run(settings, port, started)


def token(
    out: Annotated[Path, typer.Argument(help="File for its hash, which `serve` reads.")],
) -> None:
    """Make a token for clients of a server: it is printed, once, and its hash goes to a file."""
    from stanflow.service.tokens import hash_token, make_token

    made = make_token()
    try:
        out.touch(mode=0o600, exist_ok=False)
        out.write_text(hash_token(made) + "\n")
    except FileExistsError:
        raise UsageError(f"{out} is there already; name another file, or delete it") from None
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {reason(error)}") from None
    typer.echo(made)
    tell(f"clients bring this token; its hash is in {out}: stanflow serve --token-file {out}")


def _read_hash(path: Path) -> str:
    """Return what `token` wrote.

    Raises
    ------
    UsageError
        It is not that.
    """
    try:
        found = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from None
    if len(found) != _HASH_CHARACTERS or set(found) - set("0123456789abcdef"):
        raise UsageError(f"{path} holds no hash of a token; make one with `stanflow token {path}`")
    return found
