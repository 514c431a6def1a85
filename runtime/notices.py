"""What people should know, as log lines and events: on change, never for each frame, never without bound."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from runtime import wire
from runtime.clock import Now, look
from runtime.config import Log as LogConfig
from runtime.files import shown
from runtime.log_lines import Repeats, with_held

log = logging.getLogger("asperity.station")

Severity = Literal["info", "warning", "alarm"]
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "alarm": logging.ERROR}
TEXT_MAX = 512


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
        self._repeats = Repeats(config.repeat_ms, config.kinds_max)
        self._publish = publish
        self._clock = clock

    def __call__(
        self, severity: Severity, kind: str, text: str, result_id: int | None = None, seq: int | None = None
    ) -> None:
        """Write and publish, unless the same ``kind`` was written a moment ago."""
        now = self._clock()
        held = self._repeats.due(kind, now.ns)
        if held is None:
            return
        text = with_held(shown(text), held)
        ids: dict[str, str | int | None] = {"station": self._station, "session": self._session, "kind": kind}
        ids |= {"text": text, "result_id": result_id, "seq": seq}
        log.log(_LEVELS[severity], "%s: %s: %s", self._station, kind, text, extra={"ids": ids})
        event = wire.Event(
            station=self._station,
            session=self._session,
            t_us=now.wall_us,
            severity=severity,
            code=kind,
            text=text[:TEXT_MAX],
            result_id=result_id,
            seq=seq,
        )
        self._publish(wire.encode_event(event))
