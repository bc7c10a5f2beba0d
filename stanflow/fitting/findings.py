"""What must be known of a fit, in plain words, beside its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stanflow.fitting.result import Fit


def findings(fit: Fit) -> list[str]:
    """Return a fit's estimates, what went wrong on the way, and the verdict, a line each."""
    return [*_estimates(fit), *_on_the_way(fit), *_verdict(fit)]


def _estimates(fit: Fit) -> list[str]:
    report = fit.report
    constants = (
        "Stan's constants included"
        if fit.normalized
        else "WITHOUT Stan's dropped constants, so not comparable between programs: "
        + report["normalizing_constant"]["reason"]
    )
    if fit.refined:
        refine = report["refine"]
        return [
            f"log evidence {fit.log_evidence:.3f} (se {fit.log_evidence_se:.3f}), between ELBO "
            f"{fit.elbo:.3f} and EUBO {refine['eubo']:.3f} of the flow, {constants}",
            f"Pareto k-hat of the flow {fit.pareto_k:.2f}, so {refine['particles']} particles were "
            f"annealed from it to the posterior over {refine['temperatures']} temperatures and "
            f"moved {refine['transitions']} times more: R-hat {refine['rhat']:.3f}, "
            f"{refine['ess']:.0f} effective draws",
        ]
    return [
        f"log evidence {fit.log_evidence:.3f} (se {fit.log_evidence_se:.3f}), "
        f"ELBO {fit.elbo:.3f} (se {fit.elbo_se:.3f}), {constants}",
        f"Pareto k-hat {fit.pareto_k:.2f}, {report['importance_ess']:.0f} effective draws of "
        f"{report['evidence_draws']}",
    ]


def _on_the_way(fit: Fit) -> list[str]:
    report = fit.report
    lines = []
    if report.get("resampled"):
        lines.append("the draws were resampled by their importance weights")
    outward = report["refine"].get("outward") if fit.refined else None
    if outward is not None:
        lines.append(
            f"moves alone did not come to {outward['share']:.0%} of the posterior: draws there are "
            f"of particles held at {outward['values']} values of {outward['parameter']}"
        )
    if modes := report.get("modes"):
        shares = ", ".join(f"{share:.0%}" for share in modes)
        lines.append(
            f"chains from elsewhere found {len(modes)} modes, so the flow was trained "
            f"on all of them: {shares} of the posterior"
        )
    if "sharpening" in report["stages"]:
        lines.append(
            "the flow was far from the draws first moved, so it learnt from them, and draws were "
            "moved from it anew"
        )
    if report["rejected_draws"]:
        lines.append(
            f"{report['rejected_draws']} draws were rejected: the program has no finite log "
            "density there"
        )
    if report["failed_generated_quantities"]:
        lines.append(
            f"generated quantities failed for {report['failed_generated_quantities']} draws, "
            "which have NaN there and are left out of the table"
        )
    if report["skipped_steps"]:
        lines.append(f"{report['skipped_steps']} training steps had no finite gradient")
    if report.get("returns"):
        lines.append(
            f"training broke down {report['returns']} times, and went on more slowly from where "
            "it was sound"
        )
    waits_for_its_end = report["train_config"]["schedule"] == "plateau" and not fit.refined
    if report["stopped"] == "max_steps" and waits_for_its_end:
        lines.append(f"training ended at its limit of {report['steps']} steps")
    elif report["stopped"] in {"max_seconds", "interrupted"}:
        lines.append(f"training was cut short ({report['stopped']}) at step {report['steps']}")
    return lines


def _verdict(fit: Fit) -> list[str]:
    name = fit.verdict.upper() if fit.verdict == "unreliable" else fit.verdict
    reasons = [f"  - {reason}" for reason in fit.report["reasons"]]
    advice = [f"what to try: {'; '.join(fit.report['advice'])}"] if fit.report["advice"] else []
    return [f"verdict: {name}", *reasons, *advice]
