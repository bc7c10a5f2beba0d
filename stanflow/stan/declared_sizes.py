"""The sizes of variables that a program declares, with its data.

Variables without elements have no columns among the draws, so no engine tells of them.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator

import numpy as np

from stanflow.stan.declarations import (
    Declaration,
    UnknownValueError,
    evaluate,
    parse_declarations,
)
from stanflow.stan.program import StanProgram
from stanflow.stan.statements import outline
from stanflow.stan.tokens import Tokens

_DRAWN_BLOCKS = ("parameters", "transformed parameters", "generated quantities")


def empty_variables(
    program: StanProgram, data: str, blocks: Iterable[str] = _DRAWN_BLOCKS
) -> dict[str, tuple[int, ...]]:
    """Return the variables of a program's blocks that have no elements, with their shapes.

    Those whose sizes depend on transformed data are not among them.

    Parameters
    ----------
    program : StanProgram
        The program.
    data : str
        Its data, as Stan JSON.
    blocks : iterable of str
        Where to look; by default all blocks whose variables are among the draws.

    Examples
    --------
    >>> program = StanProgram.from_string(
    ...     "data { int N; } parameters { vector[N] x; array[2] vector[N] y; real z; }"
    ... )
    >>> empty_variables(program, '{"N": 0}')
    {'x': (0,), 'y': (2, 0)}
    """
    sizes = declared_sizes(program, data, blocks)
    return {name: shape for name, shape in sizes.items() if shape and math.prod(shape) == 0}


def declared_sizes(
    program: StanProgram, data: str, blocks: Iterable[str]
) -> dict[str, tuple[int, ...]]:
    """Return the sizes in the declarations of a program's blocks, by variable.

    Variables whose sizes depend on transformed data are not among them.

    Parameters
    ----------
    program, data, blocks
        As of `empty_variables`.
    """
    values = json.loads(data)
    known = {
        name: np.asarray(value) if isinstance(value, list) else value
        for name, value in values.items()
    }
    found: dict[str, tuple[int, ...]] = {}
    for declaration in _declarations(program, blocks):
        with contextlib.suppress(UnknownValueError):
            found[declaration.name] = tuple(evaluate(s, known) for s in declaration.type.sizes)
    return found


def _declarations(program: StanProgram, blocks: Iterable[str]) -> Iterator[Declaration]:
    for block in blocks:
        code = f"{block} {{{program.block_text(block)}}}"
        tokens = Tokens(code)
        for statement in (each for body in outline(tokens).blocks for each in body.parts):
            last = statement.end - 1
            end = tokens.next("=", statement.start, last)
            end = last if end is None else end
            yield from parse_declarations(
                f"{code[tokens.start[statement.start] : tokens.start[end]]};"
            )
