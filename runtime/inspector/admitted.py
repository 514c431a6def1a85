"""A frame that the station has admitted: from now on exactly one result is owed for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from asperity.runtime.frame import Result
from asperity.runtime.inspector.triggers import PendingTrigger
from asperity.runtime.judging.pipeline import Outcome
from asperity.runtime.reasons import Reason


@dataclass(slots=True)
class Admitted:
    """An admitted frame that has no result yet."""

    born: Result
    t_recv_ns: int
    deadline_ns: int
    trigger: PendingTrigger | None
    """What it answers."""
    settled: bool
    """It is known what it answers. With a hard-wired trigger that is known later than the verdict may be."""
    judged: Outcome | None = None
    """What it will say, once it is settled."""

    def result(self, now_ns: int, hard_wired: bool) -> Result:
        """The result at ``now_ns``; the frame is judged and settled."""
        assert self.judged is not None
        result, trigger = self.judged.result, self.trigger
        if trigger is not None and hard_wired:
            part_id = trigger.part_id or result.part_id
            result = replace(result, trigger_id=trigger.trigger_id, part_id=part_id, **trigger.batch._asdict(),
                             position=trigger.position)  # fmt: skip
        if trigger is not None and trigger.recipe not in (None, result.recipe):
            result = result.unknown(Reason.WRONG_RECIPE)
        total_us = (now_ns - self.t_recv_ns) // 1000
        return replace(result, latency_us={**result.latency_us, "total": total_us})
