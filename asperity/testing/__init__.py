"""A line in a temporary folder, to test a gateway or a camera with (docs/testing.md).

    from asperity.testing import Camera, Line

    with Line() as line, Camera(line) as camera:
        line.start()
        line.await_running()
        assert line.result_of(camera.expose("ng")).reason.name == "SCORE_ABOVE_THRESHOLD"
        line.kill()

The inspector is the real one, in a separate process; only its engine is simulated, unless a bundle is given. Every
wait is for a condition and ends with StationError after ``PATIENCE_S``. Nothing is left behind: what was started ends
with the ``with``, and Asperity's processes also end when this process is killed.
"""

from asperity.runtime.process.child import Child
from asperity.testing.camera import Camera
from asperity.testing.line import Line
from asperity.testing.recorder import Recorder
from asperity.testing.site import CAMERA, PATIENCE_MS, PATIENCE_S, STATION, UNHURRIED, Site

__all__ = [
    "CAMERA",
    "PATIENCE_MS",
    "PATIENCE_S",
    "STATION",
    "UNHURRIED",
    "Camera",
    "Child",
    "Line",
    "Recorder",
    "Site",
]
