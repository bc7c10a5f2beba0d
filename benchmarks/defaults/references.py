"""What fits are held against: closed forms, or a long NUTS run, kept as a small JSON file.

Beside the posterior's means and sds stands what 4000 independent draws of it would score themselves
(`exact_draws`): no fit with as many draws can be expected to do better.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from .accuracy import (
    LARGEST_RELATIVE_SD_ERROR,
    NORMAL_QUARTILES,
    FloatArray,
    accuracy,
    estimates,
    statistic,
)
from .exact import exact
from .store import finite_json, write_whole
from .targets import Target

CHAINS, WARMUP, DRAWS = 4, 2000, 20_000
ADAPT_DELTA, CAREFUL_ADAPT_DELTA = 0.9, 0.99
A_FIT, SETS = 4000, 20


def reference_of(target: Target, folder: Path) -> dict[str, Any]:
    """Read a target's reference from the folder, or make it and keep it there."""
    path = folder / f"{target.name}.json"
    made_from = _made_from(target)
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept["made_from"] == made_from:
            return kept
    known = exact(target)
    if known is None:
        about, scalars, draws = _by_nuts(target)
    else:
        about, scalars = {"by": "closed form"}, known.scalars
        draws = known.sample(np.random.default_rng(1), A_FIT * SETS)
    heavy = set(target.by_quantiles.split())
    for name, scalar in scalars.items():
        scalar["statistic"] = statistic(scalar, heavy=name.split(".")[0] in heavy)
    made = {
        "model": target.name,
        **about,
        "exact_draws": _score_of_exact_draws(draws, scalars),
        "scalars": scalars,
        "made_from": made_from,
    }
    write_whole(path, finite_json(made, indent=1) + "\n")
    return made


def _made_from(target: Target) -> dict[str, Any]:
    data = json.dumps(target.data, sort_keys=True).encode()
    return {
        "program_sha256": hashlib.sha256(target.reference_path.read_bytes()).hexdigest(),
        "data_sha256": hashlib.sha256(data).hexdigest(),
        "careful": target.careful,
        "by_quantiles": target.by_quantiles,
        "largest_relative_sd_error": LARGEST_RELATIVE_SD_ERROR,
    }


def _by_nuts(target: Target) -> tuple[dict[str, Any], dict[str, dict[str, Any]], FloatArray]:
    import arviz

    from stanflow.reference.sampling import nuts
    from stanflow.stan.model import StanModel

    mcse: Any = arviz.mcse
    adapt_delta = CAREFUL_ADAPT_DELTA if target.careful else ADAPT_DELTA
    print(f"reference of {target.name}: {CHAINS} chains of {DRAWS} draws by NUTS", flush=True)
    data = dict(target.data)
    run = nuts(
        StanModel(target.reference_path, data, engine="embedded"),
        seed=1,
        chains=CHAINS,
        warmup=WARMUP,
        draws=DRAWS,
        adapt_delta=adapt_delta,
        engine="embedded",
        progress=False,
    )
    for warning in run.report["warnings"]:
        print(f"  {warning}", flush=True)
    about = {"by": "NUTS", "adapt_delta": adapt_delta, "draws": CHAINS * DRAWS}
    about |= {
        key: run.report[key]
        for key in (
            "engine_version", "divergences", "max_rhat", "min_ess_bulk", "warnings", "seconds"
        )
    }  # fmt: skip
    # The fixed elements of a Cholesky factor are left out.
    varies = np.ptp(run.values, axis=(0, 1)) > 1e-12
    parameters = StanModel(target.program_path, data, engine="embedded").parameter_columns
    columns = [j for name in parameters if varies[j := run.columns.index(name)]]
    scalars: dict[str, dict[str, Any]] = {}
    for j in columns:
        x = np.ascontiguousarray(run.values[..., j])
        low, median, high = np.quantile(x, [0.25, 0.5, 0.75])
        scalars[run.columns[j]] = {
            "mean": float(x.mean()),
            "mean_se": float(mcse(x, method="mean")),
            "sd": float(x.std(ddof=1)),
            "sd_se": float(mcse(x, method="sd")),
            "median": float(median),
            "median_se": float(mcse(x, method="median")),
            "spread": float((high - low) / NORMAL_QUARTILES),
        }
    return about, scalars, run.pooled[:, columns]


def _score_of_exact_draws(draws: FloatArray, scalars: dict[str, Any]) -> dict[str, float]:
    """Return the median errors of sets of independent draws, as many as a fit has."""
    rows = np.random.default_rng(2).permutation(len(draws)).reshape(SETS, A_FIT)
    scores = [accuracy(estimates(list(scalars), draws[own]), scalars) for own in rows]
    return {
        error: float(np.median([score[error] for score in scores]))
        for error in ("mean_error", "sd_error")
    }
