"""A case of the sweep: a little piece of Stan that stands alone, or with many others in a program.

All names that a case puts at the top of a block end in ``@``, which stands for the case's own
suffix: ``y@`` of the case ``loop`` is ``y_loop`` in a program. Names within braces, and arguments
of functions, need none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BLOCKS = (
    "functions",
    "data",
    "transformed_data",
    "parameters",
    "transformed_parameters",
    "model",
    "generated",
)
_OWN_NAME = re.compile(r"([A-Za-z]\w*)@")


@dataclass(frozen=True, eq=False)
class Case:
    """A piece of Stan whose values can be compared.

    Attributes
    ----------
    name : str
        Unique, and usable within Stan's names.
    topic : str
        What it is about; cases of a topic may share a program.
    functions, data, transformed_data, parameters, transformed_parameters, model, generated : str
        Text of the blocks, without their braces.
    values : mapping
        Values of the data, by name without ``@``.
    truth : mapping
        Values known by hand, for variables that do not depend on parameters, by name without ``@``.
    slope : float, optional
        The gradient known by hand, where the case has a single unconstrained parameter.
    random : bool
        It draws random numbers, so that it is only checked to run.
    since : str
        Stan's version that brought what it uses, where that is newer than 2.35.
    """

    name: str
    topic: str
    functions: str = ""
    data: str = ""
    transformed_data: str = ""
    parameters: str = ""
    transformed_parameters: str = ""
    model: str = ""
    generated: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    truth: Mapping[str, Any] = field(default_factory=dict)
    slope: float | None = None
    random: bool = False
    since: str = ""

    def named(self, name: str) -> str:
        """Return one of the case's names as a program has it."""
        return f"{name}_{self.name}"

    def text(self, block: str) -> str:
        """Return the text of a block as a program has it."""
        return str(getattr(self, block)).replace("@", f"_{self.name}").strip()

    def names_in(self, *blocks: str) -> frozenset[str]:
        """Return the case's own names that the blocks mention, as a program has them."""
        found = (_OWN_NAME.findall(getattr(self, block)) for block in blocks)
        return frozenset(self.named(name) for names in found for name in names)

    @property
    def own_data(self) -> dict[str, Any]:
        """Values of the data by the names that a program has."""
        return {self.named(name): value for name, value in self.values.items()}
