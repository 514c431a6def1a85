"""Accounts for every frame: ``seq`` of the camera's run, the counters, and the invariant that they must satisfy.

Pure: values in, values out. The invariant, checked while running and in tests (docs/wire.md):

    received + lost = ok + ng + unknown + in_flight
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass

from asperity.runtime.frame import Result, Verdict
from asperity.runtime.reasons import Reason

LOST_REMEMBERED = 256
"""Of each run of the camera: exposures answered LOST that may still arrive late; more where one gap may be larger."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a frame's ``seq`` shows: which exposures before it never came, and whether it is refused itself."""

    lost: range = range(0)
    reason: Reason | None = None  # DUPLICATE_SEQ, SEQ_JUMP; None: in order


@dataclass(slots=True)
class _Run:
    """One run of the camera."""

    last: int
    lost: deque[int]
    leapt_to: int | None = None
    """Where ``seq`` jumped to, if the next frame confirms it."""


class Sequence:
    """The last ``seq`` of each run of the camera (``camera_session``); at most ``sessions_max`` runs are remembered.

    The first frame seen of a run is in order whatever its ``seq``: what went before is unknown.
    """

    def __init__(self, gap_max: int, sessions_max: int) -> None:
        self._gap_max = gap_max
        self._sessions_max = sessions_max
        self._runs: OrderedDict[str, _Run] = OrderedDict()

    def arrive(self, camera_session: str, seq: int) -> Arrival:
        """Take a frame's ``seq`` into account.

        A gap of at most ``gap_max`` is trusted: those exposures are lost. A larger one is trusted when the next frame
        confirms it; both are refused SEQ_JUMP, so that one frame with a wrong number does not make duplicates of all
        that follow. A ``seq`` seen before or going back is refused DUPLICATE_SEQ.
        """
        run = self._runs.get(camera_session)
        if run is None:
            self._begin(camera_session, seq)
            return Arrival()
        if seq <= run.last:
            return Arrival(reason=Reason.DUPLICATE_SEQ)
        self._runs.move_to_end(camera_session)
        if seq - run.last - 1 > self._gap_max:
            confirmed = run.leapt_to is not None and seq == run.leapt_to + 1
            run.last, run.leapt_to = (seq, None) if confirmed else (run.last, seq)
            return Arrival(reason=Reason.SEQ_JUMP)
        return Arrival(lost=self._count_on(run, seq))

    def comes_late(self, camera_session: str, seq: int) -> bool:
        """This exposure was answered LOST and has its one result; it arrives after all, for the first time."""
        run = self._runs.get(camera_session)
        if run is None or seq not in run.lost:
            return False
        run.lost.remove(seq)
        return True

    def refused(self, camera_session: str, seq: int) -> range:
        """Take into account the ``seq`` of a message that broke the contract; it counts only where it is plausible.

        Returns the lost ones before it. Without this the exposure would be refused now and counted lost later.
        """
        run = self._runs.get(camera_session)
        if run is None or not run.last < seq <= run.last + 1 + self._gap_max:
            return range(0)
        self._runs.move_to_end(camera_session)
        return self._count_on(run, seq)

    def restore(self, camera_session: str, seq: int, lost: bool = False) -> None:
        """Take into account a frame that an earlier run of the inspector has answered, as LOST or otherwise."""
        run = self._runs.get(camera_session)
        if run is None:
            run = self._begin(camera_session, seq)
        run.last = max(seq, run.last)
        if lost:
            run.lost.append(seq)

    def _count_on(self, run: _Run, seq: int) -> range:
        lost = range(run.last + 1, seq)
        run.lost.extend(lost)
        run.last, run.leapt_to = seq, None
        return lost

    def _begin(self, camera_session: str, seq: int) -> _Run:
        self._runs[camera_session] = run = _Run(seq, deque(maxlen=max(LOST_REMEMBERED, self._gap_max)))
        while len(self._runs) > self._sessions_max:
            self._runs.popitem(last=False)
        return run


class Ledger:
    """Counters of one run of the inspector."""

    def __init__(self) -> None:
        self.received = 0
        self.lost = 0
        self.ok = 0
        self.ng = 0
        self.unknown = 0
        self.unknown_by_reason: Counter[Reason] = Counter()
        self.deadline_missed = 0
        self.late = 0
        """Frames of exposures that had been answered LOST; not in the invariant: an exposure has one result."""

    def receive(self) -> None:
        """Count a message that came in on the frames socket, or an answer owed by an earlier run."""
        self.received += 1

    def lose(self) -> None:
        """Count an exposure that never came: a gap in ``seq``, or a trigger's frame."""
        self.lost += 1

    def settle(self, result: Result) -> None:
        """Count a published result. Anything that is neither ok nor ng is unknown."""
        if result.verdict is Verdict.OK:
            self.ok += 1
        elif result.verdict is Verdict.NG:
            self.ng += 1
        else:
            self.unknown += 1
            self.unknown_by_reason[result.reason] += 1
        self.deadline_missed += result.deadline_missed

    def imbalance(self, in_flight: int) -> int:
        """What the invariant is off by, given how many admitted frames have no result yet; 0 when it holds.

        ``unknown_by_reason`` must add up to ``unknown`` as well, or the difference is counted in.
        """
        settled = self.ok + self.ng + self.unknown
        law = self.received + self.lost - settled - in_flight
        return law or self.unknown - sum(self.unknown_by_reason.values())
