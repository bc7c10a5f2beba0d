"""Comparison: what compare found."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stanflow.comparison.agreement import CLOSE_TOLERANCE, TOLERANCE
from stanflow.comparison.evidence import Evidence
from stanflow.comparison.metrics import WEIGHTED
from stanflow.comparison.sides import Sides, describe_side
from stanflow.fitting.result import Fit
from stanflow.reference.result import NutsFit
from stanflow.statistics.summary import number

ROWS_SHOWN = 30
_NAMES_SHOWN = 5
_VERBS = {
    "agree": "agree with",
    "undecided": "cannot be told from",
    "close": "are close to",
    "differ": "differ from",
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs held against each other; prints itself.

    Attributes
    ----------
    first, reference : Fit or NutsFit
        What was compared.
    sides : Sides
        Their draws of the scalars compared.
    table : pandas.DataFrame
        One row a scalar, worst first: means, sds, quantiles of both sides with Monte Carlo errors,
        differences with z-scores, Wasserstein distances; columns that end in ``_weighted`` are of
        importance-weighted draws. See `stanflow.comparison.metrics.difference_table`.
    pairs : pandas.DataFrame
        The pairs of parameters whose rank correlations differ most.
    evidence : Evidence
        Estimates of the log evidence.
    summary : dict
        What ``stanflow compare --json`` prints.
    """

    first: Fit | NutsFit
    reference: Fit | NutsFit
    sides: Sides
    table: pd.DataFrame
    pairs: pd.DataFrame
    evidence: Evidence
    summary: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return a copy of `summary`."""
        return dict(self.summary)

    def report(self, path: str | PathLike[str]) -> Path:
        """Write the comparison as one HTML file that needs nothing else; return its path.

        ``summary["report"]`` is that path afterwards.

        Raises
        ------
        UsageError
            It cannot be written.
        """
        from stanflow.comparison.report import render
        from stanflow.report.page import write_page

        written: Path = write_page(render(self), Path(path))
        self.summary["report"] = str(written)
        return written

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        first, reference = self.sides.first.in_sentences, self.sides.reference.in_sentences
        level = self.summary["agreement"]
        if level == "agree":
            count = len(self.table)
            scalars = "the one scalar is" if count == 1 else f"all {count} scalars are"
            return _capital(
                f"{first} and {reference} agree: {scalars} within Monte Carlo error, or within "
                f"{TOLERANCE:.0%} of a reference standard deviation."
            )
        reason = self.summary["reasons"][0]
        if level == "undecided":
            return _capital(
                f"whether {first} and {reference} agree is undecided: no difference is beyond "
                f"Monte Carlo error, but {reason}."
            )
        if level == "close":
            return _capital(
                f"{first} is close to {reference}: there are differences beyond Monte Carlo "
                f"error, but none above {CLOSE_TOLERANCE:.0%} of a reference standard deviation. "
                f"The largest: {reason}."
            )
        return _capital(f"{first} and {reference} differ: {reason}.")

    @property
    def own_verdicts(self) -> list[str]:
        """What a flow's fit said of itself, without the other side."""
        said = []
        for side in (self.sides.first, self.sides.reference):
            report = side.run.report
            if isinstance(side.run, Fit) and report.get("verdict") is not None:
                reasons = "; ".join(report.get("reasons") or ())
                itself = f"{side.in_sentences} judges itself {report['verdict']}"
                said.append(_capital(f"{itself}: {reasons}" if reasons else itself))
        return said

    @property
    def notes(self) -> list[str]:
        """What else must be known: further differences, weighting, resolution, left-outs."""
        summary = self.summary
        notes = list(summary["reasons"][1:])
        weighted = summary["agreement_weighted"]
        if weighted is not None and summary["agreement"] in ("close", "differ"):
            notes.append(
                f"scalar by scalar, importance-weighted draws {_VERBS[weighted]} the reference "
                f"(means off by up to {summary['max_mean_error_weighted']:.2f} sds)"
            )
        resolution = summary["mean_resolution"]
        if summary["agreement"] == "agree" and (resolution or 0) > CLOSE_TOLERANCE:
            notes.append(
                f"differences of means below {resolution:.2f} sds cannot be told from Monte Carlo "
                "error for every scalar; more draws would show smaller ones"
            )
        if heavy := summary["judged_by_quantiles"]:
            notes.append(
                f"judged by median and 90 % interval (*), because single draws carry the sd: "
                f"{_some(heavy)}"
            )
        if left_out := summary["left_out"]:
            notes.append(f"not compared: {_some([f'{n} ({r})' for n, r in left_out.items()])}")
        notes += summary["evidence_warnings"]
        return notes

    def __repr__(self) -> str:
        return (
            f"Comparison({self.summary['model']!r}, scalars={len(self.table)}, "
            f"agreement={self.summary['agreement']!r})"
        )

    def __str__(self) -> str:
        blocks = [f"{self.summary['model']}: {self._sides_in_words()}"]
        if self.summary["cautions"]:
            blocks.append("\n".join(f"CAUTION: {caution}" for caution in self.summary["cautions"]))
        blocks += [f"{sentence}." for sentence in self.own_verdicts]
        blocks.append("\n".join([self.headline, *(f"- {note}" for note in self.notes)]))
        shown = short_table(self)
        body = shown.to_string(index_names=False)
        if len(self.table) > len(shown):
            body += f"\n... and {len(self.table) - len(shown)} more, in the attribute `table`"
        blocks += [body, "\n".join(self._joint_and_evidence())]
        return "\n\n".join(blocks)

    def _repr_html_(self) -> str:
        cautions = "".join(f"<p>CAUTION: {escape(c)}</p>" for c in self.summary["cautions"])
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        table: str = short_table(self).to_html(escape=True)
        return f"{cautions}<p><b>{escape(self.headline)}</b></p><ul>{notes}</ul>{table}"

    def _sides_in_words(self) -> str:
        words = [describe_side(self.summary[key]) for key in ("first", "reference")]
        return " against ".join(words)

    def _joint_and_evidence(self) -> list[str]:
        summary = self.summary
        lines = []
        if summary["sliced_wasserstein"] is not None:
            lines.append(
                f"parameters jointly: sliced Wasserstein distance "
                f"{summary['sliced_wasserstein']:.3f} sds "
                f"({summary['sliced_wasserstein_null']:.3f} for draws of one distribution), "
                f"MMD test p = {summary['mmd_p_value']:.3f}"
            )
        for entry in self.evidence.entries:
            name = "log evidence" if entry.method != "ELBO" else "ELBO"
            how = "" if entry.method == "ELBO" else f" by {entry.method}"
            constants = "" if entry.normalized else ", WITHOUT Stan's dropped constants"
            note = f" ({entry.note})" if entry.note else ""
            lines.append(f"{name}{how}: {entry.value:.3f} (se {entry.se:.3f}){constants}{note}")
        if self.evidence.bridge_left_out and self.evidence.entries:
            lines.append(f"no bridge sampling: {self.evidence.bridge_left_out}")
        return lines


