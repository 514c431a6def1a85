"""The alarms of a station: in every state message until a reset, or until the cause is gone."""

from __future__ import annotations

from asperity.runtime.inspector.event_log import EventLog, Severity
from asperity.runtime.judging.pipeline import Recipe
from asperity.runtime.reasons import Reason
from asperity.runtime.records.drift import DriftMonitor
from asperity.runtime.settings.station_toml import Drift


class Alarms(dict[str, str]):
    """Kind -> text of what is shown now. What is shown is an event as well."""

    def __init__(self, notice: EventLog) -> None:
        super().__init__()
        self._notice = notice

    def show(self, kind: str, text: str, severity: Severity = "alarm", actor: str = "") -> None:
        """Show an alarm in every state message until a reset (or until its cause is gone)."""
        self[kind] = text
        self._notice(severity, kind, text, actor=actor)

    def hold(self, kind: str, text: str, severity: Severity = "alarm", gone: tuple[str, str] | None = None) -> None:
        """Show an alarm in every state, also after a reset, as long as there is a ``text``.

        ``gone``: kind and text of the event when there is none any more.
        """
        if text and kind not in self:
            self.show(kind, text, severity)
        elif text:
            self[kind] = text
        elif self.pop(kind, None) and gone is not None:
            self._notice("info", *gone)


class RecipeAlarms:
    """Alarms in every state message while a recipe is active, also after a reset."""

    def __init__(self, alarms: Alarms, notice: EventLog, drift: Drift) -> None:
        self._alarms = alarms
        self._notice = notice
        self._drift = DriftMonitor(drift.window_frames, drift.level)

    def show(self, recipe: Recipe | None) -> None:
        """``recipe`` is active."""
        for kind in ("THRESHOLD", Reason.TIMING_ONLY.name, "DRIFT", "OLDER_BUNDLE"):
            self._alarms.pop(kind, None)
        decision = recipe.decision if recipe else None
        self._drift.refer(decision.calibration_scores if decision else (), decision.threshold if decision else 0.0)
        if recipe is None:
            return
        if recipe.decision.timing_only:
            text = f"recipe {recipe.name} is for timing only: every frame is unknown; {Reason.TIMING_ONLY.remedy}"
            self._alarms.show(Reason.TIMING_ONLY.name, text, "warning")
        if recipe.older:
            self._alarms.show("OLDER_BUNDLE", f"opened on request ([engine] allow_older): {recipe.older}", "warning")
        mine, signed = recipe.decision.threshold, recipe.proven_threshold
        if mine != signed:
            text = f"an operator set the threshold to {mine:.6g}; the proven one is {signed:.6g}"
            self._alarms.show("THRESHOLD", text, "warning")

    def accepted(self, score: float) -> None:
        """A frame was ok: an alarm when those of late score otherwise than calibration's, until a window does not."""
        drift = self._drift.accepted(score)
        if drift is None:
            return
        if drift.found:
            self._alarms.show("DRIFT", drift.text, "warning")
        elif self._alarms.pop("DRIFT", None):
            self._notice("info", "DRIFT_GONE", drift.text)
