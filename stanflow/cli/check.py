"""`stanflow check`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import typer

from stanflow.cli.messages import print_json
from stanflow.cli.options import Data, Engine, IncludePath, Json, Model
from stanflow.errors import NumericsError, StanFlowError

if TYPE_CHECKING:
    from stanflow.stan.agreement import Agreement


def check(
    model: Model,
    data: Data = None,
    engine: Engine = "auto",
    include_path: IncludePath = None,
    as_json: Json = False,
) -> None:
    """Compile a program, bind its data, and hold its engine to account.

    The gradient is compared with finite differences, and the engine with the other one where both
    are installed.
    """
    from stanflow.stan.gradient_check import check_gradient
    from stanflow.stan.judge import judge
    from stanflow.stan.model import StanModel

    stan_model = StanModel(model, data, include_paths=include_path or (), engine=engine)
    gradient = check_gradient(stan_model, seed=0)
    constant = stan_model.normalizing_constant
    try:
        agreement, uncompared = judge(stan_model), None
    except StanFlowError as error:
        agreement, uncompared = None, str(error)
    report = {
        "model": stan_model.name,
        "engine": stan_model.engine,
        "engine_version": stan_model.engine_version,
        **stan_model.engine_report,
        "engine_agreement": None
        if agreement is None
        else agreement.in_report(stan_model.data.hash),
        "dim": stan_model.dim,
        "variables": {name: list(shape) for name, shape in stan_model.shapes.items()},
        "ignored_data": list(stan_model.data.ignored),
        "gradient_error": gradient.error if math.isfinite(gradient.error) else None,
        "gradient_agrees": gradient.agrees,
        "worst_parameter": gradient.worst_parameter,
        "engines_not_compared": uncompared,
        "normalized": constant.known,
        "normalizing_constant": constant.value if constant.known else None,
        "normalizing_constant_reason": constant.reason,
    }
    if as_json:
        print_json(report)
    else:
        for line in _check_lines(report, agreement):
            typer.echo(line)
    disagrees = agreement is not None and not agreement.agrees
    if as_json and (disagrees or not gradient.agrees):
        raise typer.Exit(NumericsError.exit_status)
    if disagrees:
        raise NumericsError(
            f"on {stan_model.program.label} the embedded engine {agreement}: --engine auto takes "
            "the native one for this program from now on; please report this"
        )
    if not gradient.agrees:
        raise NumericsError(
            f"the gradient of {stan_model.program.label} differs from finite differences by "
            f"{gradient.error:.2g} (relative) for {gradient.worst_parameter}; if the density is "
            "smooth there, please report this, and try the other engine"
        )


def _check_lines(report: dict[str, Any], agreement: Agreement | None) -> list[str]:
    shapes = ", ".join(
        f"{name}{shape if shape else ''}" for name, shape in report["variables"].items()
    )
    error = "none finite" if (e := report["gradient_error"]) is None else f"{e:.1e}"
    constant = (
        f"{report['normalizing_constant']:.6g} ({report['normalizing_constant_reason']})"
        if report["normalized"]
        else f"not known: {report['normalizing_constant_reason']}"
    )
    lines = [
        f"program    {report['model']} compiles and takes the data",
        f"engine     {report['engine_version']}: {report['engine_reason']}",
        f"parameters {report['dim']} unconstrained; variables {shapes}",
        f"gradient   {'agrees' if report['gradient_agrees'] else 'DISAGREES'} with finite "
        f"differences (largest relative error {error})",
        f"engines    {_engines(report, agreement)}",
        f"constants  that Stan drops: {constant}",
    ]
    if report["ignored_data"]:
        lines.append(f"ignored    data not declared: {', '.join(report['ignored_data'])}")
    return lines


def _engines(report: dict[str, Any], agreement: Agreement | None) -> str:
    if agreement is None:
        return f"not compared: {report['engines_not_compared']}"
    return f"the embedded engine {agreement}"
