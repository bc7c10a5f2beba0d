r"""Stan's Gaussian process kernels with one length scale per dimension, written in Stan.

With magnitude :math:`\sigma`, length scales :math:`l_d` and

.. math:: r^2 = \sum_d \left(\frac{x_d - y_d}{l_d}\right)^2,

the kernels are :math:`\sigma^2 k(r)` with :math:`k` as in the Stan functions reference:
``gp_exp_quad_cov`` :math:`\exp(-r^2/2)`, ``gp_exponential_cov`` :math:`\exp(-r)`,
``gp_matern32_cov`` :math:`(1 + \sqrt 3 r) \exp(-\sqrt 3 r)` and
``gp_matern52_cov`` :math:`(1 + \sqrt 5 r + \frac{5}{3} r^2) \exp(-\sqrt 5 r)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stanflow.stan.comments import blank_comments_and_strings
from stanflow.stan.declarations import block_spans
from stanflow.stan.edits import Edit
from stanflow.stan.tokens import unused_name

# What each kernel is of `squared`, r^2, and of r. The derivative of a square root is infinite at 0,
# and times the 0 that a point's distance to itself contributes gives NaN; 1e-300 makes it finite
# there and is lost to rounding everywhere else, and the kernel at 0 stays exactly 1.
_R = "sqrt(squared + 1e-300)"
_FORMULAS = {
    "gp_exp_quad_cov": "exp(-0.5 * squared)",
    "gp_exponential_cov": f"exp(-{_R})",
    "gp_matern32_cov": f"(1 + sqrt(3) * {_R}) .* exp(-sqrt(3) * {_R})",
    "gp_matern52_cov": f"(1 + sqrt(5) * {_R} + (5.0 / 3) * squared) .* exp(-sqrt(5) * {_R})",
}
KERNELS = tuple(_FORMULAS)

_CALL = re.compile(rf"(?<![\w.])({'|'.join(KERNELS)})(?=\s*\()")
_RETURNED_TYPE = re.compile(r"(?!(?:return|in|else)\b)\b[A-Za-z]\w*\s*$|[\])]\s*$")

# Stan's own checks, in its words. They take sizes from `num_elements`, which the embedded engine
# knows even where points are parameters. Entries are computed as matrices, one dimension after the
# other, which it differentiates faster than entries one by one.
_DEFINITION = """
matrix NAME(array[] vector x1, array[] vector x2, real magnitude, array[] real length_scale) {
  if (is_nan(magnitude) || magnitude <= 0 || is_inf(magnitude))
    reject("KERNEL: magnitude is ", magnitude, ", but must be positive finite!");
  for (d in 1:size(length_scale))
    if (is_nan(length_scale[d]) || length_scale[d] <= 0 || is_inf(length_scale[d]))
      reject("KERNEL: length scale[", d, "] is ", length_scale[d],
             ", but must be positive finite!");
  if (num_elements(x1) != size(x1) * size(length_scale))
    reject("KERNEL: x dimension (", num_elements(x1) %/% size(x1),
           ") and number of length scales (", size(length_scale), ") must match in size");
  if (num_elements(x2) != size(x2) * size(length_scale))
    reject("KERNEL: x dimension (", num_elements(x2) %/% size(x2),
           ") and number of length scales (", size(length_scale), ") must match in size");
  matrix[size(x1), size(x2)] squared = rep_matrix(0, size(x1), size(x2));
  for (d in 1:size(length_scale)) {
    vector[size(x1)] scaled1;
    row_vector[size(x2)] scaled2;
    for (n in 1:size(x1)) scaled1[n] = x1[n][d] / length_scale[d];
    for (n in 1:size(x2)) scaled2[n] = x2[n][d] / length_scale[d];
    squared += square(rep_matrix(scaled1, size(x2)) - rep_matrix(scaled2, size(x1)));
  }
  return magnitude^2 * (FORMULA);
}
matrix NAME(array[] vector x, real magnitude, array[] real length_scale) {
  return NAME(x, x, magnitude, length_scale);
}
"""


@dataclass(frozen=True)
class KernelCall:
    """A call of a kernel in a program's text.

    Attributes
    ----------
    kernel : str
        The function's name.
    start, end : int
        From its name to its closing parenthesis.
    """

    kernel: str
    start: int
    end: int


def kernel_calls(code: str) -> tuple[KernelCall, ...]:
    """Find the calls of the four kernels, whatever their arguments, in the order written.

    Parameters
    ----------
    code : str
        A Stan program with its includes expanded.

    Examples
    --------
    >>> code = "K = gp_matern32_cov(x, 1, {l, 1 + f(2)}); // gp_matern32_cov(x, 1, 2)"
    >>> [code[call.start:call.end] for call in kernel_calls(code)]
    ['gp_matern32_cov(x, 1, {l, 1 + f(2)})']
    """
    text = blank_comments_and_strings(code)
    return tuple(
        KernelCall(match[1], match.start(), _closing(text, match.end()))
        for match in _CALL.finditer(text)
        if not _is_definition(text[: match.start()])
    )


def _is_definition(before: str) -> bool:
    """Whether the name that follows is a user's function of the same name being defined."""
    return _RETURNED_TYPE.search(before[-200:]) is not None


def _closing(text: str, position: int) -> int:
    depth = 0
    for bracket in re.compile(r"[()]").finditer(text, position):
        depth += 1 if bracket[0] == "(" else -1
        if depth == 0:
            return bracket.end()
    return len(text)


def calls_replaced(code: str, calls: Iterable[KernelCall]) -> list[Edit]:
    """Return the edits by which calls are made to kernels written in Stan, on the same lines.

    Parameters
    ----------
    code : str
        The program that `calls` were found in.
    calls : iterable of KernelCall
        Those with one length scale per dimension.
    """
    calls = tuple(calls)
    used = re.findall(r"\w+", code)
    names = {call.kernel: unused_name(f"{call.kernel}_by_dimension", used) for call in calls}
    if not names:
        return []
    functions = "".join(_definition(kernel, name) for kernel, name in names.items())
    block = block_spans(blank_comments_and_strings(code)).get("functions")
    return [
        Edit(0, 0, f"functions {{ {functions}}} ")
        if block is None
        else Edit(block[1], 0, functions),
        *(Edit(call.start, len(call.kernel), names[call.kernel]) for call in calls),
    ]


def _definition(kernel: str, name: str) -> str:
    """Return the kernel's definition by that name, on one line."""
    return (
        " ".join(_DEFINITION.split())
        .replace("NAME", name)
        .replace("KERNEL", kernel)
        .replace("FORMULA", _FORMULAS[kernel])
        + " "
    )
