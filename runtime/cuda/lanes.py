"""The lanes of a recipe: what they share, how much memory they take together, and how they are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from asperity.runtime.cuda.budget import Budget, Counting, budget_of
from asperity.runtime.cuda.choice import choose
from asperity.runtime.cuda.cublas import WORKSPACE_BYTES
from asperity.runtime.cuda.device_bank import BankArrays, DeviceBank, Path, bank_arrays
from asperity.runtime.cuda.graph import DeviceGraphs
from asperity.runtime.cuda.lane import Lane, Shared
from asperity.runtime.cuda.maps import LocalDistances
from asperity.runtime.cuda.modality import SharedBank
from asperity.runtime.cuda.projection import DeviceProjection
from asperity.runtime.cuda.streams import FrameDevice
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.manifest import Decision, Geometry, Modality, Network
from asperity.runtime.vision.distances import USUAL, ModalityBank, RowStatistics


def refuse_modalities(network: Network) -> None:
    """Raises EngineError for a bundle that is not judged by rgb and points together: kernels do these two alone."""
    if network.modalities != ("rgb", "points"):
        raise EngineError(
            f"the cuda engine judges by rgb and points, and this bundle by {', '.join(network.modalities)}; use the "
            "cpu engine for it, or calibrate with --modalities rgb,points"
        )


@dataclass(frozen=True, slots=True)
class HostBank:
    """A bank laid out for the kernels, still on the host."""

    arrays: BankArrays
    path: Path
    modality: Modality
    usual: RowStatistics | None
    projection: FloatArray | None

    def upload(self, device: FrameDevice) -> SharedBank:
        """Onto a device."""
        usual = self.usual
        local = None if usual is None else LocalDistances(device, usual.mean, usual.std, USUAL)
        projection = None if self.projection is None else DeviceProjection.upload(device, self.projection)
        return SharedBank(DeviceBank(device, self.arrays, self.path), self.modality, local, projection)


def host_bank(device: str, bank: ModalityBank, modality: Modality, tokens: int) -> HostBank:
    """The bank by the path that is quickest on a device of this name for ``tokens`` queries. Raises EngineError."""
    rows = bank.memory.rows
    return HostBank(bank_arrays(rows), choose(device, tokens, *rows.shape), modality, bank.usual, bank.projection)


@dataclass(frozen=True, slots=True)
class LanePlan:
    """Everything that lanes are made of, on the host."""

    geometry: Geometry
    network: Network
    decision: Decision
    covered: BoolArray | None
    rgb: HostBank
    points: HostBank

    def budget(self, device: FrameDevice, graphs: DeviceGraphs, lanes: int) -> Budget:
        """The memory that ``lanes`` of them take: all is made on a device that only counts."""
        counted = Counting(device)
        with counted.purpose("banks"):
            shared = self._recipe(counted.device)
        with counted.purpose("frames"):
            for _ in range(lanes):
                Lane(counted.device, shared)
        with counted.purpose("cuBLAS"):
            for bank in (self.rgb, self.points):
                if bank.path == "product":  # a workspace for each branch that multiplies
                    counted.alloc(lanes * WORKSPACE_BYTES)
        return budget_of(counted, graphs, graphs.names(), lanes)

    def lanes(self, device: FrameDevice, count: int) -> Iterator[Lane]:
        """Banks once, then lane after lane."""
        shared = self._recipe(device)
        for _ in range(count):
            yield Lane(device, shared)

    def _recipe(self, device: FrameDevice) -> Shared:
        rgb, points = self.rgb.upload(device), self.points.upload(device)
        return Shared(self.geometry, self.network, self.decision, self.covered, rgb, points)
