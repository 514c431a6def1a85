"""Every frame's fate, counted: ``seq`` of the camera's run, the counters, and the law that they must obey.

Pure: values in, values out. The law, checked while running and in tests (docs/wire.md):

    received + lost = ok + ng + unknown + in_flight
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from runtime.frame import Result, Verdict
from runtime.reasons import Reason


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a frame's ``seq`` says: which exposures before it never came, and whether it is refused itself."""

    lost: range = range(0)
    reason: Reason | None = None  # DUPLICATE_SEQ, SEQ_JUMP; None: in order


class Sequence:
    """The last ``seq`` of each run of the camera (``camera_session``); at most ``sessions_max`` runs are remembered.

    The first frame seen of a run is in order whatever its ``seq``: nobody knows what went before.
    """

    def __init__(self, gap_max: int, sessions_max: int) -> None:
        self._gap_max = gap_max
        self._sessions_max = sessions_max
        self._last: OrderedDict[str, int] = OrderedDict()

    def arrive(self, camera_session: str, seq: int) -> Arrival:
        """Take a frame's ``seq`` into account.

        A gap of at most ``gap_max`` is believed: those exposures are lost. A larger one is not: the frame is refused
        SEQ_JUMP and counting goes on from it. A ``seq`` seen before or going back is refused DUPLICATE_SEQ.
        """
        last = self._last.get(camera_session)
        if last is not None and seq <= last:
            return Arrival(reason=Reason.DUPLICATE_SEQ)
        self._remember(camera_session, seq)
        if last is None:
            return Arrival()
        if seq - last - 1 > self._gap_max:
            return Arrival(reason=Reason.SEQ_JUMP)
        return Arrival(lost=range(last + 1, seq))

    def refused(self, camera_session: str, seq: int) -> range:
        """Take into account the ``seq`` of a message that broke the contract; it counts only where it is plausible.

        Returns the lost ones before it. Without this the exposure would be refused now and counted lost later.
        """
        last = self._last.get(camera_session)
        if last is None or not last < seq <= last + 1 + self._gap_max:
            return range(0)
        self._remember(camera_session, seq)
        return range(last + 1, seq)

    def restore(self, camera_session: str, seq: int) -> None:
        """Take into account a frame that an earlier run of the inspector has answered."""
        self._remember(camera_session, max(seq, self._last.get(camera_session, seq)))

    def _remember(self, camera_session: str, seq: int) -> None:
        self._last[camera_session] = seq
        self._last.move_to_end(camera_session)
        while len(self._last) > self._sessions_max:
            self._last.popitem(last=False)


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
        """What the law is off by, given how many admitted frames have no result yet; 0 when it holds.

        ``unknown_by_reason`` must add up to ``unknown`` as well, or the difference is counted in.
        """
        settled = self.ok + self.ng + self.unknown
        law = self.received + self.lost - settled - in_flight
        return law or self.unknown - sum(self.unknown_by_reason.values())
