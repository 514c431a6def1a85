"""A camera that replays recorded frames from a folder of any form that is read (``files.folders``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asperity.runtime.cameras.files.folders import list_samples
from asperity.runtime.cameras.files.parts import read_parts
from asperity.runtime.cameras.files.samples import Sample, read_sample
from asperity.runtime.frame import Frame, MissingPoint, Unit


@dataclass(frozen=True, slots=True)
class ReplayShot:
    """A recorded frame and where it comes from."""

    frame: Frame
    sample: Sample


class ReplayCamera:
    """Frames in natural order of their names; ``seq`` counts from 0 and goes on when the folder starts again."""

    def __init__(
        self, folder: Path, *, loop: bool = False, unit: Unit | None = None, name: str = "replay",
        invalid: Sequence[MissingPoint] = (),
    ) -> None:  # fmt: skip
        """List the folder. ``unit``: of the recorded points, None if not known. ``invalid``: what is stored for a
        missing point. Raises DataError."""
        self.samples = list_samples(folder)
        self._parts = read_parts(folder, self.samples)
        self._loop, self._unit, self._name, self._invalid = loop, unit, name, invalid

    def __len__(self) -> int:
        """Frames of one round."""
        return len(self.samples)

    def __iter__(self) -> Iterator[ReplayShot]:
        """Read one frame after the other, endlessly with ``loop``. Raises DataError for an unreadable one."""
        seq = 0
        while True:
            for sample in self.samples:
                part_id = self._parts.get(sample.name, "")
                frame = read_sample(
                    sample, camera=self._name, seq=seq, part_id=part_id, unit=self._unit,
                    invalid=self._invalid,
                )  # fmt: skip
                yield ReplayShot(frame, sample)
                seq += 1
            if not self._loop:
                return
