"""A station without sockets, threads or real time: the test hands in messages, lets the bench work, moves the clock."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from asperity.runtime import wire
from asperity.runtime.clock import MS, Now
from asperity.runtime.engines.simulated import TIMING_RECIPE
from asperity.runtime.errors import AsperityError
from asperity.runtime.frame import Frame, Result
from asperity.runtime.inspector.desk import Inspector
from asperity.runtime.inspector.station import Station
from asperity.runtime.judging.recipe_loader import Opened
from asperity.runtime.process.kernel_clock import KernelClock
from asperity.runtime.records.journal import Journal
from asperity.runtime.settings.combined_stations import combining
from asperity.runtime.settings.paths import audit_path, journal_path
from asperity.runtime.settings.station_toml import Security, StationConfig, hosted
from asperity.runtime.sockets.access import Access
from asperity.runtime.states import State

SESSION = "6f1c3b0e-0f5a-4c57-9a53-111111111111"


class FakeSockets:
    """What the desk would publish, in lists."""

    def __init__(self, security: Security) -> None:
        self.access = Access(security)
        self.published: list[list[bytes]] = []
        self.bulk: list[Any] = []
        self.connected = True
        self.speaker: int | None = 1
        """The connection by which frames come."""
        self.open = {1}
        self.read_up_to_ns = 2**62
        self.closed = False

    def make_bell(self) -> Callable[[], None]:
        return lambda: None

    def wait(self, timeout_ms: float) -> None:
        pass

    def frames(self) -> Iterator[list[memoryview]]:
        return iter(())

    def requests(self) -> Iterator[tuple[list[bytes], list[bytes], str]]:
        return iter(())

    def reply(self, envelope: list[bytes], body: bytes) -> None:
        pass

    def publish(self, parts: list[bytes]) -> None:
        self.published.append(parts)

    def publish_bulk(self, parts: Any) -> None:
        self.bulk.append(parts)

    def camera_spoke(self, camera: str) -> None:
        pass

    def is_open(self, connection: int) -> bool:
        return connection in self.open

    def camera_connected(self, camera: str) -> bool:
        return self.connected

    def close(self, linger_ms: int) -> None:
        self.closed = True


class Floor:
    """One process with its stations and everything around them. ``station`` is the first, or the only one."""

    def __init__(
        self,
        journal: Path,
        script: str = "ok",
        ready: bool = True,
        names: Sequence[str] = (),
        recipes: Mapping[str, str] | None = None,
        trigger_mode: str = "",
        combined: Sequence[Mapping[str, Any]] = (),
        **sections: dict[str, Any],
    ) -> None:
        """``names``: of several stations, whose cameras are called the same and whose journals lie beside ``journal``.

        ``recipes``: what each begins with, by name; otherwise ``a``. ``trigger_mode``: `triggers` of each.
        ``combined``: tables ``[[combined]]``, their journals beside the others.
        """
        values: dict[str, Any] = {
            "engine": {"name": "simulated"},
            "recipes": {"a": f"script:{script}", "b": "script:ng", TIMING_RECIPE: "script:ok"},
            "journal": {"slots": 512},
            **sections,
        }
        if names:
            values["stations"] = [
                {"name": name, "number": number, "camera": name, "journal": f"{journal}.{name}"}
                for number, name in enumerate(names, start=1)
            ]
        else:
            values["journal"]["path"] = str(journal)
        if trigger_mode:
            for station in values.get("stations") or [values.setdefault("station", {})]:
                station["triggers"] = trigger_mode
        if combined:
            values["combined"] = [{"journal": f"{journal}.{table['name']}", **table} for table in combined]
        self.config = msgspec.convert(values, StationConfig)
        configs = hosted(self.config)
        self.now = Now(1_000_000 * MS, 1_700_000_000_000_000)
        self.sockets = FakeSockets(self.config.security)
        self.journals = [
            Journal.open(journal_path(each), each.station.name, slots=each.journal.slots) for each in configs
        ]
        self.journal = self.journals[0]
        above = [combining(self.config, combined) for combined in self.config.combined]
        combined = [Journal.open(journal_path(each), each.station.name, slots=each.journal.slots) for each in above]
        self.desk = Inspector(configs, self.journals, self.sockets, lambda: self.now, combined)  # type: ignore[arg-type]
        self.journals += combined
        self.clock(KernelClock(True, 0.01, 0.2, "chrony"))
        self.desk.engine_thread.start = lambda: None  # type: ignore[method-assign]
        self.station = self.desk.stations[0]
        self.opening: dict[str, list[str]] = {}
        """Recipes that wait to be opened, by station."""
        for station in self.desk.stations:
            self._open_at_once(station)
        self.numbers: dict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))
        self.ids = itertools.count(1)
        self.rng = np.random.default_rng(0)
        self.desk.begin([(recipes or {}).get(each.station.name, "a") for each in configs])
        if ready:
            self.settle()
            for station in self.desk.stations:
                assert station.controller.state is State.CONTINUOUS_EXECUTION

    def _open_at_once(self, station: Station) -> None:
        """Recipes are opened at the desk's next turn, not by a thread."""
        opening = self.opening.setdefault(station.name, [])
        loader = station.controller._loader

        def opened() -> Opened | None:
            if not opening:
                return None
            name = opening.pop(0)
            try:
                return Opened(name, recipe=self.desk.recipes.open(name, station.config, in_child_first=False))
            except AsperityError as error:
                return Opened(name, error=error)

        loader.start = lambda name, in_child_first: opening.append(name)  # type: ignore[method-assign]
        loader.opened = opened  # type: ignore[method-assign]
        loader.give_up = opening.clear  # type: ignore[method-assign]

    def clock(self, seen: KernelClock) -> None:
        """The kernel sees this computer's clock like this from now on."""
        self.desk.clock_watch.last = seen

    def of(self, name: str) -> Station:
        """One of several stations."""
        return self.desk.by_name[name]

    # ------------------------------------------------------------------ what a test does

    def serve(self, count: int = 1) -> None:
        """Let the bench see to ``count`` frames or errands, and the desk to what came of it."""
        for _ in range(count):
            self.desk.engine_thread.serve(0.0)
            self.desk.turn()

    def settle(self) -> None:
        """Until nothing waits any more."""
        self.desk.turn()
        while self.desk.engine_thread.serve(0.0):
            self.desk.turn()
        self.desk.turn()

    def pass_ms(self, ms: float) -> None:
        """Let time go by while an idle bench ticks."""
        self.now = Now(self.now.ns + round(ms * MS), self.now.wall_us + round(ms * 1000))
        self.desk.turn()

    def frame(self, seq: int | None = None, **fields: Any) -> Frame:
        """The camera's next frame, or one of a given ``seq``; of the first station's camera unless one is named."""
        camera = fields.get("camera", self.station.camera)
        if fields.get("trigger_id"):  # as a camera does: what the station said last of this id
            whose = self.desk.by_camera.get(camera)
            messages = self.of_kind("trigger", whose.name if whose else "")
            given = [wire.decode_trigger(parts) for parts in messages]
            promised = next((t.promise for t in given[::-1] if t.trigger_id == fields["trigger_id"]), 0)
            fields = {"promise": promised, **fields}
        return Frame(
            **{
                "camera": camera,
                "camera_session": SESSION,
                "seq": next(self.numbers[camera]) if seq is None else seq,
                "rgb": self.rng.integers(0, 256, (8, 9, 3), dtype=np.uint8),
                "xyz": self.rng.normal(size=(8, 9, 3)).astype(np.float32),
                "t_exposure_us": self.now.wall_us,
                "clock": "realtime",
                **fields,
            }
        )

    def send(self, seq: int | None = None, **fields: Any) -> Frame:
        """The frame arrives."""
        frame = self.frame(seq, **fields)
        self.desk.on_frame(wire.encode_frame(frame))
        return frame

    def ask(self, op: str, **fields: Any) -> wire.Reply:
        """A request and its reply."""

        request = wire.Request(op=op, **{"id": f"r{next(self.ids)}", **fields})
        envelope, body = self.desk.requests.answer([b"client"], [wire.encode_request(request)])
        assert envelope == [b"client"]
        return wire.decode_reply(body)

    # ------------------------------------------------------------------ what a test sees

    def of_kind(self, kind: str, station: str = "") -> list[list[bytes]]:
        prefix = f"{kind}/{station}/" if station else f"{kind}/"
        return [parts for parts in self.sockets.published if parts[0].startswith(prefix.encode())]

    def results_of(self, station: str) -> list[Result]:
        return [wire.decode_result(parts) for parts in self.of_kind("result", station)]

    def reasons_of(self, station: str) -> list[str]:
        return [result.reason.name for result in self.results_of(station)]

    def state_of(self, station: str) -> wire.StationState:
        self.desk.turn()
        state = self.ask("get_state", station=station).state
        assert state is not None
        return state

    @property
    def results(self) -> list[Result]:
        return [wire.decode_result(parts) for parts in self.of_kind("result")]

    @property
    def reasons(self) -> list[str]:
        return [result.reason.name for result in self.results]

    @property
    def state(self) -> wire.StationState:
        """As a receiver sees the first station now."""
        return self.state_of(self.station.name)

    @property
    def events(self) -> list[wire.Event]:
        return [wire.decode_event(parts) for parts in self.of_kind("event")]

    def audit(self) -> list[dict[str, Any]]:
        """Every entry of the audit file up to now."""
        assert self.desk.audit.write_waiting()
        lines = audit_path(hosted(self.config)[0]).read_text().splitlines()
        return [msgspec.json.decode(line) for line in lines]

    def close(self) -> None:
        for journal in self.journals:
            journal.close()


MakeFloor = Callable[..., Floor]


@contextmanager
def floors(folder: Path) -> Iterator[MakeFloor]:
    """Makes floors, each on a journal of its own in ``folder`` unless one is named; they end with the test."""
    made: list[Floor] = []
    numbers = itertools.count()

    def build(script: str = "ok", journal: Path | None = None, **options: Any) -> Floor:
        made.append(Floor(journal or folder / f"{next(numbers)}.journal", script, **options))
        return made[-1]

    yield build
    for floor in made:
        floor.close()


def balanced(floor: Floor) -> bool:
    return floor.station.ledger.imbalance(len(floor.station.work)) == 0 and floor.state.balanced
