"""The inputs of each of a bundle's graphs on its own calibration frames: for int8's ranges and for comparing graphs."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from asperity.runtime.bundle.checks import FULL_GRAPH
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.engines.cpu import OnnxNetworks
from asperity.runtime.frame import FloatArray, Prepared
from asperity.runtime.manifest import Network
from asperity.runtime.vision.features import Networks, StageClock, adapted_points, adapted_rgb, frozen_patches

Given = dict[str, list[dict[str, FloatArray]]]
"""By graph, for each frame: inputs by name."""


class _Recording:
    """Networks, noting what they are given."""

    def __init__(self, networks: Networks, points_slots: int) -> None:
        self._networks, self._points_slots = networks, points_slots
        self.given: Given = {}

    def rgb(self, image: FloatArray) -> FloatArray:
        self._note("rgb", image=image)
        return self._networks.rgb(image)

    def points(self, groups: FloatArray, centres: FloatArray) -> FloatArray:
        self._note("points", groups=groups, centres=centres)
        return self._networks.points(groups, centres)

    def adapt_rgb(self, tokens: FloatArray) -> FloatArray:
        self._note("adaptor_rgb", tokens=tokens)
        return self._networks.adapt_rgb(tokens)

    def adapt_points(self, tokens: FloatArray, counts: FloatArray) -> FloatArray:
        name = "adaptor_points" if len(tokens) == self._points_slots else FULL_GRAPH
        self._note(name, tokens=tokens, counts=counts)
        return self._networks.adapt_points(tokens, counts)

    def _note(self, name: str, **inputs: FloatArray) -> None:
        self.given.setdefault(name, []).append(inputs)


def record_inputs(networks: Networks, network: Network, prepared: Iterable[Prepared]) -> Given:
    """Inputs of every graph on these frames, by the networks given.

    The larger points adaptor is given the same tokens in its own number of slots; the smaller one is absent where every
    frame has more non-empty patches than slots. Raises EngineError.
    """
    recording = _Recording(networks, network.points_slots)
    everything = msgspec.structs.replace(network, points_slots=network.grid**2)
    clock = StageClock()
    for frame in prepared:
        patches = frozen_patches(frame, network, recording, clock)
        if network.adaptor == "none":
            continue
        adapted_rgb(patches.features["rgb"], network, recording, clock)
        for form in (network, everything) if network.points_slots < network.grid**2 else (network,):
            adapted_points(patches.features["points"], patches.nonempty, form, recording, clock)
    return recording.given


def graph_inputs(bundle: Bundle, frames: int, threads: int = 1) -> Given:
    """``record_inputs`` on up to ``frames`` calibration frames, evenly spread over them, by the bundle's own graphs.

    Raises BundleError, EngineError.
    """
    network, inputs = bundle.manifest.network, bundle.calibration_inputs()
    networks = OnnxNetworks({name: bundle.graph(name) for name in bundle.graph_names()}, network, threads)
    chosen = np.unique(np.linspace(0, len(inputs) - 1, min(frames, len(inputs))).astype(int))
    try:
        return record_inputs(networks, network, (inputs.prepared(int(index)) for index in chosen))
    finally:
        networks.close()
