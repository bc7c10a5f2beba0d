"""The signatures of Stan's functions that the sweep walks through, from a file beside this one.

`stanc --dump-stan-math-signatures` lists some 24,000 of them, most alike: those of a binary
function take every pair of containers, in arrays of up to seven dimensions. The file keeps a few
telling ones of each function. Types are written short: ``i`` int, ``r`` real, ``v`` vector, ``w``
row vector, ``m`` matrix, and ``2r`` an array of reals of two dimensions.

A ``+`` before a signature says that Stan 2.35 had none such.

Run ``python -m tests.sweep.signatures stanc older_stanc`` to write the file anew, with the paths of
two compilers.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TypeAlias

_FILE = Path(__file__).parent / "data" / "signatures.txt"
_STAN_NAMES = {"i": "int", "r": "real", "v": "vector", "w": "row_vector", "m": "matrix"}
_SHORT = {name: kind for kind, name in _STAN_NAMES.items()}
_DUMPED = re.compile(r"(?P<function>\w+)\((?P<arguments>.*)\) => (?P<result>.*)")
_DUMPED_TYPE = re.compile(r"(array\[(?P<commas>,*)\] )?(?P<name>\w+)")
_NEW = "+"
_SCALARS = "ir"
_ELEMENTS = {"v", "w", "m"}
_MOST = 8  # signatures of a function
_WIENER = 5  # arguments of the form of wiener that is vectorised in every one of them
DENSITY_SUFFIXES = ("_lpdf", "_lpmf", "_cdf", "_lcdf", "_lccdf")


@dataclass(frozen=True, order=True)
class Type:
    """A type of Stan: a kind of number, vector or matrix, and the dimensions of its array.

    Parameters
    ----------
    kind : {"i", "r", "v", "w", "m"}
    depth : int
        Dimensions of the array; 0 for none.
    """

    kind: str
    depth: int = 0

    @classmethod
    def parse(cls, code: str) -> Type:
        """Read ``v`` or ``2r``."""
        return cls(code[-1], int(code[:-1] or 0))

    def __str__(self) -> str:
        return f"{self.depth or ''}{self.kind}"

    @property
    def is_int(self) -> bool:
        """Whether it holds integers."""
        return self.kind == "i"

    @property
    def is_scalar(self) -> bool:
        """Whether it is one number."""
        return self.depth == 0 and self.kind in _SCALARS

    @property
    def promoted(self) -> Type:
        """The type with reals for integers."""
        return Type("r" if self.is_int else self.kind, self.depth)

    def declare(self, shape: tuple[int, ...], name: str) -> str:
        """Declare a variable of a shape: ``array[2] vector[3] name;``."""
        sizes = list(map(str, shape))
        array = f"array[{', '.join(sizes[: self.depth])}] " if self.depth else ""
        own = f"[{', '.join(sizes[self.depth :])}]" if self.kind in _ELEMENTS else ""
        return f"{array}{_STAN_NAMES[self.kind]}{own} {name};"


@dataclass(frozen=True)
class Signature:
    """One signature of a function.

    Parameters
    ----------
    function : str
    arguments : tuple of Type
    result : Type
    is_new : bool
        Stan 2.35 had none such.
    """

    function: str
    arguments: tuple[Type, ...]
    result: Type
    is_new: bool = False

    @property
    def code(self) -> str:
        """The types of the arguments, as part of an identifier: ``r_1i``."""
        return "_".join(map(str, self.arguments)) or "none"

    @property
    def has_reals(self) -> bool:
        """Whether an argument can be a parameter."""
        return any(not argument.is_int for argument in self.arguments)


Signatures: TypeAlias = dict[str, tuple[Signature, ...]]


def signatures() -> Signatures:
    """Return the signatures of the sweep, by function in the order of the alphabet."""
    found = {}
    for line in _FILE.read_text().splitlines():
        if line.startswith("#"):
            continue
        function, _, rest = line.partition(": ")
        found[function] = tuple(_read(function, entry) for entry in rest.split("; "))
    return found


def _read(function: str, entry: str) -> Signature:
    *arguments, result = entry.removeprefix(_NEW).split()
    types = tuple(map(Type.parse, arguments))
    return Signature(function, types, Type.parse(result), entry.startswith(_NEW))


# ---- from stanc's list to the file ------------------------------------------------------------


def parse_dump(lines: Iterable[str]) -> Signatures:
    """Read what ``stanc --dump-stan-math-signatures`` prints.

    Complex numbers, tuples, functions as arguments, and arrays of three dimensions and more are
    left out.
    """
    found: dict[str, list[Signature]] = {}
    for line in lines:
        match = _DUMPED.fullmatch(line.strip())
        if match is None or re.search(r"complex|tuple|=>.*=>", line):
            continue
        names = re.split(r", (?=[a-z])", match["arguments"]) if match["arguments"] else []
        arguments = tuple(map(_dumped_type, names))
        signature = Signature(match["function"], arguments, _dumped_type(match["result"]))
        if max((t.depth for t in (*arguments, signature.result)), default=0) <= 2:
            found.setdefault(signature.function, []).append(signature)
    return {function: tuple(found[function]) for function in sorted(found)}


def _dumped_type(text: str) -> Type:
    match = _DUMPED_TYPE.fullmatch(text)
    if match is None:
        raise ValueError(f"stanc writes a type that is not understood: {text!r}")
    depth = 0 if match["commas"] is None else len(match["commas"]) + 1
    return Type(_SHORT[match["name"]], depth)


def select(dumped: Mapping[str, tuple[Signature, ...]]) -> Signatures:
    """Return a few telling signatures of each function.

    Of a vectorised density: all arguments numbers, one at a time a vector, and all of them
    vectors, row vectors, arrays, or mixed. Of any other function: each type at each position.
    """
    return {
        function: tuple(_patterns(found) if _vectorised(found) else _cover(found))
        for function, found in dumped.items()
    }


def _vectorised(found: tuple[Signature, ...]) -> bool:
    """Whether these are of a density that takes a number or a vector for each argument."""
    first = min(found, key=lambda signature: len(signature.arguments))
    named = first.function.endswith(DENSITY_SUFFIXES)
    return named and len(found) > 2 and all(argument.is_scalar for argument in first.arguments)


def _patterns(found: tuple[Signature, ...]) -> Iterator[Signature]:
    known = {signature.arguments: signature for signature in found}
    numbers = [s.arguments for s in found if all(a.is_scalar for a in s.arguments)]
    scalar = min(numbers, key=lambda arguments: (len(arguments), sum(a.is_int for a in arguments)))

    def as_containers(positions: Iterable[int], codes: Iterable[str]) -> tuple[Type, ...]:
        arguments = list(scalar)
        for position, code in zip(positions, codes, strict=False):
            arguments[position] = Type("i", 1) if scalar[position].is_int else Type.parse(code)
        return tuple(arguments)

    everywhere = range(len(scalar))
    wanted = [scalar]
    wanted += [as_containers([position], ["v"]) for position in everywhere]
    wanted += [as_containers(everywhere, cycle(codes)) for codes in ("v", ["1r"], "w")]
    wanted += [as_containers(everywhere, cycle(["1r", "w", "v"]))]
    for arguments in dict.fromkeys(wanted):
        if arguments in known:
            yield known[arguments]
    longer = (s for s in found if len(s.arguments) > max(len(scalar), _WIENER))
    yield from _cover(tuple(longer))


def _cover(found: tuple[Signature, ...]) -> list[Signature]:
    """Choose signatures until all that is telling of them has occurred, simple ones first."""
    left = sorted(found, key=_complexity)
    chosen: list[Signature] = []
    covered: set[object] = set()

    def gain(signature: Signature) -> int:
        features = _features(signature)
        return sum(weight for feature, weight in features.items() if feature not in covered)

    while left and len(chosen) < _MOST:
        best = max(left, key=gain)
        if gain(best) == 0:
            break
        covered |= _features(best).keys()
        chosen.append(best)
        left.remove(best)
    return sorted(chosen, key=_complexity)


def _features(signature: Signature) -> dict[object, int]:
    """What is telling of a signature, and how much it counts."""
    arguments = signature.arguments
    features: dict[object, int] = dict.fromkeys(enumerate(arguments), 1)
    features |= {len(arguments): 9, signature.result: 1}
    features[tuple(argument.is_scalar for argument in arguments)] = 9
    if signature.function.endswith(DENSITY_SUFFIXES):
        features["arrays", *(argument.depth for argument in arguments)] = 4
    if len(set(arguments)) == 1:
        depth, kind = arguments[0].depth, arguments[0].kind
        features["all", arguments[0]] = 4 if depth + (kind == "i") <= 1 else 1
    return features


def _complexity(signature: Signature) -> tuple[object, ...]:
    arguments = signature.arguments
    return (
        len(arguments),
        sum(not argument.is_scalar for argument in arguments),
        sum(argument.depth for argument in arguments),
        ["rivwm".index(argument.kind) for argument in arguments],
    )


def write(stanc: str, older: str) -> None:
    """Write the file anew with the signatures of a Stan compiler, and which an older one lacks."""
    dumped, known = (
        parse_dump(_ask(path, "--dump-stan-math-signatures")) for path in (stanc, older)
    )
    versions = " and ".join(_ask(path, "--version")[0] for path in (stanc, older))
    lines = [f"# written by tests/sweep/signatures.py from {versions}"]
    for function, selected in select(dumped).items():
        old = {signature.arguments for signature in known.get(function, ())}
        entries = (
            ("" if s.arguments in old else _NEW) + " ".join(map(str, (*s.arguments, s.result)))
            for s in selected
        )
        lines.append(f"{function}: {'; '.join(entries)}")
    _FILE.write_text("\n".join(lines) + "\n")


def _ask(stanc: str, option: str) -> list[str]:
    return subprocess.run(
        [stanc, option], check=True, capture_output=True, text=True
    ).stdout.splitlines()


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2])
