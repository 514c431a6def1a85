"""Which exposures have arrived in a folder, which are complete, and in which order. Pure: names and times in.

Order is kept by waiting: the first exposure is read or refused before the next, and none waits longer than ``settle``
after it last changed. What was decided is never offered again: not under its name, and not after a restart.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, NamedTuple

from asperity.runtime.cameras.files.grouping import Pattern, group_files
from asperity.runtime.cameras.source import WAITING_MAX
from asperity.runtime.text.names import has_stray_bytes, natural_key

REMEMBERED = 1024
"""Exposures whose names, files and pictures are known after they were decided."""
MAX_STEM_NBYTES = 300
A_FOLDER = "a folder"


class Seen(NamedTuple):
    """What a regular file looked like; another one, or another content, looks different."""

    inode: int
    nbytes: int
    mtime_ns: int


Stat = Callable[[str], Seen | str | None]
"""Of a name in the folder: the file; what it is, where it is not a regular file; None: it is gone."""
Halves = Mapping[str, Seen]
"""``points`` and ``colour`` -> their files, of an exposure."""


class Decided(NamedTuple):
    """An exposure that does not come again."""

    halves: Halves
    taken: bool
    """False: it was refused."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an exposure is, and when it is complete."""

    pattern: Pattern
    order: Literal["name", "time"] = "name"
    complete: Literal["stable", "renamed", "marker"] = "stable"
    marker: str = ".done"
    stable_ns: int = 300_000_000
    settle_ns: int = 2_000_000_000
    max_age_ns: int = 0
    max_nbytes: int = 2**29
    overwritten: bool = False
    waiting_max: int = WAITING_MAX


@dataclass(slots=True, eq=False)
class Exposure:
    """One that was not decided yet."""

    stem: str
    first_ns: int
    changed_ns: int
    names: dict[str, str] = field(default_factory=dict)
    """Half -> name of its file."""
    seen: dict[str, Seen] = field(default_factory=dict)
    """Half -> its file at the last look."""
    again: bool = False
    """One of this name was taken before, and its file was written again or replaced."""
    fault: str = ""
    """Why it is refused without being read."""
    unread: str = ""
    """What the reader said of ``tried``."""
    tried: dict[str, Seen] = field(default_factory=dict)
    last_try: bool = False

    def halves(self) -> dict[str, Seen]:
        """A copy of ``seen``."""
        return dict(self.seen)


class Step(NamedTuple):
    """What to do with the first exposure."""

    exposure: Exposure
    refuse: str
    """Why it cannot be used; empty: it is complete, as far as files show that: read it."""


