"""`asperity calibrate`, killed with -9 in the middle, goes on where it was and comes to the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
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

JOBS = """
import json, os, signal, sys
# A job started in the background without a terminal ignores what the keyboard sends, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, ".")
import torch
torch.set_num_threads(1)
import torch._dynamo  # an optimiser needs it
from tests.calibration.tiny_station import TINY, build_tiny
from asperity.calibration import calibrate, profiles
from asperity.calibration.adaptation import trainer
from asperity.calibration.features import embedding
from asperity.calibration.adaptation.settings import AdaptationConfig
import asperity.export.bundle, asperity.export.commands.calibrate, asperity.export.commands.shown
from asperity.export.cli import register
from asperity.runtime.commands.lazy import LazyTyper, group_of

profiles.PROFILES["tiny"] = TINY
calibrate.build = build_tiny
calibrate.write_report = lambda outcome, record, folder: None
calibrate.default_config = lambda chosen: AdaptationConfig(epochs={epochs}, queue_rows=64, query_patches=16)
asperity.export.bundle.export_bundle = lambda *_, **__: None
asperity.export.commands.shown.report_told = lambda report: None
asperity.export.commands.shown.show_export = lambda report: None
job = {{}}

def counted(function, name):
    calls = 0
    def one(*given):
        nonlocal calls
        if job["where"] == name and calls == job["count"]:
            os.kill(os.getpid(), job["signal"])
        calls += 1
        print(name, file=sys.stderr)
        return function(*given)
    return one

embedding.frozen_patches = counted(embedding.frozen_patches, "FRAME")
trainer.Trainer.advance = counted(trainer.Trainer.advance, "STEP")
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        app = LazyTyper("asperity", "")
        register(app)
        group_of(app)(job["command"])
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Jobs:
    """Runs calibrations, each in a process of its own: a fork of one that has imported torch, which takes seconds."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "dome"
        for index in range(FRAMES):
            write_frame(self.source / "train" / "good", f"{index:03d}", *part(index))
        self.keys = folder / "keys"
        self._said = folder / "out", folder / "err"
        environment = {**os.environ, "ASPERITY_KEYS": str(self.keys), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", JOBS.format(epochs=EPOCHS)], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self, out: Path, where: str = "", count: int = 0, number: int = signal.SIGKILL, *more: str
    ) -> subprocess.CompletedProcess[str]:
        """To its end, which is the signal ``number`` in place of the call ``count`` of ``where``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        command = ["calibrate", str(self.source), "-o", str(out), "--profile", "tiny", "--unit", "m", "--json",
                   "--no-smallest-defect", *more]  # fmt: skip
        job = {"where": where, "count": count, "signal": int(number), "command": command,
               "out": str(self._said[0]), "err": str(self._said[1])}  # fmt: skip
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return subprocess.CompletedProcess(command, code, *(path.read_text() for path in self._said))

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    started = Jobs(tmp_path_factory.mktemp("source"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def whole(jobs: Jobs, tmp_path_factory: pytest.TempPathFactory) -> CalibrationFolder:
    """What an undisturbed run comes to."""
    key = ("-m", "asperity.runtime.cli", "keys", "new", "--keys", str(jobs.keys))
    subprocess.run([sys.executable, *key], cwd=ROOT, check=True, capture_output=True)
    out = tmp_path_factory.mktemp("whole")
    done = jobs.run(out)
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
    jobs: Jobs, whole: CalibrationFolder, tmp_path: Path
) -> None:
    first = jobs.run(tmp_path, "FRAME", 15)
    assert first.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.work"]
    # Half of a frame's patches lost by a power cut: it is computed again.
    rgb = tmp_path / "calibration.work" / "rgb.f32"
    values = np.memmap(rgb, np.float32, "r+")
    values[: 8 * 8] = 0.0
    values.flush()

    second = jobs.run(tmp_path, "STEP", 5)
    assert second.returncode == -signal.SIGKILL
    assert "resuming from 14 frames' patches" in second.stderr
    assert second.stderr.count("FRAME") == FRAMES - 14

    third = jobs.run(tmp_path)
    assert third.returncode == 0, third.stderr
    assert "resuming from an earlier run's checkpoint" in third.stderr
    # Five steps were done, three of them (an epoch) kept.
    assert (third.stderr.count("FRAME"), third.stderr.count("STEP")) == (0, 3 * EPOCHS - 3)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]
    same(load_folder(tmp_path / "calibration"), whole)
    assert json.loads(third.stdout)["adaptation"]["steps"] == 3 * EPOCHS


def test_an_interrupt_from_the_keyboard_leaves_as_much_and_another_job_takes_none_of_it(
    jobs: Jobs, whole: CalibrationFolder, tmp_path: Path
) -> None:
    first = jobs.run(tmp_path, "STEP", 4, signal.SIGINT)
    assert first.returncode != 0
    assert (tmp_path / "calibration.work" / "adaptation.safetensors").exists()
    other = jobs.run(tmp_path, "", 0, signal.SIGKILL, "--seed", "1")
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
