"""Statements that the embedded engine computes wrongly without a word.

stanli 0.24.0 does so for these kinds:

- a row of a two-dimensional int array assigned by its index alone, ``b[i] = a;``: the row that is
  read back is the old one, or was never set. Right are ``b[i, :] = a;``, every other
  index, arrays of reals and of three dimensions, and whole arrays.
- the Gaussian process kernels called with one length scale per dimension: only the first is used.
- what goes wrong where it inlines a function: some kinds of ``return`` and ``continue``, and random
  numbers as arguments (see `stanflow.stan.inlining`).
- loops over arrays of containers where it interprets the program, as in transformed data: it takes
  one turn for each number in them, so that there is none if the containers are empty, and an index
  is out of bounds if they have more numbers than the array has containers.
- ``multi_gp`` and ``multi_gp_cholesky`` of a matrix that is not square, where the kernel scales are
  parameters: it refuses all draws, as if sizes did not match.

Whether a program has the first two and the last is read from its compiled form, where the Stan
compiler has resolved all types; where, and all about the others, from its text.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from stanflow.stan import stanc
from stanflow.stan.container_loops import ElementLoop, container_loops
from stanflow.stan.edits import edited
from stanflow.stan.gp_kernels import KERNELS, KernelCall, calls_replaced, kernel_calls
from stanflow.stan.inlining import Inlined, InliningFault, wrongly_inlined
from stanflow.stan.mir import called_with_last, rows_assigned
from stanflow.stan.program import StanProgram
from stanflow.stan.row_assignments import RowAssignment, row_assignments

FaultKind = (
    Literal[
        "assignment to a row of a two-dimensional int array",
        "Gaussian process kernel with one length scale per dimension",
        "loop over an array of containers",
        "Gaussian process density with parameters for kernel scales",
    ]
    | InliningFault
)
_ROW: FaultKind = "assignment to a row of a two-dimensional int array"
_KERNEL: FaultKind = "Gaussian process kernel with one length scale per dimension"
_LOOP: FaultKind = "loop over an array of containers"
_SCALES: FaultKind = "Gaussian process density with parameters for kernel scales"

_SCALED_DENSITIES = ("multi_gp_lpdf", "multi_gp_cholesky_lpdf")


@dataclass(frozen=True)
class Fault:
    """A statement that the embedded engine computes wrongly.

    Attributes
    ----------
    kind : str
        What it is.
    line, column : int or None
        Where in the program with its includes expanded, counted from 1; the column as the Stan
        compiler counts, from 0. None where it was found in the compiled program only.
    text : str
        The statement, or the call, on one line; just the variable or function where its place is
        unknown.
    """

    kind: FaultKind
    line: int | None
    column: int | None
    text: str


def find_faults(program: StanProgram, mir: str | None = None) -> tuple[Fault, ...]:
    """Find the statements of a program that the embedded engine computes wrongly.

    Parameters
    ----------
    program : StanProgram
        The program.
    mir : str, optional
        The program as `stanc.to_mir` compiled it, to save compiling it here.

    Returns
    -------
    tuple of Fault
        In the order written; empty where there are none, and where the Stan compiler refuses the
        program.

    Raises
    ------
    BeyondEmbeddedError
        This version of stanli compiles to a form that cannot be read.

    Examples
    --------
    >>> program = StanProgram.from_string(
    ...     "transformed data { array[2, 2] int b; b[1] = {1, 2}; b[2, :] = {3, 4}; }")
    >>> [(fault.line, fault.column, fault.text) for fault in find_faults(program)]
    [(1, 38, 'b[1] = {1, 2}')]
    """
    code = program.expanded
    compiled = compiled_code(code) if mir is None else mir
    return () if compiled is None else Findings(code, compiled).faults


def compiled_code(code: str) -> str | None:
    """Return what the embedded engine's compiler makes of a text, None where it refuses it."""
    try:
        return stanc.to_mir(code)
    except RuntimeError:
        return None


@dataclass(frozen=True)
class Findings:
    """What a program does that the embedded engine computes wrongly, and where.

    Parameters
    ----------
    code : str
        The program's text, includes expanded.
    mir : str
        The same, compiled.
    """

    code: str
    mir: str

    @cached_property
    def rows(self) -> tuple[RowAssignment, ...]:
        """The assignments to rows, in the order written."""
        names = self._assigned
        return (
            tuple(row for row in row_assignments(self.code) if _is_or_copies(row.name, names))
            if names
            else ()
        )

    @cached_property
    def kernels(self) -> tuple[KernelCall, ...]:
        """The calls of kernels with one length scale per dimension, in the order written."""
        calls = tuple(call for call in kernel_calls(self.code) if call.kernel in self._called)
        # The replacements take no other arguments, so a call that compiles with them is one.
        if not calls or self._replaceable(calls):
            return calls
        return tuple(call for call in calls if self._replaceable((call,)))

    @cached_property
    def inlined(self) -> tuple[Inlined, ...]:
        """What goes wrong where functions are inlined, in the order written."""
        return wrongly_inlined(self.code)

    @cached_property
    def loops(self) -> tuple[ElementLoop, ...]:
        """The loops over arrays of containers, in the order written."""
        return container_loops(self.code, lambda code: compiled_code(code) is not None)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All of them, those without a known place last."""
        placed: list[tuple[int, int, FaultKind]]
        placed = [(row.start, row.end, _ROW) for row in self.rows]
        placed += [(call.start, call.end, _KERNEL) for call in self.kernels]
        placed += [(found.start, found.end, found.kind) for found in self.inlined]
        placed += [(loop.start, loop.end, _LOOP) for loop in self.loops]
        rows = {row.name for row in self.rows}
        kernels = {call.kernel for call in self.kernels}
        unplaced = [
            (_ROW, name)
            for name in sorted(self._assigned)
            if not any(_is_or_copies(row, {name}) for row in rows)
        ]
        unplaced += [(_KERNEL, kernel) for kernel in sorted(self._called - kernels)]
        unplaced += [(_SCALES, density) for density in sorted(self._scaled)]
        return (
            *(self._fault(start, end, kind) for start, end, kind in sorted(placed)),
            *(Fault(kind, None, None, name) for kind, name in unplaced),
        )

    @cached_property
    def _assigned(self) -> frozenset[str]:
        return rows_assigned(self.mir)

    @cached_property
    def _called(self) -> frozenset[str]:
        return called_with_last(self.mir, KERNELS, lambda last: last.array_dimensions > 0)

    @cached_property
    def _scaled(self) -> frozenset[str]:
        return called_with_last(self.mir, _SCALED_DENSITIES, lambda last: not last.is_data)

    def _replaceable(self, calls: tuple[KernelCall, ...]) -> bool:
        return compiled_code(edited(self.code, calls_replaced(self.code, calls))) is not None

    def _fault(self, start: int, end: int, kind: FaultKind) -> Fault:
        line = self.code.count("\n", 0, start) + 1
        column = start - (self.code.rfind("\n", 0, start) + 1)
        return Fault(kind, line, column, " ".join(self.code[start:end].split()))


def _is_or_copies(name: str, names: Collection[str]) -> bool:
    """Whether a variable is among some, or one of them is the compiler's copy of it.

    Where the compiler puts a function's body in place of a call, it names the copies of ``b``
    ``inline_f_b_sym3__``.
    """
    return name in names or any(other.endswith("__") and f"_{name}_sym" in other for other in names)
