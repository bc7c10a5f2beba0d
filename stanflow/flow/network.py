"""The hand-derived passes of a coupling layer's global conditioner: two networks side by side."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from stanflow.flow.bijection import gradient_of
from stanflow.flow.workspace import Workspace
from stanflow.kernels import layers as compiled

if TYPE_CHECKING:
    from stanflow.flow.coupling import AffineCoupling


MOST_DIMENSIONS_OF_SMALL_LAYERS = 128


class Network(Protocol):
    """Passes between the kept coordinates' values and u and t, which stand in `output`, (2, n, B).

    `output` is without the biases of u and t after `push`, and has the cotangents of u and t
    before `pull_score` and `pull`.
    """

    kept: Tensor
    output: Tensor

    def push(self, x: Tensor) -> None:
        """Evaluate the networks at the kept coordinates of x, (D, B)."""

    def pull_score(self, score: Tensor) -> None:
        """Subtract what comes back through the networks from the kept rows of score, (D, B)."""

    def pull(self, cotangent: Tensor) -> None:
        """Add what comes back to the kept rows of cotangent, and write the weights' gradients."""


def make_network(layer: AffineCoupling, workspace: Workspace) -> Network:
    """Return the passes that suit the layer's size, and what the workspace has."""
    if workspace.library is not None and is_small(layer):
        return SmallNetwork(layer, workspace, workspace.library)
    return _MatrixNetwork(layer, workspace)


def is_small(layer: AffineCoupling) -> bool:
    """Return whether products of whole matrices are not worth it: see `SmallNetwork`."""
    return len(layer.kept) + len(layer.moved) <= MOST_DIMENSIONS_OF_SMALL_LAYERS


class _MatrixNetwork:
    """By products of whole matrices."""

    def __init__(self, layer: AffineCoupling, workspace: Workspace) -> None:
        conditioner = layer.conditioner
        batch, n_moved, hidden = workspace.batch, len(layer.moved), conditioner.hidden
        self._rows = _Rows(layer.kept, workspace)
        self.kept = workspace.kept("kept", len(layer.kept), batch)
        self.output = workspace.scratch("output", 2, n_moved, batch)
        # (2, H, B) each: hidden units of the network of u, then of that of t
        self._hidden = workspace.kept("hidden", 2, hidden, batch)
        self._hidden_cotangent = workspace.scratch("hidden cotangent", 2, hidden, batch)
        self._flat_cotangent = self._hidden_cotangent.flatten(0, 1)
        self._input_weight, self._input_bias = conditioner.input_weight, conditioner.input_bias
        self._output_weight = conditioner.output_weight
        self._with_gradients = workspace.with_gradients
        self._calls: compiled.Calls | None = None
        if workspace.library is not None:
            units = {
                "units": 2 * hidden,
                "batch": batch,
                "parts": compiled.parts_for(2 * hidden * batch),
                "hidden": self._hidden.data_ptr(),
                "cotangent": self._hidden_cotangent.data_ptr(),
                "bias": self._input_bias.data_ptr(),
            }
            own = workspace.address_of_gradient(self._input_bias)
            self._units = compiled.Activation(**units)
            self._units_with_gradient = compiled.Activation(**units, bias_gradient=own)
            self._calls = compiled.Calls(workspace.library, self.output.dtype)

    def push(self, x: Tensor) -> None:
        self._rows.take(x, out=self.kept)
        torch.mm(self._input_weight, self.kept, out=self._hidden.flatten(0, 1))
        self._activate()
        torch.bmm(self._output_weight, self._hidden, out=self.output)

    def pull_score(self, score: Tensor) -> None:
        self._pull_back(with_gradients=False)
        self._rows.add_product(score, self._input_weight.T, self._flat_cotangent, sign=-1)

    def pull(self, cotangent: Tensor) -> None:
        self._pull_back(with_gradients=self._with_gradients)
        if self._with_gradients:
            torch.mm(self._flat_cotangent, self.kept.T, out=gradient_of(self._input_weight))
        self._rows.add_product(cotangent, self._input_weight.T, self._flat_cotangent, sign=1)

    def _pull_back(self, *, with_gradients: bool) -> None:
        """Take the cotangents of u and t back to those of the hidden units before relu."""
        weight, cotangent = self._output_weight, self._hidden_cotangent
        if with_gradients:
            torch.bmm(self.output, self._hidden.transpose(1, 2), out=gradient_of(weight))
        torch.bmm(weight.transpose(1, 2), self.output, out=cotangent)
        if self._calls is not None:
            units = self._units_with_gradient if with_gradients else self._units
            self._calls.pull_activation(ctypes.addressof(units))
            return
        cotangent.mul_(self._hidden > 0)
        if with_gradients:
            bias_gradient = gradient_of(self._input_bias)
            bias_gradient.copy_(cotangent.sum(2).view_as(bias_gradient))

    def _activate(self) -> None:
        if self._calls is None:
            self._hidden.add_(self._input_bias.view(2, -1, 1)).relu_()
        else:
            self._calls.activate(ctypes.addressof(self._units))


