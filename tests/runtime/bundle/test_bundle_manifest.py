"""What a signed manifest says must make sense, and loosen no check beyond reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.bundle.surfaces import check_surface
from asperity.runtime.errors import BundleError
from asperity.runtime.frame import MODALITIES
from asperity.runtime.manifest import GridDescriptor, HeightResidual, SurfacePicture
from tests.bundle_factory import SCORES, THRESHOLD, ToyBundle, toy_manifest
from tests.runtime.bundle.refusals import refused


def set_in(*keys: Any) -> Callable[[dict[str, Any]], None]:
    """Sets the value given last at the path given before it."""

    def change(values: dict[str, Any]) -> None:
        *path, last, value = keys
        for key in path:
            values = values[key]
        values[last] = value

    return change


def with_surface(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """All modalities of the surface with sensible constants, and ``changes`` (``picture__width``) in them."""

    def change(manifest: dict[str, Any]) -> None:
        names = ["rgb", "points", "geometry", "height", "descriptor"]
        network = manifest["network"]
        network |= {
            "modalities": names,
            "picture": {"kind": "relief", "width": 3, "centre": [0.0] * 3, "scale": [1.0] * 3},
            "height": {"width": 3, "side": manifest["geometry"]["side_px"]},
            "descriptor": {"width": 3, "usual": [[0.1] * 3] * 3},
        }
        for name in names[2:]:
            manifest["decision"][name] = dict(manifest["decision"]["points"])
        for golden in manifest["golden"]:
            golden["image_distances"] = dict.fromkeys(names, 2.0)
        for name, value in changes.items():
            field, _, inner = name.partition("__")
            if inner:
                network[field][inner] = value
            else:
                network[field] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_in("format", 2), ("format 2", "format 1")),
        (set_in("surprise", 1), ("surprise",)),
        (set_in("recipe", "Teil A/1"), ("recipe", "Teil A/1")),
        (lambda m: m.pop("decision"), ("decision",)),
        (set_in("decision", "threshold", 9.0), ("decision.threshold", "9.0")),
        (set_in("decision", "threshold", None), ("decision.threshold",)),
        (set_in("decision", "calibration_scores", []), ("calibration_scores",)),
        (set_in("decision", "calibration_scores", list(SCORES[::-1])), ("calibration_scores",)),
        (set_in("decision", "rgb", "image_std", 0.0), ("decision.rgb.image_std",)),
        (set_in("decision", "points", "weight", -1.0), ("decision.points.weight",)),
        (set_in("decision", "points", "weight", 0.0), ("decision.points.weight", "must be above 0")),
        (set_in("decision", "fusion", "squares"), ("decision.rgb.weight", "must be 0 or 1")),
        (set_in("decision", "fusion", "vote"), ("decision.fusion",)),
        (set_in("decision", "rgb", "bank_rows", 21), ("banks.safetensors", "rgb")),
        (set_in("decision", "points", None), ("field decision has constants of rgb", "rgb, points")),
        (set_in("network", "modalities", ["rgb"]), ("network.modalities", "rgb")),
        (set_in("network", "modalities", ["points", "rgb"]), ("network.modalities", "points, rgb")),
        (set_in("network", "modalities", ["rgb", "points", "smell"]), ("network.modalities",)),
        (with_surface(picture__width=4), ("network.picture.width", "4")),
        (with_surface(picture__scale=[1.0, 0.0, 1.0]), ("network.picture.scale", "0.0")),
        (with_surface(descriptor__usual=[[0.1] * 3] * 2), ("network.descriptor.usual", "3 rows")),
        (with_surface(descriptor__usual=[[0.1, 0.1, 1e9]] * 3), ("network.descriptor.usual", "1000000000")),
        (with_surface(height__side=7), ("network.height.side", "7")),
        (with_surface(), ("does not list heights.safetensors",)),
        (set_in("golden", 0, "image_distances", {"rgb": 1.0}), ("distances of rgb",)),
        (set_in("decision", "alpha", 1.0), ("decision.alpha",)),
        (set_in("decision", "alpha_total", 1.01), ("decision.alpha_total",)),
        (set_in("golden_tolerance", 0.0), ("golden_tolerance",)),
        (set_in("frame_p99_ms", 0.0), ("frame_p99_ms",)),
        (set_in("geometry", "plane", None), ("plane",)),
        (set_in("geometry", "plane", "normal", [0.0, 0.0, 2.0]), ("geometry.plane",)),
        (set_in("geometry", "height_px", 25), ("golden/rgb",)),
        (set_in("geometry", "invalid", [[None, None, None]]), ("geometry.invalid",)),
        (set_in("geometry", "invalid", [[1.0, 2.0]]), ("geometry.invalid",)),
        (set_in("silhouette", 0, "figure", "beauty"), ("beauty",)),
        (set_in("silhouette", 0, "low", 1e9), ("area_mm2",)),
        (set_in("network", "adaptor", "none"), ("adaptor",)),
        (set_in("network", "points_slots", 0), ("network.points_slots",)),
        (set_in("network", "tiles", 0), ("network.tiles 0", "1 to 4")),
        (set_in("network", "tiles", 2), ("network.tiles 2", "adaptor")),
        (set_in("network", "image_px", 64), ("rgb.onnx", "image")),
        (set_in("network", "groups", 9), ("points.onnx", "groups")),
        (set_in("network", "rgb_channels", 9), ("rgb.onnx", "tokens")),
        (set_in("network", "points_slots", 9), ("adaptor_points.onnx",)),
        (set_in("network", "points_slots", 16), ("adaptor_points_full.onnx",)),
        (set_in("network", "cloud_px", 17), ("calibration_inputs.safetensors", "cloud")),
    ],
)  # fmt: skip
def test_a_manifest_without_sense_is_refused_though_signed(
    toy: ToyBundle, change: Callable[[dict[str, Any]], None], words: tuple[str, ...]
) -> None:
    toy.edit(change)
    refused(toy, *words)


def drop_figure(values: dict[str, Any]) -> None:
    values["silhouette"].pop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_in("golden_tolerance", 1e9), ("golden_tolerance", "1e+09", "0.136931", "standard deviations")),
        (set_in("golden_tolerance", 0.137), ("golden_tolerance", "0.137", "0.136931")),
        (set_in("golden", 2, "score", THRESHOLD - 0.01), ("golden_tolerance", "0.05", "0.01", "near")),
        (set_in("frame_p99_ms", 1e12), ("frame_p99_ms", "1e+12", "30000")),
        (set_in("geometry", "moved_share", 0.76), ("geometry.moved_share", "0.76", "0.75")),
        (set_in("geometry", "moved_mm", 2.7), ("geometry.moved_mm", "2.7", "2.68328")),
        (set_in("geometry", "plane_cut_mm", 1e6), ("geometry.plane_cut_mm", "1e+06", "2.68328")),
        (set_in("geometry", "min_points", 1), ("geometry.min_points", "1", "64")),
        (set_in("silhouette", 0, "low", 0.0), ("area_mm2", "600", "10 x its low")),
        (set_in("silhouette", 1, "high", 40.1), ("length_mm", "40.1", "40")),
        (set_in("silhouette", 2, "high", 1e9), ("width_mm", "1e+09", "40")),
        (set_in("silhouette", 3, "high", 27.0), ("height_mm", "27", "26.8328")),
        (set_in("silhouette", 4, "high", 1.0), ("missing_share", "1", "0.9")),
        (set_in("silhouette", 4, "figure", "area_mm2"), ("silhouette", "missing_share")),
        (set_in("silhouette", []), ("silhouette", "none", "area_mm2")),
        (drop_figure, ("silhouette", "missing_share")),
        (set_in("decision", "threshold", 1.0001), ("decision.threshold", "1.0001", "1.0")),
    ],
)  # fmt: skip
def test_a_number_that_loosens_a_check_beyond_reason_is_refused_though_signed(
    toy: ToyBundle, change: Callable[[dict[str, Any]], None], words: tuple[str, ...]
) -> None:
    toy.edit(change)
    refused(toy, *words)


def without_background(level: dict[str, Any] | None) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        values["geometry"] |= {"method": "none", "plane": None}
        values["silhouette"] += [level] if level else []

    return change


@pytest.mark.parametrize(
    ("level", "words"),
    [
        (None, ("silhouette", "level_mm", "calibrate and export again")),
        ({"figure": "level_mm", "low": 90.0, "high": 117.0}, ("level_mm span", "27", "26.8328")),
        ({"figure": "level_mm", "low": 101.0, "high": 99.0}, ("empty range", "level_mm")),
        ({"figure": "area_mm2", "low": 60.0, "high": 600.0}, ("silhouette", "level_mm")),
    ],
)
def test_where_nothing_is_removed_the_level_is_checked_too(
    toy: ToyBundle, level: dict[str, Any] | None, words: tuple[str, ...]
) -> None:
    """Without it an empty view could pass as a flat part; below zero it is a height map's."""
    toy.edit(without_background(level))
    refused(toy, *words)
    values = {"figure": "level_mm", "low": -1.5, "high": 0.5}
    toy.edit(lambda manifest: manifest["silhouette"].__setitem__(slice(5, None), [values]))
    assert len(open_bundle(toy.path, toy.trust).manifest.silhouette) == 6
    toy.edit(lambda manifest: manifest["geometry"].update(method="plane", plane=PLANE))
    refused(toy, "silhouette", "level_mm")


