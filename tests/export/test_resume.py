"""`asperity calibrate`, killed with -9 in the middle, goes on where it was and comes to the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from asperity.calibration.outcome.resumable import working
from asperity.calibration.record import CalibrationFolder, load_folder
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.errors import UsageError
from tests.calibration.tiny_station import part
from tests.places import ROOT

FRAMES, EPOCHS = 40, 3

CHILD = """
import os, signal, sys
# A job started in the background without a terminal ignores what the keyboard sends, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, ".")
import torch
torch.set_num_threads(1)
from tests.calibration.tiny_station import TINY, build_tiny
from asperity.calibration import calibrate, profiles
from asperity.calibration.adaptation import trainer
from asperity.calibration.features import embedding
from asperity.calibration.adaptation.settings import AdaptationConfig
import asperity.export.bundle, asperity.export.commands.shown
from asperity.export.cli import register
from asperity.runtime.commands.lazy import LazyTyper, group_of

profiles.PROFILES["tiny"] = TINY
calibrate.build = build_tiny
calibrate.write_report = lambda outcome, record, folder: None
calibrate.default_config = lambda chosen: AdaptationConfig(epochs={epochs}, queue_rows=64, query_patches=16)
asperity.export.bundle.export_bundle = lambda *_, **__: None
asperity.export.commands.shown.report_told = lambda report: None
asperity.export.commands.shown.show_export = lambda report: None
where, count = "{where}", {count}

def counted(function, name):
    calls = 0
    def one(*given):
        nonlocal calls
        if where == name and calls == count:
            os.kill(os.getpid(), {signal})
        calls += 1
        print(name, file=sys.stderr)
        return function(*given)
    return one

embedding.frozen_patches = counted(embedding.frozen_patches, "FRAME")
trainer.Trainer.advance = counted(trainer.Trainer.advance, "STEP")
app = LazyTyper("asperity", "")
register(app)
group_of(app)(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "dome"
    for index in range(FRAMES):
        write_frame(folder / "train" / "good", f"{index:03d}", *part(index))
    return folder


def run(
    source: Path, out: Path, where: str = "", count: int = 0, number: int = signal.SIGKILL, *more: str
) -> subprocess.CompletedProcess[str]:
    child = CHILD.format(epochs=EPOCHS, where=where, count=count, signal=int(number))
    command = ("calibrate", str(source), "-o", str(out), "--profile", "tiny", "--unit", "m", "--json", *more)
    keys = {**os.environ, "ASPERITY_KEYS": str(source.parent / "keys"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", child, *command], cwd=ROOT, env=keys, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> CalibrationFolder:
    """What an undisturbed run comes to."""
    key = ("-m", "asperity.runtime.cli", "keys", "new", "--keys", str(source.parent / "keys"))
    subprocess.run([sys.executable, *key], cwd=ROOT, check=True, capture_output=True)
    out = tmp_path_factory.mktemp("whole")
    done = run(source, out)
    assert done.returncode == 0, done.stderr
    assert (done.stderr.count("FRAME"), done.stderr.count("STEP")) == (FRAMES, 3 * EPOCHS)
    assert [path.name for path in out.iterdir()] == ["calibration"], "the work folder is gone"
    return load_folder(out / "calibration")


def same(one: CalibrationFolder, other: CalibrationFolder) -> None:
    assert one.record.decision == other.record.decision
    assert one.record.adaptation == other.record.adaptation
    for path in (one.networks_path, one.path / "banks.safetensors"):
        mine, theirs = load_file(path), load_file(other.path / path.name)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_killed_among_the_patches_and_again_in_the_adaptation(
    source: Path, whole: CalibrationFolder, tmp_path: Path
) -> None:
    first = run(source, tmp_path, "FRAME", 15)
    assert first.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.work"]
    # Half of a frame's patches lost by a power cut: it is computed again.
    rgb = tmp_path / "calibration.work" / "rgb.f32"
    values = np.memmap(rgb, np.float32, "r+")
    values[: 8 * 8] = 0.0
    values.flush()

    second = run(source, tmp_path, "STEP", 5)
    assert second.returncode == -signal.SIGKILL
    assert "resuming from 14 frames' patches" in second.stderr
    assert second.stderr.count("FRAME") == FRAMES - 14

    third = run(source, tmp_path)
    assert third.returncode == 0, third.stderr
    assert "resuming from an earlier run's checkpoint" in third.stderr
    # Five steps were done, three of them (an epoch) kept.
    assert (third.stderr.count("FRAME"), third.stderr.count("STEP")) == (0, 3 * EPOCHS - 3)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]
    same(load_folder(tmp_path / "calibration"), whole)
    assert json.loads(third.stdout)["adaptation"]["steps"] == 3 * EPOCHS


def test_an_interrupt_from_the_keyboard_leaves_as_much_and_another_job_takes_none_of_it(
    source: Path, whole: CalibrationFolder, tmp_path: Path
) -> None:
    first = run(source, tmp_path, "STEP", 4, signal.SIGINT)
    assert first.returncode != 0
    assert (tmp_path / "calibration.work" / "adaptation.safetensors").exists()
    other = run(source, tmp_path, "", 0, signal.SIGKILL, "--seed", "1")
    assert other.returncode == 0, other.stderr
    assert "resuming" not in other.stderr
    assert (other.stderr.count("FRAME"), other.stderr.count("STEP")) == (FRAMES, 3 * EPOCHS)
    assert load_folder(tmp_path / "calibration").record.decision != whole.record.decision


def test_two_at_once_into_one_folder_are_one_too_many(tmp_path: Path) -> None:
    target = tmp_path / "calibration"
    with working(target, force=False) as work:
        work.begin("job")
        with pytest.raises(UsageError, match="another process is calibrating"), working(target, force=False):
            pass
        assert work.draft.exists(), "the other's work is left alone"
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]
