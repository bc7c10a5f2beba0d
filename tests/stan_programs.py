"""The Stan programs in a test file, compiled together: a compiler reads Stan's headers once."""

from __future__ import annotations

import ast
from pathlib import Path

import stanli

from stanflow.stan import native
from stanflow.stan.program import StanProgram
from stanflow.stan.toolchain import Toolchain


def compile_programs_of(file: Path, toolchain: Toolchain) -> None:
    """Compile all valid programs that stand as whole strings in a Python file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    programs = [text for text in texts if isinstance(text, str) and "model {" in text]
    valid = [StanProgram.from_string(text) for text in sorted(programs) if _is_valid(text)]
    native.compiled_libraries(valid, toolchain)


def _is_valid(text: str) -> bool:
    try:
        return bool(stanli.stan_to_mir(text))
    except RuntimeError:
        return False
