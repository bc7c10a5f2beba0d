"""The path gradient of the ELBO."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stanflow.flow.realnvp import Flow
from stanflow.target.density import Target


@dataclass(frozen=True)
class BatchResult:
    """What one batch said.

    Attributes
    ----------
    elbo : float
        Mean of log p - log q over the accepted draws, Stan's constants left out; NaN if none.
    rejected : int
        Draws whose log density or gradient was not finite; they take no part.
    """

    elbo: float
    rejected: int


def accumulate_path_gradient(
    flow: Flow, target: Target, batch: int, generator: torch.Generator
) -> BatchResult:
    """Add the path gradient of -ELBO to the ``grad`` of the flow's parameters.

    The loss is ``E[log q(z) - log p(z)]``, z = T(e). Its score term has mean zero and is left
    out (Roeder, Wu, Duvenaud 2017, arXiv 1703.09194), which leaves

        ``E[ (dT/dtheta)^T (d log q/dz - d log p/dz) ]``.

    Parameters
    ----------
    flow : Flow
        Its parameters' dtype is that of the computation; the target is evaluated in float64.
    target : Target
        The density p.
    batch : int
        Draws.
    generator : torch.Generator
        Source of the draws.
    """
    z, log_q, score = flow.sample_with_score(batch, generator)
    density = target.log_density_gradient(z.detach().numpy().astype(np.float64))
    gradient = torch.from_numpy(density.gradient).to(z.dtype)
    cotangent = score - gradient
    finite = torch.isfinite(cotangent).all(dim=1) & torch.isfinite(log_q)
    accepted = finite & torch.from_numpy(density.accepted)
    n_accepted = int(accepted.sum())
    if n_accepted == 0:
        return BatchResult(float("nan"), batch)
    keep = accepted.unsqueeze(1)
    torch.autograd.backward(
        z, torch.where(keep, cotangent / n_accepted, torch.zeros_like(cotangent))
    )
    rows = accepted.numpy()
    elbo = float(np.mean(density.log_density[rows] - log_q.double().numpy()[rows]))
    return BatchResult(elbo, batch - n_accepted)
