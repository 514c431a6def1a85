"""The memory banks of all modalities as tensors in one file, the same in a calibration folder and in a bundle.

By modality, as ``rgb`` (R, C) and ``points`` (P, Cp), float32: standardised rows. With local distances
(``Network.distances``) also ``rgb_usual`` (2, R) ...: mean and standard deviation of normal distances to each row. With
``Modality.projected`` also ``rgb_projection`` (C, D) ..., and rows of D columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import FloatArray, ModalityName
from asperity.runtime.manifest import Decision, Modality, Network
from asperity.runtime.vision.distances import ModalityBank, RowStatistics
from asperity.runtime.vision.features import feature_shapes
from asperity.runtime.vision.nearest import MemoryBank

Banks = dict[ModalityName, ModalityBank]
"""What distances are measured against, in the order of ``frame.MODALITIES``."""


def bank_shapes(network: Network, decision: Decision) -> dict[str, tuple[int, int]]:
    """Every tensor that must be there, and no other."""
    shapes: dict[str, tuple[int, int]] = {}
    features = feature_shapes(network)
    for name, one in decision.modalities().items():
        channels = features[name][1]
        shapes[name] = (one.bank_rows, one.projected or channels)
        if one.projected:
            shapes[f"{name}_projection"] = (channels, one.projected)
        if network.distances == "local":
            shapes[f"{name}_usual"] = (2, one.bank_rows)
    return shapes


def bank_tensors(banks: Banks) -> dict[str, FloatArray]:
    """The tensors of the banks."""
    tensors: dict[str, FloatArray] = {}
    for name, bank in banks.items():
        tensors[name] = bank.memory.rows
        if bank.usual is not None:
            tensors[f"{name}_usual"] = np.stack([bank.usual.mean, bank.usual.std]).astype(np.float32)
        if bank.projection is not None:
            tensors[f"{name}_projection"] = bank.projection
    return tensors


def read_banks(tensors: Mapping[str, NDArray[Any]], decision: Decision) -> Banks:
    """The banks of tensors whose shapes were checked. Raises EngineError on rows that cannot be searched."""

    def bank(name: str, modality: Modality) -> ModalityBank:
        usual = tensors.get(f"{name}_usual")
        return ModalityBank(
            MemoryBank(tensors[name]), modality.feature_mean, modality.feature_std,
            None if usual is None else RowStatistics(mean=usual[0], std=usual[1]),
            tensors.get(f"{name}_projection"),
        )  # fmt: skip

    return {name: bank(name, one) for name, one in decision.modalities().items()}


def usual_fault(tensor: NDArray[Any]) -> str:
    """Why a ``_usual`` tensor cannot be right; empty when it can."""
    if not np.isfinite(tensor).all():
        return "holds a value that is not finite"
    if not (tensor[0] >= 0).all():
        return "holds a mean distance below 0"
    if not (tensor[1] > 0).all():
        return "holds a standard deviation that is not above 0"
    return ""


def projection_fault(tensor: NDArray[Any]) -> str:
    """Why a ``_projection`` tensor cannot be right; empty when it can."""
    if not np.isfinite(tensor).all():
        return "holds a value that is not finite"
    if not tensor.any(axis=0).all():
        return "holds a column of zeros"
    return ""
