"""Rewriting what the embedded engine computes wrongly into what it computes right.

A row is assigned by two indices: ``b[i] = a;`` becomes ``b[i, :] = a;``, which to Stan is the same,
its checks of sizes included. A Gaussian process kernel with one length scale per dimension becomes
a call of the same kernel written in Stan. A function that must not be inlined gets another of its
name, which keeps the compiler from doing so; one that returns nothing gets one more ``return;``
instead, where that helps. A loop over an array of containers becomes one over indices, unless it
runs over random numbers. Every line stays where it was, so that messages still point to the user's
own.
"""

from __future__ import annotations

from dataclasses import replace

from stanflow.errors import BeyondEmbeddedError
from stanflow.stan.container_loops import looped_by_index
from stanflow.stan.edits import Edit, edited
from stanflow.stan.gp_kernels import calls_replaced
from stanflow.stan.guard import Fault, Findings, compiled_code, find_faults
from stanflow.stan.inlining import kept_from_inlining
from stanflow.stan.program import StanProgram


def mend(program: StanProgram, mir: str | None = None) -> StanProgram:
    """Return a program of the same meaning that the embedded engine computes right.

    Parameters
    ----------
    program : StanProgram
        The program.
    mir : str, optional
        The program as `stanc.to_mir` compiled it, to save compiling it here.

    Returns
    -------
    StanProgram
        The program itself where nothing is wrong or the Stan compiler refuses it. Else a program
        with its includes expanded, whose lines are those of `program.expanded`.

    Raises
    ------
    BeyondEmbeddedError
        Something that the engine computes wrongly could not be rewritten, or this version of
        stanli compiles to a form that cannot be read.

    Examples
    --------
    >>> program = StanProgram.from_string("transformed data { array[2, 2] int b; b[1] = {1, 2}; }")
    >>> mend(program).code
    'transformed data { array[2, 2] int b; b[1, :] = {1, 2}; }'
    """
    compiled = compiled_code(program.expanded) if mir is None else mir
    if compiled is None:
        return program
    findings = Findings(program.expanded, compiled)
    if not findings.faults:
        return program
    mended = replace(program, code=edited(findings.code, _edits(findings)))
    mended_mir = compiled_code(mended.code)
    left = findings.faults if mended_mir is None else find_faults(mended, mended_mir)
    if left:
        raise _unmended(program, left[0])
    return mended


def _edits(findings: Findings) -> list[Edit]:
    rows = [Edit(row.bracket, 0, ", :") for row in findings.rows]
    return [
        *rows,
        *calls_replaced(findings.code, findings.kernels),
        *kept_from_inlining(findings.code, findings.inlined),
        *looped_by_index(findings.code, findings.loops),
    ]


def _unmended(program: StanProgram, fault: Fault) -> BeyondEmbeddedError:
    label, line = (program.label, None) if fault.line is None else program.origin(fault.line)
    where = label if line is None else f"{label}, line {line}"
    return BeyondEmbeddedError(
        f"{where}: the embedded engine computes the {fault.kind} wrongly ({fault.text})"
    )
