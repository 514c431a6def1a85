"""Sends frames from a source to the inspector, at a fixed rate or on triggers, and writes their ground truth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from asperity.runtime.cameras.files.pictures import read_mask
from asperity.runtime.cameras.replay import ReplayCamera
from asperity.runtime.cameras.schedule import Schedule
from asperity.runtime.cameras.virtual.camera import GOOD, VirtualCamera
from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.errors import DataError
from asperity.runtime.frame import BoolArray, Frame
from asperity.runtime.wire import Trigger

TRIGGER_WAIT_MS = 500
"""Longest single wait for a trigger; between two of them the camera can be stopped."""


TRIGGERED_SEND_WAIT_MS = 200
"""Longest wait for the send queue of one when a trigger is answered: nobody sends that part's frame again. On a
schedule nothing is waited for, since the next frame is fresher."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """A frame to send and what is true of it."""

    frame: Frame
    truth: dict[str, Any]
    mask: BoolArray | None


@dataclass(slots=True)
class StreamSummary:
    """Report of a run."""

    exposures: int = 0
    sent: int = 0
    late: int = 0
    """Exposures that came more than a tenth of their period late."""
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        """Exposures per second, from the first to the last."""
        return (self.exposures - 1) / self.seconds if self.exposures > 1 and self.seconds > 0 else 0.0


def virtual_exposures(camera: VirtualCamera, kinds: Iterable[str], first: int) -> Iterator[Exposure]:
    """Frames of a virtual camera: one part each, from index ``first`` on, ``good`` or spoiled as ``kinds`` says."""
    for index, kind in zip(count(first), kinds, strict=False):
        shot = camera.frame(index, None if kind == GOOD else kind)
        truth = {"defect": kind, "part_id": shot.frame.part_id, "index": index}
        if shot.defect is not None:
            truth |= {key: round(value, 3) for key, value in asdict(shot.defect).items() if key != "kind"}
        yield Exposure(shot.frame, truth, shot.mask)


def replay_exposures(camera: ReplayCamera) -> Iterator[Exposure]:
    """Recorded frames; the truth is the folder they lie in, ``""`` where it does not say. Raises DataError."""
    for shot in camera:
        sample = shot.sample
        truth = {"defect": sample.defect, "part_id": shot.frame.part_id, "name": sample.name}
        mask = read_mask(sample.gt) if sample.gt else None
        if mask is not None and mask.shape != shot.frame.shape_px:
            raise DataError(f"{sample.gt} has {mask.shape} pixels but its frame {shot.frame.shape_px}; they must agree")
        yield Exposure(shot.frame, truth, mask)


class TruthFile:
    """One JSON line per exposure: ``seq, camera_session, sent, defect, part_id, mask, ...``; masks as PNG by it."""

    def __init__(self, path: Path) -> None:
        """Start the file again. Raises DataError when it cannot be written."""
        self.path = path
        self.masks = path.with_name(f"{path.stem}_masks")
        try:
            self.masks.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}; name another file") from error

    def add(self, exposure: Exposure, seq: int, camera_session: str, sent: bool) -> None:
        """Write one line, and the mask where there is a defect. Raises DataError when the disk does not take it."""
        line = {"seq": seq, "camera_session": camera_session, "sent": sent, **exposure.truth, "mask": None}
        try:
            if exposure.mask is not None and exposure.mask.any():
                file = self.masks / f"{seq:06d}.png"
                Image.fromarray(exposure.mask.astype(np.uint8) * 255).save(file)
                line["mask"] = f"{self.masks.name}/{file.name}"
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}; free some space") from error

    def __enter__(self) -> TruthFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def stream(
    exposures: Iterable[Exposure],
    sender: FrameSender,
    *,
    schedule: Schedule | None,
    summary: StreamSummary,
    frames: int | None = None,
    truth: TruthFile | None = None,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Send exposures, at the schedule's times or, without one, each on the station's next trigger.

    A frame is made ready first and waits for its time, so that making it costs no punctuality. ``summary`` is kept up
    to date and holds when the run is interrupted. Raises what source, sender and truth raise.
    """
    started_s = 0.0
    for exposure in exposures:
        trigger: Trigger | None = None
        if schedule is None:
            while trigger is None:
                trigger = sender.wait_trigger(TRIGGER_WAIT_MS)
        elif schedule.wait() > schedule.period_ns // 10:
            summary.late += 1
        now_s = time.monotonic()
        started_s = started_s or now_s
        stamped = replace(exposure.frame, t_exposure_us=time.time_ns() // 1000, clock="realtime")
        sent = sender.send(stamped, trigger, wait_ms=TRIGGERED_SEND_WAIT_MS if trigger else 0)
        summary.exposures += 1
        summary.sent += sent
        summary.seconds = now_s - started_s
        if truth is not None:
            truth.add(exposure, sender.seq, sender.camera_session, sent)
        progress()
        if summary.exposures == frames:
            return
