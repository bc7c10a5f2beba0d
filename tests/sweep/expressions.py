"""Cases of Stan's functions and densities, made from their signatures.

Each is called with constants, with data, and with expressions of parameters; there, all arguments
move at once, each with a parameter of its own, or one moves and the others are data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .arguments import DATA_ONLY, Argument, domains_of, split_name
from .cases import Case
from .signatures import DENSITY_SUFFIXES, Signature, Signatures, Type, signatures

Shape = tuple[int, ...]
Template = Callable[[Sequence[str]], str]

FUNCTIONS_TOPIC = "mathematical functions"
DENSITIES_TOPIC = "distributions"
RANDOM_TOPIC = "random numbers"
_NEWEST = "2.39"  # has all signatures; which version brought one that 2.35 lacks is not known
_WEIGHTS = (1.0, 0.7, -0.4, 1.3, 0.55, -0.85)  # of a result's numbers in the log density
_JACOBIAN = "_jacobian"
_MOST_APART = 4  # arguments of numbers that are parameters one at a time
_OFFSET = 2  # between the values of neighbouring arguments

# Symbols for functions of one, two or more arguments. Those of numbers are Stan's statements' too.
OPERATORS: dict[str, tuple[str, ...]] = {
    "add": ("{} + {}",),
    "subtract": ("{} - {}",),
    "multiply": ("{} * {}",),
    "divide": ("{} / {}",),
    "elt_multiply": ("{} .* {}",),
    "elt_divide": ("{} ./ {}",),
    "minus": ("-{}",),
    "plus": ("+{}",),
    "transpose": ("{}'",),
    "pow": ("{} ^ {}", "{} .^ {}"),
    "mdivide_left": ("{} \\ {}",),
    "mdivide_right": ("{} / {}",),
    "modulus": ("{} % {}",),
    "logical_and": ("{} && {}",),
    "logical_or": ("{} || {}",),
    "logical_negation": ("!{}",),
    "logical_eq": ("{} == {}",),
    "logical_neq": ("{} != {}",),
    "logical_lt": ("{} < {}",),
    "logical_lte": ("{} <= {}",),
    "logical_gt": ("{} > {}",),
    "logical_gte": ("{} >= {}",),
}

# Functions that return a tuple: the types of its parts.
TUPLES: dict[str, tuple[str, ...]] = {
    "csr_extract": ("v", "1i", "1i"),
    "eigendecompose_sym": ("m", "v"),
    "qr": ("m", "m"),
    "qr_thin": ("m", "m"),
    "svd": ("m", "v", "m"),
}

# Others look after these: functions of functions, and what they take.
_ELSEWHERE = ("generate_laplace_options",)


@dataclass(frozen=True)
class Call:
    """A call whose value is compared.

    Parameters
    ----------
    name : str
        As a part of the case's name.
    signature : Signature
    template : callable
        Makes the expression from those of the arguments.
    arguments : tuple of Argument
    shape : tuple of int
        Of the result.
    """

    name: str
    signature: Signature
    template: Template
    arguments: tuple[Argument, ...]
    shape: Shape

    @property
    def fixed(self) -> frozenset[int]:
        """Positions of arguments that cannot be parameters."""
        if self.signature.function in DATA_ONLY:
            return frozenset(range(len(self.arguments)))
        return frozenset(
            i for i, a in enumerate(self.arguments) if a.type.is_int or a.literal == a.moving("")
        )

    @property
    def movable(self) -> tuple[int, ...]:
        """Positions of arguments that can be parameters."""
        return tuple(i for i in range(len(self.arguments)) if i not in self.fixed)


def function_cases() -> list[Case]:
    """Return the cases of all functions that are neither densities nor random."""
    found = signatures()
    named = {
        function: entries
        for function, entries in found.items()
        if not split_name(function)[1] and function not in _ELSEWHERE
    }
    cases: list[Case] = []
    of_function: Counter[str] = Counter()
    for call in (*_function_calls(named), *_operator_calls(named), *_tuple_calls()):
        cases += _cases_of_function(call, of_function[call.name])
        of_function[call.name] += 1
    return cases


def density_cases() -> list[Case]:
    """Return the cases of all densities, their cumulative forms, statements and truncations."""
    cases: list[Case] = []
    found = signatures()
    for function, entries in found.items():
        name, suffix = split_name(function)
        if suffix not in DENSITY_SUFFIXES:
            continue
        for number, signature in enumerate(entries):
            call = _call(function, signature, _density_template(function))
            if call is None:
                continue
            everywhere = _all_containers(signature)
            if suffix in ("_lpdf", "_lpmf"):
                cases += _cases_of_density(call, number, everywhere)
                cases += _statements(name, call, number, everywhere)
            else:
                cases += _cases_of_cumulative(call, number, everywhere)
        if suffix in ("_lpdf", "_lpmf") and f"{name}_lcdf" in found:
            cases += _truncations(name, entries[0])
    return cases


def random_cases() -> list[Case]:
    """Return the cases of all functions that draw random numbers."""
    cases = []
    for function, entries in signatures().items():
        if split_name(function)[1] != "_rng":
            continue
        for signature in entries:
            call = _call(function, signature, _function_template(function))
            if call is not None:
                cases.append(replace(_of_data(call), topic=RANDOM_TOPIC, random=True))
    return cases


# ---- which calls --------------------------------------------------------------------------------


def _function_calls(named: Signatures) -> Iterator[Call]:
    for function, entries in named.items():
        for signature in entries:
            call = _call(function, signature, _function_template(function))
            if call is not None:
                yield call


def _operator_calls(named: Signatures) -> Iterator[Call]:
    for function, symbols in OPERATORS.items():
        for number, symbol in enumerate(symbols):
            for signature in named[function]:
                elementwise = symbol == "{} .^ {}" or function != "pow"
                if max((t.depth for t in signature.arguments), default=0) > 0:
                    continue
                if not elementwise and not all(t.is_scalar for t in signature.arguments):
                    continue
                name = f"operator_{function}" + ("_elementwise" if number else "")
                call = _call(name, signature, _operator_template(symbol))
                if call is not None:
                    yield call


def _tuple_calls() -> Iterator[Call]:
    for function, parts in TUPLES.items():
        for number, part in enumerate(parts, start=1):
            signature = Signature(function, (Type("m"),), Type.parse(part))
            shaped_as = f"{function}_{number}"
            call = _call(shaped_as, signature, _part_template(function, number), shaped_as)
            if call is not None:
                yield call


def _call(name: str, signature: Signature, template: Template, shaped_as: str = "") -> Call | None:
    domains = domains_of(signature)
    if domains is None:
        return None
    arguments = tuple(
        domain.argument(type_, _OFFSET * position)
        for position, (domain, type_) in enumerate(zip(domains, signature.arguments, strict=True))
    )
    shape = _result_shape(shaped_as or signature.function, signature.result, arguments)
    return Call(name, signature, template, arguments, shape)


def _function_template(function: str) -> Template:
    return lambda arguments: f"{function}({', '.join(arguments)})"


def _density_template(function: str) -> Template:
    def template(arguments: Sequence[str]) -> str:
        rest = f" | {', '.join(arguments[1:])}" if len(arguments) > 1 else " |"
        return f"{function}({arguments[0]}{rest})"

    return template


def _operator_template(symbol: str) -> Template:
    return lambda arguments: symbol.format(*(f"({argument})" for argument in arguments))


def _part_template(function: str, number: int) -> Template:
    return lambda arguments: f"{function}({', '.join(arguments)}).{number}"


def _all_containers(signature: Signature) -> bool:
    return not any(type_.is_scalar for type_ in signature.arguments)


# ---- which cases of a call --------------------------------------------------------------------


def _cases_of_function(call: Call, number: int) -> Iterator[Case]:
    """Cases of a function's call; of its containers, every other one takes parameters or data."""
    function = call.signature.function
    if function.endswith(_JACOBIAN):
        yield _of_parameters(call, call.movable, "parameters")
        return
    numbers = all(type_.is_scalar for type_ in call.signature.arguments)
    if numbers or not call.movable:
        yield _of_constants(call)
    if call.arguments and (numbers or number % 2 == 1 or not call.movable):
        yield _of_data(call)
    if call.movable and (numbers or number % 2 == 0 or number == 1):
        yield _of_parameters(call, call.movable, "parameters")
    if 1 < len(call.movable) <= _MOST_APART and numbers:
        for position in call.movable:
            yield _of_parameters(call, (position,), f"parameter_{position + 1}")


