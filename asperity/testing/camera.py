"""A camera controlled by a test."""

from __future__ import annotations

import time

import numpy as np

from asperity.runtime.errors import StationError
from asperity.runtime.frame import Frame
from asperity.runtime.simulation.camera import SimulatedCamera
from asperity.testing.site import PATIENCE_MS, Site


class Camera(SimulatedCamera):
    """Small frames over the real socket, no two alike.

    ``expose(word)`` sends one of which the simulated engine says ``word``; ``deliver()`` one that its script judges.
    """

    def __init__(
        self, site: Site, seed: int = 0, triggered: bool = False, key: str = "camera", station: str = ""
    ) -> None:
        """``triggered``: it listens to triggers (``wait_trigger``). ``key``: name of its key, with CURVE."""
        self.station = station or site.names[0]
        super().__init__(
            site.cameras[self.station],
            site.ends["frames"],
            station=self.station,
            results_endpoint=site.ends["results"] if triggered else "",
            key=site.keys.get(key),
        )
        self.rng = np.random.default_rng(seed)

    def picture(self) -> Frame:
        """A frame to ``send``."""
        return noise(self.rng)

    def deliver(self) -> None:
        """Send a frame that is taken, however slow the machine. A connection that is cut just then costs a seq more.

        Raises StationError when no station receives it.
        """
        taken = False
        while not taken:
            if not self.wait_connected(PATIENCE_MS):
                raise StationError(f"nobody takes the frames of camera {self.camera}")
            taken = self.send(self.picture())


def noise(rng: np.random.Generator) -> Frame:
    """A small frame of random colours and points; ``FrameSender.send`` fills in whose it is."""
    return Frame(
        camera="",
        camera_session="",
        seq=0,
        rgb=rng.integers(0, 256, (24, 32, 3), dtype=np.uint8),
        xyz=rng.normal(size=(24, 32, 3)).astype(np.float32),
        unit="mm",
        t_exposure_us=time.time_ns() // 1000,
        clock="realtime",
    )
