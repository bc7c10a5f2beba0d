"""NUTS through a flow: on the posterior of base points, mapped back to draws of the program.

In the base space of a trained flow the posterior is nearly the flow's base, whatever it looks like
in the program's parameters, so Hamiltonian trajectories have an easy time there. What the flow
lacks costs time, not correctness: the posterior is what the chains leave unchanged. Parno, Marzouk
2018, "Transport map accelerated Markov chain Monte Carlo", SIAM/ASA JUQ 6 (arXiv 1412.5492);
Hoffman et al. 2019, "NeuTra-lizing bad geometry in Hamiltonian Monte Carlo using neural transport"
(arXiv 1903.03704).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

import stanflow
from stanflow.arrays import FloatArray
from stanflow.errors import UsageError
from stanflow.flow.realnvp import Flow
from stanflow.reference.flow_starts import check_same_posterior, draws_to_try
from stanflow.reference.progress import NutsProgress
from stanflow.reference.run import STATISTICS, NutsRun, NutsSettings
from stanflow.sampling.nuts import sample
from stanflow.sampling.pullback import PulledBack, images
from stanflow.stan.density import Density
from stanflow.stan.model import StanModel
from stanflow.training.threads import threads_that_pay

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit

_ERROR = 1e-6  # of a draw that was taken to base space and back


def run_through(
    model: StanModel, settings: NutsSettings, fit: Fit, progress: NutsProgress | None
) -> NutsRun:
    """Run NUTS in the base space of a fit's flow.

    Each chain starts at the base point of a draw of its own, chosen by weight. ``lp__`` is the
    program's log density at the draw, as ever; ``energy__`` is the Hamiltonian of base space.

    Parameters
    ----------
    model : StanModel
        The program and its data.
    settings : NutsSettings
        How NUTS is run.
    fit : Fit
        Of the same program and data.
    progress : NutsProgress, optional
        Told of iterations.

    Raises
    ------
    UsageError
        The fit is of another program or other data, or too few of its draws can start a chain.
    """
    check_same_posterior(fit, model, "through")
    pulled_back = PulledBack(fit.flow, model, torch.float64)
    starts = base_starts(fit, pulled_back, chains=settings.chains, seed=settings.seed)
    with threads_that_pay(starts.size):
        run = sample(
            pulled_back,
            starts,
            seed=settings.seed,
            warmup=settings.warmup,
            draws=settings.draws,
            adapt_delta=settings.adapt_delta,
            max_treedepth=settings.max_treedepth,
            told=(lambda chain, iteration: None) if progress is None else progress.show,
        )
    e = np.ascontiguousarray(run.positions[:, settings.warmup :]).reshape(-1, model.dim)
    z, _ = images(fit.flow, e)
    shape = (settings.chains, settings.draws)
    in_warmup, after = np.split(run.statistics, [settings.warmup], axis=1)
    statistics = {name: after[..., i].copy() for i, name in enumerate(STATISTICS)}
    return NutsRun(
        engine_version=f"StanFlow {stanflow.__version__}, {model.engine_version}",
        values=model.constrain(z, seed=settings.seed).values.reshape(*shape, -1),
        statistics=statistics | {"lp__": model.log_density(z).reshape(shape)},
        warmup_gradient_evaluations=int(in_warmup[..., STATISTICS.index("n_leapfrog__")].sum()),
    )


def base_starts(fit: Fit, pulled_back: Density, *, chains: int, seed: int) -> FloatArray:
    """Return base points of a fit's draws, chosen by weight, (chains, D).

    Parameters
    ----------
    fit : Fit
        Of the posterior.
    pulled_back : Density
        The posterior of base points, finite where a chain can start.
    chains : int
        Starting points to choose.
    seed : int
        For the choice.

    Raises
    ------
    UsageError
        Too few of the fit's draws have a base point where a chain can start.
    """
    starts: list[FloatArray] = []
    for row in draws_to_try(fit, seed):
        if len(starts) == chains:
            break
        e = _base_point(fit.flow, fit.z[row])
        if e is not None and pulled_back.log_density_gradient(e[None]).accepted[0]:
            starts.append(e)
    if len(starts) < chains:
        raise UsageError(
            f"only {len(starts)} draws of the fit can start a chain in the base space of its flow, "
            f"and {chains} are needed; leave through out"
        )
    return np.stack(starts)


@torch.no_grad()
def _base_point(flow: Flow, z: FloatArray) -> FloatArray | None:
    """Return the base point of a draw, None where it is beyond the reach of floating point."""
    e = flow.inverse(torch.from_numpy(z[None]))[0].numpy()
    if not np.isfinite(e).all() or not np.allclose(images(flow, e)[0], z, _ERROR, _ERROR):
        return None
    return np.asarray(e[0])
