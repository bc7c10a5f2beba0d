"""How good a fit with default settings is, and what it owes to wiring and start.

    python -m benchmarks.defaults [--sections zoo evidence horseshoe large wiring starts parts]
        [--models NAME ...] [--seeds 3] [--out benchmarks/results/defaults.json] [--fresh]
    python -m benchmarks.defaults --table [--figures docs/figures]    from the results alone

Every fit is made in a process of its own, most of them by `stanflow fit MODEL DATA --seed N`, so
that wall time and peak memory are those that a user sees. Results are written as they come: a run
that was cut off goes on where it was, and what was measured of the same code is not measured again.

- zoo: every pair of `stan_models` with D <= 50, weighted means and sds held against exact ones or a
  long NUTS run, which is kept in `references/` beside the results. A fit passes where the largest
  error of a mean is at most 0.1 reference sds, that of an sd 10 %, and k-hat, where draws have
  weights, below 0.7.
- evidence: targets whose evidence is known.
- horseshoe: the ELBO over time, against the paper's settings and Gaussian families.
- large: D > 10,000.
- wiring: four wirings at equal seconds.
- starts: three starts, the ELBO after 1 to 20 seconds.
- parts: default fits without draws in the tails, and without sinh-arcsinh layers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from filelock import FileLock, Timeout

from .figures import draw_figures
from .sections import SECTIONS, Measurement, Plan
from .store import ROOT, Results, circumstances, code_version
from .tables import line, tables
from .targets import ALL_NAMES


def main() -> None:
    description, _, usage = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.defaults", description=description, epilog=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--models", nargs="+", help="only these targets")
    parser.add_argument("--seeds", type=int, default=3, help="of each fit, in most sections")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/defaults.json")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--figures", type=Path, help="draw them in this folder; measure nothing")
    parser.add_argument("--table", action="store_true", help="print tables; measure nothing")
    options = parser.parse_args()
    unknown = sorted(set(options.models or ()) - ALL_NAMES)
    if unknown:
        parser.error(
            f"there is no {', '.join(unknown)}; choose from {', '.join(sorted(ALL_NAMES))}"
        )
    results = Results(options.out)
    if options.figures is None and not options.table:
        try:
            with FileLock(options.out.with_suffix(".lock"), timeout=0):
                _measure(options, Results(options.out))
        except Timeout:
            parser.error(f"another run is writing {options.out}")
        return
    if options.figures is not None:
        for path in draw_figures(results, options.figures):
            print(path)
    if options.table:
        print(tables(results, options.sections))


def _measure(options: argparse.Namespace, results: Results) -> None:
    plan = Plan(results, options.out.parent, options.seeds, options.models)
    for name in options.sections:
        for measurement in SECTIONS[name](plan):
            _measure_one(measurement, results, plan, fresh=options.fresh)
    print("\n" + tables(results, options.sections))


def _measure_one(measurement: Measurement, results: Results, plan: Plan, *, fresh: bool) -> None:
    code = code_version()
    if not fresh and results.find(measurement.key, code) is not None:
        return
    began = circumstances()
    item = began | measurement.measure()
    # Where the sources were edited meanwhile, nobody can say what was measured: it is done again.
    item["code"] = code if code_version() == code else "edited meanwhile"
    results.put(measurement.key, item)
    print(line(measurement.key, item), flush=True)


if __name__ == "__main__":
    main()
