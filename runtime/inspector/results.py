"""A station's results: born unknown, entered in the journal, counted and sent. Part of the I/O thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

from asperity.runtime import wire
from asperity.runtime.clock import Now
from asperity.runtime.errors import WireError
from asperity.runtime.frame import ByteArray, FloatArray, Result, Verdict, Window
from asperity.runtime.inspector.counting import Counting
from asperity.runtime.inspector.event_log import EventLog
from asperity.runtime.inspector.triggers import PendingTrigger
from asperity.runtime.judging.pipeline import Outcome
from asperity.runtime.reasons import Reason
from asperity.runtime.records.journal import Journal
from asperity.runtime.records.ledger import Ledger
from asperity.runtime.settings.combined_stations import view_of
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.inspector_sockets import InspectorSockets
from asperity.runtime.states import State


class JudgesBy(Protocol):
    """A recipe, as far as results name it."""

    @property
    def name(self) -> str: ...
    @property
    def bundle(self) -> str: ...
    @property
    def simulated(self) -> bool: ...


class Operated(Protocol):
    """The controller of a station, as far as its results need it."""

    @property
    def state(self) -> State: ...
    @property
    def recipe(self) -> JudgesBy | None: ...
    def answered(self, trigger_id: int) -> None:
        """A trigger's one result is out."""


class Results:
    """The one way out of a station."""

    def __init__(
        self,
        config: StationConfig,
        session: str,
        journal: Journal,
        ledger: Ledger,
        sockets: InspectorSockets,
        controller: Operated,
        notice: EventLog,
        make_room: Callable[[int], None],
        clock: Callable[[], Now],
        counting: Counting,
    ) -> None:
        """``make_room``: called with each new result_id, to answer the frame whose slot of the journal that takes."""
        self.last_published_id = journal.last_id
        self.on_view: Callable[[int, Result], None] | None = None
        """Of a view: takes the one result of each ticket that was given with a trigger."""
        self.view_of = view_of(config)
        self._config = config
        self._name = config.station.name
        self._session = session
        self._journal = journal
        self._ledger = ledger
        self._sockets = sockets
        self._controller = controller
        self._notice = notice
        self._make_room = make_room
        self._clock = clock
        self._counting = counting

    def born(self, who: wire.FrameIdentity, trigger: PendingTrigger | None) -> Result:
        """A result as it is born: unknown. It carries a trigger's id only if it is that trigger's one answer."""
        recipe = self._controller.recipe
        return Result(
            station=self._name,
            session=self._session,
            result_id=self._new_id(),
            camera=who.camera,
            camera_session=who.camera_session,
            seq=who.seq or 0,
            trigger_id=trigger.trigger_id if trigger else 0,
            part_id=(trigger.part_id if trigger else "") or who.part_id,
            recipe=recipe.name if recipe else "",
            bundle=recipe.bundle if recipe else "",
            t_exposure_us=who.t_exposure_us,
            t_done_us=self._clock().wall_us,
            deadline_us=self._config.limits.deadline_ms * 1000,
            simulated=recipe.simulated if recipe else self._config.engine.name == "simulated",
            position=trigger.position if trigger else None,
            view_of=self.view_of,
            **(trigger.batch if trigger else self._counting.batch)._asdict(),
        )

    def answer(
        self, who: wire.FrameIdentity, trigger: PendingTrigger | None, reason: Reason, detail: str = ""
    ) -> None:
        """The result of something that is not admitted."""
        self.publish(self.born(who, trigger).unknown(reason), detail, trigger)
        if trigger is not None:
            self._journal.redeem(trigger.entry)

    def answer_lost(self, who: wire.FrameIdentity, seqs: range) -> None:
        """A result each for exposures that never came."""
        for seq in seqs:
            self._ledger.lose()
            self.answer(wire.FrameIdentity(who.camera, who.camera_session, seq), None, Reason.LOST)

    def answer_triggers(self, triggers: list[PendingTrigger], reason: Reason, detail: str = "") -> None:
        """The results of triggers whose frame never came, or is no longer waited for."""
        for trigger in triggers:
            self._ledger.lose()
            self.answer(wire.FrameIdentity(camera=self._config.station.camera), trigger, reason, detail)

    def publish(self, result: Result, detail: str = "", trigger: PendingTrigger | None = None) -> None:
        """Journal, ledger, wire, in this order. ``trigger``: whose one answer this is."""
        result = replace(result, t_done_us=self._clock().wall_us, view_of=self.view_of)
        try:
            body = wire.encode_result_body(result)
        except WireError as error:  # an engine's numbers that the contract cannot carry
            detail = str(error)
            result = replace(result.unknown(Reason.ENGINE), latency_us={}, views=())
            body = wire.encode_result_body(result)
        if not self._journal.answer(result.result_id, body) and result.verdict is not Verdict.UNKNOWN:
            detail, result = self._journal.fault, result.unknown(Reason.ENGINE)  # what is not kept lets no part pass
            body = wire.encode_result_body(result)
        self._ledger.settle(result)
        self._counting.count(result)
        self.send(result, body)
        if detail and result.score is None:
            self._notice("warning", result.reason.name, detail, result.result_id, result.seq)
        self._controller.answered(result.trigger_id)
        if trigger is not None and trigger.ticket and self.on_view is not None:
            self.on_view(trigger.ticket, result)

    def send(self, result: Result, body: bytes) -> None:
        """A result that the journal holds, as ``body`` and as the 64-byte record."""
        self._sockets.publish([wire.topic("result", self._name), body])
        number = self._config.station.number
        record = wire.encode_record(result, state=self._controller.state, station_number=number)
        self._sockets.publish(wire.record_message(self._name, record))
        self.last_published_id = max(self.last_published_id, result.result_id)

    def publish_bulk(self, outcome: Outcome) -> None:
        """The map of a frame, where it has one, and its picture, if the station publishes them; both may be lost."""
        if outcome.distance_map is not None:
            self._publish_array("map", outcome.result, outcome.distance_map, outcome.window)
        if outcome.picture is not None and self._config.sockets.pictures:
            self._publish_array("picture", outcome.result, outcome.picture, None)

    def _publish_array(
        self, kind: Literal["map", "picture"], result: Result, array: FloatArray | ByteArray, window: Window | None
    ) -> None:
        bulk = wire.Bulk(
            kind=kind,
            station=result.station,
            session=result.session,
            result_id=result.result_id,
            array=array,
            camera=result.camera,
            seq=result.seq,
            window=window,
        )
        self._sockets.publish_bulk(wire.encode_bulk(bulk))

    def _new_id(self) -> int:
        result_id = self._journal.reserve()
        self._make_room(result_id)
        return result_id
