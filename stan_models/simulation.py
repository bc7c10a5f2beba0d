"""The command line of the scripts that simulate data."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

from stanflow.errors import UsageError


def write_simulated(
    simulate: Callable[..., dict[str, Any]], description: str, **defaults: float
) -> None:
    """Simulate data as the command line asks for, and write them to a Stan JSON file.

    Parameters
    ----------
    simulate : callable
        Returns the data. Its parameters, numbers or None, are the options.
    description : str
        What ``--help`` says.
    **defaults
        Of options whose parameter has no default.
    """
    parser = argparse.ArgumentParser(description=description)
    types = get_type_hints(simulate)
    for name, parameter in inspect.signature(simulate).parameters.items():
        number = next((kind for kind in get_args(types[name])), types[name])
        default = defaults.get(name, parameter.default)
        parser.add_argument(f"--{name}", type=number, default=default)
    parser.add_argument("--out", type=Path, required=True)
    options = vars(parser.parse_args())
    out = options.pop("out")
    try:
        out.write_text(json.dumps(simulate(**options)) + "\n")
    except (UsageError, OSError) as error:
        parser.error(str(error))
