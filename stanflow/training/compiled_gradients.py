"""Path gradients of small flows, from the base's noise to the parameters in one compiled call."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stanflow.arrays import FloatArray
from stanflow.flow.base import IndependentBase, StudentT
from stanflow.flow.bijection import gradient_of
from stanflow.flow.chain import Chain
from stanflow.flow.sweep import Sweep
from stanflow.kernels import layers as compiled
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.density import CompiledDensity
from stanflow.training.config import TrainConfig
from stanflow.training.gradients import BatchResult, GradientEstimator, result_of

_NORMAL = compiled.StudentT(nu=0.0, root=0.0, constant=-0.5 * math.log(2 * math.pi))


class CompiledGradientEstimator:
    """As a `GradientEstimator` of path gradients, by one call of layers.c a batch.

    The draws are those of a generator by counters, whose key comes from torch's: they depend on the
    batch and on nothing else, as on how many threads take them.

    Parameters
    ----------
    sweep : Sweep
        Of a flow that is one chain of small layers.
    chain : Chain
        The sweep's.
    target : StandardizedTarget
        In these units the flow is trained.
    density : CompiledDensity
        The target's own.
    tail_share, longest
        As for a `GradientEstimator`.

    Attributes
    ----------
    base_and_noise : (list of Tensor, list of Tensor)
        Base points of the last batch, (D, columns) of each part, and ``2 r / nu`` that they were
        made of (see `flow.base.StudentT`).
    """

    def __init__(
        self,
        sweep: Sweep,
        chain: Chain,
        target: StandardizedTarget,
        density: CompiledDensity,
        *,
        tail_share: float,
        longest: float | None,
    ) -> None:
        flow, dim, batch = sweep.flow, sweep.flow.dim, sweep.batch
        self._sweep, self._density = sweep, density
        self._tails = int(tail_share * batch)
        self.base_and_noise: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        self._log_q: list[torch.Tensor] = []
        self._largest_of_base = sweep.z.new_zeros(len(chain.parts)).numpy()
        self._largest_of_layers = sweep.largest_of_layers.numpy()
        self._log_ratio, self._accepted = np.empty(batch), np.empty(batch, dtype=np.bool_)
        rows, centre, spread = np.empty((batch, 3 * dim)), np.empty(dim), np.empty(dim)
        location, scale = map(np.ascontiguousarray, (target.location, target.scale))
        factor = None if target.factor is None else np.ascontiguousarray(target.factor)
        base = (compiled.StudentT * dim)(*[_NORMAL] * dim)
        gradients = [flow.flat_gradient, *chain.more_gradients]
        addresses = (ctypes.c_void_p * len(gradients))(*[g.data_ptr() for g in gradients])
        parts = self._parts_of(chain, gradients)
        student_t = flow.base if isinstance(flow.base, StudentT) else None
        self._arguments = compiled.Step(
            dim=dim,
            batch=batch,
            layers=chain.layers,
            parts=len(parts),
            threads=density.threads,
            part=ctypes.addressof(parts),
            log_degrees_minus_one=(
                None if student_t is None else student_t.log_degrees_minus_one.data_ptr()
            ),
            base=ctypes.addressof(base),
            tails=self._tails,
            longest=math.inf if longest is None else longest * math.sqrt(dim),
            log_density_gradient=density.log_density_gradient,
            log_density=density.log_density,
            model=density.model,
            location=location.ctypes.data,
            scale=scale.ctypes.data,
            factor=None if factor is None else factor.ctypes.data,
            log_det=target.log_det,
            rows=rows.ctypes.data,
            log_ratio=self._log_ratio.ctypes.data,
            accepted=self._accepted.ctypes.data,
            centre=centre.ctypes.data,
            spread=spread.ctypes.data,
            parameters=len(flow.flat),
            gradients=ctypes.addressof(addresses),
        )
        self._address = ctypes.addressof(self._arguments)
        self._gradient = chain.calls.step_gradient
        self._keep_alive = (
            chain, location, scale, factor, rows, centre, spread, base, gradients, addresses, parts,
        )  # fmt: skip

    def _parts_of(self, chain: Chain, gradients: Sequence[torch.Tensor]) -> ctypes.Array[Any]:
        """Return what the step needs of each part of the chain's columns."""
        base, dim = self._sweep.flow.base, self._sweep.flow.dim
        parts = (compiled.StepPart * len(chain.parts))()
        for i, (of_chain, gradient) in enumerate(zip(chain.parts, gradients, strict=True)):
            noise, points = (self._sweep.z.new_empty(dim, of_chain.columns) for _ in range(2))
            log_q = torch.empty(of_chain.columns, dtype=torch.float64)
            self.base_and_noise[0].append(points)
            self.base_and_noise[1].append(noise)
            self._log_q.append(log_q)
            own: int | None = None
            if isinstance(base, StudentT):
                away = gradient.data_ptr() - gradients[0].data_ptr()
                own = gradient_of(base.log_degrees_minus_one).data_ptr() + away
            parts[i] = compiled.StepPart(
                chain=ctypes.addressof(of_chain),
                noise=noise.data_ptr(),
                base=points.data_ptr(),
                log_q=log_q.data_ptr(),
                largest=self._largest_of_base[i:].ctypes.data,
                base_gradient=own,
            )
        return parts

    def estimate(self, generator: torch.Generator) -> BatchResult:
        """Draw a batch and write the gradient of -ELBO; zero if no draw is accepted.

        Parameters
        ----------
        generator : torch.Generator
            Source of the batch's key.
        """
        self._sweep.check_current()
        self._gradient(self._address, _key(generator), True)
        self._density.count_gradients(self._sweep.batch)
        return result_of(self._log_ratio, self._accepted, self._tails)

    def log_weights(self, generator: torch.Generator) -> FloatArray:
        """Return log p - log q of a batch of the flow's own draws, those without one left out."""
        self._gradient(self._address, _key(generator), False)
        self._density.count_densities(self._sweep.batch)
        return self._log_ratio[self._accepted]

    def largest(self) -> FloatArray:
        """Return the largest ``|x|`` after the base and after each coupling layer, last batch."""
        return np.concatenate([[self._largest_of_base.max()], self._largest_of_layers.max(axis=1)])


def make_estimator(
    sweep: Sweep, target: StandardizedTarget, config: TrainConfig, tail_share: float
) -> GradientEstimator | CompiledGradientEstimator:
    """Return what makes a step's gradient: one compiled call where flow, target and settings allow.

    Parameters
    ----------
    sweep : Sweep
        Through the flow.
    target : StandardizedTarget
        The density, in the units of training.
    config : TrainConfig
        Says which gradient, and how long a draw's derivative may be.
    tail_share : float
        Share of the draws that are spread out.
    """
    chain, density = sweep.chain, target.compiled_without_units()
    longest = config.max_gradient_norm
    independent = isinstance(sweep.flow.base, IndependentBase)
    if config.gradient == "path" and independent and chain is not None and density is not None:
        return CompiledGradientEstimator(
            sweep, chain, target, density, tail_share=tail_share, longest=longest
        )
    return GradientEstimator(sweep, target, config.gradient, tail_share, longest)


def _key(generator: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator))
