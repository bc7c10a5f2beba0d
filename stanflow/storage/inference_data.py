"""Draws as ArviZ InferenceData, and back."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import stanio

from stanflow.target.loaded import FloatArray

if TYPE_CHECKING:
    import arviz

LOG_LIKELIHOOD = "log_lik"
_REPLICATED = "_rep"
_GROUPS = ("posterior", "log_likelihood", "posterior_predictive")


def to_inference_data(
    columns: tuple[str, ...],
    values: FloatArray,
    *,
    sample_stats: Mapping[str, npt.NDArray[Any]],
    attributes: Mapping[str, Any],
    data: str,
    unconstrained: FloatArray | None = None,
) -> arviz.InferenceData:
    """Return draws as ArviZ InferenceData.

    The variable ``log_lik`` goes to the group log_likelihood, where `arviz.loo` looks for it;
    variables that replicate data, ``y_rep`` of ``y``, go to posterior_predictive, and these data to
    observed_data; all others to posterior.

    Parameters
    ----------
    columns : tuple of str
        The program's scalars as Stan names them.
    values : array of shape (chains, draws, n)
        Their draws.
    sample_stats : mapping
        Arrays of shape (chains, draws), by name.
    attributes : mapping
        Of the groups posterior and sample_stats.
    data : str
        The program's data as JSON.
    unconstrained : array of shape (chains, draws, D), optional
        Unconstrained parameters, for the group unconstrained_posterior.
    """
    from stanflow.quiet_arviz import arviz

    groups: dict[str, Any] = {"posterior": {}, "sample_stats": dict(sample_stats)}
    observed = json.loads(data) if data.strip() else {}
    for name, draws in _numeric_variables(columns, values).items():
        original = name.removesuffix(_REPLICATED)
        group = "log_likelihood" if name == LOG_LIKELIHOOD else "posterior"
        if original != name and original in observed:
            group = "posterior_predictive"
            groups.setdefault("observed_data", {})[original] = np.asarray(observed[original])
        groups.setdefault(group, {})[name] = draws
    inference_data: Any = arviz.from_dict(
        **groups, posterior_attrs=attributes, sample_stats_attrs=attributes
    )
    if unconstrained is not None:
        inference_data.add_groups(
            unconstrained_posterior=arviz.dict_to_dataset({"z": unconstrained})
        )
    return cast("arviz.InferenceData", inference_data)


def values_of(inference_data: Any, columns: tuple[str, ...]) -> FloatArray:
    """Return the draws that `to_inference_data` took, of shape (chains, draws, n)."""
    sizes = inference_data.sample_stats.sizes
    values = np.empty((sizes["chain"], sizes["draw"], len(columns)))
    stored = {
        name: array.values
        for group in _GROUPS
        if group in inference_data
        for name, array in inference_data[group].data_vars.items()
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
    dimension = name in ("chain", "draw") or any(
        name.startswith(f"{other}_dim_") for other in variables
    )
    return f"{name}_" if dimension else name
