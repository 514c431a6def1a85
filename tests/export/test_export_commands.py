"""`asperity calibrate` and `asperity export`: what people get wrong becomes one error before any work is done."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from asperity.calibration.options import CalibrateOptions
from asperity.export.cli import register
from asperity.export.commands.calibrate import command_line, recipe_name
from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.cameras.mvtec_files import read_frame, write_frame
from asperity.runtime.commands import inspect_bundle
from asperity.runtime.errors import AsperityError, CalibrationError, DataError, UsageError
from tests.command_line import commands_of
from tests.conftest import LiteBundle


def run(*arguments: object) -> str:
    """Stdout of a command that ends well; what it raises otherwise."""
    app = commands_of(register)
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def inspecting() -> typer.Typer:
    """`asperity inspect`."""
    app = typer.Typer()
    app.command()(inspect_bundle.command)
    return app


def fails(error: type[AsperityError], words: str, *arguments: object) -> None:
    with pytest.raises(error, match=words):
        run(*arguments)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--profile", "huge", "huge.*lite, edge, paper, fast"),
        ("--method", "magic", "--method 'magic'.*lsfa, frozen"),
        ("--fusion", "sum", "--fusion 'sum'.*average, ocsvm"),
        ("--unit", "inch", "--unit 'inch'.*m, mm, um"),
        ("--geometry", "round", "--geometry 'round'"),
        ("--held-out", "some", "--held-out 'some'"),
        ("--recipe", "Teil A", "--recipe 'Teil A'"),
        ("--alpha", "1.5", "--alpha 1.5"),
        ("--device", "abacus", "abacus"),
    ],
)
def test_options_that_cannot_be_right(
    lite_bundle: LiteBundle, tmp_path: Path, option: str, value: str, words: str
) -> None:
    fails(UsageError, words, "calibrate", lite_bundle.normals, "-o", tmp_path / "out", option, value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_command_to_copy_chooses_the_same_and_what_was_added(
    lite_bundle: LiteBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[CalibrateOptions] = []

    def calibrate(source: Path, output: Path, options: CalibrateOptions, *_: object, force: bool) -> None:
        seen.append(options)
        raise UsageError("enough")

    monkeypatch.setattr("asperity.calibration.calibrate.calibrate", calibrate)
    plain = CalibrateOptions(recipe=recipe_name("", lite_bundle.normals))
    chosen = CalibrateOptions(
        profile="edge", method="frozen", recipe="gear-2", alpha=0.05, exclude=("a b", "train/good/003"), seed=3,
        unit="mm", invalid=((None, None, -1.0), (0.0, 0.0, 65535.0)), fusion="ocsvm", held_out="leave_one_out",
        geometry="none", z="height", limit=30, points_weights="w.pth", keep_frames=False, inspect_mask="mask one.png",
    )  # fmt: skip
    auto = CalibrateOptions(recipe="x", invalid=(), method="frozen", modalities=("auto",), whitening=False)
    for options in (plain, chosen, auto):
        line = shlex.split(command_line(lite_bundle.normals, tmp_path / "out", options) + " --exclude 'one more'")
        assert line[:2] == ["asperity", "calibrate"]
        fails(UsageError, "enough", *line[1:])
        assert seen[-1] == msgspec.structs.replace(options, exclude=(*options.exclude, "one more"))


def test_sources_that_cannot_be_used(lite_bundle: LiteBundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fails(DataError, "absent", "calibrate", tmp_path / "absent", "-o", out)
    (tmp_path / "empty").mkdir()
    fails(DataError, "no frames", "calibrate", tmp_path / "empty", "-o", out)
    half = Path(shutil.copytree(lite_bundle.normals, tmp_path / "half"))
    (half / "train" / "good" / "xyz" / "007.tiff").unlink()
    fails(DataError, "007", "calibrate", half, "-o", out)
    few = Path(shutil.copytree(lite_bundle.normals, tmp_path / "few"))
    for kind in ("rgb", "xyz"):
        for path in sorted((few / "train" / "good" / kind).iterdir())[10:]:
            path.unlink()
    fails(CalibrationError, "10 usable normal frames", "calibrate", few, "-o", out)
    other = Path(shutil.copytree(lite_bundle.normals, tmp_path / "other"))
    whole = read_frame(*(other / "train" / "good" / name for name in ("rgb/000.png", "xyz/000.tiff")))
    assert whole.xyz is not None
    write_frame(other / "train" / "good", "020", whole.rgb[:64, :64], whole.xyz[:64, :64])
    with pytest.raises(AsperityError, match="64"):
        run("calibrate", other, "-o", out)
    fails(CalibrationError, r"--alpha 0\.1", "calibrate", lite_bundle.normals, "-o", out, "--alpha", "0.001")
    assert not (out / "bundle").exists() and not (out / "calibration").exists()


def test_what_is_there_is_not_overwritten(lite_bundle: LiteBundle) -> None:
    station = lite_bundle.path.parent
    fails(UsageError, "--force", "calibrate", lite_bundle.normals, "-o", station, "--keys", lite_bundle.trust.folder)
    fails(UsageError, "--force", "export", station, "--keys", lite_bundle.trust.folder)
    assert open_bundle(lite_bundle.path, lite_bundle.trust)


def test_export_from_a_stations_folder(
    lite_bundle: LiteBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_graphs(_networks: Any, _network: Any, out_dir: Path) -> None:
        for path in lite_bundle.path.glob("*.onnx"):
            shutil.copy(path, out_dir)

    monkeypatch.setattr("asperity.export.bundle.export_graphs", copy_graphs)
    monkeypatch.setattr("asperity.export.bundle.PERCENTILE_SAMPLES", 1)
    keys = ("--keys", lite_bundle.trust.folder)
    told = json.loads(run("export", lite_bundle.path.parent, "-o", tmp_path / "b", "--threads", 1, "--json", *keys))
    bundle = open_bundle(tmp_path / "b", lite_bundle.trust)
    assert told["digest"] == bundle.digest and told["key_id"] == bundle.key_id
    assert told["parity"]["scores"]["largest_shift"] < 0.3
    assert "mm" in told["spoiled"]["geometry"] and "mm" in told["spoiled"]["colour"]
    text = run("export", lite_bundle.path.parent, "-o", tmp_path / "t", "--threads", 1, "--timing-only", *keys)
    assert "FOR TIMING ONLY" in text and open_bundle(tmp_path / "t", lite_bundle.trust).manifest.decision.timing_only
    shown = CliRunner().invoke(inspecting(), [str(tmp_path / "t"), "--threads", "1", *map(str, keys)])
    assert "FOR TIMING ONLY" in shown.stdout and "all parts rejected" in shown.stdout


def test_a_recipe_gets_a_name_that_travels() -> None:
    assert recipe_name("", Path("/data/Cable Gland (v2)")) == "cable-gland-v2"
    assert recipe_name("", Path("/data/" + "x" * 50)) == "x" * 32
    assert recipe_name("", Path("/data/Ж")) == "product"
    assert recipe_name("m8_bolt", Path("/data/anything")) == "m8_bolt"


def test_every_choice_of_the_method_is_an_option_of_the_command() -> None:
    import inspect

    from asperity.export.commands.calibrate import command

    own = {"points_weights": "point_weights"}
    missing = {own.get(n, n) for n in CalibrateOptions.__struct_fields__} - set(inspect.signature(command).parameters)
    assert missing == {"bank_projection", "strangest"}