def _cases_of_density(call: Call, number: int, everywhere: bool) -> Iterator[Case]:
    if number == 0:
        yield _of_constants(call)
    if number == 0 or everywhere or not call.movable:
        yield _of_data(call)
    if call.movable and (number == 0 or everywhere):
        yield _of_parameters(call, call.movable, "parameters")


def _cases_of_cumulative(call: Call, number: int, everywhere: bool) -> Iterator[Case]:
    """Cases of cumulative forms, which share code: of only one of them all signatures."""
    telling = number == 0 or (everywhere and _is_plain(call))
    if not telling and not call.signature.function.endswith("_lcdf"):
        return
    if number == 0 or not call.movable:
        yield _of_data(call)
    if call.movable:
        yield _of_parameters(call, call.movable, "parameters")


def _is_plain(call: Call) -> bool:
    """Whether its containers are vectors and arrays of integers."""
    return all(str(type_) in ("v", "m", "1i", "1v") for type_ in call.signature.arguments)


def _of_constants(call: Call) -> Case:
    result = call.template([argument.literal for argument in call.arguments])
    return _case(call, "constants", generated=_declared(call, result))


def _of_data(call: Call) -> Case:
    data, values = _data(call.arguments, range(len(call.arguments)))
    result = call.template([f"a{i}@" for i in range(len(call.arguments))])
    return _case(call, "data", data=data, values=values, generated=_declared(call, result))


