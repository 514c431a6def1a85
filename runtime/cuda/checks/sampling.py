"""List of points and farthest point sampling against float64."""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.checks.clouds import EXACT, FAULT_OF, KINDS, clear_fault, cloud_of, fault_problems
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Device
from asperity.runtime.cuda.points import STATIC_SHARED_BYTES, Form, Sampling, SamplingPlan
from asperity.runtime.vision.points import Indices, Points, farthest_points, valid_points

MARGIN = 1e-6
"""Two squared distances this much apart (relative) are distinguished by float32: 10 roundings of 2^-24."""


def plan_for(device: Device, shape: Shape, form: Form) -> SamplingPlan:
    """The form that the entry is about where the chip has it, else the one that the chip would be given."""
    capacity, blocks = shape["size"] ** 2, shape.get("blocks", 4) if form == "cluster" else 1
    plan = SamplingPlan(capacity, form, blocks, shape.get("warps", 32))
    missing = blocks > device.most_cluster
    missing |= form != "large" and plan.distance_bytes > device.most_shared_bytes - STATIC_SHARED_BYTES
    return SamplingPlan.fitting(device, capacity) if missing else plan


class CheckedSampling:
    """One cloud, its list and its farthest points."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator, form: Form) -> None:
        size, self.groups, self.kind, self.device = shape["size"], shape["groups"], kind, device
        cloud = cloud_of(kind, size, shape["points"], rng)
        self.expected, self.pixels = valid_points(cloud)
        plan = plan_for(device, shape, form)
        self.stage = Sampling(device, size, self.groups, plan, shape.get("threads", 1024))
        self.cloud, self.fault = device.upload(cloud), clear_fault(device)
        n = len(self.expected)
        self.work = Cost(flop=8 * n * (self.groups - 1), bytes=12 * size * size + 16 * n, steps=self.groups - 1)

    def enqueue(self) -> None:
        """Launches only."""
        self.stage.enqueue(self.cloud, self.fault)

    def problems(self) -> list[str]:
        """Against ``runtime.vision.points`` in float64."""
        told = fault_problems(self.device, self.fault, FAULT_OF.get(self.kind, 0))
        n = len(self.expected)
        count = int(self.device.download(self.stage.count, (1,), np.int32)[0])
        listed = self.device.download(self.stage.points, (self.stage.pixels, 4), np.float32)[:n]
        if count != n or not np.array_equal(listed[:, :3], self.expected.astype(np.float32), equal_nan=True):
            told.append(f"{count} points are listed where the cloud has {n}, or other ones")
        elif not np.array_equal(listed[:, 3], self.pixels):
            told.append("a listed point names another pixel")
        chosen = self.device.download(self.stage.chosen, (self.groups,), np.int32).astype(np.int64)
        if self.kind in ("nan", "empty"):
            return told
        centroid = self.device.download(self.stage.centroid, (3,), np.float64)
        if not np.allclose(centroid, self.expected.mean(axis=0), rtol=1e-12, atol=1e-9):
            told.append(f"the centroid is {centroid} and must be {self.expected.mean(axis=0)}")
        told += choice_problems(self.expected, chosen)
        if self.kind in EXACT and not np.array_equal(chosen, farthest_points(self.expected, self.groups)):
            told.append("an exact tie did not go to the lowest index")
        centres = self.device.download(self.stage.centres, (self.groups, 4), np.float32)
        if not told and not np.array_equal(centres, listed[chosen]):
            told.append("a centre is not the chosen point")
        return told

    def figures(self) -> dict[str, float]:
        """Share of the choices that are float64's own, index for index, and the form that was run."""
        plan = self.stage.plan
        told = {"blocks": float(plan.blocks), "in_shared_memory": float(plan.form != "large")}
        if self.kind not in ("nan", "empty"):
            chosen = self.device.download(self.stage.chosen, (self.groups,), np.int32)
            told["as_float64"] = float((chosen == farthest_points(self.expected, self.groups)).mean())
        return told


def choice_problems(points: Points, chosen: Indices) -> list[str]:
    """Each choice must be, within MARGIN, the farthest point from the choices before it."""
    if not ((chosen >= 0) & (chosen < len(points))).all() or chosen[0] != 0:
        return ["a chosen index is outside the cloud, or the first one is not 0"]
    nearest = np.full(len(points), np.inf)
    for step in range(1, len(chosen)):
        difference = points - points[chosen[step - 1]]
        nearest = np.minimum(nearest, (difference * difference).sum(axis=1))
        if nearest[chosen[step]] < nearest.max() * (1 - MARGIN):
            return [f"choice {step} is at {nearest[chosen[step]]} mm2 where one is at {nearest.max()}"]
    return []


def _entry(form: Form, small: tuple[Shape, ...]) -> KernelEntry:
    plain: tuple[Shape, ...] = (
        {"size": 224, "points": 20_000, "groups": 1024},
        {"size": 224, "points": 50_176, "groups": 1024},
        {"size": 112, "points": 5_000, "groups": 256},
        {"size": 75, "points": 3_000, "groups": 100, "warps": 8},
    )
    if form == "cluster":
        plain += ({"size": 224, "points": 50_176, "groups": 1024, "blocks": 8, "warps": 16},)
    return KernelEntry(
        name=f"farthest_points_{form}",
        source="sampling",
        prepare=lambda device, shape, kind, rng: CheckedSampling(device, shape, kind, rng, form),
        shapes=plain,
        small=small,
        kinds=KINDS,
        timed=plain[:3],
        least=(9, 0) if form == "cluster" else (7, 5),
    )


ENTRIES: tuple[KernelEntry, ...] = (
    _entry("block", ({"size": 23, "points": 300, "groups": 37, "warps": 2, "threads": 96},)),
    _entry("cluster", ({"size": 23, "points": 300, "groups": 21, "blocks": 3, "warps": 2, "threads": 64},)),
    _entry("large", ({"size": 23, "points": 300, "groups": 21, "warps": 3, "threads": 64},)),
)
