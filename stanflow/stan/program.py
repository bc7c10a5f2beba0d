"""A Stan program: its source, what it includes, and a hash of both."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path

from stanflow.errors import ProgramError, reason
from stanflow.stan.comments import (
    Include,
    blank_comments_and_strings,
    includes,
    with_newlines,
)
from stanflow.stan.declarations import (
    Declaration,
    block_spans,
    find_blocks,
    parse_declarations,
)

_RANDOM_NUMBERS = re.compile(r"_rng\s*\(")
_INCLUDED_ONCE = ".stanfunctions"
_NOT_AN_IDENTIFIER = re.compile(r"\W+")


@dataclass(frozen=True)
class StanProgram:
    r"""A Stan program, read once.

    Parameters
    ----------
    code : str
        The source, with its ``#include`` directives; its lines end by ``\n``.
    path : pathlib.Path, optional
        The file it came from; None for a program given as a string.
    include_paths : tuple of pathlib.Path
        Folders searched, in order, for included files; the program's own folder (the current
        one for a string) is searched last.

    Examples
    --------
    >>> program = StanProgram.from_string("parameters { real x; } model { x ~ normal(0, 1); }")
    >>> program.has_block("data")
    False
    """

    code: str
    path: Path | None = None
    include_paths: tuple[Path, ...] = ()

    @classmethod
    def from_file(
        cls, stan_file: str | PathLike[str], include_paths: Iterable[str | PathLike[str]] = ()
    ) -> StanProgram:
        """Read a program from a ``.stan`` file.

        Raises
        ------
        ProgramError
            The file is missing or is not UTF-8 text, or an include folder does not exist.
        """
        path = Path(stan_file)
        try:
            code = _decoded(path.read_bytes())
        except FileNotFoundError:
            raise ProgramError(f"there is no Stan program at {fspath(stan_file)}") from None
        except (OSError, ValueError) as error:
            raise ProgramError(f"{fspath(stan_file)} cannot be read: {reason(error)}") from None
        return cls(code, path.resolve(), _existing_folders(include_paths))

    @classmethod
    def from_string(
        cls, code: str, include_paths: Iterable[str | PathLike[str]] = ()
    ) -> StanProgram:
        """Take a program given as text."""
        return cls(with_newlines(code), None, _existing_folders(include_paths))

    @property
    def name(self) -> str:
        """The file's stem as an identifier, ``stan_program`` for a program given as a string."""
        if self.path is None:
            return "stan_program"
        name = _NOT_AN_IDENTIFIER.sub("_", self.path.stem)
        return name if name[:1].isalpha() else f"stan_{name}"

    @property
    def label(self) -> str:
        """The program in messages: its file name, or "the Stan program"."""
        return self.path.name if self.path is not None else "the Stan program"

    @property
    def search_path(self) -> tuple[Path, ...]:
        """Folders where included files are looked for, in order."""
        own = self.path.parent if self.path is not None else Path.cwd()
        return tuple(dict.fromkeys((*self.include_paths, own)))

    @cached_property
    def expanded(self) -> str:
        """The source with every include replaced by the included text, which compilers are given.

        What stands behind an include in its line is in a line of its own, in its column.

        Raises
        ------
        ProgramError
            An included file is not found, or files include each other in a circle.
        """
        return "".join(text for text, _, _ in self._pieces)

    def origin(self, line: int) -> tuple[str, int]:
        r"""Return the file, as messages name it, and the line there, of a line of `expanded`.

        Examples
        --------
        >>> StanProgram.from_string("parameters {\n real x; }").origin(2)
        ('the Stan program', 2)
        """
        ahead = line - 1  # of it: newlines
        for text, label, first in self._pieces:
            newlines = text.count("\n")
            if ahead < newlines or (ahead == newlines and text.rpartition("\n")[2].strip()):
                return label, first + ahead
            ahead -= newlines
        return self.label, line

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the expanded source, hexadecimal."""
        return hashlib.sha256(self.expanded.encode()).hexdigest()

    def has_block(self, name: str) -> bool:
        """Whether the program has the block, ``"data"`` or ``"transformed parameters"``, say."""
        return name in self._blocks

    def has_text(self, name: str) -> bool:
        """Whether the program has the block and something in it."""
        return bool(self.block_text(name).strip())

    def block_text(self, name: str) -> str:
        """Return the text inside a block, comments blanked out; nothing where there is none."""
        return self._blocks.get(name, "")

    @property
    def draws_data(self) -> bool:
        """Whether the transformed data block draws random numbers, so that seeds decide on data."""
        return _RANDOM_NUMBERS.search(self.block_text("transformed data")) is not None

    def without_block(self, name: str) -> StanProgram:
        """Return the program, includes expanded, without one of its blocks."""
        spans = block_spans(blank_comments_and_strings(self.expanded))
        if name not in spans:
            return self
        header_start, _, end = spans[name]
        return replace(self, code=self.expanded[:header_start] + self.expanded[end + 1 :])

    @cached_property
    def data_declarations(self) -> tuple[Declaration, ...]:
        """The declarations of the data block, in order; empty where there is none."""
        return parse_declarations(self.block_text("data"))

    @cached_property
    def parameter_declarations(self) -> tuple[Declaration, ...]:
        """The declarations of the parameters block, in order; empty where there is none."""
        return parse_declarations(self.block_text("parameters"))

    @cached_property
    def _blocks(self) -> dict[str, str]:
        return find_blocks(self.expanded)

    @cached_property
    def _pieces(self) -> tuple[tuple[str, str, int], ...]:
        return tuple(self._expand(self.code, self.label, (), set()))

    def _expand(
        self, text: str, label: str, including: tuple[Path, ...], known: set[Path]
    ) -> Iterator[tuple[str, str, int]]:
        """Yield the expanded text in pieces, each with its file's label and its line there."""
        done = 0
        for include in includes(text):
            before, line = text[done : include.start], _line(text, done)
            line_began = before.rpartition("\n")[2]
            yield before.removesuffix(line_began) if line_began.isspace() else before, label, line
            if line_began.strip():
                yield "\n", label, _line(text, include.start)
            done = include.end
            found = self._find_included(include, text, label)
            if found in including:
                raise ProgramError(f"{found.name} includes itself (from {label})")
            if found.suffix != _INCLUDED_ONCE or found not in known:
                known.add(found)
                yield from self._expand(_read(found), found.name, (*including, found), known)
            if text[done:].partition("\n")[0].strip():
                column = done - (text.rfind("\n", 0, done) + 1)
                yield "\n", found.name, 1
                yield " " * column, label, _line(text, done)
        yield text[done:], label, _line(text, done)

    def _find_included(self, include: Include, text: str, label: str) -> Path:
        for folder in self.search_path:
            # As the Stan compiler does, which puts folder and name together however that begins.
            for found in (folder / include.file.lstrip("/"), folder / include.file):
                if found.is_file():
                    return found.resolve()
        searched = ", ".join(map(str, self.search_path))
        raise ProgramError(
            f"{label}, line {_line(text, include.start)}: the include file {include.file!r} is in "
            f"none of the folders searched ({searched}); name its folder with --include-path "
            "(include_paths= in Python)"
        )


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _decoded(content: bytes) -> str:
    return with_newlines(content.decode("utf-8-sig"))


def _read(included: Path) -> str:
    try:
        return _decoded(included.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise ProgramError(f"the include file {included} cannot be read: {reason(error)}") from None


def _existing_folders(paths: Iterable[str | PathLike[str]]) -> tuple[Path, ...]:
    folders = tuple(Path(path).expanduser() for path in paths)
    for folder in folders:
        if not folder.is_dir():
            raise ProgramError(f"the include folder {folder} does not exist")
    return tuple(folder.resolve() for folder in folders)
