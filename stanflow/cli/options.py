"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[Path, typer.Argument(help="The Stan program, a .stan file.", show_default=False)]
Data = Annotated[
    Path | None,
    typer.Argument(
        help="Its data: a Stan JSON file, or one in R's dump format (.R).", show_default=False
    ),
]
Engine = Annotated[
    Literal["auto", "embedded", "native", "bridgestan"],
    typer.Option(
        help="What evaluates the program: the embedded engine, Stan's own C++ (native, once called "
        "bridgestan), or, by auto, the first that is set up and can run it."
    ),
]
IncludePath = Annotated[
    list[Path] | None,
    typer.Option(help="A folder to search for #include files; may be repeated."),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Source of every random choice.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
