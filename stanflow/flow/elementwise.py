"""What a coupling layer does elementwise between its matrix products, in torch or compiled.

Both do the same; `compiled` (layers.c) fuses each pass and so goes over memory once.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.functional import softsign
from typing_extensions import override

from stanflow.flow.bijection import gradient_of
from stanflow.flow.workspace import Workspace
from stanflow.kernels import layers as compiled

if TYPE_CHECKING:
    from stanflow.flow.coupling import AffineCoupling


class Elementwise(Protocol):
    """The elementwise passes of one layer, on (D, B) points; they share `output` with the caller.

    `output`, (2, n, B), holds the network's u and t without their biases before `push` and
    `restore`, and the cotangents of u and t after `push` with a score and after `pull`.
    """

    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        """See `Passes.push`; the network's part of the score is left to the caller."""

    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        """See `Passes.pull`; the network's part is left to the caller."""

    def restore(self, x: Tensor) -> None:
        """See `Passes.restore`."""


def make_elementwise(
    layer: AffineCoupling, kept: Tensor, output: Tensor, workspace: Workspace
) -> Elementwise:
    """Return the compiled passes where the workspace has them, else those in torch.

    Parameters
    ----------
    layer : AffineCoupling
    kept : Tensor of shape (D - n, B)
        Where the caller puts the kept coordinates' values before `push` and `restore`.
    output : Tensor of shape (2, n, B)
        See `Elementwise`.
    workspace : Workspace
    """
    if workspace.library is None:
        return _Torch(layer, kept, output, workspace)
    return CompiledElementwise(layer, kept, output, workspace, workspace.library)


class CompiledElementwise(Elementwise):
    """One compiled pass each way (coupling_passes.h)."""

    def __init__(
        self,
        layer: AffineCoupling,
        kept: Tensor,
        output: Tensor,
        workspace: Workspace,
        library: ctypes.CDLL,
    ) -> None:
        n, n_kept, batch = len(layer.moved), len(layer.kept), workspace.batch
        parts = compiled.parts_for(n * batch)
        largest = workspace.row_of_largest()
        scale = workspace.kept("scale", n, batch)
        gain = workspace.kept("gain", n, batch)
        slope = workspace.kept("slope", n, batch) if workspace.with_slopes else None
        log_det = workspace.scratch("log_det", parts, batch)
        conditioner, local = layer.conditioner, layer.local
        arguments = compiled.Coupling(
            moved=n,
            n_kept=n_kept,
            batch=batch,
            parts=parts,
            rows=layer.moved.data_ptr(),
            clamp=layer.clamp.code,
            positive=layer.clamp.positive,
            negative=layer.clamp.negative,
            output=output.data_ptr(),
            bias=conditioner.output_bias.data_ptr(),
            bias_gradient=workspace.address_of_gradient(conditioner.output_bias),
            scale=scale.data_ptr(),
            gain=gain.data_ptr(),
            slope=None if slope is None else slope.data_ptr(),
            log_det=log_det.data_ptr(),
            largest=largest.data_ptr(),
        )
        keep_alive = [kept, output, scale, gain, slope, log_det, largest]
        if local is not None:
            back = workspace.scratch("back", parts, n_kept, batch)
            keep_alive.append(back)
            arguments.partners = local.partners.shape[1]
            arguments.features = local.features
            arguments.kept = kept.data_ptr()
            arguments.kept_rows = layer.kept.data_ptr()
            arguments.partner = local.partners.data_ptr()
            arguments.back = back.data_ptr()
            for name in ("linear", "weight", "inner"):
                parameter = getattr(local, name)
                setattr(arguments, name, parameter.data_ptr())
                setattr(arguments, f"{name}_gradient", workspace.address_of_gradient(parameter))
        self._keep_alive = keep_alive
        self._arguments = arguments
        self.address = ctypes.addressof(arguments)
        self._calls = compiled.Calls(library, output.dtype)

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        score_address = None if score is None else score.data_ptr()
        self._calls.push(self.address, x.data_ptr(), score_address, log_q.data_ptr())

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        weight = None if log_q_weight is None else log_q_weight.data_ptr()
        self._calls.pull(self.address, cotangent.data_ptr(), weight)

    @override
    def restore(self, x: Tensor) -> None:
        self._calls.restore(self.address, x.data_ptr())


