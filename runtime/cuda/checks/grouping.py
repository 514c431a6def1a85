"""Groups of nearest points against float64."""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.checks.clouds import EXACT, FAULT_OF, KINDS, clear_fault, cloud_of, fault_problems
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Device
from asperity.runtime.cuda.points import Grouping, GroupScale
from asperity.runtime.vision.points import Indices, Points, nearest_neighbours, valid_points

MARGIN = 1e-6
"""Two squared distances this much apart (relative) are distinguished by float32."""

ROUNDING = 2.0**-22
"""Of a relative coordinate: one difference and one quotient in float32, with room."""


REPLAYED = 256
"""Centres, drawn afresh each time, that a float64 search of all points is made for."""


class CheckedGrouping:
    """One cloud and the groups around some of its points."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        size, self.groups, self.size = shape["size"], shape["groups"], shape["group_size"]
        self.kind, self.device = kind, device
        cloud = cloud_of(kind, size, shape["points"], rng)
        self.points, self.pixels = valid_points(cloud)
        centres = np.zeros((self.groups, 4), dtype=np.float32)
        if len(self.points):
            chosen = rng.integers(0, len(self.points), self.groups)
            centres[:, :3], centres[:, 3] = self.points[chosen], self.pixels[chosen]
        self.centres = centres[:, :3].astype(np.float64)
        self.scale = GroupScale(1.7, 45.0, shape["groups"] % 2 == 0)
        self.origin = np.array([1.25, -3.0, 400.0])
        self.stage = Grouping(device, size, self.groups, self.size, self.scale)
        self.cloud, self.fault = device.upload(cloud), clear_fault(device)
        self.device_centres, self.centroid = device.upload(centres), device.upload(self.origin)
        self.replayed = np.sort(rng.permutation(self.groups)[:REPLAYED])
        near = min(len(self.points), 9 * self.stage.tile**2)
        self.work = Cost(flop=8 * near * self.groups, bytes=12 * size**2 + 16 * self.groups * self.size)

    def enqueue(self) -> None:
        """Launches only."""
        self.stage.enqueue(self.cloud, self.device_centres, self.centroid, self.fault)

    def problems(self) -> list[str]:
        """Against a float64 search of all points."""
        told = fault_problems(self.device, self.fault, FAULT_OF.get(self.kind, 0))
        if self.kind in ("nan", "empty"):
            return told
        shape = (self.groups, self.size)
        members = self.device.download(self.stage.members, shape, np.int32).astype(np.int64)
        place = np.full(self.stage.cloud_px**2, -1)
        place[self.pixels] = np.arange(len(self.pixels))
        if not ((members >= 0) & (members < len(place))).all() or (place[members] < 0).any():
            return [*told, "a member is not a point of the cloud"]
        replayed = self.replayed
        told += member_problems(self.points, self.centres[replayed], place[members[replayed]])
        if self.kind in EXACT:
            expected = nearest_neighbours(self.points, self.centres[replayed], self.size)[0]
            if not np.array_equal(place[members[replayed]], expected):
                told.append("an exact tie did not go to the lowest index, or a short list was not repeated")
        told += self._value_problems(place[members])
        return told

    def _value_problems(self, members: Indices) -> list[str]:
        told = []
        relative = self.device.download(self.stage.relative, (self.groups, self.size, 3), np.float32)
        expected = (self.points[members] - self.centres[:, None]) / self.scale.group_mm
        if (np.abs(relative - expected) > ROUNDING * np.abs(expected)).any():
            told.append(f"relative coordinates are off by {np.abs(relative - expected).max()}")
        positions = self.device.download(self.stage.positions, (self.groups, 3), np.float32)
        origin = self.origin if self.scale.centre_positions else np.zeros(3)
        if not np.array_equal(positions, ((self.centres - origin) / self.scale.position_mm).astype(np.float32)):
            told.append("a centre's position is not float64's rounded once")
        return told

    def figures(self) -> dict[str, float]:
        """Nothing beside the timing."""
        return {}


def member_problems(points: Points, centres: Points, members: Indices) -> list[str]:
    """Whether ``members`` (G, K) are, within MARGIN, the K nearest points of each centre, nearest first."""
    available = min(members.shape[1], len(points))
    for row, centre in enumerate(centres):
        difference = points - centre
        squared = (difference * difference).sum(axis=1)
        taken = members[row, :available]
        if len(set(taken.tolist())) != available:
            return [f"group {row} holds a point twice"]
        if not np.array_equal(members[row], taken[np.arange(members.shape[1]) % available]):
            return [f"group {row} is short and not repeated from its start"]
        ascending = squared[taken]
        if (ascending[1:] < ascending[:-1] * (1 - MARGIN)).any():
            return [f"group {row} is not nearest first"]
        kth = np.partition(squared, available - 1)[available - 1]
        missing = np.setdiff1d(np.flatnonzero(squared < kth * (1 - MARGIN)), taken)
        if missing.size or (ascending > kth * (1 + MARGIN)).any():
            return [
                f"group {row} reaches to {ascending.max()} mm2 where {kth} is enough, and lacks {missing.size} points"
            ]
    return []


_SHAPES: tuple[Shape, ...] = (
    {"size": 224, "points": 20_000, "groups": 1024, "group_size": 128},
    {"size": 224, "points": 50_176, "groups": 1024, "group_size": 128},
    {"size": 112, "points": 5_000, "groups": 256, "group_size": 32},
    {"size": 112, "points": 9_000, "groups": 512, "group_size": 32},
    {"size": 93, "points": 3_000, "groups": 77, "group_size": 61},
)

ENTRIES: tuple[KernelEntry, ...] = (
    KernelEntry(
        name="group_points",
        source="grouping",
        prepare=CheckedGrouping,
        shapes=_SHAPES,
        small=(
            {"size": 31, "points": 400, "groups": 6, "group_size": 128},
            {"size": 45, "points": 900, "groups": 5, "group_size": 17},
            {"size": 12, "points": 90, "groups": 7, "group_size": 1},
        ),
        kinds=KINDS,
        timed=_SHAPES[:3],
    ),
)