PLANE = {"normal": [0.0, 0.0, -1.0], "offset_mm": 100.0}


def test_numbers_at_their_limit_are_opened(toy: ToyBundle) -> None:
    def change(values: dict[str, Any]) -> None:
        values["golden_tolerance"], values["frame_p99_ms"] = 0.136, 30_000.0
        values["geometry"] |= {"moved_share": 0.75, "moved_mm": 2.68, "plane_cut_mm": 2.68, "min_points": 64}
        values["silhouette"][4]["high"] = 0.9
        values["decision"]["alpha_total"] = 1.0  # nothing could be promised

    toy.edit(change)
    assert open_bundle(toy.path, toy.trust).manifest.golden_tolerance == 0.136


@pytest.mark.parametrize("kind", ["normal", "near", "spoiled_geometry", "spoiled_colour"])
def test_each_kind_of_golden_frame_is_needed(toy: ToyBundle, kind: str) -> None:
    def drop(values: dict[str, Any]) -> None:
        gone = next(g for g in values["golden"] if g["kind"] == kind)
        values["golden"].remove(gone)
        (toy.path / "golden" / "rgb" / f"{gone['name']}.png").unlink()
        (toy.path / "golden" / "xyz" / f"{gone['name']}.tiff").unlink()

    toy.edit(drop)
    refused(toy, kind)


