"""`asperity inspect` and `asperity score` on a real bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.commands import inspect_bundle, score
from asperity.runtime.errors import AsperityError, BundleError, DataError, SignatureError, UsageError
from asperity.runtime.manifest import SmallestDefect
from tests.conftest import NORMALS, PRODUCT, SIZE_PX, LiteBundle


def invoke(*arguments: object) -> tuple[str, str, BaseException | None]:
    """(stdout, stderr, what was raised) of a command."""
    app = typer.Typer()
    app.command("inspect")(inspect_bundle.command)
    app.command("score")(score.command)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    error = result.exception
    if error is not None and not isinstance(error, AsperityError):
        raise error
    return result.stdout, result.stderr, error


def test_inspect_tells_what_is_inside(lite_bundle: LiteBundle) -> None:
    keys = ("--keys", lite_bundle.trust.folder)
    stdout, _, error = invoke("inspect", lite_bundle.path, "--json", "--threads", 1, *keys)
    assert error is None
    told, bundle = json.loads(stdout), open_bundle(lite_bundle.path, lite_bundle.trust)
    assert told["opens"] and told["digest"] == bundle.digest and told["signed_by"] == bundle.key_id
    assert told["profile"] == "lite" and told["adaptor"] == "lsfa" and told["recipe"] == "bracket"
    assert {w["network"] for w in told["weights"]} >= {"efficientnet_lite0", "points_lite"}
    assert len(told["gate"]) == len(bundle.manifest.golden)
    assert all(row["seen"] == pytest.approx(row["expected"], abs=1e-3) for row in told["gate"])
    text, _, error = invoke("inspect", lite_bundle.path, "--no-gate", *keys)
    assert error is None
    assert "opens, signed by trusted key" in text and bundle.wire_id in text


def test_the_smallest_defect_is_told_in_words() -> None:
    bump = SmallestDefect("bump", 2.13, None, 0.213, None, 18.0, (2.13,), 24)
    told = inspect_bundle.smallest_told(bump)
    assert told == "bump: half from 2.1 mm (0.21 mm high or deep), 95 of 100 not up to 18 mm"
    stain = SmallestDefect("stain", 1.0, 3.0, 0.4, 0.4, 18.0, (1.0, 3.0), 24)
    assert inspect_bundle.smallest_told(stain).endswith("95 of 100 from 3 mm (40% of its colour)")


def test_inspect_of_what_does_not_open_still_tells_and_fails(lite_bundle: LiteBundle, tmp_path: Path) -> None:
    stdout, _, error = invoke("inspect", lite_bundle.path, "--json", "--keys", tmp_path / "stranger")
    told = json.loads(stdout)
    assert isinstance(error, SignatureError) and not told["opens"] and "does not trust" in told["fault"]
    assert told["recipe"] == "bracket" and told["signed_by"] is None

    copy = Path(shutil.copytree(lite_bundle.path, tmp_path / "bundle"))
    (copy / "banks.safetensors").unlink()
    text, _, error = invoke("inspect", copy, "--keys", lite_bundle.trust.folder)
    assert isinstance(error, BundleError) and "banks.safetensors is missing" in str(error)
    assert "DOES NOT OPEN" in text
    _, _, error = invoke("inspect", tmp_path / "nothing")
    assert isinstance(error, BundleError)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh frames of the virtual camera: two good ones, one stained, one whose part is missing."""
    from asperity.runtime.cameras.virtual.camera import VirtualCamera

    folder = tmp_path_factory.mktemp("parts")
    camera = VirtualCamera(PRODUCT, size_px=SIZE_PX)
    for index in (NORMALS + 1, NORMALS + 2):
        frame = camera.frame(index).frame
        assert frame.xyz is not None
        write_frame(folder / "test" / "good", str(index), frame.rgb, frame.xyz)
    frame = camera.frame(NORMALS + 1, "stain").frame
    assert frame.xyz is not None
    write_frame(folder / "test" / "stain", "0", frame.rgb, frame.xyz)
    write_frame(folder / "test" / "nothing", "0", frame.rgb, np.zeros_like(frame.xyz))
    return folder


def scored(lite_bundle: LiteBundle, *arguments: object) -> list[dict[str, Any]]:
    stdout, stderr, error = invoke(
        "score", lite_bundle.path, *arguments, "--threads", 1, "--keys", lite_bundle.trust.folder
    )
    assert error is None, error
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert f"{len(lines)} frames" in stderr
    return lines


