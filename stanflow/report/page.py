"""What pages share: templates, figures inside them, and how they come to a file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader
from matplotlib.figure import Figure
from typing_extensions import TypedDict

import stanflow
from stanflow.errors import UsageError, reason
from stanflow.files import write_file

_OWN_PACKAGE = "stanflow.report"
_DOTS_PER_INCH = 130


class Plot(TypedDict):
    """A figure in a page."""

    title: str
    text: str
    png: str


def plot(title: str, text: str, figure: Figure) -> Plot:
    """Return a figure as a page holds it.

    Parameters
    ----------
    title : str
    text : str
        What it shows, for who does not see it.
    figure : matplotlib.figure.Figure
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return Plot(title=title, text=text, png=base64.b64encode(buffer.getvalue()).decode("ascii"))


def render_page(template: str, package: str = _OWN_PACKAGE, **values: Any) -> str:
    """Return a page's HTML; what is put into the template is text, and escaped.

    Parameters
    ----------
    template : str
        Its file. It may extend ``page.html.jinja``.
    package : str
        Where it lies.
    **values
        What it names.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, ".") for name in (package, _OWN_PACKAGE)]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(template).render(version=stanflow.__version__, **values)
    return page


def write_page(page: str, path: Path) -> Path:
    """Write a page to a file; it replaces an earlier one when it is whole.

    Parameters
    ----------
    page : str
    path : pathlib.Path
        The file, ``.html``; its folder is made where it is missing.

    Returns
    -------
    pathlib.Path
        The file, absolute.

    Raises
    ------
    UsageError
        It cannot be written.
    """
    try:
        path = path.resolve()
        if path.is_dir():
            raise UsageError(f"{path} is a folder; name a file for the report")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, page.encode(errors="replace"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the report cannot be written to {path}: {reason(error)}") from None
    return path
