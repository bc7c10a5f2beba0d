"""Groups of draws as the installed ArviZ has them."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np

from stanflow.runs.groups import Group


def to_arviz(groups: Mapping[str, Group]) -> Any:
    """Return groups as ``arviz.InferenceData``, or since ArviZ 1.0 as ``xarray.DataTree``."""
    import xarray

    datasets = {name: _to_dataset(group) for name, group in groups.items()}
    arviz = import_arviz()
    if arviz.__version__.startswith("0."):
        return arviz.InferenceData(**datasets)
    return xarray.DataTree.from_dict(datasets)


def _to_dataset(group: Group) -> Any:
    import xarray

    return xarray.Dataset(
        {name: (group.dimensions_of(name), array) for name, array in group.arrays.items()},
        coords={dimension: np.arange(size) for dimension, size in group.sizes().items()},
        attrs=dict(group.attributes),
    )


def import_arviz() -> Any:
    """Import ArviZ where it can be, and without its notices to people who did not call it.

    ArviZ 0.2x keeps the day of its last notice in the user's cache folder, and cannot be imported
    where that cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            import arviz
        except OSError:
            with (
                tempfile.TemporaryDirectory() as folder,
                mock.patch("platformdirs.user_cache_dir", lambda *_: folder),
            ):
                import arviz
    return arviz
