"""Comments, strings and includes, with the Stan compiler itself as the judge."""

import stanli
from hypothesis import given, settings
from hypothesis import strategies as st

from stanflow.errors import ProgramError
from stanflow.stan.comments import (
    blank_comments_and_strings,
    includes,
    with_newlines,
    without_includes_in_comments,
)
from stanflow.stan.program import StanProgram

_SPACE = st.text(" \t\f\r\n", min_size=1, max_size=3)
_FILE = st.sampled_from(["a.stan", '"b c.stan"', "<b c.stan>", "d//e.stan", '"a.stan"', "gone"])
_INCLUDE = st.builds("#include{}{}".format, _SPACE, _FILE)
_TEXT = st.sampled_from(
    ["//", "/*", "*/", '"', " ", "\n", "\r", "\r\n", "\f", "\t", "real z;", "#include", "*", "/"]
)
_PROGRAM = st.lists(st.one_of(_INCLUDE, _TEXT), max_size=6).map("".join)


def parts(folder):
    for name in "ab":
        (folder / {"a": "a.stan", "b": "b c.stan"}[name]).write_text(f"real {name};")
    (folder / "d").mkdir()
    (folder / "d" / "e.stan").write_text("real d; // no newline")


def declared(code, **options):
    """The lines of what the compiler makes of a program's declarations; None where it refuses."""
    try:
        mir = stanli.stan_to_mir(f"parameters {{ {code}\n}} model {{ }}", **options)
    except RuntimeError:
        return None
    return stanli.bridgestan_model(mir=mir, data="{}", name="m").param_names()


def test_the_compiler_reads_the_same_with_its_includes_expanded(tmp_path):
    parts(tmp_path)

    @settings(max_examples=150, deadline=None)
    @given(_PROGRAM)
    def check(code):
        by_compiler = declared(code, include_paths=[tmp_path])
        try:
            expanded = StanProgram.from_string(code, [tmp_path]).expanded
        except ProgramError:
            assert by_compiler is None
            return
        if by_compiler is not None:  # it refuses a variable that is declared twice, too
            assert declared(expanded) == by_compiler
            assert not list(includes(expanded))

    check()


@given(_PROGRAM)
def test_no_include_is_left_in_comments_and_all_others_are(code):
    text = with_newlines(code)
    safe = without_includes_in_comments(text)
    assert len(safe) == len(text)
    assert list(includes(safe)) == list(includes(text))
    assert safe.lower() == text.lower()
    blank = blank_comments_and_strings(text)
    assert blank_comments_and_strings(safe) == blank
    assert blank.count("\n") == text.count("\n")
    in_strings_or_comments = text.count("#include") - blank.count("#include")
    assert text.count("#include") - safe.count("#include") <= in_strings_or_comments


def test_lines_end_as_the_compiler_counts_them():
    """What is wrong is in the fifth line, however the four before it end."""
    code = "parameters {\r} // one\n/* \r */ transformed parameters {\r\n real z = no;\r\r\n}"
    try:
        stanli.stan_to_mir(code)
    except RuntimeError as error:
        assert "line 5" in str(error)
    assert with_newlines(code).split("\n")[4] == " real z = no;"
