"""Messages without the places where the server keeps its files."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from stanflow.stan.cache import cache_folder


def without_places(text: str, folder: Path) -> str:
    """Return a message in which files of the server have their names only.

    Parameters
    ----------
    text : str
    folder : pathlib.Path
        Of the task.

    Examples
    --------
    >>> without_places("/srv/jobs/7/run holds no fit", Path("/srv/jobs/7"))
    'run holds no fit'
    """
    own = (folder, folder.parent, folder.parent.parent, cache_folder(), Path(tempfile.gettempdir()))
    python = (Path(sys.prefix), Path(sys.base_prefix), Path.home())
    roots = {str(form) for path in (*own, *python) for form in (path, path.resolve())} - {"/"}
    longest_first = sorted(roots, key=len, reverse=True)
    named = "|".join(re.escape(root) for root in longest_first)
    return re.sub(rf"(?:{named})(?:/(?:[^\s/'\":]+/)*|(?![\w.-]))", "", text)
