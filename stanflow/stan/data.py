"""Data for a Stan program, in the forms people have it, checked against its data block.

The rules are those of Stan's JSON format
(https://mc-stan.org/docs/cmdstan-guide/json_apdx.html): rectangular arrays of numbers, an object
``{"1": ..., "2": ...}`` for a tuple, ``[re, im]`` for a complex number, NaN and infinities as such
or as text, no missing values.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stanflow.errors import DataError, reason
from stanflow.stan.declarations import Declaration, StanType, UnknownValueError, evaluate
from stanflow.stan.program import StanProgram
from stanflow.stan.rdump import RDumpError, read_rdump

DataLike = str | PathLike[str] | Mapping[str, Any] | None

_SPECIAL_NUMBERS = {
    "NaN": float("nan"),
    **dict.fromkeys(("Inf", "+Inf", "Infinity", "+Infinity"), float("inf")),
    **dict.fromkeys(("-Inf", "-Infinity"), float("-inf")),
}
_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class StanData:
    """Data that fit the program's data block.

    Attributes
    ----------
    json : str
        The data as Stan JSON, only the variables that the program declares.
    ignored : tuple of str
        Variables given that the program does not declare. Stan ignores these, too.
    with_nan : tuple of str
        Variables with elements that are NaN.
    """

    json: str
    ignored: tuple[str, ...] = ()
    with_nan: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 of the JSON text, hexadecimal."""
        return hashlib.sha256(self.json.encode()).hexdigest()


def bind_data(program: StanProgram, data: DataLike) -> StanData:
    """Read data and check them against the program's data block.

    Parameters
    ----------
    program : StanProgram
        The program.
    data : path, str, mapping or None
        A Stan JSON file, one in R's dump format (its name ends in ``.R``), JSON text (starting with
        ``{``), or a mapping from variable names to numbers, booleans (0 and 1), lists, tuples or
        anything numpy takes as an array.

    Returns
    -------
    StanData

    Raises
    ------
    DataError
        The file is missing or cannot be read as that; a variable is missing, of the wrong type or
        shape, out of its declared bounds, or has a missing value; there are data but no data block.

    Examples
    --------
    >>> program = StanProgram.from_string("data { int<lower=0> N; vector[N] y; }")
    >>> bind_data(program, {"N": 2, "y": [1, 2.5]}).json
    '{"N": 2, "y": [1.0, 2.5]}'
    >>> bind_data(program, {"N": 2, "y": [1]})
    Traceback (most recent call last):
        ...
    stanflow.errors.DataError: the data variable y has shape (1,), but the program declares
    `vector[N] y`, here of shape (2,)
    """
    try:
        return _bind(program, data)
    except RecursionError:
        source = "the data" if isinstance(data, Mapping) else str(data)[:200]
        raise DataError(f"{source}: arrays nest too deep for valid Stan JSON") from None


def _bind(program: StanProgram, data: DataLike) -> StanData:
    values, source = _read(data)
    if not program.has_block("data"):
        if values:
            raise DataError(
                f"{source} has variables ({', '.join(list(values)[:5])}), but {program.label} has "
                "no data block; leave the data out"
            )
        return StanData("{}")
    reader = _Reader(source, lenient=isinstance(data, Mapping))
    for declaration in program.data_declarations:
        reader.read(declaration, values)
    if not program.data_declarations:  # not followed here: the engine checks alone
        return StanData(_to_json({name: _unchecked(value) for name, value in values.items()}))
    ignored = tuple(name for name in values if name not in reader.json)
    return StanData(_to_json(reader.json), ignored, tuple(reader.with_nan))


# ---- Reading ----------------------------------------------------------------------------------


