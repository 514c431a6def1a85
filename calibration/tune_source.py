"""A folder of normal frames as what the sweep works on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from calibration.datasets import Item, open_dataset
from calibration.geometry import fit_geometry
from calibration.networks.torch_networks import build
from calibration.profiles import Profile, network_for
from calibration.split import split_frames
from calibration.tune import TuneSet, make_tune_set
from runtime.errors import CalibrationError, FrameRefused
from runtime.frame import Prepared, Unit
from runtime.manifest import Geometry, Network
from runtime.points import group
from runtime.preprocess import prepare

LOG = logging.getLogger(__name__)


def read_tune_set(
    source: Path, profile: Profile, *, unit: Unit | None = None, limit: int | None = None, seed: int = 0
) -> TuneSet:
    """Frames of the ``fit`` split to adapt on; those of ``tune`` and ``calibrate`` are held out and spoiled.

    ``limit``: use the first so many normal frames. Raises DataError and CalibrationError as their parts do.
    """
    items = open_dataset(source, unit=unit).normal()[:limit]
    frames = [item.frame(index) for index, item in enumerate(items)]
    geometry = fit_geometry(frames, unit=unit)
    network, networks = network_for(profile, geometry, "none"), build(profile)
    split = split_frames([item.part_id for item in items], seed=seed)
    fit = _prepared(items, split.fit, geometry, network)
    held_out = _prepared(items, (*split.tune, *split.calibrate), geometry, network)
    if profile.point_bn == "station":
        networks.fit_point_statistics([group(prepared.cloud, network).groups for prepared in fit])
    return make_tune_set(source.name, fit, held_out, network, networks, seed)


def _prepared(items: Sequence[Item], chosen: Sequence[int], geometry: Geometry, network: Network) -> list[Prepared]:
    ready = []
    for index in chosen:
        try:
            ready.append(prepare(items[index].frame(index), geometry, network))
        except FrameRefused as refused:
            LOG.warning("%s is left out: %s", items[index].name, refused)
    if not ready:
        raise CalibrationError("no normal frame is left after preprocessing; look at the frames and their unit")
    return ready
