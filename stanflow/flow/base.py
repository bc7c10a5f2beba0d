"""Base distributions: independent standard normal or Student-t coordinates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from typing_extensions import override

from stanflow.flow.bijection import gradient_of
from stanflow.flow.workspace import Workspace

_START_DEGREES_OF_FREEDOM = 30.0
_LARGE = 1e8  # its square plus one is its square
_MOST_SPREAD = 3.0
_LEAST_EXPONENTIAL = 1e-20  # keeps the derivative at a uniform of exactly 0 from being 0 / 0


class BasePasses(ABC):
    """The hand-derived passes of a base, on (D, B) tensors; see `bijection.Passes`."""

    @abstractmethod
    def draw(
        self, e: Tensor, score: Tensor | None, log_q: Tensor, generator: torch.Generator
    ) -> None:
        """Fill e with samples, score with ``d log q / de`` and log_q with their log density."""

    @abstractmethod
    def spread_out(
        self, e: Tensor, score: Tensor, log_q: Tensor, tails: int, generator: torch.Generator
    ) -> None:
        """Spread out the first draws, up to threefold, in one coordinate or two at random.

        They are further out then than the base has them, and score and log_q are those there.

        Parameters
        ----------
        tails : int
            How many draws.
        """

    @abstractmethod
    def pull(self, e: Tensor, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        """Write the parameters' gradients, given the derivatives with respect to e.

        The e of the last `draw` is given. cotangent may be overwritten.
        """


class _IndependentPasses(BasePasses):
    """Those of independent coordinates."""

    @override
    def spread_out(
        self, e: Tensor, score: Tensor, log_q: Tensor, tails: int, generator: torch.Generator
    ) -> None:
        (dim, batch), device = e.shape, e.device
        draws = torch.arange(tails, device=device)
        rows = torch.randint(dim, (tails,), generator=generator, device=device)
        factors = torch.rand(tails, generator=generator, device=device, dtype=e.dtype)
        factors.mul_(_MOST_SPREAD - 1).add_(1)
        if dim > 1:  # another coordinate of every second draw
            further = torch.randint(1, dim, (len(rows[::2]),), generator=generator, device=device)
            rows = torch.cat([rows, (rows[::2] + further) % dim])
            draws, factors = (torch.cat([x, x[::2]]) for x in (draws, factors))
        places = rows * batch + draws
        before = e.view(-1)[places]
        after = before * factors
        log_q.index_add_(0, draws, self._log_ratio(rows, before, after))
        e.view(-1)[places] = after
        score.view(-1)[places] = self._score_at(rows, after)

    @abstractmethod
    def _log_ratio(self, rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Return by how much the log density of coordinates changes, (n,), in float64."""

    @abstractmethod
    def _score_at(self, rows: Tensor, e: Tensor) -> Tensor:
        """Return the derivative of the log density of coordinates, (n,)."""


