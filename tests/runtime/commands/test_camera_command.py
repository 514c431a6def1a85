"""`asperity camera`: data sets on disk, and frames on the wire."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib import util
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import zmq
from typer.testing import CliRunner, Result

from asperity.calibration.frames.datasets import open_dataset
from asperity.runtime.cameras.files.folders import list_samples
from asperity.runtime.cameras.files.pictures import read_mask
from asperity.runtime.cameras.mvtec_files import read_frame, write_frame
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.cameras.virtual.dataset import mixed_kinds
from asperity.runtime.cameras.virtual.defects import DEFECTS
from asperity.runtime.commands.camera import app
from asperity.runtime.errors import AsperityError, CameraError, DataError, UsageError
from asperity.runtime.frame import Frame
from asperity.runtime.wire import Trigger, decode_frame, encode_trigger

pytestmark = pytest.mark.usefixtures("forked_starts")

if util.find_spec("open3d") is None:
    pytest.skip("the virtual camera needs the calibrate extra", allow_module_level=True)

PATIENCE_MS = 30_000
SMALL = ["--product", "nameplate", "--size", "64", "--seed", "9"]


def camera(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit | AsperityError):
        raise result.exception
    return result


class Inspector:
    """The other end of the wire."""

    def __init__(self, folder: Path) -> None:
        self.context = zmq.Context()
        self.pull, self.publish = self.context.socket(zmq.PULL), self.context.socket(zmq.XPUB)
        self.frames, self.results = f"ipc://{folder}/frames", f"ipc://{folder}/results"
        self.pull.bind(self.frames)
        self.publish.bind(self.results)

    def received(self, timeout_ms: int = 0) -> Iterator[Frame]:
        while self.pull.poll(timeout_ms):
            yield decode_frame(self.pull.recv_multipart())

    def close(self) -> None:
        self.context.destroy(linger=0)


@pytest.fixture
def inspector(tmp_path: Path) -> Iterator[Inspector]:
    there = Inspector(tmp_path)
    yield there
    there.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "plates"
    counts = ("--train", 3, "--validation", 2, "--test", 1)
    result = camera("virtual", *SMALL, *counts, "--write", folder, "--json")
    assert json.loads(result.stdout) == {"frames": 14, "folder": str(folder)}
    return folder


def test_written_data_set(written: Path) -> None:
    dataset = open_dataset(written)
    assert [len(dataset.normal()), sum(dataset.validation()), len(dataset.test())] == [5, 2, 9]
    assert {item.defect for item in dataset.test()} == {"good", *DEFECTS}
    parts = [item.part_id for item in dataset.items]
    assert all(parts) and len(set(parts)) == 14
    for item in dataset.test():
        mask = item.mask((64, 64))
        assert mask is not None and mask.any() == (not item.is_normal)


def test_written_frames_are_the_cameras(written: Path) -> None:
    # Train 0-2, validation 3-4, test/good 5, then the defects in order.
    shot = VirtualCamera("nameplate", 9, 64).frame(7, DEFECTS[1])
    sample = next(s for s in list_samples(written) if s.defect == DEFECTS[1])
    frame = read_frame(sample.rgb, sample.xyz)
    np.testing.assert_array_equal(frame.rgb, shot.frame.rgb)
    np.testing.assert_array_equal(frame.xyz, shot.frame.xyz)
    assert sample.gt is not None
    np.testing.assert_array_equal(read_mask(sample.gt), shot.mask)


def test_data_set_says_how_it_was_made(written: Path, tmp_path: Path) -> None:
    origin = json.loads((written / "virtual.json").read_text())
    command = origin["command"].split()
    assert command[:2] == ["asperity", "camera"] and command[-2:] == ["--write", "FOLDER"]
    camera(*command[2:-1], tmp_path / "again")
    files = sorted(p.relative_to(written) for p in written.rglob("*") if p.is_file())
    assert len(files) == 14 * 2 + 9 + 2
    for file in files:
        assert (written / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_full_folder_is_not_written_over(written: Path) -> None:
    result = camera("virtual", *SMALL, "--write", written)
    assert isinstance(result.exception, DataError) and "not an empty folder" in str(result.exception)


def test_virtual_stream(inspector: Inspector, tmp_path: Path) -> None:
    result = camera(
        "virtual", *SMALL, "--frames", 8, "--rate", 50, "--defect-share", 0.7, "--truth", tmp_path / "truth.jsonl",
        "--frames-endpoint", inspector.frames, "--camera", "cam7", "--json",
    )  # fmt: skip
    told = json.loads(result.stdout)
    truth = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    frames = {frame.seq: frame for frame in islice(inspector.received(PATIENCE_MS), told["sent"])}
    assert told["exposures"] == 8 and told["sent"] + told["dropped"] == 8
    assert [line["seq"] for line in truth] == list(range(1, 9))
    assert sorted(frames) == [line["seq"] for line in truth if line["sent"]] and frames
    again = VirtualCamera("nameplate", 9, 64)
    for line in truth:
        shot = again.frame(line["index"], None if line["defect"] == "good" else line["defect"])
        assert line["part_id"] == shot.frame.part_id
        assert (line["mask"] is None) == (line["defect"] == "good")
        if line["mask"]:
            np.testing.assert_array_equal(read_mask(tmp_path / line["mask"]), shot.mask)
        if line["sent"]:
            frame = frames[line["seq"]]
            np.testing.assert_array_equal(frame.rgb, shot.frame.rgb)
            np.testing.assert_array_equal(frame.xyz, shot.frame.xyz)
            assert (frame.camera, frame.part_id, frame.unit, frame.clock) == ("cam7", line["part_id"], "m", "realtime")
            assert frame.camera_session == line["camera_session"] and frame.t_exposure_us > 1e15
    assert {line["defect"] for line in truth} - {"good"} and "good" in {line["defect"] for line in truth}


def test_replay_stream(inspector: Inspector, written: Path, tmp_path: Path) -> None:
    result = camera(
        "replay", written, "--rate", 100, "--unit", "m", "--truth", tmp_path / "t.jsonl", "--json",
        "--frames-endpoint", inspector.frames,
    )  # fmt: skip
    truth = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert json.loads(result.stdout)["exposures"] == len(truth) == 14
    assert truth[0]["name"] == "train/good/000" and truth[0]["part_id"] == "9000000"
    assert Counter(line["defect"] for line in truth) == {"good": 6, **dict.fromkeys(DEFECTS, 1)}
    assert sum(line["mask"] is not None for line in truth) == len(DEFECTS)
    for frame in islice(inspector.received(PATIENCE_MS), sum(line["sent"] for line in truth)):
        sample = list_samples(written)[frame.seq - 1]
        np.testing.assert_array_equal(frame.xyz, read_frame(sample.rgb, sample.xyz).xyz)


def test_trigger_is_answered_with_its_ids(inspector: Inspector, tmp_path: Path) -> None:
    rgb = np.zeros((40, 50, 3), np.uint8)
    write_frame(tmp_path / "set", "0", rgb, rgb.astype(np.float32))
    truth = tmp_path / "truth.jsonl"
    arguments = ["replay", tmp_path / "set", "--loop", "--on-trigger", "--station", "st9", "--json", "--truth", truth,
                 "--frames-endpoint", inspector.frames, "--results-endpoint", inspector.results]  # fmt: skip
    code = "from asperity.runtime.commands.camera import app; app()"
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        assert inspector.publish.poll(30_000) and inspector.publish.recv() == b"\x01trigger/st9/"
        for trigger_id, part_id in ((71, "a"), (72, "b")):
            trigger = Trigger(
                station="st9", session="0f8fad5b-d9cb-469f-a165-70867728950e", trigger_id=trigger_id, part_id=part_id,
                timeout_ms=60_000,
            )  # fmt: skip
            frame = None
            for _ in range(10):  # a sender never waits: where its queue of one is not yet free, the frame is dropped
                inspector.publish.send_multipart(encode_trigger(trigger))
                frame = next(inspector.received(5_000), None)
                if frame is not None:
                    break
            assert frame is not None
            assert (frame.trigger_id, frame.part_id) == (trigger_id, part_id)
        assert not list(inspector.received(300)), "frames without a trigger"
        ends_s = time.monotonic() + PATIENCE_MS / 1000
        while truth.read_text().count('"sent": true') < 2:  # a frame is here before its sender has counted it
            assert time.monotonic() < ends_s
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 0 and json.loads(out)["sent"] == 2
    finally:
        process.kill()
        process.wait()


def test_rate_is_kept(inspector: Inspector, tmp_path: Path) -> None:
    rgb = np.zeros((40, 50, 3), np.uint8)
    for name in range(5):
        write_frame(tmp_path / "set", str(name), rgb, rgb.astype(np.float32))
    started_s = time.monotonic()
    result = camera("replay", tmp_path / "set", "--rate", 10, "--json", "--frames-endpoint", inspector.frames)
    # Five frames are four periods: never sooner, whatever the machine's speed.
    assert time.monotonic() - started_s >= 0.4 and json.loads(result.stdout)["seconds"] >= 0.399


def test_nobody_listens(tmp_path: Path) -> None:
    result = camera("virtual", *SMALL, "--frames-endpoint", f"ipc://{tmp_path}/nobody", "--wait-s", 0.1)
    assert isinstance(result.exception, CameraError) and "start `asperity run` first" in str(result.exception)
    assert "there is no such file" in str(result.exception)


def test_mix_brings_every_defect_before_one_again() -> None:
    kinds = list(islice(mixed_kinds(4, DEFECTS, 0.5), 200))
    assert kinds == list(islice(mixed_kinds(4, DEFECTS, 0.5), 200)) != list(islice(mixed_kinds(5, DEFECTS, 0.5), 200))
    bad = [kind for kind in kinds if kind != "good"]
    assert 70 < len(bad) < 130
    for start in range(0, len(bad) - len(DEFECTS), len(DEFECTS)):
        assert set(bad[start : start + len(DEFECTS)]) == set(DEFECTS)
    assert set(islice(mixed_kinds(4, [], 0.5), 50)) == {"good"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["virtual", "--product", "bolt"], "choose one of bracket"),
        (["virtual", "--size", "big"], "WIDTHxHEIGHT"),
        (["virtual", "--size", "8"], "32 to 4096"),
        (["virtual", "--defects", "bump,rust"], "'rust' is not known"),
        (["virtual", "--defect-share", "2"], "give 0 to 1"),
        (["virtual", "--rate", "0"], "the rate is 0.0"),
        (["virtual", "--frames", "-1"], "--frames -1 is out of range"),
        (["virtual", "--on-trigger", "--rate", "3"], "cannot be used together"),
        (["virtual", "--wait-s", "-1"], "out of range"),
        (["virtual", "--write", "FOLDER", "--rate", "3"], "are for streaming"),
        (["virtual", "--write", "FOLDER", "--train", "-1"], "counts from 0"),
        (["virtual", "--write", "FOLDER", "--train", "0", "--test", "0"], "0 frames were asked for"),
        (["replay", "FOLDER", "--unit", "inch"], "m, mm, um"),
    ],
)
def test_arguments_that_cannot_be(arguments: list[str], word: str, tmp_path: Path) -> None:
    result = camera(*[str(tmp_path / "new") if a == "FOLDER" else a for a in arguments])
    assert isinstance(result.exception, UsageError) and word in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_data_that_cannot_be(tmp_path: Path) -> None:
    for arguments, word in (
        (["replay", tmp_path], "holds no frames"),
        (["virtual", "--write", tmp_path / "file"], "not an empty folder"),
        (["virtual", "--truth", tmp_path / "file" / "t.jsonl"], "cannot be written"),
    ):
        (tmp_path / "file").write_text("")
        result = camera(*arguments)
        assert isinstance(result.exception, DataError) and word in str(result.exception)
        (tmp_path / "file").unlink()
