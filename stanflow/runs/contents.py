"""What every run's folder holds: report, draws, program and data, with their checksums."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stanflow.files import verify_checksums, write_checksums
from stanflow.runs.folder import DATA, DRAWS, FolderKind
from stanflow.runs.groups import Group
from stanflow.runs.netcdf import read_netcdf, write_netcdf


@dataclass(frozen=True)
class Contents:
    """A run as its folder holds it.

    Attributes
    ----------
    report : mapping
        With at least the entry ``model``.
    groups : mapping of str to Group
        The draws.
    program, data : str
        The Stan program, includes expanded, and its data as JSON.
    """

    report: Mapping[str, Any]
    groups: Mapping[str, Group]
    program: str
    data: str

    def write(self, folder: Path, kind: FolderKind) -> None:
        """Write the files, and last the checksums of all files that the folder holds."""
        _program_file(folder, self.report).write_bytes(self.program.encode())
        (folder / DATA).write_bytes(self.data.encode())
        write_netcdf(self.groups, folder / DRAWS)
        (folder / kind.report).write_text(
            json.dumps(dict(self.report), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        write_checksums(folder)


def read_report(folder: Path, kind: FolderKind) -> dict[str, Any]:
    """Hold a folder's files against their checksums, and return its report.

    Raises
    ------
    ValueError
        A file is missing, or is not what was written.
    """
    verify_checksums(folder, kind.required)
    report: dict[str, Any] = json.loads((folder / kind.report).read_text(encoding="utf-8"))
    return report


def read_contents(folder: Path, report: Mapping[str, Any]) -> Contents:
    """Return what a folder with such a report holds."""
    return Contents(
        report=report,
        groups=read_netcdf(folder / DRAWS),
        program=_program_file(folder, report).read_bytes().decode(),
        data=(folder / DATA).read_bytes().decode(),
    )


def _program_file(folder: Path, report: Mapping[str, Any]) -> Path:
    return folder / f"{report['model']}.stan"
