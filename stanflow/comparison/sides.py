"""The two sides of a comparison: their draws of the scalars that both have."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stanflow.arrays import FloatArray
from stanflow.comparison.montecarlo import Estimates, from_chains, from_independent
from stanflow.errors import UsageError
from stanflow.fitting.result import Fit
from stanflow.reference.result import NutsFit
from stanflow.stan.declarations import find_blocks, parse_declarations
from stanflow.stan.program import StanProgram
from stanflow.stan.variables import bracketed
from stanflow.statistics.importance_weights import normalized

_FEWEST_DRAWS = 4
_RELATIVE_ROUNDING = 1e-12
_INDEPENDENT = 0.9  # effective draws a draw


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes
    ----------
    run : Fit or NutsFit
    label : str
        What to call it: ``"flow"``, ``"NUTS"``; ``"first flow"``, ``"reference NUTS run"``, ...
        where both sides are of a kind.
    values : array of shape (chains, draws, n)
        Draws of the scalars compared; one chain for a flow.
    weights : array of shape (draws,), optional
        Importance weights, which add up to one; a flow's.
    """

    run: Fit | NutsFit
    label: str
    values: FloatArray
    weights: FloatArray | None

    @property
    def in_sentences(self) -> str:
        """The label with its article, which NUTS has none of."""
        return self.label if self.label == "NUTS" else f"the {self.label}"

    @property
    def short_label(self) -> str:
        """The label's first word, for the heads of tables."""
        return self.label.split(maxsplit=1)[0]

    @property
    def pooled(self) -> FloatArray:
        """Draws, chains one after another, of shape (S, n)."""
        return self.values.reshape(-1, self.values.shape[-1])

    def estimates(self) -> Estimates:
        """Return means, sds and quantiles with their Monte Carlo errors."""
        if isinstance(self.run, NutsFit):
            return from_chains(self.values)
        return from_independent(self.values[0])

    def weighted_estimates(self) -> Estimates | None:
        """Return the same of importance-weighted draws."""
        return None if self.weights is None else from_independent(self.values[0], self.weights)

    def thinned(self, ess: FloatArray, most: int) -> FloatArray:
        """Return draws far enough apart to be about independent, of shape (N, n).

        A flow's draws are independent. Of Markov chains, evenly spaced draws are kept, half as
        many as the scalar is worth that mixes worst: at that number itself neighbours are still
        correlated (0.13 in an autoregression of 0.9, and tests reject twice too often).

        Parameters
        ----------
        ess : array
            Effective sample sizes of means and sds.
        most : int
            Draws wanted at most.
        """
        chains, draws, _ = self.values.shape
        keep = float(min(most, chains * draws))
        worth = float(np.nanmin(ess))
        if isinstance(self.run, NutsFit) and worth < _INDEPENDENT * chains * draws:
            keep = min(keep, worth / 2)
        per_chain = int(np.clip(keep // chains, 2, draws))
        chosen = np.linspace(0, draws - 1, per_chain).round().astype(int)
        return self.values[:, chosen].reshape(-1, self.values.shape[-1])


@dataclass(frozen=True)
class Sides:
    """Both sides, with draws of the same n scalars.

    Attributes
    ----------
    first, reference : Side
    names : tuple of str
        The scalars, as cmdstanpy names them.
    is_parameter : tuple of bool
        Which of them are of the program's parameters block.
    left_out : mapping
        From the scalars that are not compared to the reason.
    constants : mapping
        Of those, the ones that are constant on just one side: the label of that side, the value,
        and the share of the other side's draws that have it.
    """

    first: Side
    reference: Side
    names: tuple[str, ...]
    is_parameter: tuple[bool, ...]
    left_out: Mapping[str, str]
    constants: Mapping[str, tuple[str, float, float]]

    @property
    def joint(self) -> list[int]:
        """Positions of the scalars whose joint distribution is compared: the parameters."""
        parameters = [j for j, is_parameter in enumerate(self.is_parameter) if is_parameter]
        return parameters or list(range(len(self.names)))

    def only(self, known: npt.NDArray[np.bool_]) -> Sides:
        """Leave out the scalars for which no Monte Carlo error is known."""
        unknown = [name for name, is_known in zip(self.names, known, strict=True) if not is_known]
        reason = "its Monte Carlo error cannot be told from these draws"
        return replace(
            self,
            first=replace(self.first, values=self.first.values[..., known]),
            reference=replace(self.reference, values=self.reference.values[..., known]),
            names=tuple(np.array(self.names)[known].tolist()),
            is_parameter=tuple(np.array(self.is_parameter)[known].tolist()),
            left_out={**self.left_out, **dict.fromkeys(unknown, reason)},
        )


def same_posterior(first: Fit | NutsFit, reference: Fit | NutsFit) -> None:
    """Check that two runs are of one program and one set of data.

    Raises
    ------
    UsageError
        They are not, or one of them is no run at all.
    """
    for run, which in ((first, "first"), (reference, "second")):
        if not isinstance(run, Fit | NutsFit):
            raise UsageError(
                f"the {which} argument of compare is a {type(run).__name__}; give what "
                "stanflow.fit or stanflow.nuts returned"
            )
    for what, key in (("programs", "program_sha256"), ("data", "data_sha256")):
        ours, theirs = hash_of(first, key), hash_of(reference, key)
        if ours != theirs:
            raise UsageError(
                f"these runs are of different {what} ({first.report['model']}: SHA-256 "
                f"{ours[:12]}..., {reference.report['model']}: {theirs[:12]}...), so their draws "
                "cannot be compared; run both on the same program and data"
            )
    sources = _source_of_random_data(first), _source_of_random_data(reference)
    if sources[0] != sources[1] and StanProgram.from_string(first.program).draws_data:
        raise UsageError(
            "the program draws random numbers in its transformed data block, so these runs have "
            f"different data ({' and '.join(sources)}) and cannot be compared; run both with one "
            "seed and one engine"
        )


def _source_of_random_data(run: Fit | NutsFit) -> str:
    """Name the seed and the engine of a run's transformed data block."""
    report: Mapping[str, Any] = run.report
    seed = report.get("model_seed", report.get("seed"))
    return f"seed {seed} of the {report.get('model_engine', report.get('engine'))} engine"


def align(first: Fit | NutsFit, reference: Fit | NutsFit) -> Sides:
    """Find the scalars that both sides have and that can be compared.

    Left out are scalars that only one side has, that are not finite in some draw, or that are
    constant on a side.

    Raises
    ------
    UsageError
        There is no scalar to compare, or a side has hardly any draws.
    """
    labels = _label(first), _label(reference)
    if labels[0] == labels[1]:
        what = "NUTS run" if labels[0] == "NUTS" else "flow"
        labels = f"first {what}", f"reference {what}"
    chains, reference_chains = _chains(first), _chains(reference)
    for label, values in zip(labels, (chains, reference_chains), strict=True):
        if values.shape[1] < _FEWEST_DRAWS:
            raise UsageError(
                f"{label}: {values.shape[1]} draws a chain are too few to compare; take at least "
                f"{_FEWEST_DRAWS}"
            )
    ours = {column: j for j, column in enumerate(first.columns)}
    theirs = {column: j for j, column in enumerate(reference.columns)}
    left_out = {
        bracketed(column): f"only {label} has it"
        for mine, others, label in ((ours, theirs, labels[0]), (theirs, ours, labels[1]))
        for column in mine
        if column not in others
    }
    constants: dict[str, tuple[str, float, float]] = {}
    compared = []
    for column in (column for column in first.columns if column in theirs):
        pair = chains[..., ours[column]], reference_chains[..., theirs[column]]
        reason = _not_finite(pair, labels)
        if reason is None:
            constant = [_is_constant(values) for values in pair]
            if any(constant):
                reason = _constant(pair, labels, constant)
            if constant[0] != constant[1]:
                stuck = constant.index(True)
                value = float(pair[stuck].flat[0])
                share = float(np.mean(pair[1 - stuck] == value))
                constants[bracketed(column)] = (labels[stuck], value, share)
        if reason is None:
            compared.append(column)
        else:
            left_out[bracketed(column)] = reason
    if not compared:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:3])
        raise UsageError(f"these runs have no scalar that can be compared ({reasons})")
    parameters = _parameters(first.program)
    return Sides(
        Side(first, labels[0], chains[..., [ours[c] for c in compared]], _weights(first)),
        Side(
            reference,
            labels[1],
            reference_chains[..., [theirs[c] for c in compared]],
            _weights(reference),
        ),
        tuple(map(bracketed, compared)),
        tuple(variable_of(column) in parameters for column in compared),
        left_out,
        constants,
    )


