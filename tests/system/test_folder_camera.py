"""A program that writes files, `asperity camera live folder`, and an inspector: a result for each exposure, its own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from asperity.client import FrameSender
from asperity.runtime.cameras.mvtec_files import read_frame
from asperity.runtime.frame import Frame
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import ReceivedResult
from asperity.testing import CAMERA, PATIENCE_MS, Line
from tests.conftest import LiteBundle

pytestmark = pytest.mark.usefixtures("forked_starts")

NAMES = ("008", "009", "010", "011")
WRITER = """
import pathlib, sys, time
source, target, name = sys.argv[1:]
for half in (f"xyz/{name}.tiff", f"rgb/{name}.png"):
    data = pathlib.Path(source, half).read_bytes()
    with pathlib.Path(target, half).open("wb", buffering=0) as file:
        for at in range(0, len(data), len(data) // 3):
            file.write(data[at : at + len(data) // 3])
            time.sleep(0.02)
"""
"""Writes an exposure in pieces, in place, as a vendor's program does."""
PATIENT = {"deadline_ms": 30_000, "max_age_ms": 60_000}


def test_every_exposure_of_a_folder_has_the_result_of_the_same_files(lite_bundle: LiteBundle, tmp_path: Path) -> None:
    hot, normals = tmp_path / "hot", lite_bundle.normals / "train" / "good"
    for half in ("rgb", "xyz"):
        (hot / half).mkdir(parents=True)
    engine = {"name": "cpu", "threads": 1, "trust": str(lite_bundle.trust.folder)}
    with Line(bundle=lite_bundle.path, engine=engine, limits=PATIENT) as line:
        line.start()
        line.await_running()
        camera = line.asperity(
            "camera", "live", "folder", "--frames", str(len(NAMES)), "--json",
            *settings(path=hot, points="xyz/*.tiff", colour="rgb/*.png", before="take", settle_ms=60_000, max_age_ms=0),
            *settings("camera.", frames=line.ends["frames"]), *settings("live.", silence_ms=60_000),
        )  # fmt: skip
        for number, name in enumerate(NAMES, start=1):  # no faster than this machine judges
            line.spawn(sys.executable, "-c", WRITER, str(normals), str(hot), name)
            live = results(line, number)
        line.wait(lambda: camera.poll() is not None, "the end of the camera")
        assert camera.returncode == 0, camera.log()
        assert '"exposures": 4, "sent": 4, "missed": 0, "dropped": 0' in camera.log()
        assert [(result.seq, result.reason) for result in live] == [(seq, Reason.GOOD) for seq in (1, 2, 3, 4)]
        frames = [read_frame(normals / "rgb" / f"{name}.png", normals / "xyz" / f"{name}.tiff") for name in NAMES]
        swapped = replace(frames[0], rgb=frames[1].rgb)
        files = sent(line, [*frames, swapped])
        for one, other in zip(live, files, strict=False):
            assert one.score is not None and other.score is not None
            assert abs(one.score - other.score) < 1e-3
        # The control: with the colour of another exposure it would have been another score.
        assert files[-1].score is None or abs(files[-1].score - (live[0].score or 0)) > 1e-3


def settings(table: str = "", **keys: object) -> list[str]:
    return [word for key, value in keys.items() for word in ("--set", f"{table}{key}={value}")]


def sent(line: Line, frames: list[Frame]) -> list[ReceivedResult]:
    """Results of frames that were read from files and sent as they are."""
    before = len(line.heard.results)
    with FrameSender(CAMERA, line.ends["frames"]) as sender:
        for number, frame in enumerate(frames, start=1):
            assert sender.wait_connected(PATIENCE_MS) and sender.send(frame)
            results(line, before + number)
    return line.heard.results[before:]


def results(line: Line, count: int) -> list[ReceivedResult]:
    line.wait(lambda: len(line.heard.results) >= count, f"{count} results")
    return list(line.heard.results)
