"""A camera that waits for an inspector ends when it is told to, as any other process that is not up yet."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from asperity.runtime.cameras.mvtec_files import write_frame
from tests.places import ROOT


def test_a_camera_that_waits_for_an_inspector_ends_with_143(tmp_path: Path) -> None:
    """Not with 130, which says that a person stopped it by Ctrl-C: a supervisor would call it a failure."""
    write_frame(tmp_path, "0", np.zeros((3, 4, 3), np.uint8), np.ones((3, 4, 3), np.float32))
    with socket.create_server(("127.0.0.1", 0)) as inspector:
        end = f"tcp://127.0.0.1:{inspector.getsockname()[1]}"
        command = [sys.executable, "-m", "asperity.runtime.cli", "camera", "replay", str(tmp_path), "--wait-s", "600"]
        process = subprocess.Popen([*command, "--frames-endpoint", end], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        with inspector.accept()[0]:  # it is there, and it waits
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 143
