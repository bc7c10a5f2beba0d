"""Draws as groups of labelled arrays, in ArviZ's schema for inference data, and back."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import stanio

from stanflow.arrays import FloatArray

LOG_LIKELIHOOD = "log_lik"
_REPLICATED = "_rep"
_GROUPS = ("posterior", "log_likelihood", "posterior_predictive")
_DRAW = ("chain", "draw")


@dataclass(frozen=True)
class Group:
    """Arrays over named dimensions.

    Attributes
    ----------
    arrays : dict of str to array
        By name.
    dimensions : tuple of str
        Of their first axes; each further axis has a dimension of its own, ``NAME_dim_0``, ...
    attributes : mapping of str to str
        What is said of the group.
    """

    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    dimensions: tuple[str, ...] = _DRAW
    attributes: Mapping[str, str] = field(default_factory=dict)

    def dimensions_of(self, name: str) -> tuple[str, ...]:
        """Return the dimensions of an array.

        Examples
        --------
        >>> Group({"theta": np.zeros((4, 1000, 8))}).dimensions_of("theta")
        ('chain', 'draw', 'theta_dim_0')
        """
        own = self.arrays[name].ndim - len(self.dimensions)
        return (*self.dimensions, *(f"{name}_dim_{axis}" for axis in range(own)))

    def sizes(self) -> dict[str, int]:
        """Return the size of every dimension."""
        return {
            dimension: size
            for name, array in self.arrays.items()
            for dimension, size in zip(self.dimensions_of(name), array.shape, strict=True)
        }


def to_groups(
    columns: tuple[str, ...],
    values: FloatArray,
    *,
    sample_stats: Mapping[str, npt.NDArray[Any]],
    attributes: Mapping[str, str],
    data: str,
    unconstrained: FloatArray | None = None,
) -> dict[str, Group]:
    """Return draws as groups.

    The variable ``log_lik`` goes to the group log_likelihood, where `arviz.loo` looks for it;
    variables that replicate data, ``y_rep`` of ``y``, go to posterior_predictive, and these data to
    observed_data; all others to posterior.

    Parameters
    ----------
    columns : tuple of str
        The program's scalars as Stan names them.
    values : array of shape (chains, draws, n)
        Their draws.
    sample_stats : mapping of str to array of shape (chains, draws)
        What the algorithm says of each draw.
    attributes : mapping of str to str
        Of the groups posterior and sample_stats.
    data : str
        The program's data as JSON.
    unconstrained : array of shape (chains, draws, D), optional
        Unconstrained parameters, for the group unconstrained_posterior.
    """
    groups = {
        "posterior": Group(attributes=attributes),
        "sample_stats": Group(dict(sample_stats), attributes=attributes),
    }
    observed = json.loads(data) if data.strip() else {}
    for name, draws in _numeric_variables(columns, values).items():
        original = name.removesuffix(_REPLICATED)
        group = "log_likelihood" if name == LOG_LIKELIHOOD else "posterior"
        if original != name and original in observed:
            group = "posterior_predictive"
            replicated = groups.setdefault("observed_data", Group(dimensions=()))
            replicated.arrays[original] = np.asarray(observed[original])
        groups.setdefault(group, Group()).arrays[name] = draws
    if unconstrained is not None:
        groups["unconstrained_posterior"] = Group({"z": unconstrained})
    return groups


def values_of(groups: Mapping[str, Group], columns: tuple[str, ...]) -> FloatArray:
    """Return the draws that `to_groups` took, of shape (chains, draws, n)."""
    sizes = groups["sample_stats"].sizes()
    values = np.empty((sizes["chain"], sizes["draw"], len(columns)))
    stored = {
        name: array
        for group in _GROUPS
        if group in groups
        for name, array in groups[group].arrays.items()
    }
    parsed = stanio.parse_header(",".join(columns))
    for name, variable in parsed.items():
        positions = list(variable.columns())
        whole = stored.get(_unclashing(name, parsed))
        if whole is not None:
            values[..., positions] = whole.reshape(*whole.shape[:2], -1, order="F")
        else:
            for position in positions:
                values[..., position] = stored[columns[position]]
    return values


def _numeric_variables(columns: tuple[str, ...], values: FloatArray) -> dict[str, Any]:
    """Variables as real arrays: tuples and complex numbers, which NetCDF lacks, as scalars."""
    variables: dict[str, Any] = {}
    for name, variable in stanio.parse_header(",".join(columns)).items():
        if variable.type is stanio.reshape.VariableType.SCALAR:
            variables[name] = variable.extract_reshape(values)
        else:
            for column in variable.columns():
                variables[columns[column]] = values[..., column]
    return {_unclashing(name, variables): draws for name, draws in variables.items()}


def _unclashing(name: str, variables: Collection[str]) -> str:
    """Return a variable's name in NetCDF, where dimensions have names, too."""
    dimension = name in _DRAW or any(name.startswith(f"{other}_dim_") for other in variables)
    return f"{name}_" if dimension else name
