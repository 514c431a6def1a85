"""Tiles of a window: what each sees, and whose features a patch takes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from asperity.calibration.profiles import PROFILES, network_for, tiled
from asperity.runtime.bundle.surfaces import input_shapes
from asperity.runtime.errors import EngineError, UsageError
from asperity.runtime.frame import FloatArray, Prepared, Silhouette, Window
from asperity.runtime.manifest import Geometry, GridDescriptor, Network
from asperity.runtime.vision.features import feature_shapes, frozen_patches
from asperity.runtime.vision.grid_descriptor import DIMENSION, RADII
from asperity.runtime.vision.preprocess import prepare
from asperity.runtime.vision.tiles import Tiling, of_window, scorable
from tests.synthetic_station import plane_geometry, shoot, small_network

GEOMETRY = Geometry(
    method="none", why="", unit="mm", height_px=512, width_px=512, plane=None, plane_cut_mm=0.0, point_spacing_mm=0.1,
    plane_noise_mm=0.0, cluster_gap_px=2, side_px=520, mm_per_px=0.1, min_points=64, moved_share=1.0, moved_mm=0.0,
)  # fmt: skip


def network(tiles: int) -> Network:
    return network_for(tiled(PROFILES["lite"], tiles), GEOMETRY, "none")


def window(sizes: Network) -> Prepared:
    """A window whose every pixel and cell says where it is."""
    image = np.zeros((sizes.image_px, sizes.image_px, 3), np.uint8)
    image[..., 0] = (np.arange(sizes.image_px) * sizes.grid // sizes.image_px)[:, None]
    image[..., 1] = (np.arange(sizes.image_px) * sizes.grid // sizes.image_px)[None]
    rows, columns = np.indices((sizes.cloud_px, sizes.cloud_px), dtype=np.float32)
    cloud = np.stack([columns + 1, rows + 1, np.full_like(rows, 400.0)], axis=-1)
    return Prepared(
        image, cloud, np.ones((sizes.grid, sizes.grid), bool), Window(0, 0, 520), Silhouette(1.0, 1.0, 1.0, 1.0, 0.0),
        geometry=image[..., [1, 0, 2]],
    )  # fmt: skip


class _Told:
    """Networks whose tokens are the place that they see in the picture, and a constant for points."""

    def __init__(self, sizes: Network) -> None:
        self.sizes, self.images = sizes, 0

    def rgb(self, image: FloatArray) -> FloatArray:
        self.images += 1
        step = self.sizes.image_px // self.sizes.grid
        mean = np.asarray(self.sizes.rgb_mean, np.float32)[:, None, None]
        std = np.asarray(self.sizes.rgb_std, np.float32)[:, None, None]
        seen = np.round((image[0] * std + mean) * 255)[:2, ::step, ::step].reshape(2, -1).T
        return np.ascontiguousarray(np.pad(seen, ((0, 0), (0, self.sizes.rgb_channels - 2))), np.float32)

    def points(self, groups: FloatArray, centres: FloatArray) -> FloatArray:
        return np.ones((self.sizes.groups, self.sizes.points_channels), np.float32)


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_every_patch_takes_the_features_of_its_own_place(tiles: int) -> None:
    sizes = network(tiles)
    whole = of_window(sizes)
    told = _Told(sizes)
    patches = frozen_patches(window(whole), sizes, SimpleNamespace(rgb=told.rgb, points=told.points))
    rows, columns = np.indices((whole.grid, whole.grid))
    assert told.images == tiles**2
    assert np.array_equal(patches.features["rgb"][:, 0].reshape(rows.shape), rows)
    assert np.array_equal(patches.features["rgb"][:, 1].reshape(rows.shape), columns)
    assert patches.nonempty.shape == rows.shape and patches.nonempty.all()
    assert (patches.features["points"] != 0).all()


def test_the_surface_is_seen_by_the_same_tiles_in_a_pass_of_its_own() -> None:
    sizes = msgspec.structs.replace(network(2), modalities=("rgb", "geometry"))
    told, frame = _Told(sizes), window(of_window(sizes))
    networks = SimpleNamespace(rgb=told.rgb)
    patches = frozen_patches(frame, sizes, networks)
    assert told.images == 2 * 4 and patches.nonempty.all()
    colour, surface = patches.features["rgb"], patches.features["geometry"]
    assert np.array_equal(surface[:, :2], colour[:, 1::-1]) and not np.array_equal(surface, colour)
    with pytest.raises(EngineError, match="without its geometry"):
        frozen_patches(replace(frame, geometry=None), sizes, networks)


def test_what_preprocessing_makes_of_the_surface_lies_on_the_windows_patches() -> None:
    shot = shoot(radius_mm=26.0)
    usual = GridDescriptor(3, ((0.1, 0.1, 0.1),) * len(RADII))
    sizes = small_network(tiles=2, modalities=("rgb", "points", "descriptor"), descriptor=usual)
    prepared = prepare(shot.frame, plane_geometry(shot), sizes)
    cells = of_window(sizes).grid ** 2
    assert prepared.descriptor is not None and prepared.descriptor.shape == (cells, DIMENSION)
    assert feature_shapes(sizes)["descriptor"] == (cells, DIMENSION)
    assert input_shapes(sizes)["descriptor"][1] == (cells, DIMENSION)
    assert input_shapes(sizes)["image"][1] == prepared.image.shape


def test_one_tile_is_the_window_itself() -> None:
    assert of_window(network(1)) == network(1)
    assert of_window(network(2)).cloud_px == network(1).cloud_px


def test_a_patch_is_taken_from_the_tile_in_whose_middle_it_lies() -> None:
    tiling = Tiling(2, 28)
    own = [tiling.own(index) for index in range(4)]
    assert sum(int(mask.sum()) for mask in own) == tiling.window_grid**2
    assert own[0][:26, :26].all() and not own[0][26:].any() and not own[0][:, 26:].any()


def test_tiles_without_a_patch_to_score_cost_nothing_and_lose_nothing() -> None:
    sizes = network(2)
    whole, told = of_window(sizes), _Told(sizes)
    frame = window(whole)
    cloud = frame.cloud.copy()
    half = -(-20 * whole.cloud_px // whole.grid)  # of the first 20 rows of patches no cell is empty
    cloud[half:] = 0.0
    frame = replace(frame, cloud=cloud)
    assert [tile is None for tile in scorable(Tiling.of(sizes), frame, sizes)] == [False, False, True, True]
    patches = frozen_patches(frame, sizes, SimpleNamespace(rgb=told.rgb, points=told.points))
    assert told.images == 2
    assert patches.nonempty[:20].all() and not patches.nonempty[20:].any()


def test_a_part_without_any_filled_patch_scores_nothing() -> None:
    sizes = network(2)
    told, frame = _Told(sizes), window(of_window(sizes))
    cloud = np.zeros_like(frame.cloud)
    cloud[::9, ::9] = frame.cloud[::9, ::9]
    frame = replace(frame, cloud=cloud)
    patches = frozen_patches(frame, sizes, SimpleNamespace(rgb=told.rgb, points=told.points))
    assert told.images == 0 and not patches.nonempty.any()


@pytest.mark.parametrize(
    ("change", "why"),
    [({"tiles": 0}, "1 to 4"), ({"tiles": 5}, "1 to 4"), ({"adaptor": "lsfa"}, "adaptor"),
     ({"rgb_grid": 14}, "published"), ({"image_px": 225}, "cells"), ({"cloud_px": 50}, "cells"),
     ({"pooling": "published"}, "published")],
)  # fmt: skip
def test_sizes_that_no_tiling_has_are_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(EngineError, match=why):
        of_window(msgspec.structs.replace(network(2), **change))


def test_a_profile_of_the_published_form_has_one_tile() -> None:
    with pytest.raises(UsageError, match="published"):
        tiled(PROFILES["paper"], 2)
    with pytest.raises(UsageError, match="1 to 4"):
        tiled(PROFILES["lite"], 9)
