"""Loops, conditions and operators."""

# Rows of tables stay on a line each.
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Iterator

from .cases import Case

_DATA = """
int n@; int k@; int neg@; array[5] int a@; array[2, 3] int b@; vector[4] v@; matrix[2, 3] m@;
real x@; real y@;
"""
_VALUES = {
    "n": 5,
    "k": 3,
    "neg": -7,
    "a": [3, 1, 4, 2, 5],
    "b": [[3, 1, 4], [2, 7, 5]],
    "v": [1.5, 2.25, 3.125, 4.0625],
    "m": [[1.1, 1.2, 1.3], [2.1, 2.2, 2.3]],
    "x": 2.5,
    "y": -1.25,
}

# A name, statements that change `real s`, from 0, and the truth.
_LOOPS = (
    ("for_range", "for (i in 1:n@) s += i * a@[i];", 3 + 2 + 12 + 8 + 25),
    ("for_offset", "for (i in k@:n@) s = 10 * s + i;", 345),
    ("for_empty", "for (i in n@:k@) s += 1; for (i in 1:0) s += 1;", 0),
    ("for_negative", "for (i in neg@:-5) s = 10 * s + i;", -765),
    ("for_expression", "for (i in a@[1] - 1:b@[2, 2] - 2) s = 10 * s + i;", 2345),
    ("for_bound_changes", "{ int top = 3; for (i in 1:top) { top = 5; s += i; } s += 100 * top; }", 506),
    ("for_nested", "for (i in 1:2) for (j in 1:3) s = 10 * s + b@[i, j];", 314275),
    ("for_triangle", "for (i in 1:4) for (j in 1:i) s += i * v@[j];",
     1.5 * 10 + 2.25 * 9 + 3.125 * 7 + 4.0625 * 4),
    ("for_break", "for (i in 1:n@) { if (a@[i] == 4) break; s = 10 * s + a@[i]; }", 31),
    ("for_continue", "for (i in 1:n@) { if (a@[i] % 2 == 1) continue; s = 10 * s + a@[i]; }", 42),
    ("for_break_inner", "for (i in 1:2) { for (j in 1:3) { if (j == 2) break; s += b@[i, j]; } s *= 10; }",
     320),
    ("for_continue_inner",
     "for (i in 1:2) { for (j in 1:3) { if (j == i) continue; s = 10 * s + b@[i, j]; } }", 1425),
    ("while_count", "{ int i = 0; while (i < n@) { i += 1; s = 10 * s + a@[i]; } }", 31425),
    ("while_break", "{ int i = 0; while (1) { i += 1; if (i > k@) break; s = 10 * s + i; } }", 123),
    ("while_continue",
     "{ int i = 0; while (i < n@) { i += 1; if (i == 2) continue; s = 10 * s + i; } }", 1345),
    ("while_real", "{ real z = 1; while (z < 20 && s < 100) { z *= x@; s += z; } }",
     2.5 + 6.25 + 15.625 + 39.0625),
    ("while_nested",
     "{ int i = 0; while (i < 2) { int j = 0; i += 1; while (j < 3) { j += 1; s = 10 * s + b@[i, j]; } } }",
     314275),
    ("foreach_int", "for (e in a@) s = 10 * s + e;", 31425),
    ("foreach_real", "for (e in {1.5, 2.5, 4.0}) s = 10 * s + e;", 179.0),
    ("foreach_int2", "for (r in b@) { for (e in r) s = 10 * s + e; }", 314275),
    ("foreach_int2_row", "for (r in b@) s = 100 * s + r[2] * 10 + r[3];", 1475),
    ("foreach_vector", "for (e in v@) s = 10 * s + e;", 1500 + 225 + 31.25 + 4.0625),
    ("foreach_row_vector", "for (e in v@') s = 10 * s + e;", 1500 + 225 + 31.25 + 4.0625),
    ("foreach_matrix", "for (e in m@) s = 10 * s + e;", 0.0),
    ("foreach_vectors", "for (r in {v@, 2 * v@}) s = 100 * s + r[2];", 225 + 4.5),
    ("foreach_break", "for (e in a@) { if (e == 2) break; s = 10 * s + e; }", 314),
    ("foreach_slice", "for (e in a@[2:4]) s = 10 * s + e;", 142),
    ("if_chain", "for (e in a@) { if (e < 2) s += 1; else if (e < 4) s += 10; else s += 100; }", 221),
    ("if_dangling", "for (e in a@) if (e > 1) if (e > 3) s += 100; else s += 10;", 220),
    ("if_and", "if (n@ > 4 && k@ == 3) s += 1; if (n@ > 4 && k@ != 3) s += 2; if (k@) s += 4;", 5),
    ("if_or", "if (n@ < 4 || k@ == 3) s += 1; if (n@ < 4 || k@ < 3) s += 2; if (!k@) s += 4;", 1),
    ("short_and", "for (i in 0:6) if (i > 0 && i <= 5 && a@[i] > 2) s = 10 * s + i;", 135),
    ("short_or", "for (i in 0:6) if (i < 1 || i > 5 || a@[i] == 4) s = 10 * s + i;", 36),
    ("ternary", "for (i in 1:n@) s = 10 * s + (a@[i] > 2 ? i : 0);", 10305),
    ("ternary_nested", "for (i in 1:n@) s = 10 * s + (a@[i] > 3 ? 1 : a@[i] > 1 ? 2 : 3);", 23121),
    ("ternary_lazy", "for (i in 0:6) s += i >= 1 && i <= 5 ? a@[i] : 100;", 215),
    ("ternary_vector", "s = sum(n@ > 3 ? v@[1:2] : v@);", 3.75),
    ("ternary_mixed", "s = (k@ > 2 ? 1 : x@) / 2;", 0.5),
    ("shadow_blocks", "{ int q = 1; s += q; } { real q = 2.5; s += q; }", 3.5),
    ("accumulate_int", "{ int t = 0; for (e in a@) t += e; s = t / 2; }", 7),
    ("int_array_count",
     "{ array[3] int c = {0, 0, 0}; for (e in a@) c[1 + e % 3] += e; s = 100 * c[1] + 10 * c[2] + c[3]; }",
     3 * 100 + 5 * 10 + 7),
    ("fibonacci",
     "{ array[10] int f; f[1] = 1; f[2] = 1; for (i in 3:10) f[i] = f[i - 1] + f[i - 2]; s = f[10]; }", 55),
    ("sorting",
     "{ array[5] int c = a@; for (i in 1:5) for (j in 1:4) if (c[j] > c[j + 1]) "
     "{ int t = c[j]; c[j] = c[j + 1]; c[j + 1] = t; } for (e in c) s = 10 * s + e; }", 12345),
    ("gcd", "{ int p = 84; int q = 36; while (q != 0) { int r = p % q; p = q; q = r; } s = p; }", 12),
    ("profiled", 'profile("p") { s += 2; } s *= 3;', 6),
    ("printed", 'if (n@ > 100) print("s = ", s, v@); s += 1; if (n@ > 100) reject("never ", s);', 1),
)  # fmt: skip

