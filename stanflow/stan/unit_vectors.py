"""What unit vectors add to the evidence: the mass of the radius that Stan gives each of them.

Stan writes a unit vector of n elements as ``y / |y|`` of n unconstrained numbers, to whose log
density it adds ``-|y|^2 / 2`` (Stan Reference Manual, "Unit vectors"). Over the radius that is not
normalized: ``integral of r^(n-1) exp(-r^2 / 2) dr = 2^(n/2 - 1) Gamma(n/2)``. All other transforms
leave the mass of a density as it is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from stanflow.stan.declarations import StanType
from stanflow.stan.program import StanProgram

_UNIT_VECTOR = "unit_vector"


def log_radius_mass(program: StanProgram, parameter_columns: Iterable[str]) -> float:
    """Return the log of what the radii of a program's unit vectors multiply its evidence by.

    Parameters
    ----------
    program : StanProgram
        The program.
    parameter_columns : iterable of str
        Names of the scalars of its parameters block, from which the sizes are told.

    Examples
    --------
    >>> program = StanProgram.from_string("parameters { array[2] unit_vector[3] u; } model { }")
    >>> columns = ["u.1.1", "u.1.2", "u.1.3", "u.2.1", "u.2.2", "u.2.3"]
    >>> round(log_radius_mass(program, columns), 4)
    0.4516
    """
    patterns = [
        re.compile(pattern)
        for declaration in program.parameter_declarations
        for pattern in _patterns(declaration.type, declaration.name)
    ]
    vectors = Counter(
        column.rpartition(".")[0]
        for column in parameter_columns
        if any(pattern.fullmatch(column) for pattern in patterns)
    )
    return sum((n / 2 - 1) * math.log(2) + math.lgamma(n / 2) for n in vectors.values())


def _patterns(kind: StanType, name: str) -> Iterator[str]:
    """Yield what the columns of unit vectors in a variable of this type and name look like."""
    if kind.base == "tuple":
        for position, element in enumerate(kind.elements, start=1):
            yield from _patterns(element, rf"{name}(\.\d+){{{len(kind.sizes)}}}:{position}")
    elif kind.base == _UNIT_VECTOR:
        yield rf"{name}(\.\d+){{{len(kind.sizes)}}}"