def variable_of(column: str) -> str:
    """Return the variable that a column belongs to.

    Examples
    --------
    >>> variable_of("theta.2.1"), variable_of("pair:1.3"), variable_of("z.real")
    ('theta', 'pair', 'z')
    """
    return re.split(r"[.:]", column, maxsplit=1)[0]


def _parameters(program: str) -> frozenset[str]:
    """Return the names that the program's parameters block declares."""
    block = find_blocks(program).get("parameters", "")
    return frozenset(declaration.name for declaration in parse_declarations(block))


def _label(run: Fit | NutsFit) -> str:
    return "NUTS" if isinstance(run, NutsFit) else "flow"


def _chains(run: Fit | NutsFit) -> FloatArray:
    values = np.asarray(run.values, dtype=np.float64)
    return values if isinstance(run, NutsFit) else values[None]


def _weights(run: Fit | NutsFit) -> FloatArray | None:
    if isinstance(run, NutsFit) or run.log_weights is None or np.isnan(run.log_weights).any():
        return None
    return np.asarray(np.exp(normalized(run.log_weights)))


def hash_of(run: Fit | NutsFit, key: str) -> str:
    """Return the SHA-256 of a run's program or data, by its key in the report."""
    text: dict[str, Any] = {"program_sha256": run.program, "data_sha256": run.data}
    return str(run.report.get(key) or hashlib.sha256(text[key].encode()).hexdigest())


