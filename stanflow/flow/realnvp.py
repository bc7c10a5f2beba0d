"""The stack: a base distribution and the bijections after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from stanflow.arrays import FloatArray
from stanflow.errors import UsageError
from stanflow.flow.affine import FixedAffine, LowerTriangular, ShiftScale
from stanflow.flow.base import Base, Gaussian, StudentT
from stanflow.flow.bijection import Bijection
from stanflow.flow.clamp import make_clamp
from stanflow.flow.config import MOST_PARTNERS, FlowConfig
from stanflow.flow.coupling import AffineCoupling
from stanflow.flow.loft import Loft
from stanflow.flow.mixture_base import MixtureBase
from stanflow.flow.noncentering import NonCentering
from stanflow.flow.sinh_arcsinh import SinhArcsinh
from stanflow.flow.sweep import Sweep
from stanflow.flow.wiring import Wiring

_MOST_TAIL = 0.7  # of a log power: from half to twice
_DRAWS_AT_ONCE = 1024
_NUMBERS_AT_ONCE = 4_000_000

_Kind = TypeVar("_Kind", bound=Bijection)


class Flow(nn.Module):
    """A distribution on R^D: ``z = T_k(... T_1(e))``, e from the base.

    All parameters lie one after another in one tensor, `flat`, and their gradients in another;
    the layers' parameters are views of it. One optimizer call moves them, one tensor keeps them.

    Parameters
    ----------
    base : Base
        Distribution of e.
    bijections : list of Bijection
        T_1, ..., T_k; the last is a `ShiftScale`, but for what is appended. Parameters are set to
        where they start, anew; built on torch's meta device, they take no memory before.
    wiring : Wiring, optional
        The coupling layers', where it was given.
    """

    def __init__(
        self, base: Base, bijections: list[Bijection], wiring: Wiring | None = None
    ) -> None:
        super().__init__()
        self.base = base
        self.layers = nn.ModuleList(bijections)
        self.wiring = wiring
        self._flat_gradient: Tensor | None = None
        self._flat = torch.empty(sum(parameter.numel() for parameter in self.parameters()))
        self._materialize()

    @property
    def dim(self) -> int:
        """Number of coordinates, D."""
        return self.base.dim

    @property
    def bijections(self) -> list[Bijection]:
        """T_1, ..., T_k."""
        return [module for module in self.layers if isinstance(module, Bijection)]

    @property
    def couplings(self) -> int:
        """Number of coupling layers, r."""
        return sum(isinstance(layer, AffineCoupling) for layer in self.bijections)

    @property
    def output(self) -> ShiftScale:
        """The last layer that is trained, which holds location and scale."""
        return [layer for layer in self.bijections if isinstance(layer, ShiftScale)][-1]

    @property
    def correlated_units(self) -> FloatArray | None:
        """The factor, (D, D), of the last layer where it is a `FixedAffine`; else None."""
        last = self.bijections[-1]
        return last.factor.double().cpu().numpy() if isinstance(last, FixedAffine) else None

    @property
    def noncentering(self) -> NonCentering | None:
        """The layer that puts a hierarchy together, the last of all; None without one."""
        return self._last(NonCentering)

    def _last(self, kind: type[_Kind]) -> _Kind | None:
        found = [layer for layer in self.bijections if isinstance(layer, kind)]
        return found[-1] if found else None

    def append(self, bijection: FixedAffine | NonCentering) -> None:
        """Put a layer without parameters after all others."""
        self.layers.append(bijection)

    def of_layers(self, kept: Sequence[Bijection]) -> Self:
        """Return a flow of some of the layers, which are copied, in their order."""
        places = [i for i, layer in enumerate(self.bijections) if layer in kept]
        of_couplings = [i for i, x in enumerate(self.bijections) if isinstance(x, AffineCoupling)]
        copied = deepcopy(self)
        copied.layers = nn.ModuleList([copied.bijections[i] for i in places])
        if copied.wiring is not None:
            copied.wiring = copied.wiring.of_layers(
                [layer for layer, i in enumerate(of_couplings) if i in places]
            )
        copied._flat = torch.cat(
            [self._flat[:0], *(parameter.detach().ravel() for parameter in copied.parameters())]
        )
        copied._bind()
        return copied

    def without_units(
        self,
    ) -> tuple[Self, FloatArray, FloatArray, FloatArray | None, NonCentering | None]:
        """Return the flow of u, and location, log scale, factor F and non-centering T of z.

        The flow is of ``z = T(location + exp(log_scale) * F u)``, F lower-triangular; F and T are
        the identity where there is none. It is what training ran in, and can run in again in
        float32.
        """
        output, fixed, noncentering = self.output, self._last(FixedAffine), self.noncentering
        of_units = (output, fixed, noncentering)
        inner = self.of_layers([x for x in self.bijections if x not in of_units])
        location, log_scale = (x.detach().double().cpu() for x in (output.shift, output.log_scale))
        if fixed is None:
            return inner, location.numpy(), log_scale.numpy(), None, noncentering
        shift, factor = fixed.shift.double().cpu(), fixed.factor.double().cpu()
        # shift + F (location + exp(log_scale) * u)
        location, factor = shift + factor @ location, factor * log_scale.exp()
        return inner, location.numpy(), 0 * log_scale.numpy(), factor.numpy(), noncentering

    @property
    def flat(self) -> Tensor:
        """All parameters, (P,), without an autograd graph; writing to it moves the flow."""
        return self._flat

    @property
    def flat_gradient(self) -> Tensor:
        """The gradients of `flat`, (P,): made, at zero, when first asked for."""
        if self._flat_gradient is None:
            self._flat_gradient = torch.zeros_like(self._flat)
            self._bind()
        return self._flat_gradient

    def release_gradient(self) -> None:
        """Give back the memory of the gradients."""
        self._flat_gradient = None
        self._bind()

    def _materialize(self) -> None:
        """Give parameters built on torch's meta device their place in `flat`, and their values."""
        start = 0
        for module in self.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    end = start + parameter.numel()
                    place = self._flat[start:end].view(parameter.shape)
                    module._parameters[name] = nn.Parameter(place)
                    start = end
        for module in self.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()

    def _bind(self) -> None:
        """Make every parameter and its gradient a view of the flat tensors."""
        start = 0
        for parameter in self.parameters():
            end = start + parameter.numel()
            parameter.data = self._flat[start:end].view(parameter.shape)
            parameter.grad = (
                None
                if self._flat_gradient is None
                else self._flat_gradient[start:end].view(parameter.shape)
            )
            start = end

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert dtype or device, as ``.double()`` and ``.to()`` do."""
        self._flat = fn(self._flat)
        self._flat_gradient = None
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = fn(buffer)
        self._bind()
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        copied._flat_gradient = None
        copied._bind()
        return copied

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n samples.

        Returns
        -------
        z : Tensor of shape (n, D)
        log_q : Tensor of shape (n,), float64
            Log density of the flow at z.
        """
        z = torch.empty(n, self.dim, dtype=self._flat.dtype, device=self._flat.device)
        log_q = torch.empty(n, dtype=torch.float64, device=self._flat.device)
        sweep: Sweep | None = None
        for start in range(0, n, _DRAWS_AT_ONCE):
            size = min(_DRAWS_AT_ONCE, n - start)
            if sweep is None or sweep.batch != size:
                sweep = Sweep(self, size, memory="rebuild", with_score=False)
            sweep.draw(generator)
            z[start : start + size] = sweep.z.T
            log_q[start : start + size] = sweep.log_q
        return z, log_q

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the base point e of each z, (n, D), and ``log|det dz/de|`` there, (n,)."""
        total = z.new_zeros(len(z))
        for bijection in reversed(self.bijections):
            z, log_det = bijection.inverse(z)
            total = total + log_det
        return z, total

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density of points of shape (n, D), as (n,).

        Differentiable in z and the parameters by autograd. Under ``torch.no_grad()`` many points
        are taken in parts, so that memory does not grow with n.

        It is -infinity where the base point is too far out for a floating-point number: beyond
        LOFT's tau + 700, say, where its inverse is exp(700).
        """
        if torch.is_grad_enabled():
            return self._log_prob(z)
        rows = max(1, _NUMBERS_AT_ONCE // self._widest)
        return torch.cat(
            [self._log_prob(part) for part in torch.split(z, rows)] or [z.new_empty(0)]
        )

    @property
    def _widest(self) -> int:
        """Most numbers a point that a layer's evaluation holds at once."""
        local = [
            layer.local.inner[0].numel()
            for layer in self.bijections
            if isinstance(layer, AffineCoupling) and layer.local is not None
        ]
        return max([self.dim, *local])

    def _log_prob(self, z: Tensor) -> Tensor:
        e, log_det = self.inverse(z)
        log_prob = self.base.log_prob(e) - log_det
        overflowed = torch.isnan(log_prob) & torch.isfinite(z).all(-1)
        return torch.where(overflowed, -torch.inf, log_prob)


class Modes(NamedTuple):
    """Where a base has copies of itself, (K, D), and the logs of their weights, (K,)."""

    centres: FloatArray
    log_weights: FloatArray


def build_flow(
    config: FlowConfig,
    dim: int,
    seed: int,
    wiring: Wiring | None = None,
    modes: Modes | None = None,
) -> Flow:
    """Build an untrained flow, which is its base distribution.

    In one dimension, where a coupling layer has nothing to split, Real NVP's place is taken by
    as many sinh-arcsinh layers.

    Parameters
    ----------
    config : FlowConfig
        The family and its size.
    dim : int
        D, at least 1.
    seed : int
        For the weights of the hidden layers.
    wiring : Wiring, optional
        Halves and partners of each coupling layer; by default even and odd coordinates in turns,
        without partners.
    modes : Modes, optional
        Of a mixture that the base is then (see `MixtureBase`).

    Raises
    ------
    UsageError
        The wiring is not for this dimension, family or number of layers.

    Examples
    --------
    >>> flow = build_flow(FlowConfig(layers=2, hidden=8), dim=3, seed=1)
    >>> z, log_q = flow.double().sample(5, torch.Generator().manual_seed(1))
    >>> bool(torch.allclose(flow.log_prob(z), log_q))
    True
    """
    _check_wiring(wiring, config, dim)
    bijections: list[Bijection] = []
    with torch.device("meta"):
        if config.base_location_scale:
            bijections.append(ShiftScale(dim))
        if config.family == "fullrank":
            bijections.append(LowerTriangular(dim))
        elif config.family == "realnvp" and dim == 1:
            downward = config.downward_threshold(dim)
            clamp = make_clamp(config.clamp, config.clamp_positive, downward)
            bijections += [SinhArcsinh(dim, clamp) for _ in range(config.depth(dim))]
        elif config.family == "realnvp":
            halves = (wiring or Wiring.alternating(dim, config.depth(dim))).halves
            couplings = [AffineCoupling(half, config) for half in halves]
            bijections += _with_marginals(couplings, config.marginal_layers, dim)
        if config.family == "realnvp" and config.loft_tau is not None:
            bijections.append(Loft(config.loft_tau))
        bijections.append(ShiftScale(dim))
        base: Base = StudentT(dim) if config.base == "student-t" else Gaussian(dim)
    if modes is not None:
        base = MixtureBase(base, *(torch.from_numpy(x).float() for x in modes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Flow(base, bijections, wiring)


def _with_marginals(couplings: list[AffineCoupling], count: int, dim: int) -> list[Bijection]:
    """Spread sinh-arcsinh layers evenly among coupling layers, the last one after them all."""
    layers: list[Bijection] = []
    after = [round(len(couplings) * (i + 1) / count) for i in range(count)]
    for i, coupling in enumerate(couplings, start=1):
        layers.append(coupling)
        if i in after:
            clamp = make_clamp("symmetric", _MOST_TAIL, _MOST_TAIL)
            layers.append(SinhArcsinh(dim, clamp))
    return layers


def _check_wiring(wiring: Wiring | None, config: FlowConfig, dim: int) -> None:
    if wiring is None:
        return
    if config.family != "realnvp":
        raise UsageError(f"a wiring is for the family realnvp, not {config.family}")
    if wiring.dim != dim:
        raise UsageError(f"the wiring is for {wiring.dim} dimensions, but there are {dim}")
    if wiring.layers != config.depth(dim):
        raise UsageError(
            f"the wiring is for {wiring.layers} layers, but the flow has {config.depth(dim)}"
        )
    if wiring.n_partners > MOST_PARTNERS:
        raise UsageError(f"at most {MOST_PARTNERS} partners a coordinate, not {wiring.n_partners}")
