"""Black-box variational inference with normalizing flows for any Stan program.

The public names are loaded when they are first used, so that importing the package is quick.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Threads that wait for one another by spinning keep each other from running where anything else
# wants the cores: a training step then takes up to a hundred times as long. So they sleep after
# some microseconds. OpenMP reads this when torch is loaded; where torch is loaded already, or the
# user has chosen, it changes nothing.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

if TYPE_CHECKING:
    from stanflow.comparison.compare import compare
    from stanflow.comparison.result import Comparison
    from stanflow.errors import StanFlowError
    from stanflow.fitting.fit import fit
    from stanflow.fitting.result import Fit, load
    from stanflow.flow.config import FlowConfig
    from stanflow.reference.result import NutsFit, load_nuts
    from stanflow.reference.sampling import nuts
    from stanflow.refine.config import RefineConfig
    from stanflow.service.client import Client
    from stanflow.stan.model import StanModel
    from stanflow.training.config import TrainConfig

_HOMES = {
    "Client": "stanflow.service.client",
    "Comparison": "stanflow.comparison.result",
    "Fit": "stanflow.fitting.result",
    "FlowConfig": "stanflow.flow.config",
    "NutsFit": "stanflow.reference.result",
    "RefineConfig": "stanflow.refine.config",
    "StanFlowError": "stanflow.errors",
    "StanModel": "stanflow.stan.model",
    "TrainConfig": "stanflow.training.config",
    "compare": "stanflow.comparison.compare",
    "fit": "stanflow.fitting.fit",
    "load": "stanflow.fitting.result",
    "load_nuts": "stanflow.reference.result",
    "nuts": "stanflow.reference.sampling",
}

__all__ = [
    "Client",
    "Comparison",
    "Fit",
    "FlowConfig",
    "NutsFit",
    "RefineConfig",
    "StanFlowError",
    "StanModel",
    "TrainConfig",
    "__version__",
    "compare",
    "fit",
    "load",
    "load_nuts",
    "nuts",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'stanflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
