"""Log lines and events for people: on change, never for each frame, never without bound."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, Protocol

from asperity.runtime import wire
from asperity.runtime.clock import Now, look
from asperity.runtime.files import shown
from asperity.runtime.records.audit import Actor
from asperity.runtime.settings.log_lines import Repeats, with_held
from asperity.runtime.settings.station_toml import Log as LogConfig

log = logging.getLogger("asperity.station")

Severity = Literal["info", "warning", "alarm"]
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "alarm": logging.ERROR}
TEXT_MAX = 512
CODE_MAX = 64


class Record(Protocol):
    """Into the audit file, in a station's name."""

    def __call__(
        self, op: str, actor: Actor, code: str, text: str = "", *, refused: bool = False, **fields: Any
    ) -> None: ...


class EventLog:
    """Writes a kind of notice at most once in ``repeat_ms`` and says how many it held back."""

    def __init__(
        self,
        station: str,
        session: str,
        config: LogConfig,
        publish: Callable[[list[bytes]], None],
        clock: Callable[[], Now] = look,
    ) -> None:
        self._station = station
        self._session = session
        self._repeats = Repeats(config.repeat_ms, config.kinds_max)
        self._publish = publish
        self._clock = clock

    def __call__(
        self,
        severity: Severity,
        kind: str,
        text: str,
        result_id: int | None = None,
        seq: int | None = None,
        *,
        actor: str = "",
        of: str = "",
        each: bool = False,
    ) -> None:
        """Write and publish, unless the same ``kind`` was written a moment ago.

        ``actor``: who asked for it. ``of``: whose it is, where one's repeats must not hold back another's (a key's id).
        ``each``: only the log line is held back, the event never: for what clients' limits bound.
        """
        now = self._clock()
        text = shown(text)
        held = self._repeats.due(kind + of, now.ns)
        if held is None and not each:
            return
        if held is not None:
            line = with_held(text, held)
            ids: dict[str, str | int | None] = {"station": self._station, "session": self._session, "kind": kind}
            ids |= {"text": line, "result_id": result_id, "seq": seq, "actor": actor or None}
            log.log(_LEVELS[severity], "%s: %s: %s", self._station, kind, line, extra={"ids": ids})
            text = text if each else line
        event = wire.Event(
            station=self._station,
            session=self._session,
            t_us=now.wall_us,
            severity=severity,
            code=kind[:CODE_MAX],
            text=text[:TEXT_MAX],
            result_id=result_id,
            seq=seq,
            actor=actor,
        )
        self._publish(wire.encode_event(event))
