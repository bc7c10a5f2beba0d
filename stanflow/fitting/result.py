"""Fit: what a run gives back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.errors import UsageError
from stanflow.fitting.assessment import DrawPlan, assess, estimate
from stanflow.fitting.findings import findings
from stanflow.fitting.fit_report import FitReport
from stanflow.fitting.folder import groups_of, read, save
from stanflow.fitting.trace import Trace
from stanflow.flow.config import FAMILY_NAMES
from stanflow.flow.realnvp import Flow
from stanflow.stan.agreement import second_engine
from stanflow.stan.density import CountingTarget
from stanflow.stan.model import StanModel
from stanflow.stan.variables import StanVariables, bracketed
from stanflow.statistics.summary import Summary, summarize

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Fit(StanVariables):
    """A trained flow with its draws.

    Names follow cmdstanpy where both have a word. Draws are independent, so there is one chain
    and no autocorrelation.

    Attributes
    ----------
    report : FitReport
        What ``stanflow fit --json`` prints, plus configuration, versions, seeds and hashes.
    columns : tuple of str
        The program's scalars as Stan names them: ``mu``, ``theta.1``.
    values : array of shape (S, n)
        Draws of those scalars.
    z : array of shape (S, D)
        The same draws on unconstrained space.
    log_p, log_q : array of shape (S,)
        Log density of each draw under the program (Stan's ``lp__``, dropped constants left out)
        and under the flow, both of the unconstrained parameters.
    log_weights : array of shape (S,)
        Pareto-smoothed log importance weights; their exponentials add up to one. All the same where
        the draws were moved to the posterior (`refined`).
    flow : Flow
        The trained flow, in float64.
    steps : mapping of str to array of shape (steps,)
        What is known of each training step; `trace` is the same as a table.
    program, data : str
        The Stan program, includes expanded, and its data as JSON.
    """

    report: FitReport
    columns: tuple[str, ...]
    values: FloatArray
    z: FloatArray
    log_p: FloatArray
    log_q: FloatArray
    log_weights: FloatArray
    flow: Flow
    steps: Trace
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
    def log_evidence(self) -> float:
        """Log evidence in nats, see `normalized`: by importance sampling, or by refining."""
        return float(self.report["log_evidence"])

    @property
    def log_evidence_se(self) -> float:
        """Monte Carlo standard error of the log evidence."""
        return float(self.report["log_evidence_se"])

    @property
    def refined(self) -> bool:
        """Whether the draws were moved from the flow to the posterior, by annealing."""
        return bool(self.report.get("refined"))

    @property
    def pareto_k(self) -> float:
        """Pareto k-hat of the importance weights; NaN where there are too few draws to tell."""
        k = self.report["pareto_k"]
        return float("nan") if k is None else float(k)

    @property
    def verdict(self) -> str:
        """Whether to believe the fit: ``good``, ``usable`` (with weights) or ``unreliable``."""
        return str(self.report["verdict"])

    @property
    def weights(self) -> FloatArray:
        """Pareto-smoothed importance weights of the draws, (S,), which add up to one."""
        return np.exp(self.log_weights)

    @property
    def normalized(self) -> bool:
        """Whether the ELBO includes the constants that Stan's ``~`` statements drop."""
        return bool(self.report["normalized"])

    @cached_property
    def trace(self) -> pd.DataFrame:
        """One row a training step: step, seconds, elbo, gradient_norm, rejected, largest."""
        import pandas as pd

        whole = {"step": np.int64, "rejected": np.int64}
        return pd.DataFrame(dict(self.steps)).astype(whole)

    @property
    @override
    def pooled(self) -> FloatArray:
        return self.values

    def draws(self) -> FloatArray:
        """Return all draws, of shape (S, columns): the columns are `column_names`."""
        return np.column_stack([self.log_q, self.log_p, self.values])

    @override
    def method_variables(self) -> dict[str, FloatArray]:
        """Return ``lp__`` and ``lp_approx__``, the program's and the flow's log density."""
        return {"lp_approx__": self.log_q, "lp__": self.log_p}

    def summary(self, *, weighted: bool = False) -> Summary:
        """Return mean, sd and quantiles of every scalar, and what the fit found.

        The result prints itself; its attribute ``table`` is a DataFrame.

        Parameters
        ----------
        weighted : bool
            Use the importance weights.
        """
        report = self.report
        how = ", importance-weighted" if weighted and not self.refined else ""
        how += ", annealed to the posterior" if self.refined else ""
        heading = (
            f"{report['model']}: {len(self.values)} draws by "
            f"{FAMILY_NAMES[report['family']]}{how}\n"
            f"{report['dim']} parameters, {report['steps']} steps in {report['seconds']:.1f} s, "
            f"{', '.join(filter(None, [report['engine_version'], second_engine(report)]))}"
        )
        names = [bracketed(column) for column in self.columns]
        columns = summarize(self.values, self.weights if weighted else None)
        return Summary(heading, tuple(names), columns, tuple(findings(self)))

    def log_prob(self, points: npt.ArrayLike) -> FloatArray:
        """Return the flow's log density at unconstrained points; no Stan engine is needed.

        Parameters
        ----------
        points : array of shape (n, D) or (D,)
            In the order of `StanModel.unconstrained_names`; `z` holds the fit's own draws.

        Returns
        -------
        array of shape (n,), or a number for one point
            Normalised, Jacobian of the constraining transform not included: the density is that
            of the unconstrained parameters. -infinity beyond the flow's reach.

        Raises
        ------
        UsageError
            The points have another dimension.
        """
        rows = np.atleast_2d(np.asarray(points, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != self.flow.dim:
            raise UsageError(
                f"points must have {self.flow.dim} unconstrained parameters each, but their shape "
                f"is {np.shape(points)}"
            )
        with torch.no_grad():
            log_prob = self.flow.log_prob(torch.from_numpy(np.ascontiguousarray(rows))).numpy()
        return np.asarray(log_prob if np.ndim(points) > 1 else log_prob[0])

    def resampled(self, n: int | None = None, *, seed: int = 1) -> Fit:
        """Return a fit whose draws are chosen from this one's by their importance weights.

        With replacement, so they are draws of the posterior as far as the weights can be trusted
        (see `pareto_k`), each of weight one, some of them repeated. The report is this fit's.

        Parameters
        ----------
        n : int, optional
            Draws wanted; as many as there are by default.
        seed : int
            For the choice.
        """
        size = len(self.values) if n is None else n
        if size < 1:
            raise UsageError(f"n must be at least 1, not {size}")
        rng = np.random.default_rng(seed)
        rows = rng.permutation(_systematic_choice(self.weights, size, rng))
        return replace(
            self,
            report={**self.report, "resampled": True},
            values=self.values[rows],
            z=self.z[rows],
            log_p=self.log_p[rows],
            log_q=self.log_q[rows],
            log_weights=np.full(size, -np.log(size)),
        )

    def sample(self, n: int, *, seed: int = 1, model: StanModel | None = None) -> Fit:
        """Return a fit with n new draws of the same flow, and estimates and verdict from them.

        They are the flow's own, not refined ones.

        Parameters
        ----------
        n : int
            Draws wanted.
        seed : int
            For the draws; another one than the fit's gives other draws.
        model : StanModel, optional
            What was fitted; by default it is made anew from the program and data that the fit
            holds, by the engine that was used.

        Raises
        ------
        EngineError
            That engine is not here.
        UsageError
            `n` is out of range, or the model is another one.
        """
        report = self.report
        known = (report["program_sha256"], report["data_sha256"])
        if model is None:
            model = StanModel(
                stan_code=self.program,
                data=self.data,
                engine=report["engine"],
                seed=report["model_seed"],
            )
        elif (model.program.hash, model.data.hash) != known:
            raise UsageError(f"the fit is of {report['model']} with other data or another program")
        target = CountingTarget(
            model, report["gradient_evaluations"], report.get("density_evaluations", 0)
        )
        seeds = np.random.SeedSequence([seed, n]).generate_state(6)
        plan = DrawPlan(n, n, n, *map(int, seeds))
        estimates = estimate(self.flow, model, plan, target)
        assessment = assess(
            self.flow,
            model,
            estimates,
            plan,
            target=target,
            trace=self.steps,
            breakdown=report.get("breakdown", ""),
        )
        anew: FitReport = {
            **report,
            **assessment.report,
            "gradient_evaluations": target.gradients,
            "density_evaluations": target.densities,
            "out": None,
            "resampled": False,
        }
        return replace(
            self,
            report=anew,
            **assessment.arrays(),
        )

    def to_arviz(self) -> Any:
        """Return the draws as the installed ArviZ's inference data, one chain.

        That is an ``arviz.InferenceData``, and from ArviZ 1.0 on an ``xarray.DataTree``.

        The groups are posterior, sample_stats (lp, log_q, log_weight), unconstrained_posterior (z)
        and, where the program has such variables, log_likelihood (log_lik), posterior_predictive
        (y_rep, say) and observed_data (y).
        """
        from stanflow.runs.arviz_data import to_arviz

        return to_arviz(groups_of(self))

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
        return save(self, folder, force=force)

    def save_csvfiles(self, dir: str | PathLike[str]) -> list[Path]:  # noqa: A002
        """Write the draws as a Stan CSV file, ``MODEL.csv``, to a folder.

        Parameters
        ----------
        dir : path
            Made if need be.

        Raises
        ------
        UsageError
            It cannot be written.
        """
        from stanflow.fitting.stan_csv import save_csvfiles

        return save_csvfiles(self, dir)

    def save_report(self, path: str | PathLike[str]) -> Path:
        """Write the fit as one HTML file that needs nothing else; return its path, absolute.

        It has the verdict, the estimates, what was run, figures and the table of scalars, plain
        and importance-weighted.

        Parameters
        ----------
        path : path
            The file, ``.html``. Its folder is made where it is missing; an earlier file is
            replaced when the new one is whole.

        Raises
        ------
        UsageError
            It cannot be written.
        """
        from stanflow.report.fit import render
        from stanflow.report.page import write_page

        return write_page(render(self), Path(path))

    def _repr_html_(self) -> str:
        from stanflow.fitting.notebook import to_html

        return to_html(self)


def _systematic_choice(
    weights: FloatArray, n: int, rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Choose n indices by weight, at evenly spaced points of the cumulative sum."""
    points = (rng.uniform() + np.arange(n)) / n
    cumulative = np.cumsum(weights)
    return np.minimum(np.searchsorted(cumulative / cumulative[-1], points), len(weights) - 1)


def load(folder: str | PathLike[str]) -> Fit:
    """Read a fit written by `Fit.save` or ``stanflow fit``.

    Parameters
    ----------
    folder : path
        The fit's folder.

    Raises
    ------
    UsageError
        The folder does not hold a whole fit.
    """
    return Fit(**read(folder))