def test_score_gives_one_line_a_frame_and_pictures(lite_bundle: LiteBundle, parts: Path, tmp_path: Path) -> None:
    lines = {line["name"]: line for line in scored(lite_bundle, parts, "--maps", tmp_path / "maps")}
    assert set(lines) == {"test/good/41", "test/good/42", "test/stain/0", "test/nothing/0"}
    nothing = lines["test/nothing/0"]
    assert nothing["verdict"] == "unknown" and not nothing["accept"] and nothing["score"] is None
    assert nothing["reason_code"] >= 100
    threshold = open_bundle(lite_bundle.path, lite_bundle.trust).manifest.decision.threshold
    for name in ("test/good/41", "test/good/42", "test/stain/0"):
        line = lines[name]
        assert line["verdict"] in ("ok", "ng") and line["accept"] == (line["verdict"] == "ok")
        assert line["threshold"] == threshold and 0 < line["p_value"] <= 1
        assert line["reason"] == ("GOOD" if line["accept"] else line["reason"])
    # The stained twin of a good frame is stranger in colour, and not in its points.
    good, stain = lines["test/good/41"], lines["test/stain/0"]
    assert stain["rgb_image_distance"] > good["rgb_image_distance"]
    assert stain["points_image_distance"] == pytest.approx(good["points_image_distance"], rel=0.05)
    pictures = sorted(p.name for p in (tmp_path / "maps").iterdir())
    assert pictures == ["test_good_41.png", "test_good_42.png", "test_stain_0.png"]
    with Image.open(tmp_path / "maps" / "test_stain_0.png") as picture:
        assert picture.size == (SIZE_PX, SIZE_PX) and picture.mode == "RGB"


def test_score_takes_single_files_of_either_kind(lite_bundle: LiteBundle, parts: Path) -> None:
    good = parts / "test" / "good"
    lines = scored(lite_bundle, good / "rgb" / "41.png", good / "xyz" / "42.tiff")
    assert [Path(line["rgb"]).name for line in lines] == ["41.png", "42.png"]
    again = scored(lite_bundle, good, "--limit", 1)
    assert len(again) == 1 and again[0]["score"] == pytest.approx(lines[0]["score"])


def test_what_cannot_be_scored_is_named(lite_bundle: LiteBundle, parts: Path, tmp_path: Path) -> None:
    keys = ("--keys", lite_bundle.trust.folder)
    half = Path(shutil.copytree(parts / "test" / "good", tmp_path / "half"))
    (half / "xyz" / "41.tiff").unlink()
    for source, words in (
        (tmp_path / "absent", "does not exist"),
        (half, "41"),
        (half / "rgb" / "41.png", "other half"),
        (tmp_path / "keys.png", "does not exist"),
    ):
        _, _, error = invoke("score", lite_bundle.path, source, *keys)
        assert isinstance(error, DataError) and words in str(error)
    (tmp_path / "loose.png").write_bytes(b"")
    _, _, error = invoke("score", lite_bundle.path, tmp_path / "loose.png", *keys)
    assert isinstance(error, DataError) and "rgb/ or xyz/" in str(error)
    _, _, error = invoke("score", lite_bundle.path, parts, "--unit", "inch", *keys)
    assert isinstance(error, UsageError) and "inch" in str(error)
    _, _, error = invoke("score", tmp_path / "nobundle", parts, *keys)
    assert isinstance(error, BundleError)
    (tmp_path / "file").write_text("")
    _, _, error = invoke("score", lite_bundle.path, parts / "test" / "stain", "--maps", tmp_path / "file", *keys)
    assert isinstance(error, DataError) and "--maps" in str(error)


def test_a_map_never_replaces_a_file(lite_bundle: LiteBundle, parts: Path, tmp_path: Path) -> None:
    """The folder of the frames, named by mistake, would lose them: a map has the name of its frame."""
    (tmp_path / "0.png").write_text("a frame")
    keys = ("--keys", lite_bundle.trust.folder)
    _, _, error = invoke("score", lite_bundle.path, parts / "test" / "stain", "--maps", tmp_path, *keys)
    assert isinstance(error, DataError) and "not overwritten" in str(error)
    assert (tmp_path / "0.png").read_text() == "a frame"
