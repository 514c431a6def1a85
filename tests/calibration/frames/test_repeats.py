"""Frames that repeat a part count as one part; different parts, however alike, do not."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from torch import Tensor, nn

from asperity.calibration import calibrate as calibrate_module
from asperity.calibration.calibrate import calibrate
from asperity.calibration.frames import parts as parts_module
from asperity.calibration.frames.parts import shown_before, tell_parts
from asperity.calibration.frames.prepare_normals import Normals, prepare_normals, split_normals
from asperity.calibration.frames.repeats import Repeats, find_repeats
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.outcome.threshold import choose_rate, promise
from asperity.calibration.profiles import PROFILES
from asperity.calibration.report.types import Report
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import Prepared
from asperity.runtime.manifest import Geometry, WeightsOrigin
from tests.calibration.plates import Place, Shape, Shot, by_hand, plate
from tests.calibration.tiny_station import TINY, TinyPoints, TinyRgb

OPTIONS = CalibrateOptions(profile="plates", method="frozen", unit="m")
PLATES = replace(TINY, name="plates", image_px=112, cloud_px=112, groups=256, group_size=32)
IN_FIXTURE = Place(0.3, -0.4, 1.0)
COUNT = 24

Draw = Callable[[int], Shot]


@cache
def resting(part: int) -> Draw:
    return lambda exposure: plate(part, exposure, IN_FIXTURE)


@cache
def moved(part: int, shape: Shape = "plate") -> Draw:
    return lambda exposure: plate(part, exposure, by_hand(exposure), shape)


def write(folder: Path, shots: Sequence[Shot], ids: Sequence[str] = (), train: int | None = None) -> Path:
    """``train/good``, and ``validation/good`` from the frame ``train`` on; ``ids`` as ``parts.csv``."""
    names = []
    for index, (rgb, xyz) in enumerate(shots):
        split = "train" if train is None or index < train else "validation"
        write_frame(folder / split / "good", f"{index:03d}", rgb, xyz)
        names.append(f"{split}/good/{index:03d}")
    if ids:
        with (folder / "parts.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("name", "part_id"), *zip(names, ids, strict=True)])
    return folder


def read(folder: Path, geometry: str = "auto") -> Normals:
    return prepare_normals(folder, msgspec.structs.replace(OPTIONS, geometry=geometry), PLATES, lambda *_: None)


@pytest.fixture(scope="module")
def read_plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[Draw]], Normals]:
    """These frames without ids, read once: what ids make of the same frames is asked of ``tell_parts``."""
    known: dict[tuple[Draw, ...], Normals] = {}

    def plain(draws: Sequence[Draw]) -> Normals:
        key = tuple(draws)
        if key not in known:
            known[key] = read(write(tmp_path_factory.mktemp("source"), drawn(draws)))
        return known[key]

    return plain


@pytest.fixture(scope="module")
def comparisons() -> dict[int, tuple[Sequence[Prepared], Repeats]]:
    return {}


@pytest.fixture
def compared_once(
    comparisons: dict[int, tuple[Sequence[Prepared], Repeats]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames are compared whatever their ids are, so those of one set need it once."""

    def find(prepared: Sequence[Prepared], geometry: Geometry) -> Repeats:
        if id(prepared) not in comparisons:
            comparisons[id(prepared)] = prepared, find_repeats(prepared, geometry)
        return comparisons[id(prepared)][1]

    monkeypatch.setattr(parts_module, "find_repeats", find)


def drawn(draws: Sequence[Draw]) -> list[Shot]:
    return [draw(exposure) for exposure, draw in enumerate(draws)]


UNIQUE = [f"p{i}" for i in range(COUNT)]
DIFFERENT = [resting(i) for i in range(COUNT)]
FEW = 16
"""Enough to tell parts from frames, unless a single part was moved: each frame is compared with every other."""

