"""Result messages: ``[result/<station>/][JSON]``, and how a receiver reads one without trusting too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from asperity.runtime.errors import WireError
from asperity.runtime.frame import Region, Result, Verdict, ViewSummary
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.wire.common import (
    MAX_RESULT_BYTES,
    U8,
    U16,
    U32,
    VERSION,
    VIEWS_MAX,
    Count,
    Name,
    NameOrEmpty,
    Offset,
    Part,
    Positive,
    Text,
    Uuid,
    UuidOrEmpty,
    body_of,
    check_part,
    read_json,
    require_finite,
    topic,
    write_json,
)


class RegionMessage(msgspec.Struct, frozen=True):
    """Box around the worst spot, pixels of the source frame."""

    x: Offset
    y: Offset
    w: Count
    h: Count
    area_px: Count


class ViewMessage(msgspec.Struct, frozen=True):
    """One view of a combined result."""

    station: Name
    result_id: Count = 0
    verdict: U8 = 0
    reason_code: U16 = 0
    score: float | None = None


class ResultMessage(msgspec.Struct, frozen=True):
    """Body of a result. Whatever a sender leaves out reads as reject."""

    v: int
    station: Name
    session: Uuid
    result_id: Positive
    camera: NameOrEmpty = ""
    camera_session: UuidOrEmpty = ""
    seq: Count = 0
    trigger_id: U32 = 0
    part_id: str = ""
    verdict: U8 = 0
    accept: bool = False
    score: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    reason_code: U16 = 0
    reason: Text = ""
    recipe: NameOrEmpty = ""
    bundle: Text = ""
    t_exposure_us: Count = 0
    t_done_us: Count = 0
    latency_us: Annotated[dict[Text, Count], msgspec.Meta(max_length=16)] = {}
    deadline_us: Count = 0
    deadline_missed: bool = False
    simulated: bool = False
    region: RegionMessage | None = None
    modality: Text = ""
    lot: str = ""
    order: str = ""
    shift: str = ""
    position: Offset | None = None
    view_of: NameOrEmpty | msgspec.UnsetType = msgspec.UNSET
    views: Annotated[tuple[ViewMessage, ...], msgspec.Meta(max_length=VIEWS_MAX)] | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class ReceivedResult(Result):
    """A result as it arrived, with the numbers as sent.

    ``verdict`` is UNKNOWN, and so ``accept`` False, wherever verdict, reason, accept, score and threshold do not agree
    or a code is unknown; ``reason`` is then NOT_JUDGED unless the sent one is itself of an unknown verdict.
    ``simulated`` is left to the receiver: a gateway must not accept a simulated part.
    """

    verdict_code: int = 0
    accept_sent: bool = False
    reason_code: int = 0
    reason_text: str = ""
    recovered: bool = field(default=False, compare=False)
    """It is the journal's answer to ``get_result`` and did not come on the results socket."""


_result = msgspec.json.Decoder(ResultMessage)


def encode_result(result: Result) -> list[bytes]:
    """``[topic, JSON]``. Raises WireError when the result breaks the contract."""
    return [topic("result", result.station), encode_result_body(result)]


def encode_result_body(result: Result) -> bytes:
    """The JSON of a result (<= 2 KiB): also what the journal keeps and ``get_result`` replies with."""
    require_finite("result", score=result.score, threshold=result.threshold, p_value=result.p_value)
    region = result.region
    message = ResultMessage(
        v=VERSION,
        station=result.station,
        session=result.session,
        result_id=result.result_id,
        camera=result.camera,
        camera_session=result.camera_session,
        seq=result.seq,
        trigger_id=result.trigger_id,
        part_id=result.part_id,
        verdict=int(result.verdict),
        accept=result.accept,
        score=result.score,
        threshold=result.threshold,
        p_value=result.p_value,
        reason_code=int(result.reason),
        reason=result.reason.name,
        recipe=result.recipe,
        bundle=result.bundle,
        t_exposure_us=result.t_exposure_us,
        t_done_us=result.t_done_us,
        latency_us=result.latency_us,
        deadline_us=result.deadline_us,
        deadline_missed=result.deadline_missed,
        simulated=result.simulated,
        region=RegionMessage(region.x, region.y, region.w, region.h, region.area_px) if region else None,
        modality=result.modality,
        lot=result.lot,
        order=result.order,
        shift=result.shift,
        position=result.position,
        view_of=result.view_of or msgspec.UNSET,
    )
    check_part("result", message.part_id, message.lot, message.order, message.shift)
    if result.views:
        require_finite("result", **{f"views.{at}.score": view.score for at, view in enumerate(result.views)})
        views = tuple(ViewMessage(v.station, v.result_id, v.verdict, v.reason_code, v.score) for v in result.views)
        whole = msgspec.structs.replace(message, views=views)
        if len(msgspec.json.encode(whole)) <= MAX_RESULT_BYTES:  # else without: no verdict follows from them
            message = whole
    return write_json(_result, message, MAX_RESULT_BYTES, "result")


def decode_result(parts: Sequence[Part]) -> ReceivedResult:
    """The result of a message. Raises WireError and nothing else."""
    station, body = body_of(parts, "result")
    result = decode_result_body(body)
    if result.station != station:
        raise WireError(f"topic names station {station}, the result {result.station}; both must be the same")
    return result


def decode_result_body(body: Part) -> ReceivedResult:
    """The result of a JSON body. Raises WireError and nothing else."""
    message = read_json(_result, body, MAX_RESULT_BYTES, "result")
    require_finite("result", score=message.score, threshold=message.threshold, p_value=message.p_value)
    check_part("result", message.part_id, message.lot, message.order, message.shift)
    require_finite("result", **{f"views.{at}.score": view.score for at, view in enumerate(message.views or ())})
    verdict, reason = _believed(message)
    judged = verdict is not Verdict.UNKNOWN
    region = message.region
    same: dict[str, Any] = {
        name: getattr(message, name) for name in ResultMessage.__struct_fields__ if name not in _READ_APART
    }
    return ReceivedResult(
        **same,
        verdict=verdict,
        reason=reason,
        score=message.score,
        threshold=message.threshold,
        p_value=message.p_value if judged else None,
        region=Region(region.x, region.y, region.w, region.h, region.area_px) if region else None,
        modality=message.modality if judged else "",
        view_of=message.view_of or "",
        views=tuple(ViewSummary(*msgspec.structs.astuple(view)) for view in message.views or ()),
        verdict_code=message.verdict,
        accept_sent=message.accept,
        reason_code=message.reason_code,
        reason_text=message.reason,
    )


_REASONS = {int(reason): reason for reason in Reason}
_READ_APART = {
    "v", "verdict", "accept", "score", "threshold", "p_value", "reason_code", "reason", "region", "modality",
    "view_of", "views",
}  # fmt: skip


def _believed(message: ResultMessage) -> tuple[Verdict, Reason]:
    """Verdict and reason that a receiver may act on: anything odd is an unknown."""
    reason = _REASONS.get(message.reason_code, Reason.NOT_JUDGED)
    score, threshold = message.score, message.threshold
    if reason in JUDGED and score is not None and threshold is not None:
        # A view of a part is ok without accept: one that says otherwise contradicts itself.
        good = reason is Reason.GOOD and score <= threshold and message.accept is (not message.view_of)
        if message.verdict == Verdict.OK and good:
            return Verdict.OK, reason
        if message.verdict == Verdict.NG and reason is not Reason.GOOD and not message.accept:
            return Verdict.NG, reason
    return Verdict.UNKNOWN, Reason.NOT_JUDGED if reason in JUDGED else reason
