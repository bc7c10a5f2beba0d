"""Groups of draws as one NetCDF file, as ArviZ writes and reads them.

Written with h5netcdf alone: ArviZ and xarray take seconds to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stanflow.runs.groups import Group

_BOOLEAN = "bool"  # as xarray marks an array of bytes


def write_netcdf(groups: Mapping[str, Group], path: Path) -> None:
    """Write groups, compressed, with the coordinates 0, 1, ... along every dimension."""
    import h5netcdf

    with h5netcdf.File(path, "w") as file:
        for name, group in groups.items():
            _write_group(group, file.create_group(name))


def _write_group(group: Group, into: Any) -> None:
    into.attrs.update(group.attributes)
    into.dimensions = group.sizes()
    for dimension, size in group.sizes().items():
        into.create_variable(dimension, (dimension,), data=np.arange(size))
    for name, array in group.arrays.items():
        compression = {"compression": "gzip", "compression_opts": 4} if array.ndim else {}
        is_boolean = array.dtype == np.bool_
        variable = into.create_variable(
            name,
            group.dimensions_of(name),
            data=array.astype(np.int8) if is_boolean else array,
            **compression,
        )
        if is_boolean:
            variable.attrs["dtype"] = _BOOLEAN


def read_netcdf(path: Path) -> dict[str, Group]:
    """Read the groups of a file that `write_netcdf` or ArviZ wrote."""
    import h5netcdf

    with h5netcdf.File(path, "r") as file:
        return {name: _read_group(group) for name, group in file.groups.items()}


def _read_group(group: Any) -> Group:
    return Group(
        {
            name: _read_array(variable)
            for name, variable in group.variables.items()
            if name not in group.dimensions
        }
    )


def _read_array(variable: Any) -> npt.NDArray[Any]:
    array = np.asarray(variable[...])
    return array.astype(np.bool_) if variable.attrs.get("dtype") == _BOOLEAN else array
