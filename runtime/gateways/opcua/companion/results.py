"""Results and ids as the structures of OPC 40100-1."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from asyncua import ua

from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.link import Delivered
from asperity.runtime.gateways.opcua.tags import Moment, Of, status_code
from asperity.runtime.wire import ReceivedResult

Type = ua.VariantType
UNDEFINED, COMPLETED, FAILED = 0, 1, 4
"""``ResultState`` (OPC 40100-1, 12.19)."""

CONTENT: tuple[tuple[str, ua.VariantType, Any, Callable[[ReceivedResult], Any]], ...] = (
    ("Verdict", Type.Byte, 0, lambda r: int(r.verdict)),
    ("ReasonCode", Type.UInt16, 0, lambda r: int(r.reason)),
    ("Reason", Type.String, "", lambda r: r.reason.name),
    ("Score", Type.Double, 0.0, lambda r: r.score or 0.0),
    ("Threshold", Type.Double, 0.0, lambda r: r.threshold or 0.0),
    ("Modality", Type.String, "", lambda r: r.modality),
    ("TriggerId", Type.UInt32, 0, lambda r: r.trigger_id),
    ("Seq", Type.UInt64, 0, lambda r: r.seq),
    ("Lot", Type.String, "", lambda r: r.lot),
    ("Order", Type.String, "", lambda r: r.order),
    ("Shift", Type.String, "", lambda r: r.shift),
)
"""Elements of ``ResultContent`` after the first, which is Accept: name, type, what it is without a result, value."""


class Structures:
    """Makes structures of the classes of one node set."""

    def __init__(self, classes: dict[str, type]) -> None:
        self._classes = classes

    def make(self, name: str, **fields: Any) -> Any:
        """A structure; ``name`` without ``DataType``."""
        return self._classes[f"{name}DataType"](**fields)

    def result(self, result: ReceivedResult, accept: bool) -> Any:
        """A result; ``accept``: whether its part may pass."""
        exposed, done = utc(result.t_exposure_us), utc(result.t_done_us)
        total_us = result.latency_us.get("total")
        return self.make(
            "Result",
            ResultId=self.make("ResultId", Id=str(result.result_id)),
            HasTransferableDataOnFile=False,
            IsPartial=False,
            IsSimulated=result.simulated,
            ResultState=result_state(result),
            PartId=self.make("PartId", Id=result.part_id) if result.part_id else None,
            InternalRecipeId=self.make("RecipeIdInternal", Id=result.recipe),
            InternalConfigurationId=self.make("ConfigurationId", Id=result.bundle),
            JobId=self.make("JobId", Id=result.session),
            CreationTime=done,
            ProcessingTimes=self.make(
                "ProcessingTimes", StartTime=exposed, EndTime=done,
                ProcessingDuration=None if total_us is None else total_us / 1000,
            ),
            ResultContent=[
                ua.Variant(accept, Type.Boolean),
                *(ua.Variant(take(result), kind) for _, kind, _, take in CONTENT),
            ],
        )  # fmt: skip

    def nothing(self, result_id: str = "", reason: str = "") -> Any:
        """Where there is no result that can be relied on."""
        empty = [ua.Variant(False, Type.Boolean)]
        empty += [ua.Variant(reason if name == "Reason" else zero, kind) for name, kind, zero, _ in CONTENT]
        return self.make(
            "Result", ResultId=self.make("ResultId", Id=result_id), ResultState=UNDEFINED, ResultContent=empty
        )

    def shown(self, moment: Moment) -> Any:
        """The result that the tags show; undefined and not accepted while they are bad."""
        good = status_code(Of.RESULT, moment) == ua.StatusCodes.Good
        if not good or moment.shown is None:
            return self.nothing()
        if not isinstance(moment.shown, Delivered):
            return self.nothing(str(moment.shown.last_id), f"missing: {moment.shown.why}")
        return self.result(moment.shown.result, moment.accept)


def result_state(result: ReceivedResult) -> int:
    """Completed is what has a verdict, good or not."""
    return COMPLETED if result.verdict in (Verdict.OK, Verdict.NG) else FAILED


def utc(us: int) -> ua.DateTime:
    """A time of the station."""
    return ua.DateTime.fromtimestamp(us / 1e6, datetime.timezone.utc)
