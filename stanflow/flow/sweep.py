"""One training step's way through a flow: draws and their score forward, derivatives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from stanflow.flow.bijection import Bijection
from stanflow.flow.chain import Chain, passes_of
from stanflow.flow.config import Memory
from stanflow.flow.coupling import AffineCoupling
from stanflow.flow.workspace import Workspace
from stanflow.kernels import library

if TYPE_CHECKING:
    from stanflow.flow.realnvp import Flow


class Sweep:
    """The hand-derived passes of a whole flow on batches of one size, without autograd.

    Forward, it draws from the base and carries three things through the layers: the points, their
    log density and its score, ``d log q(z) / dz`` with the parameters held fixed. So no inverse
    pass is needed for path gradients (Vaitl et al. 2024, arXiv 2403.15881). Backward, it takes
    derivatives with respect to the draws to the parameters. All buffers are made here, once.

    Parameters
    ----------
    flow : Flow
        Its dtype and device are those of the computation. Changing them afterwards, or giving back
        its gradients, makes the sweep useless.
    batch : int
        Draws a step, B.
    memory : {"auto", "keep", "rebuild"}
        Whether to keep what each coupling layer's reverse needs, or to rebuild it by inverting
        layer by layer, in memory that does not grow with depth. "auto" keeps it if it fits
        `memory_budget`.
    memory_budget : int
        In bytes.
    with_score : bool
        Whether the score is carried, and derivatives with respect to parameters will be wanted.
    total : bool
        Whether derivatives through log q will be wanted too: for total gradients, or, without the
        score, for those of a density pulled back (see `pull_to_base`).
    use_compiled : bool
        Whether to use the compiled passes, where they exist and the flow is on the CPU.
    threads : int, optional
        Threads that chains of small layers may use; by default torch's number.
    layers : sequence of Bijection, optional
        Some of the flow's layers, where the others are the identity; by default all.

    Attributes
    ----------
    z : Tensor of shape (D, B)
        Draws.
    log_q : Tensor of shape (B,), float64
        Their log density.
    score : Tensor of shape (D, B)
        ``d log q(z) / dz``.
    memory : {"keep", "rebuild"}
        What was chosen.

    Examples
    --------
    >>> from stanflow.flow.config import FlowConfig
    >>> from stanflow.flow.realnvp import build_flow
    >>> flow = build_flow(FlowConfig(layers=4, hidden=8), dim=3, seed=1)
    >>> sweep = Sweep(flow, batch=5)
    >>> sweep.draw(torch.Generator().manual_seed(1))
    >>> gradient_of_log_p = -sweep.z  # of a standard normal
    >>> sweep.pull((sweep.score - gradient_of_log_p) / 5)
    >>> flow.flat_gradient.shape == flow.flat.shape
    True
    """

    def __init__(
        self,
        flow: Flow,
        batch: int,
        *,
        memory: Memory = "auto",
        memory_budget: int = 2**31,
        with_score: bool = True,
        total: bool = False,
        use_compiled: bool = True,
        threads: int | None = None,
        layers: Sequence[Bijection] | None = None,
    ) -> None:
        if memory not in get_args(Memory):
            raise ValueError(f"memory must be one of {get_args(Memory)}, not {memory!r}")
        layers = flow.bijections if layers is None else layers
        kept = _kept_numbers(layers, total=total)
        fits = kept * batch * flow.flat.element_size() <= memory_budget
        keep = memory == "keep" or (memory == "auto" and fits)
        self.flow, self.batch = flow, batch
        self.memory: Memory = "keep" if keep else "rebuild"
        # Held, so that pointers into them stay good; see check_current.
        wants_derivatives = with_score or total
        self._flat = flow.flat
        self._flat_gradient = flow.flat_gradient if wants_derivatives else None
        self._total = total
        on_cpu = flow.flat.device.type == "cpu"
        workspace = Workspace(
            batch,
            flow.flat,
            keep=keep,
            with_slopes=total,
            with_gradients=with_score,
            library=library.load() if use_compiled and on_cpu else None,
            couplings=sum(isinstance(layer, AffineCoupling) for layer in layers),
            numbers_a_draw=kept,
            threads=torch.get_num_threads() if threads is None else threads,
        )
        self._workspace = workspace
        self.z = workspace.empty(flow.dim, batch)
        self.score = workspace.empty(flow.dim, batch) if with_score else None
        self.log_q = torch.empty(batch, dtype=torch.float64, device=flow.flat.device)
        self._e = workspace.empty(flow.dim, batch)
        self._given = 0
        self._base = flow.base.passes(workspace)
        self._layers = passes_of(flow.dim, layers, workspace, self._flat_gradient)

    @property
    def chain(self) -> Chain | None:
        """What all layers are, where they are one chain."""
        first, *others = self._layers
        return first if isinstance(first, Chain) and not others else None

    @property
    def largest_of_layers(self) -> Tensor:
        """Each coupling layer's largest ``|x|``, last draws, in parts: (r, parts)."""
        return self._workspace.largest

    @torch.no_grad()
    def draw(self, generator: torch.Generator, tails: int = 0, given: Tensor | None = None) -> None:
        """Fill `z`, `log_q` and `score` with a new batch.

        Parameters
        ----------
        generator : torch.Generator
            Source of the draws.
        tails : int
            How many of them, the first ones, to draw further out than the flow has them: two
            coordinates of their base point are spread out (see `BasePasses.spread_out`). `log_q`
            and `score` are the flow's own there.
        given : Tensor of shape (n, D), optional
            Base points to take in place of the first n. Of these, the base's parameters learn
            nothing.

        Raises
        ------
        RuntimeError
            The flow was converted, or gave back its gradients, since the sweep was made.
        """
        self.check_current()
        self._base.draw(self.z, self.score, self.log_q, generator)
        if tails > 0:
            assert self.score is not None
            self._base.spread_out(self.z, self.score, self.log_q, tails, generator)
        self._given = 0 if given is None else len(given)
        if given is not None:
            assert self.score is not None
            base = self.flow.base
            self.z[:, : len(given)] = given.T
            self.score[:, : len(given)] = base.score(given).T
            self.log_q[: len(given)] = base.log_prob(given).to(self.log_q)
        self._push()

    @torch.no_grad()
    def carry(self, e: Tensor, log_base: Tensor) -> None:
        """Fill `z` and `log_q` with the images of base points; for sweeps without a score.

        Parameters
        ----------
        e : Tensor of shape (D, B)
        log_base : Tensor of shape (B,), float64
            Their log density. Where it is zero, `log_q` becomes ``-log|det dT/de|``.
        """
        self.check_current()
        assert self.score is None
        self.z.copy_(e)
        self.log_q.copy_(log_base)
        self._push()

    def _push(self) -> None:
        self._e.copy_(self.z)
        for layer in self._layers:
            layer.push(self.z, self.score, self.log_q)

    @torch.no_grad()
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None = None) -> None:
        """Write to the flow's gradients those of a loss with the given derivatives.

        Parameters
        ----------
        cotangent : Tensor of shape (D, B)
            Derivatives with respect to the draws, e.g. ``(score - d log p / dz) / B`` for the path
            gradient of -ELBO. Overwritten. `z` is too where the memory mode is "rebuild".
        log_q_weight : Tensor of shape (B,), float64, optional
            Derivatives with respect to the draws' log q at given draws, e.g. ``1 / B`` for the
            total gradient.

        Raises
        ------
        RuntimeError
            As in `draw`.
        ValueError
            A shape or dtype is wrong, or log_q_weight is given or missing against `total`.
        """
        assert self.score is not None
        self.pull_to_base(cotangent, log_q_weight)
        cotangent[:, : self._given] = 0
        self._base.pull(self._e, cotangent, log_q_weight)

    @torch.no_grad()
    def pull_to_base(self, cotangent: Tensor, log_q_weight: Tensor | None = None) -> None:
        """Turn derivatives with respect to the draws, in place, into those of their base points.

        Parameters
        ----------
        cotangent : Tensor of shape (D, B)
            ``d log p / dz``, say. Overwritten, as `z` is where the memory mode is "rebuild".
        log_q_weight : Tensor of shape (B,), float64, optional
            With -1 the result is the derivative of ``log p(T(e)) + log|det dT/de|``: the log
            density of p pulled back.

        Raises
        ------
        RuntimeError, ValueError
            As in `pull`.
        """
        self.check_current()
        _check_like("cotangent", cotangent, self.z)
        if (log_q_weight is not None) != self._total:
            raise ValueError("log_q_weight must be given where the sweep was made with total=True")
        if log_q_weight is not None:
            _check_like("log_q_weight", log_q_weight, self.log_q)
        for layer in reversed(self._layers):
            if self.memory == "rebuild":
                layer.restore(self.z)
            layer.pull(cotangent, log_q_weight)

    def check_current(self) -> None:
        """Raise RuntimeError where the flow was converted since, or gave back its gradients."""
        if self._flat is not self.flow.flat or (
            self._flat_gradient is not None and self._flat_gradient is not self.flow.flat_gradient
        ):
            raise RuntimeError("the flow was converted since this sweep was made; make another")

    @torch.no_grad()
    def largest(self) -> Tensor:
        """Return the largest ``|x|`` after the base and after each coupling layer, last draws.

        A coupling layer's is that of the coordinates it moved.

        Returns
        -------
        Tensor of shape (r + 1,)
        """
        of_base = torch.stack(torch.aminmax(self._e)).abs().amax(0, keepdim=True)
        return torch.cat([of_base, self.largest_of_layers.amax(1)])


def _check_like(name: str, given: Tensor, like: Tensor) -> None:
    alike = given.shape == like.shape and given.dtype == like.dtype
    if not (alike and given.device == like.device and given.is_contiguous()):
        raise ValueError(
            f"{name} must be contiguous, of shape {tuple(like.shape)}, {like.dtype}, on "
            f"{like.device}"
        )


def _kept_numbers(layers: Sequence[Bijection], *, total: bool) -> int:
    """Return how many numbers the activations of all coupling layers have for a draw."""
    numbers = 0
    for layer in layers:
        if isinstance(layer, AffineCoupling):
            conditioner, n_moved = layer.conditioner, len(layer.moved)
            hidden = 2 * conditioner.hidden
            numbers += len(layer.kept) + hidden + n_moved * (3 if total else 2)
    return numbers
