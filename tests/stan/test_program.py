import pytest

from stanflow.errors import ProgramError
from stanflow.stan.program import StanProgram

PARAMETERS = "parameters { real x; }"


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.stan").write_text(text)


def test_includes_are_expanded_in_every_form_and_nested(tmp_path):
    write(
        tmp_path,
        main='#include a.stan\n#include "b.stan"\n#include <c.stan>\nmodel { }',
        a="data { int N; }\n#include c.stan",
        b=PARAMETERS,
        c="// c\n",
    )
    program = StanProgram.from_file(tmp_path / "main.stan")
    assert program.expanded == (
        "data { int N; }\n// c\n\nparameters { real x; }\n// c\n\nmodel { }"
    )


def test_includes_in_comments_and_strings_are_left_alone():
    code = '// #include no.stan\n/* #include\n#include no.stan */ model { print("#include no"); }'
    assert StanProgram.from_string(code).expanded == code


def test_include_paths_are_searched_before_the_own_folder(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write(tmp_path, main="#include part.stan", part="// own")
    write(other, part="// other")
    found = StanProgram.from_file(tmp_path / "main.stan", include_paths=[other])
    assert found.expanded == "// other"
    assert StanProgram.from_file(tmp_path / "main.stan").expanded == "// own"


@pytest.mark.parametrize("include_paths", [[], ["stan"]])
def test_a_name_that_begins_with_a_slash_is_looked_for_in_the_folders_searched(
    tmp_path, include_paths
):
    """As packages of rstantools have it."""
    (tmp_path / "stan" / "include").mkdir(parents=True)
    (tmp_path / "stan" / "include" / "x.stan").write_text("real x;")
    main = tmp_path / "main.stan" if include_paths else tmp_path / "stan" / "main.stan"
    main.write_text("parameters {\n#include /include/x.stan\n}")
    program = StanProgram.from_file(main, [tmp_path / folder for folder in include_paths])
    assert "real x;" in program.expanded


def test_a_missing_include_is_reported_with_file_line_and_folders(tmp_path):
    write(tmp_path, main="// first\n#include part.stan", part="\n\n#include gone.stan")
    with pytest.raises(ProgramError, match=r"part\.stan, line 3: .*'gone\.stan'.*--include-path"):
        _ = StanProgram.from_file(tmp_path / "main.stan").expanded


def test_files_that_include_each_other_are_reported(tmp_path):
    write(tmp_path, main="#include a.stan", a="#include b.stan", b="#include a.stan")
    with pytest.raises(ProgramError, match=r"a\.stan includes itself \(from b\.stan\)"):
        _ = StanProgram.from_file(tmp_path / "main.stan").expanded


def test_the_hash_covers_included_files(tmp_path):
    write(tmp_path, main="#include a.stan", a="// one")
    before = StanProgram.from_file(tmp_path / "main.stan").hash
    assert before == StanProgram.from_file(tmp_path / "main.stan").hash
    write(tmp_path, a="// two")
    assert before != StanProgram.from_file(tmp_path / "main.stan").hash


@pytest.mark.parametrize("name", ["8 schools", "eight-schools", "_x", "größe"])
def test_names_are_identifiers(tmp_path, name):
    (tmp_path / f"{name}.stan").write_text(PARAMETERS)
    assert StanProgram.from_file(tmp_path / f"{name}.stan").name.isidentifier()


def test_a_byte_order_mark_is_no_part_of_the_program(tmp_path):
    (tmp_path / "bom.stan").write_bytes(b"\xef\xbb\xbfdata { int N; }")
    assert StanProgram.from_file(tmp_path / "bom.stan").has_block("data")


def test_unreadable_files_are_reported(tmp_path):
    with pytest.raises(ProgramError, match=r"no Stan program at .*nope\.stan"):
        StanProgram.from_file(tmp_path / "nope.stan")
    (tmp_path / "latin.stan").write_bytes(b"// \xe9\n")
    with pytest.raises(ProgramError, match=r"not UTF-8 text \(byte 3\)"):
        StanProgram.from_file(tmp_path / "latin.stan")
    with pytest.raises(ProgramError, match="cannot be read: is a directory"):
        StanProgram.from_file(tmp_path)
    with pytest.raises(ProgramError, match="cannot be read: embedded null"):
        StanProgram.from_file("a\0b.stan")
    with pytest.raises(ProgramError, match=r"include folder .* does not exist"):
        StanProgram.from_string(PARAMETERS, include_paths=[tmp_path / "nope"])


def test_blocks_are_found_whatever_surrounds_them():
    program = StanProgram.from_string(
        "functions { real f(real x) { if (x > 0) { return 1; } return 0; } }\n"
        "data { int N; }transformed\n  data { real y = 1; } // generated quantities { }\n"
        'parameters { real x; } model { print("transformed parameters { }"); }'
    )
    assert [b for b in ("functions", "data", "transformed data", "parameters", "model")
            if not program.has_block(b)] == []  # fmt: skip
    assert not program.has_block("generated quantities")
    assert not program.has_block("transformed parameters")
    assert [d.name for d in program.data_declarations] == ["N"]


def test_what_stands_beside_an_include_keeps_its_column_and_its_line(tmp_path):
    write(tmp_path, a="real a; // comment", b="")
    code = "parameters { #include\n a.stan real b;\n#include b.stan\n real c; }"
    program = StanProgram.from_string(code, [tmp_path])
    assert program.expanded.split("\n") == [
        "parameters { ", "real a; // comment", "        real b;", "", " real c; }",
    ]  # fmt: skip
    places = [program.origin(line) for line in range(1, 6)]
    own = "the Stan program"
    assert places == [(own, 1), ("a.stan", 1), (own, 2), (own, 3), (own, 4)]


def test_functions_are_included_once_as_the_compiler_does(tmp_path):
    (tmp_path / "f.stanfunctions").write_text("real f(real x) { return x; }")
    code = "functions {\n#include f.stanfunctions\n#include f.stanfunctions\n}"
    assert StanProgram.from_string(code, [tmp_path]).expanded.count("real f") == 1


def test_spaces_of_every_kind_part_an_include_from_its_file(tmp_path):
    write(tmp_path, a=PARAMETERS)
    for space in (" ", "\t", "\f", "\n", "\r", "\r\n", "\n\n \r"):
        code = f"#include{space}a.stan"
        assert StanProgram.from_string(code, [tmp_path]).expanded == PARAMETERS, repr(space)
