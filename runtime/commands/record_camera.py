"""`asperity camera live SOURCE --write FOLDER`: normal frames for calibration, without an inspector."""

from __future__ import annotations

import json
import select
import shlex
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from asperity.runtime.errors import CameraLostError, ConfigError, DataError, FrameRefused, SourceEnded, UsageError
from asperity.runtime.process import early_signals

if TYPE_CHECKING:
    from asperity.runtime.cameras.camera_toml import LiveSection
    from asperity.runtime.cameras.setup.exposures import Exposures, Taken
    from asperity.runtime.cameras.setup.recording import Recording, Worth
    from asperity.runtime.cameras.source import Source
    from asperity.runtime.frame import Unit

LINES_PER_S = 1.0
"""With ``--every`` the terminal is written at most so often."""
EVERY_S = (0.0, 86_400.0)
MOST_SHOTS = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be recorded. Raises UsageError for what cannot be."""

    folder: Path
    frames: int
    """0: until stopped."""
    every_s: float | None
    """None: on Enter; 0: each exposure."""
    shots_per_part: int
    fills_view: bool
    triggers: str

    def __post_init__(self) -> None:
        every_s, shots = self.every_s, self.shots_per_part
        if every_s is not None and not EVERY_S[0] <= every_s <= EVERY_S[1]:
            raise UsageError(f"--every {every_s} is out of range; give 0 (every exposure) to 86400 seconds")
        if not 0 <= shots <= MOST_SHOTS:
            raise UsageError(f"--parts {shots} is out of range; give 1 to {MOST_SHOTS} frames per part, or 0")
        if every_s is None and self.triggers == "hard_wired":
            raise UsageError("with hard_wired triggers a sensor says when: give --every 0 to record every exposure")
        if every_s is None and not sys.stdin.isatty():
            raise UsageError("--write records a frame on each Enter; without a terminal, give --every SECONDS")


def record(source: Source, settings: LiveSection, wanted: Wanted, as_json: bool) -> None:
    """Record until there are enough frames, and report. Raises what camera and disk raise."""
    from asperity.runtime.cameras.setup.exposures import Exposures
    from asperity.runtime.cameras.setup.recording import Recording, Worth

    with Recording(wanted.folder, wanted.shots_per_part) as recording:
        run = _Run(Exposures(source, settings), recording, Worth(fills_view=wanted.fills_view))
        if wanted.every_s is None:
            hint = ", or type the id of a new part before it" if wanted.shots_per_part else ""
            typer.echo(f"Enter: record a frame of {source.sensor or 'the camera'}{hint}; q and Enter: stop", err=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with suppress(KeyboardInterrupt):  # stopped on request: what was done is said below
                if not early_signals.told():
                    run.until(wanted.frames, wanted.every_s)
        except SourceEnded as error:
            typer.echo(str(error), err=True)
        except CameraLostError:
            done = f"{run.kept} frames recorded in {wanted.folder} until then; the same command continues"
            typer.echo(done, err=True)
            raise
        parts = recording.parts
    refused = dict(run.refused.most_common())
    if as_json:
        report = {
            "folder": str(wanted.folder), "frames": run.kept, "refused": refused, "missed": run.missed, "parts": parts
        }  # fmt: skip
        typer.echo(json.dumps(report))
        return
    why = f" ({', '.join(f'{count} {name}' for name, count in refused.items())})" if refused else ""
    typer.echo(
        f"{run.kept} frames recorded in {wanted.folder}{f' of {parts} parts' if parts else ''}, "
        f"{sum(refused.values())} refused{why}, {run.missed} missed by the camera"
        + (f"; next: asperity calibrate {shlex.quote(str(wanted.folder))} --unit mm -o STATION" if run.kept else "")
    )


class _Run:
    """Takes exposures and keeps those that are worth it."""

    def __init__(self, exposures: Exposures, recording: Recording, worth: Worth) -> None:
        self.kept = self.missed = 0
        self.refused: Counter[str] = Counter()
        self._exposures, self._recording, self._worth = exposures, recording, worth
        self._unit: Unit | None = None
        self._said_s = 0.0

    def until(self, frames: int, every_s: float | None) -> None:
        due_s = time.monotonic()
        while not frames or self.kept < frames:
            if every_s is None:
                wanted = self._on_enter()
                if wanted is None:
                    return
                part_id, taken = wanted
            else:
                part_id, taken = "", self._at(due_s)
                due_s = max(due_s + every_s, time.monotonic())
            self._keep(taken, part_id, each=every_s is None)

    def _take(self) -> Taken:
        taken = self._exposures.take()
        self.missed += taken.missed
        return taken

    def _at(self, due_s: float) -> Taken:
        """The first exposure that came at that time or later; with software triggers it is asked for then."""
        if self._exposures.software:
            time.sleep(max(0.0, due_s - time.monotonic()))
            return self._take()
        while (taken := self._take()).arrived.ns < due_s * 1e9:
            pass
        return taken

    def _on_enter(self) -> tuple[str, Taken] | None:
        """The part's id and a frame exposed after the next Enter; None: stop. Exposures until then are discarded."""
        while not select.select([sys.stdin], [], [], 0.2 if self._exposures.software else 0.0)[0]:
            if not self._exposures.software:
                self._take()
        line = sys.stdin.readline()
        if not line or line.strip() == "q":
            return None
        if not self._exposures.software:
            self._take()  # may have been exposed before
        return line.strip(), self._take()

    def _keep(self, taken: Taken, part_id: str, each: bool) -> None:
        from asperity.runtime.cameras.setup.look import unit_of

        frame = taken.shot.frame
        if part_id and not self._recording.names_parts:
            self._say(f"not recorded: the id {part_id!r} is written with --parts alone; stop, and give it", each=True)
            return
        try:
            self._unit = self._unit or unit_of(frame)
            if self._unit != (frame.unit or "mm"):
                raise ConfigError(
                    f"the frames do not say their unit and look like {self._unit}. A recording is in mm, so that a "
                    "station would take for mm what is sent later: set the source's unit, such as "
                    f"--set unit={self._unit}"
                )
            word, why = self._worth.refusal(frame, self._unit)
        except FrameRefused as error:
            word, why = "unusable", str(error)
        if word:
            self.refused[word] += 1
            self._say(f"not recorded: {why}", each)
            return
        look = self._worth.look
        assert look is not None
        try:
            name = self._recording.add(frame, look, part_id or frame.part_id)
        except DataError as error:
            if not part_id:
                raise
            self._say(f"not recorded: {error}", each=True)
            return
        self.kept += 1
        figures = look.part.silhouette if look.part else None
        seen = f"part {figures.length_mm:.1f} x {figures.width_mm:.1f} mm, " if figures else ""
        self._say(f"{name}: {seen}{look.valid_share:.0%} of the pixels have a point", each)

    def _say(self, text: str, each: bool) -> None:
        now_s = time.monotonic()
        if each or now_s - self._said_s >= 1 / LINES_PER_S:
            self._said_s = now_s
            typer.echo(f"{text} ({self.kept} recorded, {sum(self.refused.values())} refused)", err=True)
