"""ArviZ, as ``from stanflow.quiet_arviz import arviz``: where it is used, as it is slow to import.

ArviZ tells of its next version once a day, and keeps the day in the user's cache folder. To people
who have not called it the notice says nothing; and where that folder cannot be written, its import
fails: a fit would be lost after its training.
"""

from __future__ import annotations

import tempfile
import warnings
from unittest import mock

__all__ = ["arviz"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    try:
        import arviz
    except OSError:
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch("platformdirs.user_cache_dir", lambda *_: folder),
        ):
            import arviz
