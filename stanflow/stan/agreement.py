"""Whether the engines agree on a program: what a comparison found, and where that is kept."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stanflow.files import write_file
from stanflow.stan import embedded
from stanflow.stan.cache import cache_folder
from stanflow.stan.program import StanProgram

_MOST_NAMED = 5


@dataclass(frozen=True)
class Agreement:
    """What a comparison of the embedded engine with Stan's own C++ found.

    Attributes
    ----------
    stan_version : str or None
        The version of Stan whose C++ it was compared with.
    compared : str
        What was compared, in words.
    differs : tuple of str
        Names of what differs: variables, ``log density``, gradients; empty where nothing does.
    data_sha256 : str
        Hash of the data with which they were compared.
    """

    stan_version: str | None
    compared: str
    differs: tuple[str, ...]
    data_sha256: str

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.differs

    def in_report(self, data_sha256: str) -> dict[str, Any]:
        """Return what a run's report says of it, given the data of that run."""
        return {
            "stan_version": self.stan_version,
            "agrees": self.agrees,
            "differs": list(self.differs),
            "compared": self.compared,
            "same_data": self.data_sha256 == data_sha256,
        }

    def __str__(self) -> str:
        if self.agrees:
            return f"agreed with Stan {self.stan_version} on {self.compared}"
        named = ", ".join(self.differs[:_MOST_NAMED])
        more = len(self.differs) - _MOST_NAMED
        return (
            f"DIFFERED from Stan {self.stan_version} in {named}"
            f"{f' and {more} more' if more > 0 else ''}, of {self.compared}"
        )


def second_engine(report: Mapping[str, Any]) -> str:
    """Say of a run's report whether a second engine has agreed; nothing where none was asked.

    Examples
    --------
    >>> second_engine({"engine": "embedded", "engine_agreement": {
    ...     "stan_version": "2.39.0", "agrees": True, "differs": [], "same_data": True}})
    'agreed with Stan 2.39.0'
    """
    found = report.get("engine_agreement")
    if not found:
        return ""
    embedded_ran = report.get("engine") == "embedded"
    other = f"Stan {found['stan_version']}" if embedded_ran else "the embedded engine"
    how = "agreed with" if found["agrees"] else "DIFFERED from"
    where = f" in {', '.join(found['differs'][:_MOST_NAMED])}" if found["differs"] else ""
    return f"{how} {other}{where}{'' if found['same_data'] else ', on other data'}"


def keep_agreement(program: StanProgram, agreement: Agreement) -> None:
    """Keep what was found with the program, so that later fits can tell it.

    A difference stays when other data show none: they may not reach the statement that is wrong.
    Where the cache cannot be written, nothing is kept.
    """
    before = kept_agreement(program)
    if (
        before is not None
        and not before.agrees
        and agreement.agrees
        and before.data_sha256 != agreement.data_sha256
    ):
        return
    path = _path(program)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(asdict(agreement)).encode())


def kept_agreement(program: StanProgram) -> Agreement | None:
    """Return what was found for a program with this version of the embedded engine."""
    try:
        kept = json.loads(_path(program).read_text(encoding="utf-8"))
        return Agreement(**kept | {"differs": tuple(kept["differs"])})
    except (OSError, ValueError, TypeError, KeyError):  # there is none, or a damaged one
        return None


def _path(program: StanProgram) -> Path:
    engine = embedded.version().replace(" ", "-")
    return cache_folder() / "agreements" / f"{program.hash}-{engine}.json"
