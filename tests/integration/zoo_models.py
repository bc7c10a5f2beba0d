"""The zoo's models by name."""

from pathlib import Path

import stanflow

_FOLDERS = {"eight_schools_noncentered": "eight_schools", "eight_schools_centered": "eight_schools"}


def zoo_model(zoo: Path, name: str) -> stanflow.StanModel:
    """Return a model of the zoo with the data beside it."""
    folder = _FOLDERS.get(name, name)
    data = zoo / folder / f"{folder}.json"
    return stanflow.StanModel(zoo / folder / f"{name}.stan", data, engine="embedded")
