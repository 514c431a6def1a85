"""The inspector: frames in, exactly one result out for each. One process, for one station or for several.

Two threads. The *I/O thread*, this file and ``inspector.station``, owns every socket, the clock, the journals and the
state machines, and never computes. The *engine thread* (``judging.engine_thread``) owns the engines. Between them is an
inbox in which at most two frames of each station wait.

What happens to a frame, from top to bottom:

    on_frame          here: the message is checked, and its camera determines which station it is for
    Station.on_frame  its seq is accounted for, the trigger that it answers is claimed; then it is either refused at
                      once or admitted: entered in the journal as owed, given a deadline, put into the inbox
    Station.on_scored the engine thread has judged it: Results.publish enters the result in the journal, then sends it
    Station.on_time   its deadline passed first: unknown, DEADLINE goes out at once, and the late score is only logged

While a station's recipe is changing none of this changes. The next recipe is opened next to the active one, and the
errand that switches to it is put into the inbox *behind* the station's waiting frames. So a frame that came before is
judged by the old recipe and one that came after by the new, each result says which, and a frame that names a recipe
other than the active one is refused WRONG_RECIPE. Other stations' frames take their turns meanwhile.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence

from asperity.runtime import __version__, wire
from asperity.runtime.clock import MS, Now, look
from asperity.runtime.errors import AsperityError, EngineLostError, FrameRefused
from asperity.runtime.inspector.clocks import ClockWatch
from asperity.runtime.inspector.combined_station import CombinedStation
from asperity.runtime.inspector.requests import Requests
from asperity.runtime.inspector.station import Station
from asperity.runtime.judging.engine_thread import EngineThread, TakenOver
from asperity.runtime.judging.recipe_loader import Loader
from asperity.runtime.judging.recipes import OpenRecipes
from asperity.runtime.process.systemd import Supervision
from asperity.runtime.records.audit import ITSELF, Actor, Audit
from asperity.runtime.records.journal import Journal
from asperity.runtime.settings.paths import audit_path
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets import reachability
from asperity.runtime.sockets.inspector_sockets import InspectorSockets


class Inspector:
    """The I/O thread of all stations of the process. Every method belongs to the thread that calls ``run``."""

    def __init__(
        self,
        configs: Sequence[StationConfig],
        journals: Sequence[Journal],
        sockets: InspectorSockets,
        clock: Callable[[], Now] = look,
        combined_journals: Sequence[Journal] = (),
    ) -> None:
        """``configs`` and ``journals``: one for each station (``runtime.settings.station_toml.hosted``).

        ``combined_journals``: one for each ``[[combined]]``.
        """
        self.config = configs[0]
        """For what all stations share."""
        self.sockets = sockets
        self.clock = clock
        self.session = str(uuid.uuid4())
        self.started_ns = clock().ns
        self.audit = Audit(self.config.audit, audit_path(self.config), self.session, clock)
        sockets.access.logged_in = self._logged_in
        self.ending = False
        """Set to end: from a signal handler, or by the controller ``shutdown``."""
        self.clock_watch = watch = ClockWatch(self.config.clocks.look_s)
        self.recipes = OpenRecipes(len(configs))
        limits, idle_tick_s = self.config.limits, self.config.timing.idle_tick_ms / 1000
        self.engine_thread = EngineThread(len(configs), limits.queue_length, idle_tick_s, sockets.make_bell, clock)
        self.loaders = [Loader(config, sockets.make_bell, self.recipes) for config in configs]
        self.stations = [
            Station(config, journal, self.session, sockets, slot, loader, clock, self.started_ns, self.audit, watch)
            for config, journal, slot, loader in zip(
                configs, journals, self.engine_thread.slots, self.loaders, strict=True
            )
        ]
        self.combined = [
            CombinedStation(self.config, rules, self.stations, journal, sockets, clock, self.audit)
            for rules, journal in zip(self.config.combined, combined_journals, strict=True)
        ]
        self.by_camera = {station.camera: station for station in self.stations}
        self.by_name = {station.name: station for station in self.stations}
        self.requests = Requests(
            self.stations, sockets.access, self.audit, self.config.control, self._shut_down, clock,
            self.combined,
        )  # fmt: skip
        self.supervision = Supervision()

    # ------------------------------------------------------------------ the loop

    def run(self, first_recipes: Sequence[str]) -> None:
        """Serve until ``ending`` is set. ``first_recipes``: one a station, empty: it waits for ``prepare_recipe``.

        Raises the error by which no station can judge: the first recipe did not open, or the engine is lost.
        """
        try:
            self.audit.start()
            self.clock_watch.start()
            self.begin(first_recipes)
            while not self.ending:
                self.sockets.wait(self._patience_ms())
                self.turn()
            self._answer_everything()
        finally:
            self._close()
        failure = self.failure()
        if failure is not None:
            raise failure

    def begin(self, first_recipes: Sequence[str]) -> None:
        """Settle what an earlier run left owing, then start the engine thread, the self-tests and the first recipes."""
        names = [*self.by_name, *(combined.name for combined in self.combined)]
        self.audit.record("", "session", ITSELF, "BEGUN", stations=names, pid=os.getpid(), version=__version__)
        open_to_users = reachability.open_to_users(self.config)
        for station in self.stations if open_to_users else ():
            station.notice("info", "OPEN_TO_USERS", open_to_users)
        self.engine_thread.start()
        for station, first_recipe in zip(self.stations, first_recipes, strict=True):
            station.begin(first_recipe)
        for combined in self.combined:
            combined.begin()

    def turn(self) -> None:
        """Handle everything that has arrived: verdicts, then new frames, then requests, then what time demands."""
        for station in self.stations:
            for report in station.slot.reports():
                station.on_report(report)
                if not isinstance(report, TakenOver) and report.lost is not None:
                    self._lose_engine(station, report.lost)
        for parts in self.sockets.frames():
            self.on_frame(parts)
        for envelope, request, client in self.sockets.requests():
            self.sockets.reply(*self.requests.answer(envelope, request, client))
        self._report()
        self.on_time()

    def on_frame(self, parts: Sequence[wire.Part]) -> None:
        """A message on the frames socket: whatever it is, some station gives it exactly one result.

        What names no camera of ours, and what names none at all, is answered by the first station of the file.
        """
        now = self.clock()
        try:
            frame = wire.decode_frame(parts)
        except FrameRefused as refusal:
            who = wire.peek_identity(parts)
            self.by_camera.get(who.camera, self.stations[0]).on_broken(who, refusal, now)
        else:
            self.by_camera.get(frame.camera, self.stations[0]).on_frame(frame, now)

    def on_time(self) -> None:
        """Do each station's timed work; returns whether any of them can still do its work."""
        now = self.clock()
        for station in self.stations:
            station.on_time(now)
        for combined in self.combined:  # of what their views have answered by now
            combined.on_time(now)
        open_to_network = reachability.open_to_network(self.config)
        for station in self.stations:
            station.controller.alarms.hold("INSECURE_LAN", open_to_network, "warning")
        if self.failure() is not None:
            self.ending = True  # never set anew from its old value: a signal between reading and writing would be lost
        for station in self.stations if not self.ending else ():
            station.controller.show_failure()
        self._tell_supervisor()

    @property
    def uptime_ms(self) -> int:
        """How old the session is, on the monotonic clock."""
        return (self.clock().ns - self.started_ns) // MS

    def failure(self) -> AsperityError | None:
        """Why no station can judge anything in this process any more, which then ends; None: one can, or may yet.

        A lost engine comes first: a new process may cure it, and the supervisor starts one. Beside it a station that
        only waits for a recipe does not keep the process, in which none might open.
        """
        controllers = [station.controller for station in self.stations]
        failures = [controller.failure for controller in controllers if controller.failure is not None]
        lost = [failure for failure in failures if isinstance(failure, EngineLostError)]
        waiting = [controller for controller in controllers if controller.failure is None and controller.without_recipe]
        if len(failures) + (len(waiting) if lost else 0) < len(controllers):
            return None
        return (lost or failures)[0]

    def _lose_engine(self, finder: Station, error: EngineLostError) -> None:
        """An engine is lost: for every station that shares it."""
        recipe = finder.controller.recipe
        for station in self.stations:
            theirs = station.controller.recipe
            if station is finder or (recipe is not None and theirs is not None and theirs.engine is recipe.engine):
                station.controller.engine_lost(error)

    def _report(self) -> None:
        """What concerns all stations: the first says what was refused, each shows the alarms."""
        access = self.sockets.access
        for kind, text, who in access.news():
            self.stations[0].notice("warning", kind, text, actor=who)
        keys, audit = access.problem, self.audit.look()
        audit_back = f"the audit file can be written again; {self.audit.lost} entries were lost"
        for station in self.stations:
            station.controller.alarms.hold(
                "KEYS", keys, gone=("KEYS_BACK", "the key folder passes its permission check again; clients can "
                                                 "connect")
            )
            station.controller.alarms.hold("AUDIT", audit, gone=("AUDIT_BACK", audit_back))

    def _tell_supervisor(self) -> None:
        """Ready once every first recipe has judged its golden frames, or failed (without one: the engine thread is
        alive).

        After that the watchdog is fed by the engine thread's heartbeat alone.
        """
        controllers, supervision = [station.controller for station in self.stations], self.supervision
        waiting = [controller for controller in controllers if controller.failure is None]
        if waiting and all(controller.tested and not controller.opening_first for controller in waiting):
            supervision.ready()
        elif any(controller.opening_first and controller.busy for controller in waiting):
            supervision.opening()
        supervision.progress(self.engine_thread.beat)
        supervision.status("; ".join(_in_words(station, len(controllers) > 1) for station in self.stations))

    def _shut_down(self) -> None:
        self.ending = True

    def _logged_in(self, socket: str, actor: Actor, refusal: str, peer: str) -> None:
        self.audit.log_in(socket, actor, refusal, peer=peer)

    def _patience_ms(self) -> float:
        """How long the I/O thread may sleep: until a station's time comes, at most ``poll_ms``."""
        due_ns = [station.next_due_ns() for station in self.stations]
        due_ns += [combined.next_due_ns() for combined in self.combined]
        return max(0.0, min(self.config.timing.poll_ms, (min(due_ns) - self.clock().ns) / MS))

    # ------------------------------------------------------------------ the end

    def _answer_everything(self) -> None:
        """Refuse what still arrives, give the frames in work a last while, and answer the rest SHUTDOWN."""
        self.supervision.stopping()
        for station in self.stations:
            station.begin_to_end()
        ends_ns = self.clock().ns + self.config.timing.shutdown_ms * MS
        while any(station.work for station in self.stations) and self.clock().ns < ends_ns:
            self.sockets.wait(min(self._patience_ms(), 20.0))
            self.turn()
        for parts in self.sockets.frames():
            self.on_frame(parts)
        for station in self.stations:
            station.end()
        for combined in self.combined:
            combined.end()

    def _close(self) -> None:
        stopped = self.engine_thread.stop(self.config.timing.shutdown_ms / 1000)
        for loader in self.loaders:
            loader.end(self.config.timing.shutdown_ms / 1000)
        for station in self.stations:
            if stopped and station.controller.recipe is not None:
                self.recipes.put_away(station.controller.recipe)
        self.sockets.close(self.config.sockets.linger_ms)
        for station in self.stations:
            station.counting.close(station.work)
            station.journal.close()
        for combined in self.combined:
            combined.close()
        self.clock_watch.close()
        self.audit.record("", "session", ITSELF, "ENDED")
        self.audit.close()


def _in_words(station: Station, named: bool) -> str:
    controller = station.controller
    recipe = controller.recipe.name if controller.recipe else controller.busy or "no recipe"
    alarms = f"; alarms: {', '.join(controller.alarms)}" if controller.alarms else ""
    name = f"{station.name}: " if named else ""
    return f"{name}{int(controller.state)} {controller.state.name}, {recipe}{alarms}"