def _read(data: DataLike) -> tuple[dict[str, Any], str]:
    """Return the variables and what to call their source in messages."""
    if data is None:
        return {}, "the data"
    if isinstance(data, Mapping):
        for name in data:
            if not isinstance(name, str):
                raise DataError(f"data variables are named by strings, not by {name!r}")
        return dict(data), "the data"
    try:
        text = fspath(data)
    except TypeError:
        raise DataError(
            f"data are a file, JSON text or a mapping of variable names, not {_describe(data)}"
        ) from None
    if isinstance(data, str) and text.lstrip().startswith("{"):
        return _parse(text, "the data"), "the data"
    try:
        content = Path(text).read_bytes().decode("utf-8-sig")
        return (_parse_rdump if _is_rdump(text) else _parse)(content, text), text
    except FileNotFoundError:
        raise DataError(f"there is no data file at {text}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{text} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{text} cannot be read: {reason(error)}") from None
    except ValueError as error:  # a file name with a NUL byte
        raise DataError(f"{text!r} cannot be read: {reason(error)}") from None


def _is_rdump(path: str) -> bool:
    return Path(path).suffix.lower() == ".r"


def _parse_rdump(text: str, source: str) -> dict[str, Any]:
    try:
        return read_rdump(text)
    except RDumpError as error:
        raise DataError(f"{source} is not in R's dump format: {error}") from None


def _parse(text: str, source: str) -> dict[str, Any]:
    def refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, times in Counter(name for name, _ in pairs).items():
            if times > 1:
                raise DataError(f"{source}: {name} is given {times} times")
        return dict(pairs)

    try:
        values = json.loads(text, object_pairs_hook=refuse_repeats)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{source} is not valid JSON: {error.msg.lower()} at line {error.lineno}, "
            f"column {error.colno}"
        ) from None
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{source} is not valid Stan JSON: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{source} must be a JSON object, {{'N': 3, ...}}, not {_describe(values)}")
    return values


# ---- Checking ---------------------------------------------------------------------------------