KINDS: dict[str, tuple[list[Draw], list[str], int, int]] = {
    # frames, part ids, parts that they count as, frames suspected to show one part
    "different parts in a fixture": (DIFFERENT[:FEW], [], FEW, 0),
    "different parts in a fixture, ids": (DIFFERENT[:FEW], UNIQUE[:FEW], FEW, 0),
    "different parts moved about": ([moved(i) for i in range(FEW)], [], FEW, 0),
    "one part at rest": ([resting(7)] * FEW, [], 1, 0),
    "one part at rest, an id for every frame": ([resting(7)] * FEW, UNIQUE[:FEW], 1, 0),
    "one part moved by hand": ([moved(7)] * COUNT, [], 1, 0),
    "one part with holes moved by hand": ([moved(7, "holes")] * COUNT, [], 1, 0),
    "one part moved by hand, an id for every frame": ([moved(7)] * COUNT, UNIQUE, COUNT, COUNT),
    "different parts, one id for all": (DIFFERENT[:FEW], ["p"] * FEW, 1, 0),
    "three parts in turn, moved": ([moved(i % 3) for i in range(FEW)], [], 3, 0),
    "three parts in turn, at rest": ([resting(i % 3) for i in range(FEW)], [], 3, 0),
    "every part twice": ([resting(i // 2) for i in range(FEW)], [], FEW // 2, 0),
    "every part twice, moved": ([moved(i // 2) for i in range(FEW)], [], FEW // 2, 0),
    "a burst of one part among others": ([resting(max(0, i - 9)) for i in range(FEW)], [], FEW - 9, 0),
    "two ids for one part among others": ([moved(max(0, i - 1)) for i in range(FEW)], UNIQUE[:FEW], FEW - 1, 0),
    "ids that are right": ([resting(i // 2) for i in range(FEW)], [f"p{i // 2}" for i in range(FEW)], FEW // 2, 0),
}


@pytest.mark.usefixtures("compared_once")
@pytest.mark.parametrize("kind", KINDS)
def test_frames_count_as_the_parts_they_show(kind: str, read_plain: Callable[[Sequence[Draw]], Normals]) -> None:
    draws, ids, parts, suspected = KINDS[kind]
    normals = read_plain(draws)
    assert len(normals.items) == len(draws)
    found = tell_parts(normals.names, ids, normals.prepared, normals.geometry) if ids else normals.parts
    assert len(set(found.of_frames)) == parts
    assert sum(len(one.frames) for one in found.suspected) == suspected
    told = {name for one in found.counted for name in one.frames}
    repeats = kind not in ("ids that are right", "different parts, one id for all")
    assert bool(told) == (repeats and parts < len(draws))


def test_one_part_is_too_few_and_the_error_names_its_frames_and_the_remedy(
    read_plain: Callable[[Sequence[Draw]], Normals],
) -> None:
    normals = read_plain([moved(7)] * COUNT)
    with pytest.raises(CalibrationError, match=r"24 usable .* of 1 part .*at least 20 different") as told:
        split_normals(normals, "split", 0)
    assert "train/good/000, train/good/001" in str(told.value)
    assert "photograph more parts" in str(told.value)
    assert "parts.csv" in str(told.value)


def test_copies_are_an_error_of_their_own_that_says_how_many_are_left(tmp_path: Path) -> None:
    """``--exclude`` for each of them would be no remedy."""
    shots = [shot for shot in drawn(DIFFERENT[:6]) for _ in range(4)]
    with pytest.raises(CalibrationError, match=r"18 of 24 .* to the last bit \(train/good/001.* leaves 6 .*copies"):
        read(write(tmp_path / "source", shots))


def test_parts_that_cannot_be_compared_are_not_called_different(tmp_path: Path) -> None:
    """Few level cells: the promise says what it rests on, for one part as for many."""
    small = [replace_by_table(shot) for shot in drawn([resting(7)] * COUNT)]
    normals = read(write(tmp_path / "source", small), geometry="plane")
    assert normals.parts.unseen == "any" and not normals.parts.repeats
    assert "could not be checked" in promise(choose_rate(6, None), None, "split", 6, unseen="any").statement
    assert "could not be checked" not in promise(choose_rate(6, None), None, "split", 6).statement


def test_a_round_part_that_was_turned_is_not_called_different(tmp_path: Path) -> None:
    """Nothing shows where it lay, so the promise says that it may have been turned."""
    shots = drawn([moved(i % 3, "disc") for i in range(6)])
    normals = read(write(tmp_path / "source", shots))
    assert normals.parts.unseen == "turned"
    told = promise(choose_rate(6, None), None, "split", 6, unseen="turned").statement
    assert "looks nearly the same at every turn" in told
    assert not read(write(tmp_path / "other", drawn(DIFFERENT[:6]))).parts.unseen


def replace_by_table(shot: Shot) -> Shot:
    """What is left of a plate is 20 pixels wide."""
    rgb, xyz = (array.copy() for array in shot)
    rows, columns = np.mgrid[: len(rgb), : len(rgb)] - (len(rgb) - 1) / 2
    away = np.maximum(np.abs(rows), np.abs(columns)) > 10
    rgb[away], xyz[away, 2] = 35, 0.4
    return rgb, xyz


def test_equal_frames_have_a_remedy_too(tmp_path: Path) -> None:
    normals = read(write(tmp_path / "source", drawn([resting(7)] * COUNT), UNIQUE))
    with pytest.raises(CalibrationError, match=r"move each a little and give each an id in parts\.csv"):
        split_normals(normals, "split", 0)


def test_an_id_of_a_lot_is_named(tmp_path: Path) -> None:
    normals = read(write(tmp_path / "source", drawn(DIFFERENT), ["lot 7"] * COUNT))
    with pytest.raises(CalibrationError, match=r"parts\.csv names 1: an id is that of a single part, not of a lot"):
        split_normals(normals, "split", 0)


def test_frames_of_one_part_never_serve_in_two_sets(tmp_path: Path) -> None:
    normals = read(write(tmp_path / "source", drawn([resting(i // 2) for i in range(48)])))
    split = split_normals(normals, "split", 0)
    sets = [{normals.parts.of_frames[i] for i in members} for members in (split.fit, split.tune, split.calibrate)]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert [len(one) for one in sets] == [15, 3, 6]
    assert split.calibrate_parts == len(sets[2]) < len(split.calibrate)
    assert "time" in split.how


def test_a_part_of_the_validation_frames_is_not_learnt_from(tmp_path: Path) -> None:
    draws = [resting(i) for i in range(30)] + [resting(i) for i in (3, 4, 40, 41)]
    normals = read(write(tmp_path / "source", drawn(draws), train=30))
    split = split_normals(normals, "split", 0)
    assert {3, 4, 30, 31, 32, 33} <= set(split.calibrate)


def test_a_picture_exported_again_is_left_out_though_its_points_differ(tmp_path: Path) -> None:
    shots = drawn([resting(i) for i in range(COUNT)])
    shots[5] = (shots[2][0], shots[5][1])
    shots[9] = (shots[2][0], shots[2][1] + np.float32(1e-7))
    shots[11] = shots[3]
    refused = {one.name: one.message for one in read(write(tmp_path / "source", shots)).refused}
    assert list(refused) == ["train/good/005", "train/good/009", "train/good/011"]
    assert "picture is identical to that of train/good/002" in refused["train/good/005"]
    assert "identical to train/good/003" in refused["train/good/011"]


def test_points_rounded_anew_are_the_same_part(tmp_path: Path) -> None:
    shots = drawn([resting(i) for i in range(COUNT)])
    again = np.clip(shots[2][0].astype(np.int16) + (np.indices((160, 160)).sum(0) % 2)[..., None], 0, 255)
    shots[5] = (again.astype(np.uint8), np.round(shots[2][1], 5))
    normals = read(write(tmp_path / "source", shots))
    assert [one.frames for one in normals.parts.counted] == [("train/good/002", "train/good/005")]


def test_test_frames_that_show_a_part_of_the_training_frames_are_found(tmp_path: Path) -> None:
    normals = read(write(tmp_path / "source", drawn([resting(i) for i in range(COUNT)] + [moved(3), moved(50)])))
    train, test = normals.prepared[:COUNT], (*normals.prepared[COUNT:], normals.prepared[8])
    assert shown_before(test, train, normals.geometry) == [0, 2]


class PlateRgb(TinyRgb):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(nn.functional.interpolate(image, TINY.image_px, mode="area"))


@pytest.fixture
def plates(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(chosen: object, **_: object) -> TorchNetworks:
        origins = (WeightsOrigin("rgb", "handmade", "", ""), WeightsOrigin("points", "handmade", "", ""))
        return TorchNetworks(PLATES, PlateRgb(), TinyPoints(), origins, "cpu")  # type: ignore[arg-type]

    monkeypatch.setitem(PROFILES, "plates", PLATES)
    monkeypatch.setattr(calibrate_module, "build", build)


@pytest.mark.usefixtures("plates")
def test_the_promise_is_of_parts_and_the_report_names_what_was_counted_as_one(tmp_path: Path) -> None:
    source = write(tmp_path / "source", drawn([resting(i // 2) for i in range(44)]))
    folder = calibrate(source, tmp_path / "out", OPTIONS)
    promised = folder.record.false_rejects
    assert (promised.parts, promised.frames) == (6, 12)
    assert promised.alpha_total == pytest.approx(1 / 7) or promised.shape_widened_for
    assert "6 parts in 12 frames" in promised.statement
    assert len(folder.record.repeats) == 22
    assert all(one.counted and len(one.frames) == 2 for one in folder.record.repeats)
    report = msgspec.json.decode((folder.path / "report" / "report.json").read_bytes(), type=Report)
    assert report.repeats == folder.record.repeats
    page = folder.report_path.read_text()
    assert "Frames of one part" in page
    assert "train/good/000, train/good/001" in page


@pytest.mark.usefixtures("plates")
def test_one_part_does_not_calibrate(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="of 1 part are too few"):
        calibrate(write(tmp_path / "source", drawn([moved(7)] * 40)), tmp_path / "out", OPTIONS)


@pytest.mark.usefixtures("plates")
def test_one_part_under_many_ids_leaves_nothing_to_promise(tmp_path: Path) -> None:
    """Ids are believed where a part lies elsewhere in each frame, but the numbers do not rest on them."""
    draws = [moved(7)] * COUNT
    folder = calibrate(write(tmp_path / "source", drawn(draws), UNIQUE), tmp_path / "out", OPTIONS)
    promised, page = folder.record.false_rejects, folder.report_path.read_text()
    assert (promised.alpha_total, promised.bound_95, folder.record.decision.alpha_total) == (1, 1, 1)
    assert promised.statement.startswith("How many good parts will be rejected is not known. 6 part ids calibrate")
    assert "only 0 of these parts are shown to be different" in promised.statement
    assert promised.alpha == folder.record.decision.alpha == pytest.approx(1 / 7)  # engines set thresholds by it
    assert "may show the same part" in page and "<b>not known</b>" in page


def test_a_rate_is_that_of_the_parts_shown_to_be_different() -> None:
    rate = choose_rate(10, None)
    doubted = promise(rate, None, "split", 10, shown_apart=4)
    assert (doubted.alpha, doubted.alpha_total, doubted.witnesses) == (rate.alpha, pytest.approx(1 / 5), 10)
    assert doubted.bound_95 == pytest.approx(choose_rate(4, None).bound()) and doubted.bound_95 > rate.bound()
    assert "reject 20 on average" in doubted.statement and "If all ids are right, it is 9.1 of 100" in doubted.statement
    assert promise(rate, None, "split", 10, shown_apart=10) == promise(rate, None, "split", 10)
    assert promise(choose_rate(10, None, True), None, "split", 10, shown_apart=1).alpha_total == 1