def _of_parameters(call: Call, positions: Sequence[int], mode: str) -> Case:
    inputs = _inputs(call, positions)
    block = (
        f"{call.signature.result.declare(call.shape, 'y@')}\n"
        f"{{\n{inputs.local}\ny@ = {call.template(inputs.names)};\n}}"
    )
    shared = {"data": inputs.data, "values": inputs.values, "parameters": inputs.parameters}
    if call.signature.result.is_int:
        return _case(call, mode, **shared, generated=block)
    return _case(call, mode, **shared, transformed_parameters=block, model=_weighted(call))


def _statements(name: str, call: Call, number: int, everywhere: bool) -> Iterator[Case]:
    """The density as a `~` statement, and without its constants in a sum."""
    if not call.movable or (everywhere and not _is_plain(call)):
        return
    moved = [("parameters", call.movable)]
    if len(call.movable) > 1 and _is_plain(call) and everywhere:
        moved += [(f"parameter_{position + 1}", (position,)) for position in call.movable]
    for mode, positions in moved:
        inputs = _inputs(call, positions)
        outcome, *rest = inputs.names
        statement = f"{outcome} ~ {name}({', '.join(rest)});"
        yield _in_model(call, f"{name}_statement", mode, inputs, statement)
    if number == 0 or (everywhere and _is_plain(call)):
        without = call.signature.function.replace("_lpdf", "_lupdf").replace("_lpmf", "_lupmf")
        inputs = _inputs(call, call.movable)
        statement = f"target += {_density_template(without)(inputs.names)};"
        yield _in_model(call, without, "parameters", inputs, statement)


def _truncations(name: str, signature: Signature) -> Iterator[Case]:
    """The density as a truncated `~` statement."""
    call = _call(name, signature, _density_template(signature.function))
    if call is None or not all(t.is_scalar for t in signature.arguments) or not call.movable:
        return
    lower, upper = _bounds(call.arguments[0])
    movable = "" if signature.arguments[0].is_int else f" + 0.02 * t{call.movable[-1]}@"
    for truncation, bounds in {
        "both": f"T[{lower}, {upper}]",
        "lower": f"T[{lower}{movable}, ]",
        "upper": f"T[, {upper}{movable}]",
    }.items():
        inputs = _inputs(call, call.movable)
        outcome, *rest = inputs.names
        statement = f"{outcome} ~ {name}({', '.join(rest)}) {bounds};"
        yield _in_model(call, f"{name}_truncated", truncation, inputs, statement)


def _bounds(outcome: Argument) -> tuple[float | int, float | int]:
    value = outcome.value
    if outcome.type.is_int:
        return value - 1, value + 2
    return round(value - 0.2, 3), round(value + 0.25, 3)


@dataclass(frozen=True)
class _Inputs:
    """The arguments of a call in a case: some expressions of parameters, the others data."""

    names: list[str]
    local: str
    data: str
    values: dict[str, Any]
    parameters: str


