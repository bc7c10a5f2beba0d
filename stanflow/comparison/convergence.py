"""What speaks against the draws of a NUTS run, before anything is compared with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stanflow.reference.diagnostics import min_bfmi
from stanflow.reference.result import NutsFit

_HIGHEST_RHAT = 1.01
_FEWEST_EFFECTIVE_DRAWS = 400
_LOWEST_BFMI = 0.3


def convergence_problems(run: NutsFit, names: Sequence[str]) -> list[str]:
    """Return what is wrong with a NUTS run, in its own words where it has some.

    Otherwise by the thresholds of Vehtari, Gelman, Simpson, Carpenter, Buerkner 2021
    (arXiv 1903.08008): R-hat above 1.01, bulk or tail effective sample size below 400; and of
    Betancourt 2016 (arXiv 1604.00695): E-BFMI below 0.3.

    Parameters
    ----------
    run : NutsFit
        The run.
    names : sequence of str
        The scalars looked at.

    Examples
    --------
    Two chains that do not mix:

    >>> draws = np.random.default_rng(1).normal(size=(2, 500, 1)) + [[[0.0]], [[3.0]]]
    >>> run = NutsFit({}, ("x",), draws, {}, "", "{}")
    >>> convergence_problems(run, ["x"])[0]
    'R-hat is 1.73 for x, above 1.01: the chains disagree'
    """
    warnings = run.report.get("warnings")
    if warnings is not None:
        return [str(warning) for warning in warnings]
    problems = []
    table = run.convergence.table.loc[list(names)]
    rhat = table["R_hat"]
    if rhat.max() > _HIGHEST_RHAT:
        problems.append(
            f"R-hat is {rhat.max():.2f} for {rhat.idxmax()}, above {_HIGHEST_RHAT}: the chains "
            "disagree"
        )
    for kind in ("bulk", "tail"):
        ess = table[f"ESS_{kind}"]
        if ess.min() < _FEWEST_EFFECTIVE_DRAWS:
            problems.append(
                f"the effective sample size ({kind}) is {ess.min():.0f} for {ess.idxmin()}, below "
                f"{_FEWEST_EFFECTIVE_DRAWS}"
            )
    if "divergent__" in run.statistics and (divergences := int(run.divergences.sum())):
        problems.append(
            f"{divergences} of {run.values[..., 0].size} transitions diverged: parts of the "
            "posterior may be missing"
        )
    if "energy__" in run.statistics:
        bfmi = min_bfmi(np.asarray(run.statistics["energy__"]))
        if bfmi is not None and bfmi < _LOWEST_BFMI:
            problems.append(f"E-BFMI is {bfmi:.2f} in some chain, below {_LOWEST_BFMI}")
    return problems
