"""The area under the ROC curve: how often a defective score lies above a normal one, ties counting half."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import DataError

Array = NDArray[np.float64]
Scores = Sequence[float] | NDArray[np.floating]


def auroc(normal: Scores, defective: Scores) -> float:
    """Of all scores. Raises DataError on an empty side or a score that is not finite."""
    from sklearn.metrics import roc_auc_score

    below, above = finite(normal), finite(defective)
    truth = np.concatenate([np.zeros(len(below), dtype=bool), np.ones(len(above), dtype=bool)])
    return float(roc_auc_score(truth, np.concatenate([below, above])))


def wins(normal: Scores, defective: Scores) -> Array:
    """Pair by pair (normal, defective): 1 where the defective score lies above, 0.5 where they are equal, else 0."""
    below, above = np.asarray(normal)[:, None], np.asarray(defective)[None, :]
    return np.asarray((above > below) + 0.5 * (above == below), dtype=np.float64)


def weighted_auroc(wins: Array, rows: Array, columns: Array, pairs: Array | None = None) -> float:
    """Of a sample in which each row and column of ``wins`` was drawn so many times; NaN where nothing is compared.

    ``pairs``: how many comparisons an entry of ``wins`` is the sum of; None: one.
    """
    total = float(rows.sum() * columns.sum() if pairs is None else rows @ pairs @ columns)
    return float(rows @ wins @ columns) / total if total else float("nan")


def finite(values: Scores) -> Array:
    """As float64. Raises DataError where there are none, or one is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise DataError(f"{array.size} scores, {bad} of them not finite: nothing to compare")
    return array