class SmallNetwork(Network):
    """One compiled pass each way, for few coordinates (network_passes.h)."""

    def __init__(self, layer: AffineCoupling, workspace: Workspace, library: ctypes.CDLL) -> None:
        conditioner = layer.conditioner
        n_kept, n_moved, batch = len(layer.kept), len(layer.moved), workspace.batch
        self.kept = workspace.kept("kept", n_kept, batch)
        self.output = workspace.scratch("output", 2, n_moved, batch)
        shape = (2, conditioner.hidden, batch)
        self._hidden = workspace.kept("hidden", *shape)
        self._hidden_cotangent = workspace.scratch("hidden cotangent", *shape)
        self._kept_rows = layer.kept
        arguments = {
            "n_kept": n_kept,
            "n_moved": n_moved,
            "hidden_units": conditioner.hidden,
            "batch": batch,
            "kept": self.kept.data_ptr(),
            "kept_rows": layer.kept.data_ptr(),
            "input_weight": conditioner.input_weight.data_ptr(),
            "input_bias": conditioner.input_bias.data_ptr(),
            "output_weight": conditioner.output_weight.data_ptr(),
            "hidden": self._hidden.data_ptr(),
            "output": self.output.data_ptr(),
            "hidden_cotangent": self._hidden_cotangent.data_ptr(),
        }
        self._for_score = compiled.Network(**arguments, sign=-1)
        gradients = {
            f"{name}_gradient": workspace.address_of_gradient(getattr(conditioner, name))
            for name in ("input_weight", "input_bias", "output_weight")
            if workspace.with_gradients
        }
        self._for_cotangent = compiled.Network(**arguments, sign=1, **gradients)
        self._calls = compiled.Calls(library, self.output.dtype)

        self.forward = ctypes.addressof(self._for_score)
        self.backward = ctypes.addressof(self._for_cotangent)

    @override
    def push(self, x: Tensor) -> None:
        self._calls.network_push(self.forward, x.data_ptr())

    @override
    def pull_score(self, score: Tensor) -> None:
        self._calls.network_pull(self.forward, score.data_ptr())

    @override
    def pull(self, cotangent: Tensor) -> None:
        self._calls.network_pull(self.backward, cotangent.data_ptr())


class _Rows:
    """Rows of a (D, B) matrix: evenly spaced ones are a view, others are gathered."""

    def __init__(self, rows: Tensor, workspace: Workspace) -> None:
        self._rows = rows
        self._slice: slice | None = None
        steps = rows.diff()
        if bool((steps == steps[:1]).all()):
            step = int(steps[0]) if len(steps) else 1
            self._slice = slice(int(rows[0]), int(rows[-1]) + 1, step)
        else:
            self._product = workspace.scratch("rows", len(rows), workspace.batch)

    def take(self, x: Tensor, out: Tensor) -> None:
        if self._slice is None:
            torch.index_select(x, 0, self._rows, out=out)
        else:
            out.copy_(x[self._slice])

    def add_product(self, x: Tensor, left: Tensor, right: Tensor, sign: int) -> None:
        """Add sign * left @ right to the rows."""
        if self._slice is None:
            x.index_add_(0, self._rows, torch.mm(left, right, out=self._product), alpha=sign)
        else:
            x[self._slice].addmm_(left, right, alpha=sign)
