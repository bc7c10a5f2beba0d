"""What a server is told, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stanflow.errors import UsageError
from stanflow.stan.batch import available_cores

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_MEGABYTE = 2**20


def jobs_at_a_time() -> int:
    """Return how many jobs run at a time where nobody says: half as many as there are cores."""
    return max(1, available_cores() // 2)


@dataclass(frozen=True)
class Settings:
    """Settings of one server.

    Parameters
    ----------
    data_dir : path
        Where programs, runs and, unless `database_url` says otherwise, the database are kept.
    database_url : str, optional
        Of SQLAlchemy, such as ``postgresql+psycopg://user@host/name``; by default a SQLite file in
        `data_dir`.
    host : str
        Address to listen at.
    token_hash : str, optional
        See `tokens.hash_token`. Without one nobody is asked for a token.
    jobs : int
        Jobs that run at a time; by default half as many as there are cores.
    threads : int
        Threads of each.
    most_queued : int
        Jobs that may wait; beyond it a request is refused with 503.
    memory_mb : int
        Memory that a job may allocate, in MiB.
    job_seconds : float
        Wall time that a job may take.
    call_seconds : float
        Wall time that compiling a program or evaluating a density may take.
    calls : int
        Of these, how many run at a time.
    largest_program, largest_data, largest_body : int
        In bytes. The last is that of any request.
    most_values : int
        Values and names that the JSON of a request may have.
    requests_a_minute : int
        Requests that one client may make, and as many at once.
    request_seconds : float
        Time that the head of a request may take, and that its body may; for that there is one more
        second for each 16 KiB.

    Raises
    ------
    UsageError
        A limit is not positive, or the address is not this machine's own and there is no token.
    """

    data_dir: Path
    database_url: str | None = None
    host: str = "127.0.0.1"
    token_hash: str | None = None
    jobs: int = field(default_factory=jobs_at_a_time)
    threads: int = 2
    most_queued: int = 100
    memory_mb: int = 4096
    job_seconds: float = 4 * 3600.0
    call_seconds: float = 60.0
    calls: int = 2
    largest_program: int = _MEGABYTE
    largest_data: int = 64 * _MEGABYTE
    largest_body: int = 80 * _MEGABYTE
    most_values: int = 4_000_000
    requests_a_minute: int = 60_000
    request_seconds: float = 20.0

    def __post_init__(self) -> None:
        for name in (
            "jobs", "threads", "most_queued", "memory_mb", "job_seconds", "call_seconds", "calls",
            "largest_program", "largest_data", "largest_body", "most_values", "requests_a_minute",
            "request_seconds",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive, not {getattr(self, name)}")
        if self.host not in LOOPBACK and self.token_hash is None:
            raise UsageError(
                f"{self.host} can be reached from other machines, so clients must bring a token; "
                "make one with `stanflow token` and give it by --token-file, or listen at 127.0.0.1"
            )

    @property
    def url_of_database(self) -> str:
        """The database, as SQLAlchemy is told."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'stanflow.sqlite'}"

    @property
    def calls_dir(self) -> Path:
        """Where compiling and evaluating is done."""
        return self.data_dir / "calls"

    @property
    def jobs_dir(self) -> Path:
        """Where jobs have their folders."""
        return self.data_dir / "jobs"
