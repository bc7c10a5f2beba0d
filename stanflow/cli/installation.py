"""What is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from stanflow.errors import one_line
from stanflow.stan.cache import models_folder
from stanflow.stan.stan_headers import INSTALL_COMPILER

_BUILD = "install a C compiler, then pip install --force-reinstall --no-deps stanflow"


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes
    ----------
    name : str
        The thing.
    ok : bool
        Whether it is there and works.
    required : bool
        Whether StanFlow cannot do without it.
    detail : str
        Version, place, or what is wrong.
    remedy : str
        A command that mends it; empty where nothing is wrong.
    """

    name: str
    ok: bool
    required: bool
    detail: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        mark = "ok      " if self.ok else "MISSING " if self.required else "absent  "
        remedy = f"\n{'':30}{self.remedy}" if self.remedy else ""
        return f"{mark}{self.name:<22}{self.detail}{remedy}"


def examine() -> list[Finding]:
    """Look at everything StanFlow can use.

    Examples
    --------
    >>> all(finding.ok for finding in examine() if finding.required)
    True
    """
    return [
        Finding("Python", ok=True, required=True, detail=platform.python_version()),
        _package("torch"),
        _package("bridgestan"),
        _works("ArviZ", _arviz, "pip install --force-reinstall 'arviz<2'"),
        _works("embedded engine", _embedded_engine, "pip install --force-reinstall stanli==0.24.0"),
        _works("compiled loop", _compiled_loop, _BUILD, required=False),
        _works(
            "native engine",
            _native_engine,
            "not needed unless the embedded engine cannot run a program: "
            f"`stanflow doctor --install native`; {INSTALL_COMPILER}",
            required=False,
        ),
        _works(
            "BridgeStan's sources",
            _bridgestan_sources,
            "not needed: the native engine does the same; where they are, it compiles with them",
            required=False,
        ),
        _works(
            "CmdStan",
            _cmdstan,
            "not needed: `stanflow nuts` runs Stan's NUTS in the native or the embedded engine",
            required=False,
        ),
    ]


def _package(name: str) -> Finding:
    return _works(name, lambda: _import(name), f"pip install --force-reinstall {name}")


def _import(name: str) -> str:
    importlib.import_module(name)
    return version(name)


def _works(name: str, attempt: Callable[[], str], remedy: str, *, required: bool = True) -> Finding:
    try:
        return Finding(name, ok=True, required=required, detail=attempt())
    except Exception as error:  # whatever keeps it from working is what the user must know
        problem = one_line(error) or type(error).__name__
        return Finding(name, ok=False, required=required, detail=problem, remedy=remedy)


def _arviz() -> str:
    from stanflow.runs.arviz_data import import_arviz

    return str(import_arviz().__version__)


def _embedded_engine() -> str:
    from stanflow.stan.model import StanModel

    model = StanModel(
        stan_code="parameters { real x; } model { x ~ normal(0, 1); }", engine="embedded"
    )
    without = "" if model.normalizing_constant.known else "out"
    return (
        f"{model.engine_version}, Stan {model.stan_version}, with{without} the constants that Stan "
        "drops"
    )


def _compiled_loop() -> str:
    from stanflow.stan import batch

    if batch.compiled_loop() is None:
        raise LookupError("not built, so gradients and training take several times longer")
    return f"built, {batch.available_cores()} cores"


def _native_engine() -> str:
    from stanflow.stan import stan_wheel

    headers = stan_wheel.find_headers()
    return (
        f"{headers.name} in {headers.folder}, {headers.compiler_version}; compiled models in "
        f"{models_folder()}"
    )


def _bridgestan_sources() -> str:
    from stanflow.stan import bridgestan_sources

    sources = bridgestan_sources.find_sources()
    return (
        f"{sources.name} in {sources.folder}, {sources.stanc_version}, {sources.compiler_version}"
    )


def _cmdstan() -> str:
    from stanflow.reference.cmdstan_program import find_installation

    return f"{find_installation()} (cmdstanpy {version('cmdstanpy')})"
