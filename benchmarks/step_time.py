"""What a training step costs: time, memory, and how near the processor's limit it runs.

Every configuration runs in a process of its own, whose peak memory is its own; configurations that
are compared take turns, so that a busy machine slows all of them alike. Figures are medians.
Compared with is the paper's architecture built from the package ``normflows``, in float64, with
path gradients through its inverse, as the paper's published code has it (normflows_baseline.py).

    python benchmarks/step_time.py [--only SECTION ...] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import StandardNormal, eight_schools, horseshoe

from stanflow.flow.config import FlowConfig
from stanflow.flow.realnvp import build_flow
from stanflow.flow.sweep import Sweep
from stanflow.flow.wiring import Wiring
from stanflow.sampling.standardize import StandardizedTarget
from stanflow.stan.density import Target
from stanflow.training.compiled_gradients import make_estimator
from stanflow.training.config import TrainConfig
from stanflow.training.optimizers import FlatAdam
from stanflow.training.threads import threads_that_pay

GEMM = 2000


@dataclass(frozen=True)
class Setting:
    """One way of taking training steps."""

    code: str = "stanflow"  # or normflows
    dim: int = 2002
    layers: int = 64
    hidden: int = 100
    batch: int = 256
    precision: str = "float32"
    target: str = "normal"  # or horseshoe, eight schools
    partners: int = 0
    features: int = 4
    memory: str = "auto"
    marginal_layers: int = 0
    tail_share: float = 0.0
    threads: int | None = None  # all there are

    @property
    def product_flops(self) -> float:
        """Operations of the matrix products of a step, as method.md counts them."""
        return 4 * 2 * self.batch * self.layers * 2 * self.hidden * self.dim


def make_target(setting: Setting) -> Target:
    if setting.target == "horseshoe":
        return horseshoe((setting.dim - 2) // 2)
    if setting.target == "eight schools":
        return eight_schools(threads=setting.threads)
    return StandardNormal(setting.dim)


def random_wiring(setting: Setting) -> Wiring | None:
    """Even and odd halves, partners at random: as dear as partners that mean something."""
    if setting.partners == 0:
        return None
    rng = np.random.default_rng(1)
    halves = Wiring.alternating(setting.dim, setting.layers).halves
    return Wiring(
        setting.dim,
        [half.moved for half in halves],
        [rng.choice(half.kept, (len(half.moved), setting.partners)) for half in halves],
    )


class Steps:
    """Our training steps, with the time that each part of the last one took."""

    def __init__(self, setting: Setting) -> None:
        config = FlowConfig(
            layers=setting.layers,
            hidden=setting.hidden,
            local_features=setting.features,
            marginal_layers=setting.marginal_layers,
        )
        flow = build_flow(config, setting.dim, seed=1, wiring=random_wiring(setting))
        self.flow = flow.to(getattr(torch, setting.precision))
        self.sweep = Sweep(flow, setting.batch, memory=setting.memory, threads=setting.threads)
        target = make_target(setting)
        self.seconds_of = {}
        evaluate = target.log_density_gradient
        target.log_density_gradient = self._timed("target", evaluate)  # type: ignore[method-assign]
        self.sweep.draw = self._timed("draw", self.sweep.draw)  # type: ignore[method-assign]
        self.sweep.pull = self._timed("pull", self.sweep.pull)  # type: ignore[method-assign]
        units = StandardizedTarget(target, np.zeros(setting.dim), np.zeros(setting.dim))
        config = TrainConfig(learning_rate=1e-4)
        self.estimator = make_estimator(self.sweep, units, config, setting.tail_share)
        self.optimizer = FlatAdam(flow, config)
        self.generator = torch.Generator().manual_seed(1)
        self.finite = True

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds_of[name] = time.perf_counter() - start

        return timed

    def __call__(self) -> None:
        batch = self._timed("gradient", self.estimator.estimate)(self.generator)
        norm = self._timed("optimizer", self.optimizer.step)(0.0)
        self.estimator.largest()
        self.finite &= bool(np.isfinite(norm)) and batch.rejected == 0


def child(setting: Setting) -> None:
    """Take as many steps as each line of standard input asks for; answer their seconds."""
    if setting.code == "normflows":
        from normflows_baseline import NormflowsBaseline

        target = make_target(setting)
        baseline = NormflowsBaseline(setting.dim, setting.layers, setting.hidden)

        def log_density_gradient(z: Any) -> Any:
            batch = target.log_density_gradient(z)
            return batch.log_density, batch.gradient

        def step() -> None:
            baseline.step(log_density_gradient, setting.batch)

    else:
        step = Steps(setting)
    for line in sys.stdin:
        seconds, parts = [], []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
            if isinstance(step, Steps):
                parts.append(dict(step.seconds_of))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        finite = getattr(step, "finite", None)
        print(
            json.dumps({"seconds": seconds, "parts": parts, "peak_gb": peak, "finite": finite}),
            flush=True,
        )


class Runner:
    """A process that takes steps of one setting when asked."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child", json.dumps(asdict(setting))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, steps: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.communicate()