class Base(nn.Module, ABC):
    """A distribution on R^D."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n samples, (n, D), differentiable in the parameters."""

    @abstractmethod
    def log_prob(self, e: Tensor) -> Tensor:
        """Return the log density of points of shape (n, D), as (n,)."""

    @abstractmethod
    def score(self, e: Tensor) -> Tensor:
        """Return the derivative of the log density of points of shape (n, D), as (n, D)."""

    @abstractmethod
    def sample_widened(self, n: int, generator: torch.Generator, share: float) -> Tensor:
        """Return n samples, (n, D), a share of which, at random, has a heavy tail.

        One of the coordinates of these, any, is from a Cauchy distribution instead.
        """

    @abstractmethod
    def widened(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density of samples with a heavy tail, and its derivative.

        Parameters
        ----------
        e : Tensor of shape (n, D)

        Returns
        -------
        Tensor of shape (n,), Tensor of shape (n, D)
        """

    @abstractmethod
    def passes(self, workspace: Workspace) -> BasePasses:
        """Return the hand-derived passes for batches of the workspace's size."""


class IndependentBase(Base):
    """A distribution with independent coordinates, whose densities are b_i."""

    @abstractmethod
    def marginal_log_probs(self, e: Tensor) -> Tensor:
        """Return the log density of each coordinate of points of shape (n, D), as (n, D)."""

    @override
    def log_prob(self, e: Tensor) -> Tensor:
        return self.marginal_log_probs(e).sum(-1)

    @override
    @torch.no_grad()
    def sample_widened(self, n: int, generator: torch.Generator, share: float) -> Tensor:
        e = self.sample(n, generator)
        is_widened = torch.rand(n, generator=generator) < share
        widened = torch.randint(self.dim, (n,), generator=generator)[is_widened]
        e[is_widened, widened] = e.new_empty(len(widened)).cauchy_(generator=generator)
        return e

    @override
    @torch.no_grad()
    def widened(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of ``b(e) mean_i[ c(e_i) / b_i(e_i) ]``, c the Cauchy density."""
        marginal, score = self.marginal_log_probs(e), self.score(e)
        cauchy = -math.log(math.pi) - torch.log1p(e.square())
        log_share = cauchy - marginal
        log_total = torch.logsumexp(log_share, dim=1)
        share = torch.exp(log_share - log_total[:, None])
        score = score + share * (-2 * e / (1 + e.square()) - score)
        return marginal.sum(1) + log_total - math.log(self.dim), score


class Gaussian(IndependentBase):
    """The standard normal, N(0, I).

    Examples
    --------
    >>> Gaussian(2).log_prob(torch.tensor([[1.0, -2.0]]))
    tensor([-4.3379])
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._like: Tensor
        # Follows .double(), as a parameter would.
        self.register_buffer("_like", torch.zeros((), device="cpu"), persistent=False)

    @override
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        like = self._like
        sample = torch.empty(self.dim, n, dtype=like.dtype, device=like.device)
        return sample.normal_(generator=generator).T

    @override
    def marginal_log_probs(self, e: Tensor) -> Tensor:
        return -0.5 * e.square() - 0.5 * math.log(2 * math.pi)

    @override
    def score(self, e: Tensor) -> Tensor:
        return -e

    @override
    def passes(self, workspace: Workspace) -> BasePasses:
        return _GaussianPasses(workspace.scratch("points", self.dim, workspace.batch))


class _GaussianPasses(_IndependentPasses):
    def __init__(self, scratch: Tensor) -> None:
        self._scratch = scratch

    @override
    def draw(
        self, e: Tensor, score: Tensor | None, log_q: Tensor, generator: torch.Generator
    ) -> None:
        e.normal_(generator=generator)
        log_q.copy_(torch.mul(e, e, out=self._scratch).sum(0))
        log_q.add_(len(e) * math.log(2 * math.pi)).mul_(-0.5)
        if score is not None:
            torch.neg(e, out=score)

    @override
    def _log_ratio(self, rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
        return 0.5 * (before.double().square() - after.double().square())

    @override
    def _score_at(self, rows: Tensor, e: Tensor) -> Tensor:
        return -e

    @override
    def pull(self, e: Tensor, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        pass


class StudentT(IndependentBase):
    """Independent standard Student-t coordinates with trainable degrees of freedom.

    ``nu_i = 1 + exp(a_i)``, ``a_i`` starting at log 29, so nu at 30 (Andrade 2024,
    arXiv 2402.16408). Location 0 and scale 1 are fixed: the flow's last layer does that work.

    A sample is made as Bailey (1994, "Polar generation of random variates with the
    t-distribution", Mathematics of Computation 62) does: with r exponential of mean 1 and an
    angle uniform on the circle,

        ``e = sqrt(nu * (exp(2 r / nu) - 1)) * cos(angle)``

    is Student-t, and tends to Box and Muller's normal as nu grows. It is smooth in nu with r and
    the angle held fixed, so gradients reach nu through it in closed form:

        ``de/dnu = e / (2 nu) * (1 - w / (1 - exp(-w)))``,  ``w = 2 r / nu``.

    Examples
    --------
    >>> StudentT(2).degrees_of_freedom.detach().round()
    tensor([30., 30.])
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.log_degrees_minus_one = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set nu to 30."""
        self.log_degrees_minus_one.fill_(math.log(_START_DEGREES_OF_FREEDOM - 1))

    @property
    def degrees_of_freedom(self) -> Tensor:
        """nu, of shape (D,)."""
        return 1 + self.log_degrees_minus_one.exp()

    @override
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        nu = self.degrees_of_freedom.unsqueeze(1)
        exponential = torch.empty(self.dim, n, dtype=nu.dtype, device=nu.device)
        cosine = torch.empty_like(exponential)
        _fill_noise(exponential, cosine, generator)
        return ((nu * torch.expm1(2 * exponential / nu)).sqrt() * cosine).T

    @override
    def marginal_log_probs(self, e: Tensor) -> Tensor:
        nu = self.degrees_of_freedom
        return _log_constant(nu) - (nu + 1) * _log_root(e * torch.rsqrt(nu))

    @override
    def score(self, e: Tensor) -> Tensor:
        return _student_t_score(e, self.degrees_of_freedom)

    @override
    def passes(self, workspace: Workspace) -> BasePasses:
        return _StudentTPasses(self, workspace)


def _log_root(x: Tensor) -> Tensor:
    """Return ``log(1 + x^2) / 2``: without loss where x is small, or overflow where it is large."""
    large = x.abs() > _LARGE
    near = 0.5 * torch.log1p(x.clamp(-_LARGE, _LARGE).square())
    return torch.where(large, x.abs().clamp(min=_LARGE).log(), near)


def _log_constant(nu: Tensor) -> Tensor:
    """Return the log density of the standard Student-t at 0, from float64: terms cancel."""
    half = 0.5 * nu.double()
    constant = torch.lgamma(half + 0.5) - torch.lgamma(half) - 0.5 * (2 * math.pi * half).log()
    return constant.to(nu.dtype)


def _student_t_score(e: Tensor, nu: Tensor) -> Tensor:
    """Return the derivative of the standard Student-t's log density."""
    return -(nu + 1) * e / (nu + e.square())


def _fill_noise(exponential: Tensor, cosine: Tensor, generator: torch.Generator) -> None:
    """Fill with exponential variates of mean 1, and with cosines of uniform angles."""
    exponential.uniform_(generator=generator).neg_().log1p_().neg_()
    exponential.clamp_(min=_LEAST_EXPONENTIAL)
    cosine.uniform_(generator=generator).mul_(2 * math.pi).cos_()


class _StudentTPasses(_IndependentPasses):
    def __init__(self, base: StudentT, workspace: Workspace) -> None:
        self._parameter = base.log_degrees_minus_one
        shape = (base.dim, workspace.batch)
        self._noise = workspace.empty(*shape)
        self._log_tail = workspace.empty(*shape) if workspace.with_slopes else None
        self._scratch = workspace.scratch("points", *shape)

    def _degrees_of_freedom(self) -> Tensor:
        return self._parameter.detach().exp().add_(1).unsqueeze(1)

    @override
    def draw(
        self, e: Tensor, score: Tensor | None, log_q: Tensor, generator: torch.Generator
    ) -> None:
        nu = self._degrees_of_freedom()
        w, cosine = self._noise, self._scratch
        _fill_noise(w, cosine, generator)
        w.mul_(2 / nu)
        torch.expm1(w, out=e).sqrt_().mul_(cosine)  # e / sqrt(nu)
        log_tail = self._scratch
        torch.mul(e, e, out=log_tail)
        if score is not None:  # -(nu + 1) / nu * e / (1 + e^2 / nu)
            torch.add(log_tail, 1, out=score)
            torch.div(e, score, out=score).mul_(-(nu + 1) / nu.sqrt())
        log_tail.log1p_()  # log(1 + e^2 / nu)
        if self._log_tail is not None:
            self._log_tail.copy_(log_tail)
        log_tail.mul_(0.5 * (nu + 1)).sub_(_log_constant(nu))
        log_q.copy_(log_tail.sum(0)).neg_()
        e.mul_(nu.sqrt())

    @override
    def _log_ratio(self, rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
        nu = self._degrees_of_freedom()[rows, 0].double()
        ratio = torch.log((nu + before.double().square()) / (nu + after.double().square()))
        return 0.5 * (nu + 1) * ratio

    @override
    def _score_at(self, rows: Tensor, e: Tensor) -> Tensor:
        return _student_t_score(e, self._degrees_of_freedom()[rows, 0])

    @override
    def pull(self, e: Tensor, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        nu = self._degrees_of_freedom()
        w, share = self._noise, self._scratch
        torch.neg(w, out=share).expm1_()
        torch.div(w, share, out=share).add_(1)  # 1 - w / (1 - exp(-w))
        if log_q_weight is not None:
            cotangent.addcmul_(log_q_weight.to(e.dtype), _student_t_score(e, nu))
        share.mul_(cotangent).mul_(e)
        gradient = share.sum(1).div_(2 * nu.squeeze(1))
        if log_q_weight is not None:
            gradient.add_(self._log_density_slope(e, nu, log_q_weight.to(e.dtype)))
        torch.mul(gradient, nu.squeeze(1) - 1, out=gradient_of(self._parameter))

    def _log_density_slope(self, e: Tensor, nu: Tensor, weight: Tensor) -> Tensor:
        """Return the weighted sum over draws of ``d log density / d nu`` at fixed e."""
        assert self._log_tail is not None
        half = 0.5 * nu.double()
        constant = 0.5 * (torch.digamma(half + 0.5) - torch.digamma(half) - 0.5 / half).to(e.dtype)
        square = e.square()
        slope = constant - 0.5 * self._log_tail + 0.5 * (nu + 1) * square / (nu * (nu + square))
        return (slope * weight).sum(1)