class Arrivals:
    """The exposures of one folder. ``look`` at every list of names, then ``first`` until it returns None."""

    def __init__(self, rules: Rules, recent: Mapping[str, Decided], latest_ns: int = 0) -> None:
        """``recent``: the last exposures that earlier runs decided, oldest first. ``latest_ns``: latest time of change
        of a file of any exposure that was decided."""
        self.notes: list[str] = []
        """What a log should say; the owner empties it."""
        self.missed = 0
        """Exposures that were replaced before they could be read; the owner sets it back."""
        self._rules = rules
        self._recent: OrderedDict[str, Decided] = OrderedDict(recent)
        self._highest: Any = max(map(natural_key, recent), default=None)
        self._latest_ns = latest_ns
        self._done: dict[str, Seen | None] = {}
        """Names in the folder that are decided; without ``overwritten``, only the last ones with their file."""
        self._waiting: dict[str, Exposure] = {}
        self._heap: list[tuple[Any, int, Exposure]] = []
        self._names: frozenset[str] | set[str] = frozenset()
        self._number = count()
        self._heard = True
        """Whether an exposure came since the start, or a file that is none was named."""

    def begin(self, names: set[str], stat: Stat, now_ns: int, take: bool) -> int:
        """Take in what is there at the start; ``take``: what was not decided by an earlier run is still to come.

        Returns how many files of exposures are left out.
        """
        if not take and not self._rules.overwritten:
            self._done = dict.fromkeys(names)
        else:
            for name in names:
                half, stem = self._match(name)
                seen = stat(name) if half else None
                if half and (not take or self._is_old(stem, half, seen)):
                    self._done[name] = seen if isinstance(seen, Seen) else None
        left = sum(bool(self._match(name)[0]) for name in self._done)
        self.look(names, stat, now_ns)
        self._heard = False
        return left

    def look(self, names: set[str], stat: Stat, now_ns: int) -> None:
        """Take in the names in the folder."""
        self._names = names
        for gone in self._done.keys() - names:
            if stat(gone) is None:  # a list of names made while they change may lack one
                del self._done[gone]
        self._find_rewritten(stat)
        waiting = {name for exposure in self._waiting.values() for name in exposure.names.values()}
        found = [(name, *self._match(name)) for name in names - self._done.keys() - waiting]
        # In the order of time where that is wanted, and always in the same one.
        arrived = [(name, half, stem, stat(name)) for name, half, stem in found if half]
        others = sorted(name for name, half, _ in found if not half)
        self._done.update(dict.fromkeys(others))
        if not (arrived or self._waiting or self._heard):
            self._note_other(others, stat)
        self._heard = self._heard or bool(arrived)
        for name, half, stem, seen in sorted(arrived, key=lambda one: natural_key(one[0])):
            if seen is not None:
                self._arrive(name, half, stem, seen, now_ns)

    def _note_other(self, names: list[str], stat: Stat) -> None:
        """Name a file that came where no exposure has yet: ``points`` may not be what the camera's program writes."""
        for name in names:
            hidden = name.rpartition("/")[2].startswith(".")
            if not hidden and not name.endswith(self._rules.marker or "/") and isinstance(stat(name), Seen):
                self._heard = True
                self.notes.append(f"{name} is left alone: [folder] points and colour name other files")
                return

    def first(self, stat: Stat, now_ns: int, wall_ns: int) -> Step | None:
        """What to do next; None: nothing yet. ``decide`` it before the next call, or the same one comes again."""
        if not self._heap:
            return None
        exposure = self._heap[0][-1]
        self._refresh(exposure, stat, now_ns)
        why = exposure.fault or self.out_of_bounds(exposure, now_ns, wall_ns)
        if not why:
            settled = now_ns - exposure.changed_ns >= self._rules.settle_ns
            why = self._waits_for(exposure, now_ns, settled)
            if why and not settled:
                return None
        return Step(exposure, why)

    def failed(self, exposure: Exposure, why: str, tried: Halves) -> None:
        """The reader could not use these files: they are read again when they change, and refused when they do not."""
        exposure.unread, exposure.tried = why, dict(tried)

    def decide(self, exposure: Exposure, taken: bool) -> None:
        """The exposure was taken or refused. It does not come again."""
        heapq.heappop(self._heap)
        del self._waiting[exposure.stem]
        for half, name in exposure.names.items():
            self._done[name] = exposure.seen.get(half)
        self._remember(exposure.stem, Decided(exposure.halves(), taken))

    def files(self, exposure: Exposure) -> list[str]:
        """Names of what belongs to an exposure, its markers too."""
        return [*exposure.names.values(), *(name for name in self._markers(exposure) if name in self._names)]

    def left_of(self, stem: str, halves: Halves, names: set[str], stat: Stat) -> list[str]:
        """Names of files of an exposure that an earlier run has decided, and that look as they did then."""
        found = ((name, *self._match(name)) for name in names)
        return [name for name, half, of in found if half and of == stem and stat(name) == halves.get(half)]

    def _remember(self, stem: str, decided: Decided) -> None:
        self._recent[stem] = decided
        self._recent.move_to_end(stem)
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        if not self._is_past(stem):
            self._highest = natural_key(stem)
        self._latest_ns = max([self._latest_ns, *(seen.mtime_ns for seen in decided.halves.values())])

    def _is_past(self, stem: str) -> bool:
        """Not after the highest name of those that were decided."""
        return self._highest is not None and natural_key(stem) <= self._highest

    def moves_on(self, exposure: Exposure) -> bool:
        """Whether deciding it must be remembered over a restart: it is not before others that were decided."""
        if self._rules.order == "name":
            return not self._is_past(exposure.stem)
        return any(seen.mtime_ns >= self._latest_ns for seen in exposure.seen.values())

    def _match(self, name: str) -> tuple[str, str]:
        """Which half of which exposure the name is; empty: none."""
        group = next(iter(group_files([name], self._rules.pattern)), None)
        if group is None:
            return "", ""
        return ("points" if group.points else "colour"), group.stem

    def _is_old(self, stem: str, half: str, seen: Seen | str | None) -> bool:
        if not isinstance(seen, Seen):
            return False
        if stem in self._recent:
            return self._recent[stem].halves.get(half) == seen
        return self._is_past(stem) if self._rules.order == "name" else seen.mtime_ns <= self._latest_ns

    def _find_rewritten(self, stat: Stat) -> None:
        """Names that were decided and whose file is another one now arrive again."""
        for name, known in [(name, known) for name, known in self._done.items() if known is not None]:
            found = stat(name)
            if isinstance(found, Seen) and found != known:
                del self._done[name]
        if not self._rules.overwritten:  # bounded: the oldest are forgotten
            held = [name for name, known in self._done.items() if known is not None]
            self._done.update(dict.fromkeys(held[: -2 * REMEMBERED]))

    def _arrive(self, name: str, half: str, stem: str, seen: Seen | str, now_ns: int) -> None:
        if seen == A_FOLDER:  # such as the one that taken files are moved to
            self._done[name] = None
            return
        exposure = self._waiting.get(stem)
        if exposure is None:
            known = None if self._rules.overwritten else self._recent.get(stem)
            if known is not None and not known.taken:
                self._done[name] = None
                self.notes.append(f"{name} came or changed after its exposure was refused; it is left out")
                return
            exposure = self._waiting[stem] = Exposure(stem, now_ns, now_ns, again=known is not None)
            if known is not None:
                self._take_back(exposure, known)
            key = natural_key(stem)
            if self._rules.order == "name" and known is None and self._is_past(stem):
                exposure.fault = "it came after exposures with later names; if names do not sort, set order = time"
            if has_stray_bytes(name):
                exposure.fault = "its name is not UTF-8"
            elif len(stem.encode()) > MAX_STEM_NBYTES:
                exposure.fault = f"its name is longer than {MAX_STEM_NBYTES} bytes"
            at = seen.mtime_ns if isinstance(seen, Seen) else 0
            rank = key if self._rules.order == "name" else (now_ns, at, key)
            heapq.heappush(self._heap, (rank, next(self._number), exposure))
        exposure.changed_ns = now_ns
        if exposure.names.get(half, name) != name:
            exposure.fault = f"{exposure.names[half]} and {name} are both its {half}"
            self._done[name] = None
            return
        exposure.names[half] = name
        if isinstance(seen, Seen):
            exposure.seen[half] = seen
        else:
            exposure.fault = f"{name} is {seen}, not a regular file"

    def _take_back(self, exposure: Exposure, known: Decided) -> None:
        """Put the other half of an exposure that was taken next to the half that has changed."""
        for half, text in self._patterns():
            name = text.replace("*", exposure.stem)
            if name in self._done and half in known.halves:
                del self._done[name]
                exposure.names[half], exposure.seen[half] = name, known.halves[half]

    def _refresh(self, exposure: Exposure, stat: Stat, now_ns: int) -> None:
        for half, name in list(exposure.names.items()):
            found = stat(name)
            if isinstance(found, str):
                exposure.fault = f"{name} is {found}, not a regular file"
            elif found != exposure.seen.get(half):
                exposure.changed_ns = now_ns
                before = exposure.seen.pop(half, None)
                if found is None:
                    del exposure.names[half]
                    continue
                exposure.seen[half] = found
                if before and before.inode != found.inode and self._rules.complete == "renamed":
                    self.missed += self._rules.overwritten  # each rename was a whole exposure
        if not exposure.names and not exposure.fault:
            exposure.fault = "it was removed before it could be read"

    def _waits_for(self, exposure: Exposure, now_ns: int, settled: bool) -> str:
        """Why it cannot be read yet; empty: it can."""
        if lacking := self._lacking(exposure):
            return f"{lacking} did not come"
        if not self._is_complete(exposure, now_ns):
            return f"{self._rules.marker} did not come"
        if exposure.tried != exposure.seen:
            return ""
        # It was damaged or half-written, and looks the same since; a network share may show a change late.
        exposure.last_try, last_try = settled, exposure.last_try
        return exposure.unread if last_try or not settled else ""

    def out_of_bounds(self, exposure: Exposure, now_ns: int, wall_ns: int) -> str:
        """Why it is too large or too old; empty: it is not."""
        if len(self._waiting) > self._rules.waiting_max:
            return f"more than {self._rules.waiting_max} exposures wait, so its part is gone"
        for half, seen in exposure.seen.items():
            if seen.nbytes > self._rules.max_nbytes:
                return f"{exposure.names[half]} has {seen.nbytes} bytes; at most {self._rules.max_nbytes} are read"
        written_ns = [seen.mtime_ns for seen in exposure.seen.values()] or [wall_ns]
        newest_ns = max(written_ns)
        apart_ns = newest_ns - min(written_ns)
        if apart_ns > self._rules.settle_ns and not exposure.again:  # again: it may only have been touched
            return f"its files were written {apart_ns // 1_000_000} ms apart (settle_ms), so one is of another exposure"
        # By this computer's clocks, whichever says more: a file's own time may be of another computer.
        age_ns = max(now_ns - exposure.first_ns, wall_ns - newest_ns)
        if self._rules.max_age_ns and age_ns > self._rules.max_age_ns:
            return f"it is {age_ns // 1_000_000} ms old (max_age_ms), so its part is gone"
        return ""

    def _lacking(self, exposure: Exposure) -> str:
        lacking = (text for half, text in self._patterns() if half not in exposure.names)
        return next((text.replace("*", exposure.stem) for text in lacking), "")

    def _patterns(self) -> list[tuple[str, str]]:
        """Halves of an exposure, and how their files are called."""
        pattern = self._rules.pattern
        return [("points", pattern.points)] + ([("colour", pattern.colour)] if pattern.colour else [])

    def _is_complete(self, exposure: Exposure, now_ns: int) -> bool:
        if self._rules.complete == "renamed":
            return True
        if self._rules.complete == "stable":
            return now_ns - exposure.changed_ns >= self._rules.stable_ns
        whole, *each = self._markers(exposure)
        return whole in self._names or all(name in self._names for name in each)

    def _markers(self, exposure: Exposure) -> list[str]:
        """Names that say that an exposure is complete: the first alone, or all others."""
        if self._rules.complete != "marker":
            return []
        folder, slash, _ = self._rules.pattern.points.rpartition("/")
        names = [f"{folder}{slash}{exposure.stem}", *exposure.names.values()]
        return [name + self._rules.marker for name in names]