def compare(settings: list[Setting], turns: int, steps_a_turn: list[int]) -> list[dict[str, Any]]:
    """Let the settings take turns; return each one's median seconds a step and peak memory."""
    runners = [Runner(setting) for setting in settings]
    firsts = [runner.run(1)["seconds"][0] for runner in runners]
    seconds: list[list[float]] = [[] for _ in runners]
    last: list[dict[str, Any]] = [{} for _ in runners]
    parts: list[list[dict[str, float]]] = [[] for _ in runners]
    gemms: list[list[float]] = [[] for _ in runners]
    for _ in range(turns):
        for i, (runner, steps) in enumerate(zip(runners, steps_a_turn, strict=True)):
            last[i] = runner.run(steps + 1)
            # The first step of a turn finds the caches as another process left them.
            seconds[i] += last[i]["seconds"][1:]
            parts[i] += last[i]["parts"][1:]
            gemms[i].append(gemm_gflops(getattr(torch, runner.setting.precision)))
    for runner in runners:
        runner.stop()
    results = []
    for i, runner in enumerate(runners):
        results.append(
            {
                "setting": asdict(runner.setting),
                "milliseconds": 1e3 * float(np.median(seconds[i])),
                "first_step_milliseconds": 1e3 * firsts[i],
                "peak_gb": last[i]["peak_gb"],
                "finite": last[i]["finite"],
            }
        )
        if parts[i]:
            rate = runner.setting.product_flops / results[-1]["milliseconds"] / 1e6
            results[-1] |= {
                "gflops": rate,
                "gemm_gflops": float(np.median(gemms[i])),
                "share_of_gemm": rate / float(np.median(gemms[i])),
            }
            results[-1]["parts_milliseconds"] = {
                name: 1e3 * float(np.median([part[name] for part in parts[i]]))
                for name in parts[i][0]
            }
    return results


def gemm_gflops(dtype: torch.dtype) -> float:
    """What the machine's matrix product reaches on 2000 x 2000: the median of 10."""
    a = torch.randn(GEMM, GEMM, dtype=dtype)
    out = torch.empty_like(a)
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        torch.mm(a, a, out=out)
        seconds.append(time.perf_counter() - start)
    return 2 * GEMM**3 / float(np.median(seconds[2:])) / 1e9


def against_normflows() -> list[dict[str, Any]]:
    """The paper's configuration, ours in both precisions against normflows."""
    results = []
    for dim, steps in ((202, [8, 8, 2]), (2002, [4, 3, 1])):
        for target in ("normal", "horseshoe"):
            paper = Setting(dim=dim, target=target)
            settings = [
                paper,
                replace(paper, precision="float64"),
                replace(paper, code="normflows", precision="float64"),
            ]
            rows = compare(settings, 3, steps)
            for row in rows:
                row |= {
                    "times_faster_than_normflows": rows[2]["milliseconds"] / row["milliseconds"],
                    "times_faster_than_its_first_step": rows[2]["first_step_milliseconds"]
                    / row["milliseconds"],
                }
            results += rows
    return results


