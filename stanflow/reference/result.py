"""NutsFit: what a NUTS run gives back, whichever engine ran it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from stanflow.arrays import FloatArray
from stanflow.reference.diagnostics import Convergence, convergence
from stanflow.reference.folder import groups_of, read, save
from stanflow.stan.variables import StanVariables, bracketed
from stanflow.statistics.summary import Summary, summarize

_ORDER = ["Mean", "MCSE", "StdDev", "5%", "50%", "95%", "ESS_bulk", "ESS_tail", "R_hat"]
_ENGINES = {
    "cmdstan": "CmdStan",
    "native": "the native engine",
    "embedded": "the embedded engine",
    "flow": "the base space of a flow",
}


@dataclass(frozen=True)
class NutsFit(StanVariables):
    """Draws of a program's posterior by NUTS.

    Names follow cmdstanpy's.

    Attributes
    ----------
    report : mapping
        What ``stanflow nuts --json`` prints, plus settings, versions, seeds and hashes.
    columns : tuple of str
        The program's scalars as Stan names them: ``mu``, ``theta.1``.
    values : array of shape (chains, draws, n)
        Draws of those scalars, after warmup.
    statistics : mapping
        What the sampler says of each draw, arrays of shape (chains, draws) by Stan's names:
        ``lp__``, ``accept_stat__``, ``stepsize__``, ``treedepth__``, ``n_leapfrog__``,
        ``divergent__``, ``energy__``.
    program, data : str
        The Stan program, includes expanded, and its data as JSON.
    """

    report: Mapping[str, Any]
    columns: tuple[str, ...]
    values: FloatArray
    statistics: Mapping[str, FloatArray]
    program: str
    data: str

    def __repr__(self) -> str:
        chains, draws, _ = self.values.shape
        return (
            f"NutsFit({self.report['model']!r}, chains={chains}, draws={draws}, "
            f"engine={self.report['engine']!r})"
        )

    @property
    def chains(self) -> int:
        """Number of chains."""
        return len(self.values)

    @property
    def divergences(self) -> npt.NDArray[np.int64]:
        """Divergent transitions after warmup, one number a chain."""
        counts: npt.NDArray[np.int64] = self.statistics["divergent__"].sum(axis=1, dtype=np.int64)
        return counts

    @property
    def max_treedepth_hits(self) -> npt.NDArray[np.int64]:
        """Transitions after warmup that ended at the largest treedepth, one number a chain."""
        at_limit = self.statistics["treedepth__"] >= self.report["max_treedepth"]
        counts: npt.NDArray[np.int64] = at_limit.sum(axis=1, dtype=np.int64)
        return counts

    @property
    @override
    def pooled(self) -> FloatArray:
        return self.values.reshape(-1, self.values.shape[-1])

    @override
    def method_variables(self) -> dict[str, FloatArray]:
        """Return what the sampler says of each draw, by Stan's names, (chains, draws)."""
        return dict(self.statistics)

    def draws(self, *, concat_chains: bool = False) -> FloatArray:
        """Return all draws after warmup; the columns are `column_names`.

        Parameters
        ----------
        concat_chains : bool
            Put chains one after another.

        Returns
        -------
        array of shape (draws, chains, columns), or (chains * draws, columns)
        """
        by_chain = np.concatenate([np.stack([*self.statistics.values()], -1), self.values], -1)
        if concat_chains:
            return by_chain.reshape(-1, by_chain.shape[-1])
        return np.swapaxes(by_chain, 0, 1)

    @cached_property
    def convergence(self) -> Convergence:
        """R-hat and effective sample sizes of every scalar."""
        return convergence(self.values)

    def summary(self) -> Summary:
        """Return mean, sd, quantiles, MCSE, ESS and R-hat of every scalar, and what is wrong.

        The result prints itself; its attribute ``table`` is a DataFrame.
        """
        report = self.report
        heading = (
            f"{report['model']}: {report['chains']} chains of {report['draws']} draws by NUTS in "
            f"{_ENGINES[report['engine']]}\n"
            f"{report['dim']} parameters, {report['warmup']} warmup iterations a chain, "
            f"{report['seconds']:.1f} s, {report['engine_version']}"
        )
        names = [bracketed(column) for column in self.columns]
        columns = summarize(self.pooled) | self.convergence.columns
        return Summary(
            heading,
            tuple(names),
            {name: columns[name] for name in _ORDER},
            tuple(report["warnings"] or [_NOTHING_WRONG]),
        )

    def to_arviz(self) -> Any:
        """Return the draws as the installed ArviZ's inference data.

        That is an ``arviz.InferenceData``, and from ArviZ 1.0 on an ``xarray.DataTree``, with the
        groups posterior, sample_stats, and further ones: the variable ``log_lik`` goes to
        log_likelihood, and ``y_rep`` to posterior_predictive.
        """
        from stanflow.runs.arviz_data import to_arviz

        return to_arviz(groups_of(self))

    def save(self, folder: str | PathLike[str], *, force: bool = False) -> Path:
        """Write the run to a folder; `stanflow.load_nuts` reads it back.

        Parameters
        ----------
        folder : path
            Made by this call. It appears whole or not at all.
        force : bool
            Replace a NUTS run that is there already.

        Raises
        ------
        UsageError
            The folder holds something, or cannot be written.
        """
        return save(self, folder, force=force)


def load_nuts(folder: str | PathLike[str]) -> NutsFit:
    """Read a NUTS run written by `NutsFit.save` or ``stanflow nuts``.

    Parameters
    ----------
    folder : path
        The run's folder.

    Raises
    ------
    UsageError
        The folder does not hold a whole NUTS run.
    """
    return NutsFit(**read(folder))


_NOTHING_WRONG = "no divergences, every R-hat at most 1.01, and effective sample sizes suffice"
