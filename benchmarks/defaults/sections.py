"""What is measured, section by section: measurements by key, in the order they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .accuracy import accuracy, estimates, mode_shares
from .references import reference_of
from .runs import LIMIT, Finished, command_line, elbo_after, measure, python, thinned
from .store import Key, Results
from .targets import EVIDENCE, HORSESHOE, LARGE, WIRED, ZOO, Target

EVIDENCE_LIMITS = {10: 0.05, 100: 0.1, 1000: 0.5}  # nats, by dimension
CUTS = (10, 20, 30, 60, 120)
PAPER_SECONDS = {100: 600, 1000: 900}
GAUSSIAN_SECONDS = 60
LARGE_LIMIT = 2400.0
WIRINGS: dict[str, dict[str, Any]] = {
    "curvature": {"wiring": "curvature"},
    "even-odd": {"wiring": "even-odd"},
    "curvature, no partners": {"wiring": "curvature", "partners": 0},
    "even-odd, no partners": {"wiring": "even-odd", "partners": 0},
}
PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all": ({}, {}),
    "no draws in the tails": ({}, {"tail_share": 0.0}),
    "no sinh-arcsinh layers": ({"marginal_layers": 0}, {}),
}
MANY_STEPS = 100_000
STARTS = ("ensemble", "mean-field", "none")
TIMES = (1, 2, 5, 10, 20)


class Measurement(NamedTuple):
    """A key and how to measure it."""

    key: Key
    measure: Callable[[], dict[str, Any]]


class Plan:
    """What is asked for, and where things are kept."""

    def __init__(
        self, results: Results, folder: Path, seeds: int, models: Sequence[str] | None
    ) -> None:
        self.results, self.folder = results, folder
        self.seeds = range(1, seeds + 1)
        self._models = models

    @property
    def references(self) -> Path:
        return self.folder / "references"

    def wanted(self, targets: Sequence[Target]) -> list[Target]:
        return [t for t in targets if self._models is None or t.name in self._models]


def zoo(plan: Plan) -> Iterator[Measurement]:
    """Default fits of every pair with D <= 50, against exact moments or a long NUTS run."""
    for seed in plan.seeds:
        for target in plan.wanted(ZOO):
            yield Measurement(
                Key("zoo", target.name, seed, "default"),
                partial(_zoo_fit, plan, target, seed),
            )


def _zoo_fit(plan: Plan, target: Target, seed: int) -> dict[str, Any]:
    reference = reference_of(target, plan.references)

    def examine(fit: Finished) -> dict[str, Any]:
        loaded = _loaded(fit)
        names = list(reference["scalars"])
        columns = [loaded.columns.index(name) for name in names]
        found = estimates(names, loaded.values[:, columns], loaded.weights)
        return {
            "accuracy": accuracy(found, reference["scalars"]),
            "exact_draws": reference["exact_draws"],
            "reference": reference["by"],
            "estimates": found,
        }

    return measure(target, seed, command_line(), examine, near=plan.folder)


def _loaded(fit: Finished) -> Any:
    import stanflow

    return stanflow.load(fit.folder)


def evidence(plan: Plan) -> Iterator[Measurement]:
    """Default fits of targets whose evidence is known."""
    for seed in plan.seeds:
        for target in plan.wanted(EVIDENCE):
            yield Measurement(
                Key("evidence", target.name, seed, "default"),
                partial(_evidence_fit, plan, target, seed),
            )


def _evidence_fit(plan: Plan, target: Target, seed: int) -> dict[str, Any]:
    def examine(fit: Finished) -> dict[str, Any]:
        if target.folder != "normal_mixture":
            return {}
        loaded = _loaded(fit)
        return {
            "mode_shares": {
                "weighted": mode_shares(loaded.z, loaded.weights),
                "drawn": mode_shares(loaded.z, np.full(len(loaded.z), 1 / len(loaded.z))),
            }
        }

    item = measure(target, seed, command_line(), examine, near=plan.folder)
    item |= {"exact": target.log_evidence, "limit": EVIDENCE_LIMITS[_size(target)]}
    if "error" not in item and item["normalized"]:
        item["evidence_error"] = abs(item["log_evidence"] - item["exact"])
    return item


def horseshoe(plan: Plan) -> Iterator[Measurement]:
    """The ELBO over time: the default, cut short, the paper's settings, and Gaussian families."""
    for target in plan.wanted(HORSESHOE):
        size = _size(target)

        fit = partial(_traced_fit, plan, "horseshoe", target)
        yield fit("default")
        default = plan.results.find(Key("horseshoe", target.name, 1, "default"))
        took = None if default is None else default.get("trained_seconds")
        for seconds in CUTS:
            if took is None or seconds < took:  # else it is the default fit
                yield fit(f"default, {seconds} s", "--max-seconds", str(seconds))
        for family in ("meanfield", "fullrank"):
            yield fit(family, "--family", family, "--max-seconds", str(GAUSSIAN_SECONDS))
        yield fit("paper", "--preset", "paper", "--max-seconds", str(PAPER_SECONDS[size]))


def large(plan: Plan) -> Iterator[Measurement]:
    """More than 10,000 dimensions."""
    variants = {
        "default": (),
        "meanfield": ("--family", "meanfield", "--max-seconds", "300"),
    }
    for target in plan.wanted([LARGE]):
        for variant, options in variants.items():
            yield _traced_fit(plan, "large", target, variant, *options, limit=LARGE_LIMIT)


def _traced_fit(
    plan: Plan, section: str, target: Target, variant: str, *options: str, limit: float = LIMIT
) -> Measurement:
    how = command_line(*options)
    return Measurement(
        Key(section, target.name, 1, variant),
        partial(measure, target, 1, how, thinned, near=plan.folder, limit=limit),
    )


def wiring(plan: Plan) -> Iterator[Measurement]:
    """Which coordinates layers move and look at: the ELBO at equal seconds."""
    for seed in plan.seeds:
        for target in plan.wanted(WIRED):
            training = {"max_steps": MANY_STEPS, "max_seconds": 10.0 if target.dim <= 50 else 30.0}
            for variant, flow in WIRINGS.items():
                how = python(flow, training)
                yield Measurement(
                    Key("wiring", target.name, seed, variant),
                    partial(measure, target, seed, how, near=plan.folder),
                )


def starts(plan: Plan) -> Iterator[Measurement]:
    """Where training begins: the ELBO after so many seconds."""
    for seed in plan.seeds:
        for target in plan.wanted(ZOO):
            for start in STARTS:
                how = python(training={"start": start})
                yield Measurement(
                    Key("starts", target.name, seed, start),
                    partial(measure, target, seed, how, elbo_after(TIMES), near=plan.folder),
                )


def parts(plan: Plan) -> Iterator[Measurement]:
    """Default fits without one of the things that a default fit has."""
    for seed in plan.seeds:
        for target in plan.wanted([target for target in ZOO if target.dim > 1]):
            for variant, (flow, training) in PARTS.items():
                yield Measurement(
                    Key("parts", target.name, seed, variant),
                    partial(measure, target, seed, python(flow, training), near=plan.folder),
                )


SECTIONS: dict[str, Callable[[Plan], Iterator[Measurement]]] = {
    "zoo": zoo,
    "evidence": evidence,
    "horseshoe": horseshoe,
    "large": large,
    "wiring": wiring,
    "starts": starts,
    "parts": parts,
}


def _size(target: Target) -> int:
    return int(target.name.rsplit("_", 1)[1])