def share_of_gemm() -> list[dict[str, Any]]:
    """The paper's configuration by itself, beside the machine's own matrix product."""
    return [
        compare([Setting(precision=precision)], 4, [6])[0] for precision in ("float32", "float64")
    ]


def local_conditioner() -> list[dict[str, Any]]:
    """Couplings with two partners a coordinate against the paper's configuration."""
    results = []
    for target in ("normal", "horseshoe"):
        paper = Setting(target=target)
        local = replace(paper, layers=16, hidden=16, partners=2)
        rows = compare([paper, local], 5, [4, 12])
        rows[1]["share_of_paper"] = rows[1]["milliseconds"] / rows[0]["milliseconds"]
        results += rows
    return results


def small() -> list[dict[str, Any]]:
    """Eight schools: the steps of a fit by default, as it begins and grown, and wide layers."""
    default = Setting(
        dim=10, layers=8, hidden=32, target="eight schools", partners=3, marginal_layers=4,
        tail_share=0.5,
    )  # fmt: skip
    settings = [
        replace(default, layers=layers, threads=threads)
        for layers in (8, 24)
        for threads in (1, None)
    ]
    settings.append(Setting(dim=10, layers=16, hidden=100, target="eight schools"))
    return compare(settings, 5, [200] * len(settings))


def large() -> list[dict[str, Any]]:
    """Many dimensions, and many layers in the memory of few."""
    results = compare([Setting(dim=12_000, layers=32, batch=128, target="horseshoe")], 1, [49])
    return results + compare(
        [Setting(layers=256, memory=memory, target="horseshoe") for memory in ("rebuild", "keep")],
        2,
        [3, 3],
    )


def scaling() -> list[dict[str, Any]]:
    """One size at a time doubled: the cost of a step should double."""
    base = Setting(dim=500, layers=16)
    results = []
    for name in ("layers", "batch", "dim"):
        settings = [replace(base, **{name: factor * getattr(base, name)}) for factor in (1, 2, 4)]
        for factor, row in zip((1, 2, 4), compare(settings, 5, [10, 8, 6]), strict=True):
            results.append({"varied": name, "factor": factor, **row})
    return results


def rebuilding() -> list[dict[str, Any]]:
    """The error of gradients whose activations were rebuilt by inversion, relative in norm."""
    results = []
    for layers in (64, 256):
        for precision in ("float32", "float64"):
            config = FlowConfig(layers=layers, hidden=100, marginal_layers=0)
            flow = build_flow(config, 202, seed=1).to(getattr(torch, precision))
            generator = torch.Generator().manual_seed(1)
            # Weights as training leaves them: every layer moves its coordinates by a tenth or so.
            flow.flat.add_(0.02 * torch.randn(flow.flat.shape, generator=generator))
            gradients = []
            for memory in ("keep", "rebuild"):
                sweep = Sweep(flow, 256, memory=memory)
                sweep.draw(torch.Generator().manual_seed(2))
                sweep.pull((sweep.score + sweep.z) / 256)
                gradients.append(flow.flat_gradient.double().clone())
            error = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
            results.append({"layers": layers, "precision": precision, "relative_error": error})
    return results


SECTIONS = {
    "against normflows": against_normflows,
    "share of gemm": share_of_gemm,
    "local conditioner": local_conditioner,
    "small": small,
    "large": large,
    "scaling": scaling,
    "rebuilding": rebuilding,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        setting = Setting(**json.loads(options.child))
        with threads_that_pay(setting.batch * setting.dim):
            child(setting)
        return
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    for name in options.only:
        results[name] = SECTIONS[name]()
        print(json.dumps({name: results[name]}, indent=2), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
