"""Where the time of small fits and NUTS runs goes, beside `import torch`.

Ten programs of the zoo with D <= 20, each by `stanflow fit` and `stanflow nuts` in processes of
their own, as users run them. Imports are timed apart: a process that loads the modules of a whole
run, in their order, and nothing else. It takes turns with `python -c "import torch"`, so that a
busy machine slows both alike; figures are medians over the turns.

    python benchmarks/small_fits.py [--turns 5] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ZOO = Path(__file__).parents[1] / "stan_models"
PROGRAMS = (
    "eight_schools/eight_schools_noncentered",
    "eight_schools/eight_schools_centered",
    "bernoulli/bernoulli",
    "covariance/covariance",
    "funnel/funnel",
    "linear_regression/linear_regression",
    "ordered_logit/ordered_logit",
    "poisson_random_effects/poisson_random_effects",
    "robust_regression/robust_regression",
    "survival/survival",
)
STAGES = ("start", "wiring", "training", "assessment", "save")
_TELL_MODULES = """
import json, sys
from stanflow.cli.main import main
try:
    main()
finally:
    json.dump([m for m in sys.modules if not m.startswith("__")], open({path!r}, "w"))
"""
_LOAD_MODULES = """
import importlib, json
for name in json.load(open({path!r})):
    try:
        importlib.import_module(name)
    except ImportError:  # what a package puts there by itself
        pass
"""


def arguments(command: str, name: str) -> list[str]:
    program = ZOO / f"{name}.stan"
    data = program.parent / f"{program.parent.name}.json"
    return [command, str(program), str(data), "--engine", "embedded", "--json", "--seed", "1"]


def run(command: str, name: str, folder: Path) -> dict[str, Any]:
    """Run a command and say what its stages took."""
    stanflow = Path(sys.executable).with_name("stanflow")
    began = time.perf_counter()
    done = subprocess.run(
        [stanflow, *arguments(command, name)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
    )
    wall = time.perf_counter() - began
    report = json.loads(done.stdout)
    if command == "nuts":
        return {"wall": wall, "sampling": report["seconds"]}
    stages = {stage: report["stages"][stage]["seconds"] for stage in STAGES}
    return {"wall": wall, **stages, "dim": report["dim"], "steps": report["steps"]}


def modules_of(command: str, name: str, folder: Path) -> Path:
    """Return a file with the names of the modules that a run loads."""
    path = folder / f"{command}.modules"
    code = _TELL_MODULES.format(path=str(path))
    call = [sys.executable, "-c", code, *arguments(command, name)]
    subprocess.run(call, capture_output=True, cwd=folder, check=False)
    return path


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        timed = {"torch": "import torch"}
        for command in ("fit", "nuts"):
            path = modules_of(command, PROGRAMS[0], folder)
            timed[command] = _LOAD_MODULES.format(path=str(path))
        turns: list[dict[str, float]] = []
        for _ in range(options.turns):
            turn = {name: seconds(code) for name, code in timed.items()}
            turn["nuts, eight schools"] = run("nuts", PROGRAMS[0], folder)["wall"]
            turns.append(turn)
        imports = {name: median(turn[name] for turn in turns) for name in turns[0]}
        runs = {
            name: {command: run(command, name, folder) for command in ("fit", "nuts")}
            for name in PROGRAMS
        }
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "imports": imports,
        "imports_of_a_fit_over_torch": imports["fit"] / imports["torch"],
        "nuts_of_eight_schools_over_torch": imports["nuts, eight schools"] / imports["torch"],
        "runs": runs,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}, indent=2))
    print(f"{'':28}{'D':>4}{'wall':>7}" + "".join(f"{stage:>11}" for stage in STAGES) + "   nuts")
    for name, of in runs.items():
        fit = of["fit"]
        stages = "".join(f"{fit[stage]:11.2f}" for stage in STAGES)
        nuts = of["nuts"]["wall"]
        print(f"{Path(name).name:28}{fit['dim']:4}{fit['wall']:7.1f}{stages}{nuts:7.1f}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
