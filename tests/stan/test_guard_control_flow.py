"""Loops and early returns at random, which agree with Python once mended."""

from hypothesis import given
from hypothesis import strategies as st

from tests.stan.test_guard import mended
from tests.stan.test_guard_functions import BLOCKS, GOES_ON, program, value

CONDITIONS = st.tuples(st.integers(2, 4), st.integers(0, 2))
SIMPLE = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 9)),
    st.tuples(st.sampled_from(["return", "break", "continue"]), CONDITIONS),
)
STATEMENTS = st.recursive(
    st.lists(SIMPLE, min_size=1, max_size=3),
    lambda inner: st.lists(
        st.one_of(
            SIMPLE,
            st.tuples(st.just("if"), CONDITIONS, inner),
            st.tuples(st.sampled_from(["for", "while", "while called"]), st.integers(1, 4), inner),
        ),
        min_size=1,
        max_size=3,
    ),
    max_leaves=8,
)


class Left(Exception):  # noqa: N818
    """A loop, or the function, by the word that says so."""


def run(statements, total):
    """Do statements to the total and return it; leaving a loop is an exception, as in Stan."""
    for kind, number, *body in statements:
        if kind == "add":
            total = (2 * total + number) % 1009
        elif kind == "if":
            if total % number[0] == number[1]:
                total = run(body[0], total)
        elif kind in ("return", "break", "continue"):
            if total % number[0] == number[1]:
                raise Left(kind, total)
        else:
            for _ in range(number):
                try:
                    total = run(body[0], total)
                except Left as left:
                    word, total = left.args
                    if word == "return":
                        raise
                    if word == "break":
                        break
    return total


def as_stan(statements, depth=0):
    text = ""
    for kind, number, *body in statements:
        if kind == "add":
            text += f"s = (2 * s + {number}) % 1009; "
        elif kind in ("return", "break", "continue"):
            text += (
                f"if (s % {number[0]} == {number[1]}) {'return s' if kind == 'return' else kind}; "
            )
        elif kind == "if":
            text += f"if (s % {number[0]} == {number[1]}) {{ {as_stan(body[0], depth)}}} "
        elif kind == "for":
            text += f"for (i{depth} in 1:{number}) {{ {as_stan(body[0], depth + 1)}}} "
        else:
            i = f"i{depth}"
            condition = f"{i} < {number}" if kind == "while" else f"below({i}, {number})"
            text += (
                f"{{ int {i} = 0; while ({condition}) {{ {i} += 1; "
                f"{as_stan(body[0], depth + 1)}}} }} "
            )
    return text


def without_strays(statements, in_loop=False):
    """Leave out ``break`` and ``continue`` that are in no loop."""
    kept = []
    for kind, number, *body in statements:
        if kind in ("break", "continue") and not in_loop:
            continue
        inner = [without_strays(body[0], in_loop or kind != "if")] if body else []
        kept.append((kind, number, *inner))
    return kept


@given(block=st.sampled_from(list(BLOCKS)), statements=STATEMENTS, start=st.integers(0, 9))
def test_control_flow_at_random_agrees_with_python(block, statements, start):
    statements = without_strays(statements)
    try:
        truth = run(statements, start)
    except Left as left:
        truth = left.args[1]
    functions = f"{GOES_ON} int f(int start) {{ int s = start; {as_stan(statements)}return s; }}"
    assert value(mended(program(functions, f"f({start})", block))) == truth
