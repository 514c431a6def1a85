"""Which part each normal frame shows: by the ids given, corrected by what the frames themselves show."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asperity.calibration.frames.repeats import Unseen, find_repeats
from asperity.calibration.record import Evidence, Repeat
from asperity.runtime.files import shown
from asperity.runtime.frame import Prepared
from asperity.runtime.manifest import Geometry

NAMES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts behind a set of frames."""

    of_frames: tuple[str, ...]
    """One name for each frame, equal where frames show one part: its id, or the name of its first frame."""
    named: bool
    """Whether every frame was given an id."""
    repeats: tuple[Repeat, ...]
    unseen: Unseen
    seen: tuple[str, ...]
    """As ``of_frames``, but frames that merely look like one part are one, whatever their ids."""

    def in_order(self, order: Sequence[int]) -> Parts:
        """Of some of the frames."""
        names, seen = (tuple(names[i] for i in order) for names in (self.of_frames, self.seen))
        return replace(self, of_frames=names, seen=seen)

    def shown_apart(self, frames: Sequence[int], learnt: Sequence[int]) -> int:
        """Different parts among ``frames`` that none of the ``learnt`` ones shows, as far as the frames say."""
        return len({self.seen[i] for i in frames} - {self.seen[i] for i in learnt})

    @property
    def counted(self) -> tuple[Repeat, ...]:
        """Frames found to show one part."""
        return tuple(one for one in self.repeats if one.counted)

    @property
    def suspected(self) -> tuple[Repeat, ...]:
        """Frames that may show one part."""
        return tuple(one for one in self.repeats if not one.counted)

    @property
    def _by_ids(self) -> bool:
        """Whether ids would make these frames count apart."""
        return any(one.evidence == "alike" for one in self.counted) and not self.named

    @property
    def _by_position(self) -> str:
        """Ids do not make frames count apart that are equal where they lie."""
        if not any(one.evidence == "equal" for one in self.counted):
            return ""
        return "; if these are different parts that look the same, move each a little and give each an id in parts.csv"

    def remedy(self) -> str:
        """For an error about too few parts; empty where neither frames nor ids say that some show one."""
        if not self.counted:
            count = len(set(self.of_frames))
            if not self.named or count == len(self.of_frames):
                return ""
            return f". parts.csv names {count}: an id is that of a single part, not of a lot, a tray or a type"
        frames = sum(len(one.frames) for one in self.counted)
        parts = "one part" if len(self.counted) == 1 else f"{len(self.counted)} parts"
        return (
            f". {frames} frames differ by noise, position and light alone and were counted as {parts} "
            f"({listed(max(self.counted, key=lambda one: len(one.frames)).frames)}): photograph more parts, each once"
            + ("; if these are different parts, give each an id in parts.csv" if self._by_ids else self._by_position)
        )


def tell_parts(names: Sequence[str], ids: Sequence[str], prepared: Sequence[Prepared], geometry: Geometry) -> Parts:
    """Frames with one id show one part. So do frames that are equal but for noise, whatever their ids, and, where not
    all frames have ids, frames that differ by noise, position and light alone; with different ids that is a suspicion.
    """
    named = all(ids)
    found = find_repeats(prepared, geometry)
    given = [part or name for part, name in zip(ids, names, strict=True)]
    seen = _joined(given, (*found.equal, *found.alike))
    label = _joined(given, found.equal) if named else seen

    equal = [set(group) for group in found.equal]
    members: dict[str, list[int]] = {}
    for index, one in enumerate(label):
        members.setdefault(one, []).append(index)

    def repeat(group: Sequence[int], evidence: Evidence) -> Repeat:
        return Repeat(tuple(names[i] for i in group), tuple(dict.fromkeys(ids[i] for i in group if ids[i])), evidence)

    repeats: list[Repeat] = []
    for same in members.values():
        if len(same) > 1 and not (ids[same[0]] and len({ids[i] for i in same}) == 1):
            repeats.append(repeat(same, "equal" if any(set(same) <= one for one in equal) else "alike"))
    for suspects in (*found.alike, *found.suspected):
        if len({label[i] for i in suspects}) > 1:
            repeats.append(repeat(suspects, "suspected"))
    return Parts(tuple(label), named, tuple(dict.fromkeys(repeats)), found.unseen, tuple(seen))


def _joined(labels: Sequence[str], groups: Iterable[Sequence[int]]) -> list[str]:
    labels = list(labels)
    for group in groups:
        joined, first = {labels[i] for i in group}, labels[group[0]]
        labels = [first if one in joined else one for one in labels]
    return labels


def shown_before(frames: Sequence[Prepared], earlier: Sequence[Prepared], geometry: Geometry) -> list[int]:
    """Which of ``frames`` are one of the ``earlier`` frames or show one of their parts."""
    known = {_digest(one) for one in earlier}
    found = {i for i, one in enumerate(frames) if _digest(one) in known}
    for group in find_repeats([*earlier, *frames], geometry).equal:
        if group[0] < len(earlier):
            found |= {i - len(earlier) for i in group if i >= len(earlier)}
    return sorted(found)


def _digest(one: Prepared) -> int:
    cloud, image = (np.ascontiguousarray(array).data.cast("B") for array in (one.cloud, one.image))
    return zlib.crc32(cloud, zlib.crc32(image))


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = len(names) - NAMES_SHOWN
    return shown(", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else ""))
