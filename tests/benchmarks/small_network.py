"""The constants of a profile's network on a made-up station, for graphs alone."""

from __future__ import annotations

import msgspec

from asperity.calibration.pretraining.stations import cell_network
from asperity.calibration.profiles import Profile
from asperity.runtime.manifest import Network


def network_of(profile: Profile, slots: int) -> Network:
    """With adaptors, and so many slots."""
    return msgspec.structs.replace(
        cell_network(), profile=profile.name, image_px=profile.image_px, grid=profile.grid, rgb_grid=profile.rgb_grid,
        rgb_channels=profile.rgb_channels, groups=profile.groups, group_size=profile.group_size,
        points_channels=profile.points_channels, adaptor="lsfa", rgb_slots=profile.rgb_grid**2, points_slots=slots,
    )  # fmt: skip