# Those of which the reference manual does not say whether a bound is evaluated once, or in which
# order elements come.
_UNKNOWN = frozenset({"for_bound_changes", "foreach_matrix"})

# A topic, the type, and expressions with their truths, compared where data, and where parameters.
_OPERATORS: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "int_arithmetic": ("int", (
        ("n@ + k@ * 2", 11), ("n@ - k@", 2), ("-n@ + 1", -4), ("n@ %/% k@", 1), ("neg@ %/% 2", -3),
        ("n@ / k@", 1), ("neg@ / 2", -3), ("7 / (-2)", -3), ("neg@ % 3", -1), ("7 % neg@", 0),
        ("8 % neg@", 1), ("n@ % k@", 2), ("neg@ %/% (-2)", 3), ("n@ - k@ - 1", 1),
        ("20 / n@ / 2", 2), ("20 / (n@ / 2)", 10), ("2 * n@ / 4", 2), ("n@ * (k@ / 4)", 0),
    )),
    "comparisons": ("int", (
        ("n@ > k@", 1), ("n@ >= 5", 1), ("n@ < k@", 0), ("n@ <= 5", 1), ("n@ == 5", 1), ("n@ != 5", 0),
        ("x@ > y@", 1), ("x@ == 2.5", 1), ("x@ != 2.5", 0), ("n@ == 5.0", 1), ("y@ <= -1.25", 1),
        ("x@ < n@", 1), ("(n@ > k@) + (x@ > y@)", 2), ("n@ > k@ == 1", 1),
    )),
    "logic": ("int", (
        ("!n@", 0), ("!(n@ - 5)", 1), ("n@ && k@", 1), ("n@ && 0", 0), ("0 || k@", 1), ("0 || 0", 0),
        ("!0 && !0", 1), ("1 || 0 && 0", 1), ("(x@ > 2) && (y@ > 2)", 0), ("!n@ + 1", 1), ("!!n@", 1),
        ("n@ > 3 && k@ < 2 || neg@ < 0", 1),
    )),
    "int_functions": ("int", (
        ("abs(neg@)", 7), ("max(n@, k@)", 5), ("min(n@, k@)", 3), ("max(a@)", 5), ("min(a@[2:4])", 1),
        ("max(b@[2])", 7), ("sum(a@)", 15), ("size(b@)", 2), ("size(b@[1])", 3), ("num_elements(b@)", 6),
        ("dims(b@)[2]", 3), ("sort_asc(a@)[2]", 2), ("sort_desc(a@)[2]", 4), ("sort_indices_asc(a@)[1]", 2),
        ("reverse(a@)[1]", 5), ("head(a@, 2)[2]", 1), ("tail(a@, 2)[1]", 2), ("segment(a@, 2, 3)[2]", 4),
        ("append_array(a@, b@[2])[7]", 7), ("rank(a@, 3)", 3), ("choose(n@, k@)", 10),
        ("int_step(n@ - 5)", 0), ("linspaced_int_array(4, 1, 10)[3]", 7),
        ("one_hot_int_array(4, k@)[3]", 1), ("num_elements(m@)", 6), ("cols(m@)", 3),

    )),
    "to_int": ("int", (("to_int(x@ * 2)", 5),)),
    "flattened": ("int", (("to_array_1d(b@)[4]", 2),)),
    "sub_row": ("real", (("sub_row(m@, 2, 2, 2)[1]", 2.2),)),
    "trace": ("real", (("trace(m@[, 1:2])", 3.3),)),
    "real_arithmetic": ("real", (
        ("x@ ^ 2", 6.25), ("x@ ^ k@", 15.625), ("n@ ^ 2", 25), ("2 ^ 3 ^ 2", 512), ("-x@ ^ 2", -6.25),
        ("x@ / n@", 0.5), ("n@ / x@", 2), ("x@ - y@ - 1", 2.75), ("x@ * -y@", 3.125), ("x@ / y@ / 2", -1),
        ("n@ / 2 + x@", 4.5), ("n@ / 2.0 + x@", 5), ("+x@", 2.5), ("fmod(x@, 2)", 0.5), ("fdim(x@, y@)", 3.75),
        ("1 / 2 * x@", 0), ("k@ / 2 * x@", 2.5), ("floor(y@)", -2), ("ceil(y@)", -1), ("round(x@ + 0.1)", 3),
        ("trunc(y@)", -1), ("hypot(3, 4)", 5), ("fma(x@, y@, 1)", -2.125), ("step(y@)", 0), ("abs(y@)", 1.25),
        ("fmax(x@, y@)", 2.5), ("fmin(x@, y@)", -1.25), ("negative_infinity() < x@", 1), ("lmultiply(0, 0)", 0),
    )),
    "vector_arithmetic": ("real", (
        ("(v@ .^ 2)[3]", 9.765625), ("(2 .^ v@)[1]", 2**1.5), ("(v@ .* v@)[2]", 5.0625), ("(v@ ./ 2)[4]", 2.03125),
        ("(1 ./ v@)[1]", 1 / 1.5), ("(v@ + 1)[2]", 3.25), ("(1 - v@)[3]", -2.125), ("(-v@)[4]", -4.0625),
        ("v@' * v@", 1.5**2 + 2.25**2 + 3.125**2 + 4.0625**2), ("(v@ * v@')[2, 3]", 2.25 * 3.125),
        ("(m@ * m@')[1, 2]", 1.1 * 2.1 + 1.2 * 2.2 + 1.3 * 2.3), ("(m@ .* m@)[2, 3]", 2.3**2),
        ("(m@ .^ m@)[1, 2]", 1.2**1.2), ("(v@[1:2]' * m@)[3]", 1.5 * 1.3 + 2.25 * 2.3),
        ("(m@ * v@[2:4])[2]", 2.1 * 2.25 + 2.2 * 3.125 + 2.3 * 4.0625), ("(m@ / 2)[2, 1]", 1.05),
        ("(m@' - 1)[3, 2]", 1.3), ("([[2, 1], [0, 4]] \\ v@[1:2])[1]", (1.5 - 2.25 / 4) / 2),
        ("(v@[1:2]' / [[2, 1], [0, 4]])[2]", (2.25 - 0.75) / 4), ("(v@ .^ v@)[1]", 1.5**1.5),
        ("([v@[1], 2 * v@[2]])[2]", 4.5), ("([v@', 2 * v@'])[2, 3]", 6.25), ("([[1, 2], [3, 4]]^2)[1, 2]", None),
        ("dot_self(v@[:2])", 1.5**2 + 2.25**2), ("prod(v@[2:3])", 2.25 * 3.125), ("cumulative_sum(v@)[3]", 6.875),
        ("append_row(v@, 9)[5]", 9), ("append_col(m@, v@[1:2])[2, 4]", 2.25), ("to_vector(m@)[2]", 2.1),
        ("to_array_1d(m@)[2]", 2.1), ("to_row_vector(m@)[3]", 1.2), ("to_matrix(v@, 2, 2)[1, 2]", 3.125),
        ("to_matrix(v@, 2, 2, 0)[1, 2]", 2.25), ("reverse(v@)[1]", 4.0625), ("block(m@, 1, 2, 2, 2)[2, 1]", 2.2),
        ("sub_col(m@, 1, 3, 2)[2]", 2.3),
        ("col(m@, 2)[2]", 2.2),
        ("rep_matrix(v@, 2)[3, 2]", 3.125), ("diagonal(m@[, 2:3])[2]", 2.3),
        ("quad_form(m@' * m@, v@[2:4])", None), ("to_matrix(b@)[2, 2]", 7), ("to_vector(a@)[3]", 4),
    )),
}  # fmt: skip


