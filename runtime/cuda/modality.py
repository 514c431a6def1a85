"""One modality on the device: what all lanes share of it, and a lane's search with its image distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asperity.runtime.cuda.answer import Piece, enqueue_place
from asperity.runtime.cuda.device_bank import DeviceBank
from asperity.runtime.cuda.launch import Buffer
from asperity.runtime.cuda.maps import LocalDistances, Peak
from asperity.runtime.cuda.nearest import STATS, NearestSearch
from asperity.runtime.cuda.projection import DeviceProjection, Projected
from asperity.runtime.cuda.streams import FrameDevice
from asperity.runtime.manifest import Modality


@dataclass(frozen=True, slots=True)
class SharedBank:
    """One modality's memory on the device, for all lanes."""

    bank: DeviceBank
    modality: Modality
    usual: LocalDistances | None
    """None: published distances."""
    projection: DeviceProjection | None
    """None: features are compared as they are."""


class ModalityBranch:
    """One modality's search and image distance."""

    def __init__(self, device: FrameDevice, shared: SharedBank, tokens: int, grid: int, own_peak: bool) -> None:
        self.device, self.tokens, self._usual = device, tokens, shared.usual
        mean, std = shared.modality.feature_mean, shared.modality.feature_std
        self._projected: Projected | None = None
        if shared.projection is not None:  # standardises them too
            self._projected, mean, std = Projected(device, shared.projection, tokens, mean, std), 0.0, 1.0
        self.search = NearestSearch(device, shared.bank, tokens, mean, std, shared.bank.path)
        self.placed = device.alloc(4 * tokens)
        self.peak = Peak(device, grid) if own_peak and shared.usual is not None else None

    def enqueue(self, features: Buffer, mask: Buffer, rows: int, fault: Buffer) -> None:
        """Distances of the tokens in ``mask`` -> ``placed``; the image distance where it is the search's or the peak's.

        ``rows``: an upper bound of how many tokens the mask has.
        """
        b = self.search.buffers
        if self._projected is not None:
            self._projected.enqueue(features, mask, fault)
            features = self._projected.out
        self.search.enqueue(features, mask, rows)
        if self._usual is None:
            self.search.enqueue_image_distance()
        else:
            self._usual.enqueue(b["distance"], b["index"], b["count"], self.tokens, fault)
        tokens = self.tokens
        enqueue_place(self.device, b["distance"], b["list"], b["count"], tokens, tokens, self.placed, fault)
        if self.peak is not None:
            self.peak.enqueue(self.placed, fault)

    def pieces(self, name: str, peaks: Buffer, plane: int) -> dict[str, Piece]:
        """What the host wants to know of it."""
        b = self.search.buffers
        pieces = {f"{name}_stats": Piece(b["stats"], (STATS,), np.int32)}
        if self._usual is None:
            pieces[f"{name}_distance"] = Piece(b["image_distance"], (1,), np.float32)
        elif self.peak is not None:
            pieces[f"{name}_peak"] = Piece(self.peak.peak, (1,), np.uint64)
        else:
            pieces[f"{name}_peak"] = Piece(peaks, (1,), np.uint64, 8 * plane)
        return pieces
