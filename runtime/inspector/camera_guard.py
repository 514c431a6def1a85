"""One camera has one sender: while two connections send frames in its name, nothing is accepted."""

from __future__ import annotations

from collections.abc import Callable

from asperity.runtime.inspector.controller import Controller
from asperity.runtime.inspector.event_log import EventLog
from asperity.runtime.reasons import Reason
from asperity.runtime.sockets.inspector_sockets import InspectorSockets


class Speakers:
    """The open connections by which one camera's frames came, each with its session.

    A camera has one. While there are two, it is unknown whose pictures are genuine. A connection is named by a number
    that is never used twice; None: it is closed, or not known.
    """

    def __init__(self) -> None:
        self._open: dict[int, str] = {}
        self.session = ""
        """Of the last frame that was nobody's but the camera's."""

    @property
    def contested(self) -> bool:
        """Two have sent frames of this camera, and both are still connected."""
        return len(self._open) > 1

    def ended(self, is_open: Callable[[int], bool]) -> None:
        """Forget the connections that are closed."""
        for connection in [each for each in self._open if not is_open(each)]:
            del self._open[connection]

    def speaks(self, connection: int | None, session: str) -> bool:
        """A frame came; True if it is the camera's: no other connection is open by which its frames came."""
        if connection is not None:
            self._open[connection] = session
        if self._open.keys() - {connection}:
            return False
        self.session = session
        return True


class CameraGuard:
    """Watches who sends the frames of a station's camera, and shows the alarm CAMERA_CONFLICT while two do."""

    def __init__(
        self,
        camera: str,
        sockets: InspectorSockets,
        controller: Controller,
        notice: EventLog,
        drop_work: Callable[[Reason], None],
        on_restart: Callable[[], None],
    ) -> None:
        """``drop_work`` answers everything admitted; ``on_restart``: frames of another session of the camera begin."""
        self._camera = camera
        self._sockets = sockets
        self._controller = controller
        self._notice = notice
        self._drop_work = drop_work
        self._on_restart = on_restart
        self._speakers = Speakers()

    def is_the_cameras(self, session: str) -> bool:
        """Its camera sent the message that came last, and nobody else is connected who sends in the camera's name.

        While there is one, nothing is accepted: what waits for its verdict is answered as well.
        """
        before = self._speakers.session
        connection = self._sockets.speaker
        self._sockets.camera_spoke(self._camera)
        self._speakers.ended(self._sockets.is_open)
        if self._speakers.speaks(connection, session):
            if before not in ("", session):
                self._on_restart()
            return True
        if self._speakers.contested and Reason.CAMERA_CONFLICT.name not in self._controller.alarms:
            text = f"two connections send frames of {self._camera}; nothing is accepted until one of them is closed"
            self._controller.alarms.show(Reason.CAMERA_CONFLICT.name, text)
            self._drop_work(Reason.CAMERA_CONFLICT)
        return False

    def watch(self) -> None:
        """Clear the alarm once one of the two is gone."""
        if Reason.CAMERA_CONFLICT.name not in self._controller.alarms:
            return
        self._speakers.ended(self._sockets.is_open)
        if not self._speakers.contested:
            del self._controller.alarms[Reason.CAMERA_CONFLICT.name]
            self._notice("info", "CAMERA_CONFLICT_GONE", f"one connection sends frames of {self._camera}")
