"""What people should know, as log lines and events: on change, never for each frame, never without bound."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, Protocol

from runtime import wire
from runtime.audit import Actor
from runtime.clock import MS, Now, look
from runtime.config import Log as LogConfig

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


class Notices:
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
        self._repeat_ns = config.repeat_ms * MS
        self._kinds_max = config.kinds_max
        self._publish = publish
        self._clock = clock
        self._last: OrderedDict[str, tuple[int, int]] = OrderedDict()  # kind -> (when it was written, held back since)

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
        held = self._held_back(kind + of, now.ns)
        if held is None and not each:
            return
        if held is not None:
            more = f" (and {held} more of this kind before)" if held else ""
            ids: dict[str, str | int | None] = {"station": self._station, "session": self._session, "kind": kind}
            ids |= {"text": text + more, "result_id": result_id, "seq": seq, "actor": actor or None}
            log.log(_LEVELS[severity], "%s: %s: %s%s", self._station, kind, text, more, extra={"ids": ids})
            text = text if each else text + more
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

    def _held_back(self, kind: str, now_ns: int) -> int | None:
        """How many were held back since the last one that was written; None: so must this one be."""
        written_ns, held = self._last.get(kind, (None, 0))
        if written_ns is not None and now_ns - written_ns < self._repeat_ns:
            self._last[kind] = written_ns, held + 1
            return None
        self._last[kind] = now_ns, 0
        self._last.move_to_end(kind)
        while len(self._last) > self._kinds_max:
            self._last.popitem(last=False)
        return held
