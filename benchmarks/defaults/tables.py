"""The results as Markdown, from the results alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from .accuracy import flagged, passes
from .sections import PARTS, STARTS, TIMES, WIRINGS
from .store import Key, Results

Item = Mapping[str, Any]


def line(key: Key, item: Item) -> str:
    """Return one line on a measurement that was just made."""
    head = f"{key.section:10} {key.model:27} seed {key.seed}  {key.variant:22}"
    if "error" in item:
        return f"{head} FAILED after {item['wall_seconds']:.0f} s: {item['error']}"
    text = (
        f"{head} {item['wall_seconds']:6.1f} s  ELBO {item['elbo']:.2f}  k-hat "
        f"{_number(item['pareto_k'], '.2f')}  {item['verdict']}"
    )
    if "accuracy" in item:
        errors = item["accuracy"]
        text += (
            f"  mean {_number(errors['mean_error'], '.3f')} ({errors['mean_worst']})"
            f"  sd {_number(errors['sd_error'], '.3f')} ({errors['sd_worst']})"
        )
    if "evidence_error" in item:
        text += f"  log evidence off by {item['evidence_error']:.3f}"
    return text


def tables(results: Results, sections: Sequence[str]) -> str:
    """Return the tables of all sections that have results, each after its name."""
    parts = [_provenance([item for name in sections for item in results.section(name)])]
    for name in sections:
        items = results.section(name)
        if items:
            parts += [f"### {name}", TABLES[name](items)]
    return "\n\n".join(parts)


def zoo_table(items: Sequence[Item]) -> str:
    """Return the accuracy of default fits, a row a model, and what to make of it."""
    rows = []
    for model, own in _by(items, "model"):
        done = [item for item in own if "error" not in item]
        passed = f"{sum(map(passes, own))} of {len(own)}"
        if not done:
            rows.append([model, own[0]["dim"], *[""] * 7, passed])
            continue
        exact = done[0]["exact_draws"]
        rows.append(
            [
                model + (" (q)" if done[0]["accuracy"]["by_quantiles"] else ""),
                done[0]["dim"],
                _number(median(item["wall_seconds"] for item in done), ".1f"),
                _number(_worst(item["pareto_k"] for item in done), ".2f"),
                f"{sum(item['refined'] for item in done)} of {len(done)}",
                _verdicts(own),
                _number(_worst(item["accuracy"]["mean_error"] for item in done), ".3f"),
                _percent(_worst(item["accuracy"]["sd_error"] for item in done)),
                f"{exact['mean_error']:.3f}, {_percent(exact['sd_error'])}",
                passed,
            ]
        )
    head = [
        "model", "D", "seconds", "k-hat", "refined", "verdict", "error of means", "of sds",
        "of exact draws", "passes",
    ]  # fmt: skip
    return "\n".join([_markdown(head, rows), "", *zoo_summary(items)])


def zoo_summary(items: Sequence[Item]) -> list[str]:
    """Return how many fits pass, which of the others say nothing of it, and what they took."""
    passed = [item for item in items if passes(item)]
    silent = [item for item in items if not passes(item) and not flagged(item)]
    lines = [
        "Seconds: median over seeds, of the whole command. k-hat, of the flow, and errors: the "
        "worst seed's, of draws with their weights, which refined ones have not; means in "
        "reference sds, sds by their logarithm. (q): for some scalars "
        "median and interquartile range are compared. Of exact draws: what 4000 independent draws "
        "of the posterior have themselves, in the middle.",
        "",
        f"{len(passed)} of {len(items)} fits pass ({len(passed) / len(items):.0%}); "
        f"{sum(map(flagged, items))} are flagged as unreliable or failed, of which "
        f"{sum(flagged(item) and passes(item) for item in items)} pass.",
        "Neither passing nor flagged: "
        + (", ".join(f"{i['model']} (seed {i['seed']})" for i in silent) or "none")
        + ".",
        f"Wall time: median {median(i['wall_seconds'] for i in items):.1f} s, at most "
        f"{max(i['wall_seconds'] for i in items):.1f} s; peak memory at most "
        f"{max(i['peak_memory_mb'] for i in items):.0f} MB.",
    ]
    quantiles = {
        model: own[0]["accuracy"]["by_quantiles"]
        for model, own in _by([i for i in items if "accuracy" in i], "model")
    }
    by_variable = [
        f"{model}: {', '.join(dict.fromkeys(name.split('.')[0] for name in names))}"
        for model, names in quantiles.items()
        if names
    ]
    if by_variable:
        lines += ["", f"By median and interquartile range: {'; '.join(by_variable)}."]
    return lines + _failures(items)


def evidence_table(items: Sequence[Item]) -> str:
    """Return errors of the log evidence, a row a fit."""
    rows = []
    for item in items:
        if "error" in item:
            continue
        shares = item.get("mode_shares")
        error = item.get("evidence_error")
        within = "" if error is None else ("yes" if error <= item["limit"] else "NO")
        rows.append(
            [
                item["model"], item["dim"], item["seed"],
                _number(error, ".3f"), _number(item["log_evidence_se"], ".3f"), item["limit"],
                within, _number(item["pareto_k"], ".2f"), item["verdict"],
                _number(item["wall_seconds"], ".1f"),
                "" if shares is None else ", ".join(f"{s:.2f}" for s in shares["weighted"]),
            ]
        )  # fmt: skip
    head = [
        "target", "D", "seed", "off by, nats", "its se", "limit", "within", "k-hat", "verdict",
        "seconds", "shares of the modes",
    ]  # fmt: skip
    measured = [item for item in items if item.get("evidence_error") is not None]
    within = sum(item["evidence_error"] <= item["limit"] for item in measured)
    silent = [
        f"{item['model']} (seed {item['seed']})"
        for item in measured
        if item["evidence_error"] > item["limit"] and not flagged(item)
    ]
    note = f"{within} of {len(items)} within the limit; outside and not flagged: "
    return "\n".join(
        [_markdown(head, rows), "", note + (", ".join(silent) or "none") + ".", *_failures(items)]
    )


def horseshoe_table(items: Sequence[Item]) -> str:
    """Return ELBO and time by way of fitting, the default first."""
    rows = [
        [
            item["model"], item["variant"], _number(item["wall_seconds"], ".0f"), item["steps"],
            f"{item['elbo']:.2f} ({item['elbo_se']:.2g})", _number(item["pareto_k"], ".2f"),
            item["verdict"], f"{item['peak_memory_mb'] / 1e3:.1f}",
            "yes" if item["finite"] else "NO",
        ]
        for item in items
        if "error" not in item
    ]  # fmt: skip
    head = [
        "target", "fit", "seconds", "steps", "ELBO (se)", "k-hat", "verdict", "peak GB",
        "trace finite",
    ]  # fmt: skip
    constants = {
        item["model"]: f"{item['model']} {item['constant']:.2f}"
        + ("" if item["normalized"] else " (not known)")
        for item in items
        if "error" not in item
    }
    note = f"Stan's constants are included: {', '.join(constants.values())}."
    return "\n".join([_markdown(head, rows), "", note, *_failures(items)])


def wiring_table(items: Sequence[Item]) -> str:
    """Return ELBOs of the default wiring, and how far the others are from it."""
    note = "Medians over seeds, after 10 s of training (D <= 50) or 30 s, or where it converged."
    return _compared(items, list(WIRINGS), note)


def parts_table(items: Sequence[Item]) -> str:
    """Return ELBOs of default fits, and how far those without some part are from them."""
    return _compared(items, list(PARTS), "Medians over seeds.")


def _compared(items: Sequence[Item], variants: Sequence[str], note: str) -> str:
    """Return ELBO and k-hat of the first variant, and how far the others are from it."""
    rows = []
    for model, own in _by(items, "model"):
        found = {
            variant: [i for i in own if i["variant"] == variant and "error" not in i]
            for variant in variants
        }
        if not any(found.values()):
            continue
        default, *others = (_median(found[variant], "elbo") for variant in variants)
        ks = [_median(found[variant], "pareto_k") for variant in variants]
        rows.append(
            [
                model,
                own[0]["dim"],
                f"{_number(default, '.2f')} ({_number(ks[0], '.2f')})",
                *(
                    f"{_number(_difference(elbo, default), '+.2f')} ({_number(k, '.2f')})"
                    for elbo, k in zip(others, ks[1:], strict=True)
                ),
            ]
        )
    first, *rest = variants
    head = ["model", "D", f"{first}: ELBO (k-hat)", *(f"{name}: difference" for name in rest)]
    return "\n".join([_markdown(head, rows), "", note, *_failures(items)])


def starts_table(items: Sequence[Item]) -> str:
    """Return the ELBO after so many seconds by start."""
    rows = []
    for model, of_model in _by(items, "model"):
        for start in STARTS:
            own = [i for i in of_model if i["variant"] == start and "error" not in i]
            if own:
                after = [_median_of(i["elbo_after"][str(t)] for i in own) for t in TIMES]
                rows.append(
                    [
                        model, own[0]["dim"], start, *(_number(elbo, ".2f") for elbo in after),
                        _number(_median(own, "trained_seconds"), ".1f"),
                        _number(_median(own, "pareto_k"), ".2f"),
                    ]
                )  # fmt: skip
    head = ["model", "D", "start", *(f"{t} s" for t in TIMES), "trained, s", "k-hat"]
    note = (
        "ELBO of the last 25 steps after so many seconds of training, the start included; where "
        "training has ended, its last. Medians over seeds."
    )
    return "\n".join([_markdown(head, rows), "", note, *_failures(items)])


TABLES: dict[str, Callable[[Sequence[Item]], str]] = {
    "zoo": zoo_table,
    "evidence": evidence_table,
    "horseshoe": horseshoe_table,
    "large": horseshoe_table,
    "wiring": wiring_table,
    "starts": starts_table,
    "parts": parts_table,
}


def _provenance(items: Sequence[Item]) -> str:
    if not items:
        return "Nothing has been measured yet."
    of = {name: sorted({str(item[name]) for item in items}) for name in ("commit", "code")}
    machines = {
        f"{item['processor']}, {item['cores']} cores"
        + ("" if item["threads"] is None else f", OMP_NUM_THREADS={item['threads']}")
        for item in items
    }
    text = f"{len(items)} fits at {', '.join(of['commit'])} on {'; '.join(sorted(machines))}."
    if len(of["code"]) > 1:
        text += f" MIXED: they are of {len(of['code'])} versions of the code."
    busy = sum(item["load"] > item["cores"] for item in items)
    if busy:
        text += f" {busy} began while the machine had more to do than cores."
    return text


def _failures(items: Sequence[Item]) -> list[str]:
    failed: dict[tuple[str, str], list[str]] = {}
    for item in items:
        if "error" in item:
            who = f"{item['model']} (seed {item['seed']})"
            failed.setdefault((item["variant"], item["error"]), []).append(who)
    lines = [f"- {variant}: {error}: {', '.join(who)}" for (variant, error), who in failed.items()]
    return ["", "Failed:", "", *lines] if lines else []


def _by(items: Sequence[Item], name: str) -> list[tuple[str, list[Item]]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item[name], []).append(item)
    return list(groups.items())


def _verdicts(items: Sequence[Item]) -> str:
    counts = Counter("failed" if "error" in item else item["verdict"] for item in items)
    order = ("good", "usable", "unreliable", "failed")
    return ", ".join(f"{counts[v]} {v}" for v in order if counts[v])


def _worst(values: Iterable[float | None]) -> float | None:
    there = list(values)
    return None if None in there else max(there)  # type: ignore[type-var]


def _median(items: Sequence[Item], name: str) -> float | None:
    return _median_of(item[name] for item in items)


def _median_of(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return median(there) if there else None


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _number(x: float | None, form: str) -> str:
    return "-" if x is None else format(x, form)


def _percent(x: float | None) -> str:
    return "-" if x is None else f"{100 * x:.1f} %"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
