"""Draws of a program's scalars, by the names and shapes of its variables."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import stanio

from stanflow.arrays import FloatArray
from stanflow.errors import UsageError
from stanflow.stan.declared_sizes import empty_variables
from stanflow.stan.program import StanProgram

if TYPE_CHECKING:
    import pandas as pd


class StanVariables(ABC):
    """What a fit and a NUTS run share: draws that are looked up as cmdstanpy's are.

    Attributes
    ----------
    columns : tuple of str
        The program's scalars as Stan names them: ``mu``, ``theta.1``.
    program, data : str
        The program's text, and its data as Stan JSON.
    """

    columns: tuple[str, ...]
    program: str
    data: str

    @property
    @abstractmethod
    def pooled(self) -> FloatArray:
        """Draws of `columns`, chains one after another, of shape (S, n)."""

    @abstractmethod
    def method_variables(self) -> dict[str, FloatArray]:
        """Return what the algorithm says of each draw, by Stan's names, which end in ``__``."""

    @property
    def column_names(self) -> tuple[str, ...]:
        """Columns of `draws_pd`: those of the algorithm, then ``mu``, ``theta[1]``, ..."""
        return (*self.method_variables(), *map(bracketed, self.columns))

    def draws_pd(self, vars: Sequence[str] | str | None = None) -> pd.DataFrame:  # noqa: A002
        """Return draws as a table, one row a draw.

        Parameters
        ----------
        vars : str or list of str, optional
            Variables or columns to keep (``"theta"``, ``"theta[1]"``); all by default.

        Raises
        ------
        UsageError
            There is no such variable.
        """
        import pandas as pd

        method = [values.ravel() for values in self.method_variables().values()]
        table = pd.DataFrame(
            np.column_stack([*method, self.pooled]), columns=list(self.column_names)
        )
        if vars is None:
            return table
        wanted = [vars] if isinstance(vars, str) else list(vars)
        kept: list[str] = []
        for name in wanted:
            found = [c for c in table.columns if name in (c, re.split(r"[\[.:]", c)[0])]
            if not found:
                raise self._unknown(name)
            kept += found
        return table[kept]

    def stan_variable(self, var: str) -> npt.NDArray[Any]:
        """Return one variable's draws, of shape (S, *shape of the variable).

        Raises
        ------
        UsageError
            There is no such variable.
        """
        parsed = self._parsed()
        if var in parsed:
            return np.asarray(parsed[var].extract_reshape(self.pooled))
        shape = empty_variables(StanProgram.from_string(self.program), self.data).get(var)
        if shape is None:
            raise self._unknown(var)
        return np.empty((len(self.pooled), *shape))

    def stan_variables(self) -> dict[str, npt.NDArray[Any]]:
        """Return every variable's draws, by name."""
        return {
            name: np.asarray(variable.extract_reshape(self.pooled))
            for name, variable in self._parsed().items()
        }

    def _parsed(self) -> dict[str, Any]:
        return dict(stanio.parse_header(",".join(self.columns)))

    def _unknown(self, name: str) -> UsageError:
        variables = ", ".join(list(self._parsed())[:10])
        return UsageError(f"the program has no variable {name!r}; it has {variables}")


def bracketed(column: str) -> str:
    """Return Stan's column name in cmdstanpy's form.

    Examples
    --------
    >>> bracketed("theta.2.1")
    'theta[2,1]'
    >>> bracketed("mu")
    'mu'
    """
    name, *indices = column.split(".")
    if not indices or not all(re.fullmatch(r"\d+", index) for index in indices):
        return column
    return f"{name}[{','.join(indices)}]"