def cases() -> Iterator[Case]:
    """Yield a case for each loop or condition, and cases of several operators each."""
    for name, text, truth in _LOOPS:
        known = name not in _UNKNOWN
        local = f"real s = 0; {text}"
        in_function = text.replace("@", "")
        yield Case(
            name,
            "loops",
            functions=(
                "real run@(int n, int k, int neg, array[] int a, array[,] int b, vector v, "
                f"matrix m, real x, real y) {{ real s = 0; {in_function} return s; }}"
            ),
            data=_DATA,
            values=_VALUES,
            transformed_data=f"real t@ = 0; {{ {local} t@ = s; }}",
            parameters="real theta@;",
            transformed_parameters=f"real p@; {{ {local} p@ = s * theta@; }}",
            model=f"{local} target += s * theta@;",
            generated=(
                f"real g@; {{ {local} g@ = s; }} real seen@ = t@; real ratio@ = p@ / theta@; "
                "real f@ = run@(n@, k@, neg@, a@, b@, v@, m@, x@, y@);"
            ),
            truth=dict.fromkeys(("g", "seen", "ratio", "f"), truth) if known else {},
            slope=float(truth) if known else None,
        )
    for topic, (kind, expressions) in _OPERATORS.items():
        for start in range(0, len(expressions), 4):
            yield _operators(f"{topic}_{start // 4}", kind, expressions[start : start + 4])


def _operators(name: str, kind: str, expressions: tuple[tuple[str, float | None], ...]) -> Case:
    numbered = list(enumerate(expressions, start=1))
    known = {i: truth for i, (_, truth) in numbered if truth is not None}
    return Case(
        name,
        "operators",
        data=_DATA,
        values=_VALUES,
        transformed_data=" ".join(f"{kind} t{i}@ = {text};" for i, (text, _) in numbered),
        parameters="real theta@;",
        model=" ".join(f"target += theta@ * {10**i} * ({text});" for i, (text, _) in numbered),
        generated=" ".join(
            f"{kind} g{i}@ = {text}; {kind} s{i}@ = t{i}@;" for i, (text, _) in numbered
        ),
        truth={f"{place}{i}": truth for i, truth in known.items() for place in "gs"},
        slope=sum(10.0**i * truth for i, truth in known.items())
        if len(known) == len(numbered)
        else None,
    )
