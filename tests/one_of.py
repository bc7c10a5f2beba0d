"""Tests that hardly differ from one parameter to the next in anything but the time they take."""

from __future__ import annotations

from typing import Any

import pytest


def one_of(names: Any, first: Any, *others: Any) -> pytest.MarkDecorator:
    """As `pytest.mark.parametrize`, with all parameters but the first left to `make test-all`."""
    slow = [
        pytest.param(*(other if isinstance(other, tuple) else (other,)), marks=pytest.mark.slow)
        for other in others
    ]
    return pytest.mark.parametrize(names, [first, *slow])
