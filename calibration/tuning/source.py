"""A folder of normal frames as what the sweep works on."""

from __future__ import annotations

from pathlib import Path

from asperity.calibration.features.embedding import fit_station_statistics
from asperity.calibration.frames.prepare_normals import fit_first, prepare_normals, split_normals
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.profiles import Profile, network_for
from asperity.calibration.tuning.tune import Progress, TuneSet, make_tune_set
from asperity.runtime.errors import UsageError


def networks_of(profile: Profile) -> TorchNetworks:
    """The profile's networks with their own weights. Raises DataError; UsageError where adaptation has no points."""
    if "points" not in profile.modalities:
        raise UsageError(f"--profile {profile.name}: lsfa adapts rgb and points together, and it has no points")
    return build(profile)


def read_tune_set(
    source: Path, profile: Profile, networks: TorchNetworks, options: CalibrateOptions, progress: Progress
) -> TuneSet:
    """Frames of the ``fit`` split to adapt on; those of ``tune`` and ``calibrate`` are held out and spoiled.

    Frames are read and refused as in a calibration. Raises as ``calibration.calibrate.learn``.
    """
    normals = prepare_normals(source, options, profile, progress)
    split = split_normals(normals, "split", options.seed)
    normals, split = fit_first(normals, split)
    fit, held_out = normals.prepared[: len(split.fit)], normals.prepared[len(split.fit) :]
    network = network_for(profile, normals.geometry, "none")
    fit_station_statistics(fit, network, networks, profile)
    return make_tune_set(source.absolute().name, fit, held_out, network, networks, options.seed)