@pytest.mark.parametrize(
    ("index", "changes"),
    [
        (3, {"verdict": "ok", "score": 0.0, "reason": 1}),
        (4, {"verdict": "ok", "score": 0.0, "reason": 1}),
        (4, {"score": 0.0}),
        (3, {"reason": 3}),
        (0, {"verdict": "ng", "score": 2.0, "reason": 2}),
        (1, {"name": "normal_0"}),
    ],
)
def test_a_bundle_that_passes_everything_or_contradicts_itself_is_refused(
    toy: ToyBundle, index: int, changes: dict[str, Any]
) -> None:
    toy.edit(lambda m: m["golden"][index].update(changes))
    refused(toy, "golden")


@pytest.mark.parametrize("field", ["picture", "height", "descriptor"])
def test_the_constants_of_a_modality_are_there_where_it_is_and_only_there(field: str) -> None:
    network, geometry = toy_manifest("none").network, toy_manifest("none").geometry
    check_surface(network, geometry)
    constants = {
        "picture": SurfacePicture("relief", 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        "height": HeightResidual(3, geometry.side_px),
        "descriptor": GridDescriptor(3, ((0.1, 0.1, 0.1),) * 3),
    }
    with pytest.raises(BundleError, match=f"network.{field} is there"):
        check_surface(msgspec.structs.replace(network, **{field: constants[field]}), geometry)
    whole = msgspec.structs.replace(network, modalities=MODALITIES, **constants)
    check_surface(whole, geometry)
    with pytest.raises(BundleError, match=f"network.{field} is not there"):
        check_surface(msgspec.structs.replace(whole, **{field: None}), geometry)


def test_a_manifest_of_before_there_were_more_modalities_opens(toy: ToyBundle) -> None:
    """It names no modalities, and its golden frames have a field for each of the two there were."""

    def earlier(manifest: dict[str, Any]) -> None:
        manifest["network"].pop("modalities")
        for golden in manifest["golden"]:
            for name, value in golden.pop("image_distances").items():
                golden[f"{name}_image_distance"] = value

    toy.edit(earlier)
    opened = open_bundle(toy.path, toy.trust).manifest
    assert opened.network.modalities == ("rgb", "points") == tuple(opened.decision.modalities())
    assert opened.golden[0].distances() == {"rgb": 2.0, "points": 2.0}
