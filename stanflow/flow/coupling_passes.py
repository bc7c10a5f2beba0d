"""The hand-derived passes of a coupling layer.

With J the Jacobian of the raw log scale and shift (u, t) with respect to the kept coordinates a:

- push: ``b' = b e^s + t``; ``score_b' = score_b / e^s``;
  ``score_a' = score_a - J^T [(score_b' b e^s + 1) ds/du ; score_b']``.
- pull, for the cotangent c of the outputs: ``c_b = c_b' e^s``;
  ``c_a = c_a' + J^T [c_b' b e^s ds/du ; c_b']``; parameters get the same two cotangents of u and t.

What is kept of a push is a, the hidden activations, e^s and ``b e^s ds/du``. J^T is the networks'
(`network`) and the local conditioner's (`elementwise`, with everything elementwise).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from typing_extensions import override

from stanflow.flow.bijection import Passes
from stanflow.flow.elementwise import CompiledElementwise, make_elementwise
from stanflow.flow.network import SmallNetwork, make_network
from stanflow.flow.workspace import Workspace
from stanflow.kernels import layers as compiled

if TYPE_CHECKING:
    from stanflow.flow.coupling import AffineCoupling


class CouplingPasses(Passes):
    """Passes of an `AffineCoupling`.

    Parameters
    ----------
    layer : AffineCoupling
        Its parameters are read and their gradients written in place.
    workspace : Workspace
        Source of the buffers.
    """

    def __init__(self, layer: AffineCoupling, workspace: Workspace) -> None:
        self._network = make_network(layer, workspace)
        self._elementwise = make_elementwise(
            layer, self._network.kept, self._network.output, workspace
        )

    @override
    def push(self, x: Tensor, score: Tensor | None, log_q: Tensor) -> None:
        self._network.push(x)
        self._elementwise.push(x, score, log_q)
        if score is not None:
            self._network.pull_score(score)

    @override
    def pull(self, cotangent: Tensor, log_q_weight: Tensor | None) -> None:
        self._elementwise.pull(cotangent, log_q_weight)
        self._network.pull(cotangent)

    @override
    def restore(self, x: Tensor) -> None:
        self._network.push(x)
        self._elementwise.restore(x)

    @override
    def link(self, dim: int) -> compiled.Link:
        network, elementwise = self._network, self._elementwise
        if not isinstance(network, SmallNetwork):
            raise NotImplementedError("only small networks can be linked")
        assert isinstance(elementwise, CompiledElementwise)
        return compiled.Link(
            coupling=elementwise.address, forward=network.forward, backward=network.backward
        )