def _inputs(call: Call, positions: Sequence[int]) -> _Inputs:
    rest = [i for i in range(len(call.arguments)) if i not in positions]
    data, values = _data(call.arguments, rest)
    local = []
    for i in positions:
        argument = call.arguments[i]
        declared = argument.type.declare(argument.shape, f"a{i}").removesuffix(";")
        local.append(f"{declared} = {argument.moving(f't{i}@')};")
    return _Inputs(
        [f"a{i}" if i in positions else f"a{i}@" for i in range(len(call.arguments))],
        "\n".join(local),
        data,
        values,
        "\n".join(f"real t{i}@;" for i in positions),
    )


def _data(arguments: Sequence[Argument], positions: Sequence[int]) -> tuple[str, dict[str, Any]]:
    declared = (arguments[i].type.declare(arguments[i].shape, f"a{i}@") for i in positions)
    return "\n".join(declared), {f"a{i}": arguments[i].value for i in positions}


def _declared(call: Call, result: str) -> str:
    declared = call.signature.result.declare(call.shape, "y@").removesuffix(";")
    return f"{declared} = {result};"


def _weighted(call: Call) -> str:
    """Add the result's numbers to the log density, each with a weight of its own."""
    terms = (
        f"{_WEIGHTS[number % len(_WEIGHTS)]} * y@{index}"
        for number, index in enumerate(_indices(call.shape))
    )
    return f"target += {' + '.join(terms)};"


def _indices(shape: Shape) -> Iterator[str]:
    if not shape:
        yield ""
        return
    for flat in range(math.prod(shape)):
        index, rest = [], flat
        for size in reversed(shape):
            rest, i = divmod(rest, size)
            index.append(str(i + 1))
        yield f"[{', '.join(reversed(index))}]"


def _case(call: Call, mode: str, **blocks: Any) -> Case:
    return Case(
        name=f"{call.name}_{call.signature.code}_{mode}",
        topic=DENSITIES_TOPIC if split_name(call.signature.function)[1] else FUNCTIONS_TOPIC,
        since=_NEWEST if call.signature.is_new else "",
        **blocks,
    )


def _in_model(call: Call, name: str, mode: str, inputs: _Inputs, statement: str) -> Case:
    return _case(
        replace(call, name=name),
        mode,
        data=inputs.data,
        values=inputs.values,
        parameters=inputs.parameters,
        model=f"{{\n{inputs.local}\n{statement}\n}}",
    )


# ---- shapes of results ------------------------------------------------------------------------


def _result_shape(function: str, result: Type, arguments: Sequence[Argument]) -> Shape:
    """Return the shape of a result: by a rule of its function, or that of a like argument."""
    if result.is_scalar:
        return ()
    if function in _PLANES:
        rows, columns = _PLANES[function](arguments)
        return {"v": (rows,), "w": (columns,), "m": (rows, columns)}[result.kind]
    if function in _SHAPES:
        return _SHAPES[function](arguments)
    if split_name(function)[1] == "_rng":
        return _shape_of_draws(result, arguments)
    for argument in arguments:
        if argument.type.promoted == result.promoted:
            return argument.shape
    raise LookupError(f"the shape of what {function} returns is not known")


def _shape_of_draws(result: Type, arguments: Sequence[Argument]) -> Shape:
    shapes = [argument.shape for argument in arguments]
    dimensions = result.depth + {"v": 1, "w": 1, "m": 2}.get(result.kind, 0)
    return next(shape[:dimensions] for shape in shapes if len(shape) >= dimensions)


def _plane(argument: Argument) -> tuple[int, int]:
    """Rows and columns, with numbers and vectors as matrices."""
    match argument.type.kind:
        case "v":
            return argument.shape[0], 1
        case "w":
            return 1, argument.shape[0]
        case "m":
            return argument.shape[0], argument.shape[1]
    return 1, 1


def _value(argument: Argument) -> int:
    return int(argument.value)


def _flat(argument: Argument) -> int:
    return math.prod(argument.shape)


def _appended(by: int) -> Callable[[Sequence[Argument]], tuple[int, int]]:
    """Rows and columns of two planes put below each other (0) or side by side (1)."""

    def plane(arguments: Sequence[Argument]) -> tuple[int, int]:
        sizes = list(_plane(arguments[0]))
        sizes[by] += _plane(arguments[1])[by]
        if arguments[0].type.is_scalar:
            sizes[1 - by] = _plane(arguments[1])[1 - by]
        return sizes[0], sizes[1]

    return plane


def _repeated(dimensions: int) -> Callable[[Sequence[Argument]], Shape]:
    return lambda a: (_value(a[0]),) * dimensions


