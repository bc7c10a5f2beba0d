"""One fit through the Python interface, for settings that the command line does not have.

    python -m benchmarks.defaults.fit_by_python SPECIFICATION

The specification is a JSON object: program, data, seed, out, flow and training.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import stanflow
from stanflow.errors import StanFlowError


def _fit(specification: dict[str, Any]) -> None:
    flow, training, seed = (specification[name] for name in ("flow", "training", "seed"))
    flow_config = stanflow.FlowConfig(**flow) if flow else None
    train_config = stanflow.TrainConfig(**training) if training else None
    model = stanflow.StanModel(specification["program"], specification["data"], seed=seed)
    fit = stanflow.fit(model, seed=seed, flow=flow_config, training=train_config, progress=False)
    fit.save(specification["out"])


def main() -> None:
    try:
        _fit(json.loads(sys.argv[1]))
    except (StanFlowError, TypeError) as error:  # TypeError: this version has no such setting
        print(json.dumps({"error": str(error)}))
        sys.exit(1)


if __name__ == "__main__":
    main()