class _Torch:
    def __init__(
        self, layer: AffineCoupling, kept: Tensor, output: Tensor, workspace: Workspace
    ) -> None:
        n, batch = len(layer.moved), workspace.batch
        self._largest = workspace.row_of_largest()[:1]
        self._layer, self._kept, self._output = layer, kept, output
        self._scale = workspace.kept("scale", n, batch)
        self._gain = workspace.kept("gain", n, batch)
        self._slope = workspace.kept("slope", n, batch) if workspace.with_slopes else None

    def _raw(self) -> tuple[Tensor, Tensor]:
        """Return u and t, (n, B) each."""
        raw = self._output + self._layer.conditioner.output_bias.detach().unsqueeze(2)
        if self._layer.local is not None:
            with torch.no_grad():
                raw += self._layer.local(self._kept.T).transpose(1, 2)
        return raw[0], raw[1]

    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        moved, clamp = self._layer.moved, self._layer.clamp
        u, t = self._raw()
        s, slope = clamp(u), clamp.derivative(u)
        torch.exp(s, out=self._scale)
        log_q.sub_(s.sum(0))
        stretched = x[moved] * self._scale
        y = stretched + t
        x[moved] = y
        torch.amax(y.abs().flatten(), 0, keepdim=True, out=self._largest)
        self._save(stretched, slope)
        if score is not None:
            pushed = score[moved] / self._scale
            score[moved] = pushed
            torch.mul(pushed * stretched + 1, slope, out=self._output[0])
            self._output[1].copy_(pushed)
            self._pull_local(score, sign=-1, with_gradients=False)

    def _save(self, stretched: Tensor, slope: Tensor) -> None:
        torch.mul(stretched, slope, out=self._gain)
        if self._slope is not None:
            self._slope.copy_(slope)

    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        moved = self._layer.moved
        on_moved = cotangent[moved]
        torch.mul(on_moved, self._gain, out=self._output[0])
        self._output[1].copy_(on_moved)
        if log_q_weight is not None and self._slope is not None:
            self._output[0].sub_(self._slope * log_q_weight.to(cotangent.dtype))
        cotangent[moved] = on_moved * self._scale
        torch.sum(self._output, 2, out=gradient_of(self._layer.conditioner.output_bias))
        self._pull_local(cotangent, sign=1, with_gradients=True)

    def _pull_local(self, x: Tensor, *, sign: int, with_gradients: bool) -> None:
        """Add sign * J^T output to the partners' rows; write gradients if wanted."""
        local = self._layer.local
        if local is None:
            return
        on_u, on_t = self._output
        with torch.no_grad():
            for k in range(local.partners.shape[1]):
                position = local.partners[:, k]
                present = (position >= 0).to(x.dtype).unsqueeze(1)
                position = position.clamp(min=0)
                partner = self._kept[position] * present
                back = on_u * local.linear[0, :, k, None] + on_t * local.linear[1, :, k, None]
                if with_gradients:
                    gradient = gradient_of(local.linear)
                    gradient[0, :, k] = (on_u * partner).sum(1)
                    gradient[1, :, k] = (on_t * partner).sum(1)
                for m in range(local.features):
                    g, h = (local.inner[i, :, k, m, None] for i in (0, 1))
                    phi = softsign(g * partner + h)
                    through = (
                        on_u * local.weight[0, :, k, m, None]
                        + on_t * local.weight[1, :, k, m, None]
                    ) * (1 - phi.abs()).square()
                    back += through * g
                    if with_gradients:
                        weight, inner = gradient_of(local.weight), gradient_of(local.inner)
                        weight[0, :, k, m] = (on_u * phi * present).sum(1)
                        weight[1, :, k, m] = (on_t * phi * present).sum(1)
                        inner[0, :, k, m] = (through * partner).sum(1)
                        inner[1, :, k, m] = (through * present).sum(1)
                x.index_add_(0, self._layer.kept[position], back * present, alpha=sign)

    def restore(self, x: Tensor) -> None:
        moved, clamp = self._layer.moved, self._layer.clamp
        u, t = self._raw()
        torch.exp(clamp(u), out=self._scale)
        stretched = x[moved] - t
        x[moved] = stretched / self._scale
        self._save(stretched, clamp.derivative(u))