def _not_finite(pair: tuple[FloatArray, FloatArray], labels: tuple[str, str]) -> str | None:
    for values, label in zip(pair, labels, strict=True):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            return f"not finite in {bad} of {values.size} draws of {label}"
    return None


def _is_constant(values: FloatArray) -> bool:
    """Whether draws differ by no more than rounding, as on the diagonal of a correlation matrix."""
    return bool(np.ptp(values) <= _RELATIVE_ROUNDING * np.abs(values).max())


def _constant(
    pair: tuple[FloatArray, FloatArray], labels: tuple[str, str], constant: list[bool]
) -> str:
    if all(constant):
        ours, theirs = float(pair[0].flat[0]), float(pair[1].flat[0])
        if np.isclose(ours, theirs, rtol=_RELATIVE_ROUNDING, atol=0):
            return f"constant, {ours:.6g}"
        return f"constant on both sides, {ours:.6g} and {theirs:.6g}"
    stuck = constant.index(True)
    return (
        f"constant ({float(pair[stuck].flat[0]):.6g}) in {labels[stuck]}, but not on the other side"
    )


def describe_side(side: Mapping[str, Any]) -> str:
    """Say what made a side's draws: kind, engine, numbers of draws, seed."""
    if side["kind"] == "nuts":
        what = f"{side['label']} ({side['chains']} chains of {side['draws']} draws"
    else:
        family = side.get("family", "flow")
        what = f"{side['label']} ({family}, {side['draws']} draws"
    engine = side.get("engine_version") or side.get("engine")
    by = f", {engine}" if engine else ""
    seed = f", seed {side['seed']}" if "seed" in side else ""
    return f"{what}{by}{seed})"