class _Reader:
    """Check variables in the order declared, so that sizes can use those before them."""

    def __init__(self, source: str, *, lenient: bool) -> None:
        self.prefix = "" if source == "the data" else f"{source}: "
        self.lenient = lenient  # Python and numpy booleans count as 0 and 1
        self.known: dict[str, Any] = {}
        self.json: dict[str, Any] = {}
        self.with_nan: dict[str, None] = {}

    def read(self, declaration: Declaration, values: Mapping[str, Any]) -> None:
        self.declaration = declaration
        name = declaration.name
        if name in values:
            value = values[name]
        elif 0 in (self._shape(declaration.type, name) or ()):
            value = []  # as in Stan, where variables without elements may be left out
        else:
            raise DataError(
                f"{self.prefix}the data variable {name} is missing; the program declares "
                f"`{declaration.text}`"
            )
        self.json[name] = self._check(declaration.type, value, name)

    def _error(self, name: str, problem: str) -> DataError:
        return DataError(f"{self.prefix}the data variable {name} {problem}")

    @property
    def _declared(self) -> str:
        return f"`{self.declaration.text}`"

    def _check(self, kind: StanType, value: Any, name: str) -> Any:
        if kind.base == "tuple":
            return self._check_tuple(kind, value, name)
        array = self._numbers(kind, value, name)
        array = self._check_shape(kind, array, name)
        self._check_bounds(kind, array, name)
        if name == self.declaration.name and not kind.is_complex:
            self.known[name] = array.item() if array.ndim == 0 else array
        return _encode(array)

    def _check_tuple(self, kind: StanType, value: Any, name: str) -> Any:
        if kind.sizes:
            try:
                size = evaluate(kind.sizes[0], self.known)
            except UnknownValueError:
                size = None
            if not isinstance(value, list) or (size is not None and len(value) != size):
                raise self._error(name, f"must be a list of tuples, as in {self._declared}")
            inner = StanType(kind.base, kind.sizes[1:], kind.bounds, kind.elements)
            return [self._check(inner, v, f"{name}[{i}]") for i, v in enumerate(value, start=1)]
        n = len(kind.elements)
        if isinstance(value, tuple) and len(value) == n:
            value = {str(i): element for i, element in enumerate(value, start=1)}
        if not isinstance(value, Mapping) or not {str(k) for k in value} >= set(
            map(str, range(1, n + 1))
        ):
            raise self._error(
                name, f'must be a tuple of {n}, {{"1": ..., "2": ...}}, as in {self._declared}'
            )
        by_position = {str(k): v for k, v in value.items()}
        return {
            str(i): self._check(element, by_position[str(i)], f"{name}.{i}")
            for i, element in enumerate(kind.elements, start=1)
        }

    def _numbers(self, kind: StanType, value: Any, name: str) -> npt.NDArray[Any]:
        """Return the value as an array of int64, float64, or float64 with a last axis of 2."""
        array = self._as_array(value, name)
        if array.size == 0:
            return array.astype(np.int64 if kind.is_integer else np.float64)
        if array.dtype.kind == "b":
            if not self.lenient:
                raise self._error(name, "holds true or false; Stan takes 0 and 1")
            array = array.astype(np.int64)
        if array.dtype.kind == "c":
            if not kind.is_complex:
                raise self._error(name, f"is complex, but the program declares {self._declared}")
            array = np.stack([array.real, array.imag], axis=-1)
        if array.dtype.kind == "O":  # text, nulls, Python integers beyond 64 bits, ...
            array = self._unusual(array, kind, name)
        if array.dtype.kind not in "iuf":
            raise self._error(
                name, f"must be numbers, as in {self._declared}, not {_describe(value)}"
            )
        if kind.is_integer:
            return self._integers(array, name)
        if np.isnan(array).any():
            self.with_nan[self.declaration.name] = None
        return array.astype(np.float64)

    def _as_array(self, value: Any, name: str) -> npt.NDArray[Any]:
        try:
            array = np.asarray(_plain(value))
            # Beside text, numpy would turn numbers into text, too.
            return np.asarray(_plain(value), dtype=object) if array.dtype.kind == "U" else array
        except (ValueError, OverflowError):
            raise self._error(
                name, "is not rectangular: all rows of an array must have the same length"
            ) from None
        except TypeError:
            raise self._error(
                name, f"is an object, but the program declares {self._declared}"
            ) from None

    def _integers(self, array: npt.NDArray[Any], name: str) -> npt.NDArray[np.int64]:
        if array.dtype.kind == "f":
            fractional = ~np.isfinite(array) | (array != np.trunc(array))
            shown = float(array.flat[int(np.argmax(fractional))])
            raise self._error(
                name,
                f"is declared {self._declared}, so it must be whole numbers, written without a "
                f"decimal point; it has {shown!r}{_at(fractional)}",
            )
        outside = (array < _INT_MIN) | (array > _INT_MAX)
        if outside.any():
            raise self._error(
                name,
                f"has {array[outside].flat[0]}{_at(outside)}, beyond the 32 bits of a Stan integer",
            )
        return array.astype(np.int64)

    def _unusual(self, array: npt.NDArray[Any], kind: StanType, name: str) -> npt.NDArray[Any]:
        flat = list(array.flat)
        for i, entry in enumerate(flat):
            where = _at(np.arange(array.size).reshape(array.shape) == i)
            if entry is None:
                raise self._error(
                    name,
                    f"has a missing value (null){where}; Stan has none, so leave such entries "
                    "out or make them parameters",
                )
            if isinstance(entry, str):
                raise self._error(
                    name, f"must be numbers, as in {self._declared}; it has {entry!r}{where}"
                )
            if isinstance(entry, bool) and not self.lenient:
                raise self._error(name, f"holds true or false{where}; Stan takes 0 and 1")
            if not isinstance(entry, int | float):
                raise self._error(
                    name,
                    f"must be numbers, as in {self._declared}; it has {_describe(entry)}{where}",
                )
            if kind.is_integer and isinstance(entry, int) and not _INT_MIN <= entry <= _INT_MAX:
                raise self._error(name, f"has {entry}{where}, beyond the 32 bits of a Stan integer")
        try:
            return np.array(list(map(float, flat))).reshape(array.shape)
        except OverflowError:
            raise self._error(name, "has a whole number beyond the range of real numbers") from None

    def _check_shape(self, kind: StanType, array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
        shape = self._shape(kind, name)
        if shape is None or array.shape == shape:
            return array
        if array.size == 0 and 0 in shape:  # JSON has one empty array for all of them
            return array.reshape(shape)
        here = f"here of shape {shape}" if shape else "a single number"
        given = f"has shape {array.shape}" if array.shape else "is a single number"
        raise self._error(name, f"{given}, but the program declares {self._declared}, {here}")

    def _shape(self, kind: StanType, name: str) -> tuple[int, ...] | None:
        """Return the declared shape; None where a size is left to the engine."""
        sizes: list[int] = []
        for expression in kind.sizes:
            try:
                size = evaluate(expression, self.known)
            except UnknownValueError:
                return None
            if not isinstance(size, int):
                return None
            if size < 0:
                raise self._error(
                    name, f"has a negative size: {expression} is {size}, in {self._declared}"
                )
            sizes.append(size)
        return (*sizes, 2) if kind.is_complex else tuple(sizes)

    def _check_bounds(self, kind: StanType, array: npt.NDArray[Any], name: str) -> None:
        for bound, expression in kind.bounds:
            if bound not in ("lower", "upper"):
                continue
            try:
                limit = np.broadcast_to(evaluate(expression, self.known), array.shape)
            except (UnknownValueError, ValueError):
                continue
            # NaN is neither within bounds nor outside; Stan refuses it.
            outside = ~(array >= limit if bound == "lower" else array <= limit)
            if outside.any():
                found = array[outside].flat[0] if array.ndim else array.item()
                edge = limit[outside].flat[0] if array.ndim else limit.item()
                side = "below its lower" if bound == "lower" else "above its upper"
                if np.isnan(found):
                    side = f"not within its {bound}"
                raise self._error(
                    name, f"has {found:g}{_at(outside)}, {side} bound {edge:g}, in {self._declared}"
                )


def _plain(value: Any) -> Any:
    """Return lists, tuples, arrays, series and numbers that Stan spells out as plain lists."""
    if isinstance(value, str):
        return _SPECIAL_NUMBERS.get(value, value)
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    if isinstance(value, Mapping):
        raise TypeError
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        plain = value.data.astype(object)
        plain[np.ma.getmaskarray(value)] = None
        return plain.tolist()
    if hasattr(value, "detach"):  # a torch tensor, perhaps with a gradient
        value = value.detach()
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    return value


def _unchecked(value: Any) -> Any:
    """Return a value as Stan JSON has it, whatever it is declared as."""
    if isinstance(value, Mapping):
        return {str(key): _unchecked(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_unchecked(element) for element in value]
    plain = _plain(value)
    if isinstance(plain, list):
        return _unchecked(plain)
    if isinstance(plain, bool):
        return int(plain)
    return _spelled(plain) if isinstance(plain, float) and not np.isfinite(plain) else plain


def _encode(array: npt.NDArray[Any]) -> Any:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        spelled = array.astype(object)
        spelled[np.isnan(array)] = _spelled(np.nan)
        for infinity in (np.inf, -np.inf):
            spelled[array == infinity] = _spelled(infinity)
        return spelled.tolist()
    return array.tolist()


def _spelled(number: float) -> str:
    """Return a number that JSON lacks as Stan spells it."""
    if np.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def _to_json(values: Mapping[str, Any]) -> str:
    try:
        return json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"the data cannot be written as Stan JSON: {error}") from None


def _at(mask: npt.NDArray[np.bool_]) -> str:
    """Where the first marked entry is, one-based, as Stan counts; nothing for a scalar."""
    if mask.ndim == 0:
        return ""
    position = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return f" at [{', '.join(str(int(i) + 1) for i in position)}]"


def _describe(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    if isinstance(value, str):
        return f"{value!r}"
    if value is None:
        return "null"
    return names.get(type(value), f"a {type(value).__name__}")
