"""The lanes of a recipe: what they share, how much memory they take together, and how they are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from asperity.runtime.cuda.budget import Budget, Counting, budget_of
from asperity.runtime.cuda.choice import choose
from asperity.runtime.cuda.cublas import WORKSPACE_BYTES
from asperity.runtime.cuda.device_bank import BankArrays, DeviceBank, Path, bank_arrays
from asperity.runtime.cuda.graph import DeviceGraphs
from asperity.runtime.cuda.heights import DeviceHeights
from asperity.runtime.cuda.lane import Lane, Shared
from asperity.runtime.cuda.maps import LAID, LocalDistances
from asperity.runtime.cuda.modality import SharedBank
from asperity.runtime.cuda.projection import DeviceProjection
from asperity.runtime.cuda.streams import FrameDevice
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, FloatArray, ModalityName
from asperity.runtime.manifest import Decision, Geometry, Modality, Network
from asperity.runtime.vision.distances import USUAL, ModalityBank, RowStatistics
from asperity.runtime.vision.height_residual import HeightModel
from asperity.runtime.vision.tiles import of_window


def refuse_modalities(network: Network) -> None:
    """Raises EngineError for a bundle that is judged by other modalities than kernels know."""
    strange = [name for name in network.modalities if name not in LAID]
    if strange or "rgb" not in network.modalities:
        raise EngineError(
            f"the cuda engine judges by rgb, with or without {', '.join(name for name in LAID if name != 'rgb')}, and "
            f"this bundle by {', '.join(network.modalities)}; use the cpu engine for it, or calibrate again"
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


def host_banks(
    device: str, banks: Mapping[ModalityName, ModalityBank], decision: Decision, network: Network
) -> dict[ModalityName, HostBank]:
    """Each modality's bank by the path that is quickest for its tokens on a device of this name. Raises EngineError."""
    found: dict[ModalityName, HostBank] = {}
    network = of_window(network)
    for name, modality in decision.modalities().items():
        bank, tokens = banks[name], network.rgb_grid**2 if LAID[name] == LAID["rgb"] else network.grid**2
        rows = bank.memory.rows
        path = choose(device, tokens, *rows.shape)
        found[name] = HostBank(bank_arrays(rows), path, modality, bank.usual, bank.projection)
    return found


@dataclass(frozen=True, slots=True)
class LanePlan:
    """Everything that lanes are made of, on the host."""

    geometry: Geometry
    network: Network
    decision: Decision
    covered: BoolArray | None
    banks: Mapping[ModalityName, HostBank]
    heights: HeightModel | None = None
    """The mean part, where heights are a modality."""

    def budget(self, device: FrameDevice, graphs: DeviceGraphs, lanes: int) -> Budget:
        """The memory that ``lanes`` of them take: all is made on a device that only counts."""
        counted = Counting(device)
        with counted.purpose("banks"):
            shared = self._recipe(counted.device)
        with counted.purpose("frames"):
            for _ in range(lanes):
                Lane(counted.device, shared)
        with counted.purpose("cuBLAS"):
            for bank in self.banks.values():
                if bank.path == "product":  # a workspace for each branch that multiplies
                    counted.alloc(lanes * WORKSPACE_BYTES)
        if "geometry" in self.banks:
            with counted.purpose("the picture's network"):  # a second graph of the colour's in each lane
                counted.alloc(lanes * graphs.nbytes("rgb").scratch)
        return budget_of(counted, graphs, graphs.names(), lanes)

    def lanes(self, device: FrameDevice, count: int) -> Iterator[Lane]:
        """Banks once, then lane after lane."""
        shared = self._recipe(device)
        for _ in range(count):
            yield Lane(device, shared)

    def _recipe(self, device: FrameDevice) -> Shared:
        banks = {name: bank.upload(device) for name, bank in self.banks.items()}
        heights = None if self.heights is None else DeviceHeights.upload(device, self.heights)
        return Shared(self.geometry, self.network, self.decision, self.covered, banks, heights)
