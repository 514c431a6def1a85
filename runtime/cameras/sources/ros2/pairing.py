"""Which messages of a ROS 2 driver are one exposure: pairing by ``header.stamp``. Pure.

Each topic brings its messages in order. So a message whose partner's topic has gone past it has lost its partner: it is
an exposure of which no frame comes, and counts. Late messages are never paired: their exposure was counted already.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from asperity.runtime.errors import CameraLostError

log = logging.getLogger(__name__)

HELD_MAX = 16
"""Messages of a topic that wait for their partners; with more of them, the oldest has lost its partner."""
REMEMBERED = 64
"""Last stamps of a topic that are known again."""
LOGGED_MAX = 20
"""Lost partners and late messages that get a line in the log; all are counted."""
M = TypeVar("M")


class Arrived(NamedTuple, Generic[M]):
    """A message and what is known of it without decoding it."""

    stamp_ns: int
    sequence: int | None
    """The publisher's own count of its messages; None: not known, as in a bag."""
    nbytes: int
    message: M


class Pair(NamedTuple, Generic[M]):
    """The messages of one exposure, in the order of the topics."""

    number: int
    """Count of exposures: those that lost a message, or all messages, are counted too."""
    stamp_ns: int
    """The last topic's."""
    messages: tuple[M, ...]


@dataclass
class _Topic(Generic[M]):
    name: str
    waiting: deque[Arrived[M]] = field(default_factory=deque)
    recent_ns: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    last: Arrived[M] | None = None
    """The newest message."""
    paired_sequence: int | None = None
    """Of the message in the last pair."""


class Pairing(Generic[M]):
    """Messages of one or two topics, in as they arrive, out as exposures."""

    def __init__(self, topics: tuple[str, ...], *, slop_ns: int = 0, held_max_nbytes: int) -> None:
        """``slop_ns``: largest difference of two stamps of one exposure; 0: they are equal."""
        self._topics = [_Topic[M](name) for name in topics]
        self._slop_ns, self._held_max_nbytes = slop_ns, held_max_nbytes
        self._number = 0
        self._unpaired = 0  # since the last pair
        self._left_ns: deque[int] = deque(maxlen=REMEMBERED)
        self._logged = 0

    def add(self, topic: int, arrived: Arrived[M]) -> list[Pair[M]]:
        """Exposures that are complete now, oldest first.

        Raises CameraLostError for a stamp that was there before, stamps or sequence that go back, and for stamps that
        lie too close for ``slop_ns``.
        """
        mine = self._topics[topic]
        if not self._in_order(mine, arrived):
            self._note(f"a message of {mine.name} came after later ones; it is left out")
            return []
        mine.recent_ns.append(arrived.stamp_ns)
        mine.last = arrived
        mine.waiting.append(arrived)
        pairs = list(self._complete())
        while len(mine.waiting) > HELD_MAX or self._held_nbytes() > self._held_max_nbytes:
            self._leave(max(self._topics, key=lambda each: len(each.waiting)))
        return pairs

    def _in_order(self, mine: _Topic[M], arrived: Arrived[M]) -> bool:
        stamp, last = arrived.stamp_ns, mine.last
        if stamp <= 0:
            raise CameraLostError(
                f"{mine.name} has a message with the stamp {stamp} ns; its driver does not stamp its messages, so they "
                "cannot be paired. Turn on time stamps in the driver, or use another one"
            )
        if stamp in mine.recent_ns:
            raise CameraLostError(
                f"{mine.name} gave the stamp {_seconds(stamp)} twice; a part may have got the picture of another. "
                "Check that one driver publishes it and that it stamps each exposure"
            )
        if last is None:
            return True
        later = stamp > last.stamp_ns
        if last.sequence is not None and arrived.sequence is not None and later != (arrived.sequence > last.sequence):
            raise CameraLostError(
                f"{mine.name}: after message {last.sequence} with the stamp {_seconds(last.stamp_ns)} came message "
                f"{arrived.sequence} with the stamp {_seconds(stamp)}; the driver was restarted or its clock was set"
            )
        if not later and arrived.sequence is None:
            raise CameraLostError(
                f"the stamps of {mine.name} went back from {_seconds(last.stamp_ns)} to {_seconds(stamp)}; the driver "
                "was restarted or its clock was set"
            )
        if later and self._slop_ns and stamp - last.stamp_ns <= 2 * self._slop_ns:
            raise CameraLostError(
                f"two messages of {mine.name} lie {(stamp - last.stamp_ns) / 1e6:.3f} ms apart, so slop_ms = "
                f"{self._slop_ns / 1e6:g} could pair the wrong ones; give less than half of the period"
            )
        return later

    def _complete(self) -> list[Pair[M]]:
        found = []
        while all(topic.waiting for topic in self._topics):
            heads = [topic.waiting[0] for topic in self._topics]
            oldest = min(range(len(heads)), key=lambda at: heads[at].stamp_ns)
            if max(head.stamp_ns for head in heads) - heads[oldest].stamp_ns > self._slop_ns:
                self._leave(self._topics[oldest])
                continue
            self._number += max(self._unpaired + 1, *(self._steps(topic) for topic in self._topics))
            self._unpaired = 0
            for topic in self._topics:
                topic.paired_sequence = topic.waiting.popleft().sequence
            found.append(Pair(self._number, heads[-1].stamp_ns, tuple(head.message for head in heads)))
        return found

    def _steps(self, topic: _Topic[M]) -> int:
        """Messages that the publisher sent since the last pair, those included that were lost in transit."""
        sequence = topic.waiting[0].sequence
        return 0 if sequence is None or topic.paired_sequence is None else sequence - topic.paired_sequence

    def _leave(self, topic: _Topic[M]) -> None:
        left = topic.waiting.popleft()
        if any(abs(left.stamp_ns - other_ns) <= self._slop_ns for other_ns in self._left_ns):
            return  # its partner was left for want of room: it is the same exposure
        self._left_ns.append(left.stamp_ns)
        self._unpaired += 1
        others = " and ".join(other.name for other in self._topics if other is not topic)
        self._note(f"no message of {others} belongs to {topic.name} of {_seconds(left.stamp_ns)}; the exposure is lost")

    def _held_nbytes(self) -> int:
        return sum(arrived.nbytes for topic in self._topics for arrived in topic.waiting)

    def _note(self, text: str) -> None:
        self._logged += 1
        if self._logged <= LOGGED_MAX:
            log.warning("%s", text if self._logged < LOGGED_MAX else f"{text}; further ones are counted only")


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d} s"
