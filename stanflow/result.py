"""Fit: what a run gives back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import stanio

from stanflow.errors import UsageError
from stanflow.flow.realnvp import Flow
from stanflow.summary import FitSummary, summarize
from stanflow.target.loaded import FloatArray

if TYPE_CHECKING:
    from os import PathLike
    from pathlib import Path

    import arviz

_METHOD_COLUMNS = ("lp_approx__", "lp__")


@dataclass(frozen=True)
class Fit:
    """A trained flow with its draws.

    Names follow cmdstanpy where both have a word. Draws are independent, so there is one chain
    and no autocorrelation.

    Attributes
    ----------
    report : mapping
        What ``stanflow fit --json`` prints, plus configuration, versions, seeds and hashes.
    columns : tuple of str
        The program's scalars as Stan names them: ``mu``, ``theta.1``.
    values : array of shape (S, n)
        Draws of those scalars.
    log_p, log_q : array of shape (S,)
        Log density of each draw under the program (Stan's ``lp__``, dropped constants left out)
        and under the flow, both of the unconstrained parameters.
    flow : Flow
        The trained flow, in float64.
    trace : pandas.DataFrame
        One row a training step: step, seconds, elbo, gradient_norm, rejected.
    program, data : str
        The Stan program, includes expanded, and its data as JSON.
    """

    report: Mapping[str, Any]
    columns: tuple[str, ...]
    values: FloatArray
    log_p: FloatArray
    log_q: FloatArray
    flow: Flow
    trace: pd.DataFrame
    program: str
    data: str

    def __repr__(self) -> str:
        return (
            f"Fit({self.report['model']!r}, dim={self.report['dim']}, draws={len(self.values)}, "
            f"elbo={self.elbo:.2f})"
        )

    @property
    def elbo(self) -> float:
        """Evidence lower bound in nats; `normalized` says whether Stan's constants are in it."""
        return float(self.report["elbo"])

    @property
    def elbo_se(self) -> float:
        """Monte Carlo standard error of the ELBO."""
        return float(self.report["elbo_se"])

    @property
    def normalized(self) -> bool:
        """Whether the ELBO includes the constants that Stan's ``~`` statements drop."""
        return bool(self.report["normalized"])

    @property
    def column_names(self) -> tuple[str, ...]:
        """Columns of `draws`: ``lp_approx__``, ``lp__``, then ``mu``, ``theta[1]``, ..."""
        return (*_METHOD_COLUMNS, *map(bracketed, self.columns))

    def draws(self) -> FloatArray:
        """Return all draws, of shape (S, columns): the columns are `column_names`."""
        return np.column_stack([self.log_q, self.log_p, self.values])

    def draws_pd(self, vars: Sequence[str] | str | None = None) -> pd.DataFrame:  # noqa: A002
        """Return draws as a table, one row a draw.

        Parameters
        ----------
        vars : str or list of str, optional
            Variables or columns to keep (``"theta"``, ``"theta[1]"``); all by default.
        """
        table = pd.DataFrame(self.draws(), columns=list(self.column_names))
        if vars is None:
            return table
        wanted = [vars] if isinstance(vars, str) else list(vars)
        kept: list[str] = []
        for name in wanted:
            found = [c for c in table.columns if name in (c, re.split(r"[\[.:]", c)[0])]
            if not found:
                raise self._unknown(name)
            kept += found
        return table[kept]

    def stan_variable(self, var: str) -> npt.NDArray[Any]:
        """Return one variable's draws, of shape (S, *shape of the variable)."""
        parsed = self._parsed()
        if var not in parsed:
            raise self._unknown(var)
        return np.asarray(parsed[var].extract_reshape(self.values))

    def stan_variables(self) -> dict[str, npt.NDArray[Any]]:
        """Return every variable's draws, by name."""
        return {
            name: np.asarray(variable.extract_reshape(self.values))
            for name, variable in self._parsed().items()
        }

    def method_variables(self) -> dict[str, FloatArray]:
        """Return ``lp__`` and ``lp_approx__``, the program's and the flow's log density."""
        return {"lp_approx__": self.log_q, "lp__": self.log_p}

    def summary(self) -> FitSummary:
        """Return mean, sd and quantiles of every scalar, and what the fit found.

        The result prints itself; its attribute ``table`` is a DataFrame.
        """
        report = self.report
        heading = (
            f"{report['model']}: {len(self.values)} draws by {_FAMILIES[report['family']]}\n"
            f"{report['dim']} parameters, {report['steps']} steps in {report['seconds']:.1f} s, "
            f"{report['engine_version']}"
        )
        table = summarize([bracketed(column) for column in self.columns], self.values)
        return FitSummary(heading, table, tuple(self._findings()))

    def to_arviz(self) -> arviz.InferenceData:
        """Return the draws as ArviZ InferenceData: posterior and sample_stats (lp, log_q)."""
        from stanflow.folder import to_inference_data

        return to_inference_data(self)

    def save(self, folder: str | PathLike[str], *, force: bool = False) -> Path:
        """Write the fit to a folder; `stanflow.load` reads it back.

        Parameters
        ----------
        folder : path
            Made by this call. It appears whole or not at all.
        force : bool
            Replace a fit that is there already.

        Raises
        ------
        UsageError
            The folder holds something, or cannot be written.
        """
        from stanflow.folder import save

        return save(self, folder, force=force)

    def _findings(self) -> list[str]:
        report = self.report
        constants = (
            "Stan's constants included"
            if self.normalized
            else "WITHOUT Stan's dropped constants, so not comparable between programs: "
            + report["normalizing_constant"]["reason"]
        )
        lines = [f"ELBO {self.elbo:.3f} (se {self.elbo_se:.3f}), {constants}"]
        if report["rejected_draws"]:
            lines.append(
                f"{report['rejected_draws']} draws were rejected: the program has no finite log "
                "density there"
            )
        if report["failed_generated_quantities"]:
            lines.append(
                f"generated quantities failed for {report['failed_generated_quantities']} draws, "
                "which have NaN there and are left out of the table"
            )
        if report["skipped_steps"]:
            lines.append(f"{report['skipped_steps']} training steps had no finite gradient")
        if report["stopped"] != "max_steps":
            lines.append(f"training was cut short ({report['stopped']}) at step {report['steps']}")
        if report["verdict"] is None:
            lines.append("no verdict: this version does not judge its fits, so compare with NUTS")
        return lines

    def _parsed(self) -> dict[str, Any]:
        return dict(stanio.parse_header(",".join(self.columns)))

    def _unknown(self, name: str) -> UsageError:
        variables = ", ".join(list(self._parsed())[:10])
        return UsageError(f"the program has no variable {name!r}; it has {variables}")


_FAMILIES = {
    "realnvp": "Real NVP",
    "fullrank": "a full-rank affine flow",
    "meanfield": "a mean-field flow",
}


def bracketed(column: str) -> str:
    """Return Stan's column name in cmdstanpy's form.

    Examples
    --------
    >>> bracketed("theta.2.1")
    'theta[2,1]'
    >>> bracketed("mu")
    'mu'
    """
    name, *indices = column.split(".")
    if not indices or not all(re.fullmatch(r"\d+", index) for index in indices):
        return column
    return f"{name}[{','.join(indices)}]"
