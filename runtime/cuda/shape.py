"""What a frame's surface gives its modalities on the device: the counterpart of ``vision.preprocess.SurfaceInputs``."""

from __future__ import annotations

from asperity.runtime.cuda.descriptor import SurfaceHistograms
from asperity.runtime.cuda.heights import DeviceHeights, SurfaceHeights
from asperity.runtime.cuda.launch import Buffer
from asperity.runtime.cuda.preprocess import Preprocess
from asperity.runtime.cuda.surface import Surface, SurfaceImage, SurfacePoints
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import ModalityName
from asperity.runtime.manifest import Network

SHAPES: tuple[ModalityName, ...] = ("geometry", "height", "descriptor")
"""Modalities of the surface."""


class ShapeInputs:
    """The picture for the colour network and the features that need no network, of one frame."""

    def __init__(self, pre: Preprocess, model: DeviceHeights | None) -> None:
        """``model``: the mean part, where heights are a modality. Raises EngineError where something is missing."""
        network = pre.network
        for name, constants in (
            ("geometry", network.picture), ("height", network.height), ("descriptor", network.descriptor),
        ):  # fmt: skip
            if (constants is None) == (name in network.modalities):
                raise EngineError(f"the bundle's constants of {name} do not fit its modalities; calibrate again")
        self._points = SurfacePoints(pre)
        chosen = (network.picture, network.height, network.descriptor)
        widths = sorted({one.width for one in chosen if one is not None})
        self._surfaces = {width: Surface(self._points, width) for width in widths}
        self.picture: SurfaceImage | None = None
        self.heights: SurfaceHeights | None = None
        self.histograms: SurfaceHistograms | None = None
        if network.picture is not None:
            self.picture = SurfaceImage(self._surfaces[network.picture.width], network.picture)
        if network.height is not None:
            if model is None:
                raise EngineError("the bundle judges by heights and the mean part is not at hand; export it again")
            self.heights = SurfaceHeights(self._surfaces[network.height.width], model, network.grid)
        if network.descriptor is not None:
            surface = self._surfaces[network.descriptor.width]
            self.histograms = SurfaceHistograms(surface, network.descriptor, network.grid)

    @property
    def features(self) -> dict[ModalityName, Buffer]:
        """Features that no network makes, grid^2 rows each."""
        made: dict[ModalityName, SurfaceHeights | SurfaceHistograms | None] = {
            "height": self.heights, "descriptor": self.histograms,
        }  # fmt: skip
        return {name: one.features for name, one in made.items() if one is not None}

    def enqueue_picture(self, fault: Buffer) -> None:
        """Surfaces, and the picture where there is one, of whatever part and points ``Preprocess`` holds."""
        self._points.enqueue()
        for surface in self._surfaces.values():
            surface.enqueue(fault)
        if self.picture is not None:
            self.picture.enqueue(fault)

    def enqueue_features(self, fault: Buffer) -> None:
        """``features`` of the surfaces."""
        for one in (self.heights, self.histograms):
            if one is not None:
                one.enqueue(fault)


def sees_surfaces(network: Network) -> bool:
    """Whether a recipe has a modality of the surface."""
    return any(name in network.modalities for name in SHAPES)
