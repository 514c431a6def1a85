"""A camera as a process of its own: ``FRAMES SEED``. Says ``camera_session seq`` of each exposure, sent or not."""

from __future__ import annotations

import sys
import time

import numpy as np

from asperity.client import FrameSender
from asperity.testing import CAMERA, PATIENCE_MS
from asperity.testing.camera import noise
from tests.places import ROOT

CAMERA_PROCESS = (
    sys.executable, "-u", "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.system.camera_process import main; main(*sys.argv[1:])",
)  # fmt: skip


def main(frames: str, seed: str) -> None:
    """Send for ever."""
    rng = np.random.default_rng(int(seed))
    with FrameSender(CAMERA, frames) as camera:
        camera.wait_connected(PATIENCE_MS)
        while True:
            camera.send(noise(rng))
            # In one piece: a kill between two writes would leave half a line.
            sys.stdout.write(f"{camera.camera_session} {camera.seq}\n")
            time.sleep(0.02)