def short_table(comparison: Comparison, rows: int = ROWS_SHOWN) -> pd.DataFrame:
    """Return what people read of the table, as text: the worst rows, the columns that matter."""
    table = comparison.table.head(rows)
    sides = comparison.sides
    first, reference = sides.first.short_label, sides.reference.short_label
    star = table["judged_by"].map({"moments": "", "quantiles": "*"})
    columns = {
        f"mean, {first}": table["mean"].map(number),
        f"mean, {reference}": table["reference_mean"].map(number),
        "off by (sd)": table["mean_error"].map("{:+.3f}".format),
        "z": table["mean_z"].map("{:+.1f}".format),
        f"sd, {first}": table["sd"].map(number),
        f"sd, {reference}": table["reference_sd"].map(number),
        "sd ratio": np.exp(table["log_sd_ratio"]).map("{:.3f}".format),
        "z ": table["log_sd_z"].map("{:+.1f}".format),
    }
    if f"mean_error{WEIGHTED}" in table:
        weighted_ratio = np.exp(table[f"log_sd_ratio{WEIGHTED}"])
        columns["off by, weighted"] = table[f"mean_error{WEIGHTED}"].map("{:+.3f}".format)
        columns["sd ratio, weighted"] = weighted_ratio.map("{:.3f}".format)
    return pd.DataFrame({**columns, "": table["level"] + star})


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _some(items: list[str]) -> str:
    more = len(items) - _NAMES_SHOWN
    return ", ".join(items[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
