"""Prepare the breast cancer data for horseshoe_logistic.stan, with all pairwise interactions.

The data come with the scikit-learn package. Run it to write a Stan JSON file:

    python stan_models/breast_cancer/prepare.py --out data.json
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stanflow.errors import DataError

FloatArray = npt.NDArray[np.float64]


def prepare() -> dict[str, Any]:
    """Return the data: 569 tumours, 30 standardised measurements and their 435 interactions.

    ``y`` is scikit-learn's target: 0 malignant, 1 benign.

    Raises
    ------
    DataError
        scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        raise DataError(
            "the breast cancer data come with scikit-learn, which is not installed: "
            "run pip install scikit-learn"
        ) from None
    measurements, y = load_breast_cancer(return_X_y=True)
    X = with_interactions(measurements)  # noqa: N806
    return {"n": X.shape[0], "d": X.shape[1], "X": X.tolist(), "y": y.tolist()}


def with_interactions(measurements: FloatArray) -> FloatArray:
    """Standardise covariates, and append the products of all pairs, standardised as well.

    Parameters
    ----------
    measurements : array of shape (n, p)

    Returns
    -------
    array of shape (n, p + p (p - 1) / 2)
        The pairs in the order (1, 2), (1, 3), ..., (p - 1, p).
    """
    main = standardize(measurements)
    products = [main[:, i] * main[:, j] for i, j in combinations(range(main.shape[1]), 2)]
    return np.column_stack([main, standardize(np.column_stack(products))])


def standardize(X: FloatArray) -> FloatArray:  # noqa: N803
    """Return columns of mean 0 and standard deviation 1."""
    standardized: FloatArray = (X - X.mean(axis=0)) / X.std(axis=0)
    return standardized


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        options.out.write_text(json.dumps(prepare()))
    except (DataError, OSError) as error:
        parser.exit(2, f"{error}\n")