def _grown(by: int) -> Callable[[Sequence[Argument]], Shape]:
    """The shape of the argument with a longer vector."""
    return lambda a: (*a[0].shape[:-1], a[0].shape[-1] + by)


def _grown_both(by: int) -> Callable[[Sequence[Argument]], Shape]:
    def shape(a: Sequence[Argument]) -> Shape:
        if a[0].type.kind == "v":
            return _grown(by)(a)
        *outer, rows, columns = a[0].shape
        return (*outer, rows + by, columns + by)

    return shape


def _grown_columns(by: int) -> Callable[[Sequence[Argument]], Shape]:
    return lambda a: (*a[0].shape[:-2], a[0].shape[-2] + by, a[0].shape[-1])


def _matrix_of_vector(a: Sequence[Argument]) -> Shape:
    """A matrix for each vector, of the sizes given after it."""
    return (*a[0].shape[:-1], _value(a[1]), _value(a[-1]))


def _vector_of_matrix(diagonal: int) -> Callable[[Sequence[Argument]], Shape]:
    """A vector for each square matrix, of its lower triangle with or without its diagonal."""

    def shape(a: Sequence[Argument]) -> Shape:
        *outer, rows, _ = a[0].shape
        return (*outer, rows * (rows - 1) // 2 + diagonal * rows)

    return shape


def _covariance(a: Sequence[Argument]) -> Shape:
    """Of one set of points, or of two."""
    two = len(a) > 1 and str(a[1].type) == str(a[0].type)
    return a[0].shape[0], a[1 if two else 0].shape[0]


def _to_matrix(a: Sequence[Argument]) -> Shape:
    if len(a) > 1:
        return _value(a[1]), _value(a[2])
    return _plane(a[0]) if a[0].type.depth == 0 else (a[0].shape[0], a[0].shape[1])


def _repeated_matrix(a: Sequence[Argument]) -> Shape:
    if a[0].type.kind == "r":
        return _value(a[1]), _value(a[2])
    return (*a[0].shape, _value(a[1])) if a[0].type.kind == "v" else (_value(a[1]), *a[0].shape)


# Rows and columns; a result that is a vector has one of them.
_PLANES: dict[str, Callable[[Sequence[Argument]], tuple[int, int]]] = {
    "append_col": _appended(1),
    "append_row": _appended(0),
    "multiply": lambda a: (
        _plane(a[0] if not a[0].type.is_scalar else a[1])[0],
        _plane(a[1] if not a[1].type.is_scalar else a[0])[1],
    ),
    "transpose": lambda a: (_plane(a[0])[1], _plane(a[0])[0]),
    "columns_dot_product": lambda a: (1, _plane(a[0])[1]),
    "columns_dot_self": lambda a: (1, _plane(a[0])[1]),
    "rows_dot_product": lambda a: (_plane(a[0])[0], 1),
    "rows_dot_self": lambda a: (_plane(a[0])[0], 1),
}

_SHAPES: dict[str, Callable[[Sequence[Argument]], Shape]] = {
    "append_array": lambda a: (a[0].shape[0] + a[1].shape[0], *a[0].shape[1:]),
    "block": lambda a: (_value(a[3]), _value(a[4])),
    "col": lambda a: (a[0].shape[0],),
    "row": lambda a: (a[0].shape[1],),
    "sub_col": lambda a: (_value(a[3]),),
    "sub_row": lambda a: (_value(a[3]),),
    "head": lambda a: (_value(a[1]), *a[0].shape[1:]),
    "tail": lambda a: (_value(a[1]), *a[0].shape[1:]),
    "segment": lambda a: (_value(a[2]), *a[0].shape[1:]),
    "crossprod": lambda a: (a[0].shape[1], a[0].shape[1]),
    "tcrossprod": lambda a: (a[0].shape[0], a[0].shape[0]),
    **dict.fromkeys(("csr_extract_w", "csr_extract_1"), lambda a: (_nonzero(a[0]),)),
    **dict.fromkeys(("csr_extract_v", "csr_extract_2"), lambda a: (_nonzero(a[0]),)),
    **dict.fromkeys(("csr_extract_u", "csr_extract_3"), lambda a: (a[0].shape[0] + 1,)),
    "csr_matrix_times_vector": lambda a: (_value(a[0]),),
    "csr_to_dense_matrix": lambda a: (_value(a[0]), _value(a[1])),
    "diag_matrix": lambda a: (a[0].shape[0], a[0].shape[0]),
    "diagonal": lambda a: (min(a[0].shape),),
    "dims": lambda a: (len(a[0].shape) + (a[0].type.kind in "vw"),),
    "eigenvalues_sym": lambda a: (a[0].shape[0],),
    "eigendecompose_sym_2": lambda a: (a[0].shape[0],),
    "generalized_inverse": lambda a: (a[0].shape[1], a[0].shape[0]),
    **dict.fromkeys(
        (
            f"gp_{kind}_cov"
            for kind in ("dot_prod", "exp_quad", "exponential", "matern32", "matern52", "periodic")
        ),
        _covariance,
    ),
    "identity_matrix": _repeated(2),
    "uniform_simplex": _repeated(1),
    **dict.fromkeys(
        (
            f"{values}_{kind}"
            for values in ("ones", "zeros", "one_hot", "linspaced")
            for kind in ("array", "int_array", "vector", "row_vector")
        ),
        _repeated(1),
    ),
    "matrix_exp_multiply": lambda a: a[1].shape,
    "scale_matrix_exp_multiply": lambda a: a[2].shape,
    "mdivide_left": lambda a: a[1].shape,
    "qr_Q": lambda a: (a[0].shape[0], a[0].shape[0]),
    "qr_1": lambda a: (a[0].shape[0], a[0].shape[0]),
    **dict.fromkeys(("qr_thin_R", "qr_thin_2"), lambda a: (a[0].shape[1], a[0].shape[1])),
    **dict.fromkeys(("quad_form", "quad_form_sym"), lambda a: (a[1].shape[1], a[1].shape[1])),
    "quantile": lambda a: a[1].shape,
    "rep_array": lambda a: (*map(_value, a[1:]), *a[0].shape),
    "rep_matrix": _repeated_matrix,
    "rep_vector": lambda a: (_value(a[1]),),
    "rep_row_vector": lambda a: (_value(a[1]),),
    "singular_values": lambda a: (min(a[0].shape),),
    "svd_U": lambda a: (a[0].shape[0], min(a[0].shape)),
    "svd_1": lambda a: (a[0].shape[0], min(a[0].shape)),
    "svd_2": lambda a: (min(a[0].shape),),
    "svd_V": lambda a: (a[0].shape[1], min(a[0].shape)),
    "svd_3": lambda a: (a[0].shape[1], min(a[0].shape)),
    **dict.fromkeys(("sort_indices_asc", "sort_indices_desc"), lambda a: a[0].shape),
    **dict.fromkeys(("to_array_1d", "to_vector", "to_row_vector"), lambda a: (_flat(a[0]),)),
    "to_array_2d": lambda a: a[0].shape,
    "to_matrix": _to_matrix,
    # unconstrained values and back
    **{
        f"{kind}_{way}": _matrix_of_vector
        for kind in ("cholesky_factor_corr", "cholesky_factor_cov", "corr_matrix", "cov_matrix")
        for way in ("constrain", "jacobian")
    },
    "cholesky_factor_corr_unconstrain": _vector_of_matrix(0),
    "corr_matrix_unconstrain": _vector_of_matrix(0),
    "cholesky_factor_cov_unconstrain": _vector_of_matrix(1),
    "cov_matrix_unconstrain": _vector_of_matrix(1),
    **dict.fromkeys(("simplex_constrain", "simplex_jacobian"), _grown(1)),
    "simplex_unconstrain": _grown(-1),
    **dict.fromkeys(("sum_to_zero_constrain", "sum_to_zero_jacobian"), _grown_both(1)),
    "sum_to_zero_unconstrain": _grown_both(-1),
    **dict.fromkeys(("stochastic_row_constrain", "stochastic_row_jacobian"), _grown(1)),
    "stochastic_row_unconstrain": _grown(-1),
    **dict.fromkeys(
        ("stochastic_column_constrain", "stochastic_column_jacobian"), _grown_columns(1)
    ),
    "stochastic_column_unconstrain": _grown_columns(-1),
    # draws whose shape is no argument's
    "bernoulli_logit_glm_rng": lambda a: (a[1].shape[0],),
    "hmm_latent_rng": lambda a: (a[0].shape[1],),
    **dict.fromkeys(("lkj_corr_rng", "lkj_corr_cholesky_rng"), _repeated(2)),
}


def _nonzero(argument: Argument) -> int:
    return sum(value != 0 for row in argument.value for value in row)
