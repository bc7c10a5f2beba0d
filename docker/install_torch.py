"""Install the torch that constraints.txt pins, by the pip that runs this, into another environment.

``python install_torch.py cpu|cuda ENVIRONMENT [INDEX]``. A wheel that brings CUDA, which the index
has where nobody names another, is several gigabytes: for the processor alone it is refused before
it is downloaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

PIP = (sys.executable, "-m", "pip")


def main(variant: str, environment: str, index: str = "") -> None:
    """Install it, with what it needs for CUDA if that is wanted."""
    if variant not in {"cpu", "cuda"}:
        sys.exit(f"VARIANT must be cpu or cuda, not {variant}")
    lines = Path("constraints.txt").read_text().splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    options = ["--index-url", index] if index else []
    if variant == "cpu":
        brought = cuda_packages(torch, options)
        if brought:
            sys.exit(
                f"this index has {torch} with CUDA ({brought[0]}, ...); name the index of wheels "
                "for the processor alone, as PyTorch's installation page has it, by "
                "--build-arg TORCH_INDEX_URL=..., or take --build-arg VARIANT=cuda"
            )
    into = [*PIP, "--python", environment, "install"]
    subprocess.run([*into, "--no-deps", *options, torch], check=True)
    if variant == "cuda":
        subprocess.run([*into, "--constraint", "constraints.txt", torch], check=True)


def cuda_packages(torch: str, options: list[str]) -> list[str]:
    """Return the names of CUDA's packages that this wheel of torch would bring."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        asking = ["install", "--quiet", "--dry-run", "--no-deps", "--report", str(report)]
        subprocess.run([*PIP, *asking, *options, torch], check=True)
        wheel = json.loads(report.read_text())["install"][0]["metadata"]
    wanted = map(Requirement, wheel.get("requires_dist", []))
    return [
        w.name
        for w in wanted
        if w.name.startswith(("nvidia", "cuda"))
        and (w.marker is None or w.marker.evaluate({"extra": ""}))
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
