"""One frame's way through the point network on the device: its inputs, its tokens, and the patches that they become."""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.graph import Shape
from asperity.runtime.cuda.launch import Buffer, Device
from asperity.runtime.cuda.points import Grouping, GroupScale, Interpolation, PatchNumbers, Sampling, SamplingPlan
from asperity.runtime.manifest import Network


class PointBranch:
    """Buffers: ``tokens`` G x C f4, ``pooled`` patches x C f4, slots first, and ``adapted`` alike with an adaptor."""

    def __init__(self, device: Device, network: Network, slots: int, *, adapts: bool) -> None:
        """``slots``: rows of the points adaptor."""
        self.device, self.network, self.slots, self.patches = device, network, slots, network.grid**2
        cloud_px, groups, channels = network.cloud_px, network.groups, network.points_channels
        self.sampling = Sampling(device, cloud_px, groups, SamplingPlan.fitting(device, cloud_px**2))
        scale = GroupScale(network.group_scale_mm, network.position_scale_mm, network.centre_positions)
        self.grouping = Grouping(device, cloud_px, groups, network.group_size, scale)
        self.mapping = Interpolation(device, cloud_px, network.grid, groups, network.pooling, slots)
        self.tokens, self.token_count = device.alloc(4 * groups * channels), groups * channels
        self.pooled = device.alloc(4 * self.patches * channels)
        self.adapted: Buffer | None = None
        if adapts:
            self.adapted = device.alloc(4 * self.patches * channels)
            self._ones = device.upload(np.ones(self.patches, dtype=np.float32))

    @property
    def numbers(self) -> PatchNumbers:
        """Which patches hold points."""
        return self.mapping.numbers

    @property
    def features(self) -> Buffer:
        """What is searched: a row a slot."""
        return self.adapted or self.pooled

    def bound(self) -> dict[str, dict[str, tuple[Buffer, Shape]]]:
        """The networks' inputs and outputs, by graph and tensor."""
        network, groups, channels = self.network, self.network.groups, self.network.points_channels
        bound: dict[str, dict[str, tuple[Buffer, Shape]]] = {
            "points": {
                "groups": (self.grouping.relative, (groups, network.group_size, 3)),
                "centres": (self.grouping.positions, (groups, 3)),
                "tokens": (self.tokens, (groups, channels)),
            }
        }
        if self.adapted is not None:
            for name, slots, counts in (
                ("adaptor_points", self.slots, self.mapping.multiplicity),
                ("adaptor_points_full", self.patches, self._ones),
            ):
                bound[name] = {
                    "tokens": (self.pooled, (slots, channels)),
                    "counts": (counts, (slots,)),
                    "adapted": (self.adapted, (slots, channels)),
                }
        return bound

    def enqueue_inputs(self, cloud: Buffer, fault: Buffer) -> None:
        """The network's inputs, and the map from its tokens to patches."""
        self.enqueue_sampling(cloud, fault)
        self.enqueue_grouping(cloud, fault)
        self.enqueue_mapping(cloud, fault)

    def enqueue_sampling(self, cloud: Buffer, fault: Buffer) -> None:
        """The groups' centres."""
        self.sampling.enqueue(cloud, fault)

    def enqueue_grouping(self, cloud: Buffer, fault: Buffer) -> None:
        """The groups."""
        self.grouping.enqueue(cloud, self.sampling.centres, self.sampling.centroid, fault)

    def enqueue_mapping(self, cloud: Buffer, fault: Buffer) -> None:
        """The map, and which patches hold points."""
        self.mapping.enqueue(cloud, self.sampling.centres, fault)

    def enqueue_pooled(self, slots: int, fault: Buffer) -> None:
        """``pooled`` of ``tokens``."""
        self.mapping.enqueue_pool(self.tokens, self.network.points_channels, False, slots, self.pooled, fault)
