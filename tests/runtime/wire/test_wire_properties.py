"""Whatever can be said arrives as it was said: round trips over everything the types allow."""

from __future__ import annotations

import math
import uuid
from dataclasses import fields

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asperity.runtime import wire
from asperity.runtime.errors import WireError
from asperity.runtime.frame import LATENCY_STAGES, Frame, Intrinsics, Region, Result, Verdict, Window
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.text.part_identity import batch_text_fault, part_id_fault
from asperity.runtime.wire.clocks import CameraClock, Clocks, ComputerClock

names = st.from_regex(r"[a-z0-9_-]{1,32}", fullmatch=True)
printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=64)
part_texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"], exclude_characters="\ufffe\uffff"), max_size=64
)
batch_texts = part_texts.filter(lambda text: len(text.encode()) <= wire.BATCH_TEXT_MAX_NBYTES)
part_ids = st.lists(part_texts, max_size=6).map("\x1d".join).filter(lambda text: not part_id_fault(text))
positions = st.none() | st.integers(-wire.MAX_INTEGER, wire.MAX_INTEGER)
ids = printable.filter(bool)
uuids = st.uuids().map(str)
counts = st.integers(0, wire.MAX_INTEGER)
positives = st.integers(1, wire.MAX_INTEGER)
u32 = st.integers(0, 2**32 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
above_0 = st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    lens = draw(
        st.builds(Intrinsics, above_0, above_0, numbers, numbers, names, st.lists(numbers, max_size=16).map(tuple))
    )
    depth = draw(st.booleans())
    dtype = draw(st.sampled_from([np.uint16, np.float32])) if depth else np.float32
    solid = draw(hnp.arrays(dtype, (rows, columns) if depth else (rows, columns, 3)))
    return Frame(
        camera=draw(names),
        camera_session=draw(uuids),
        seq=draw(counts),
        rgb=draw(hnp.arrays(np.uint8, (rows, columns, 3))),
        xyz=None if depth else solid,
        depth=solid if depth else None,
        intrinsics=lens if depth or draw(st.booleans()) else None,
        unit=draw(st.sampled_from(["m", "mm", "um", None])),
        scale=draw(above_0),
        offset=draw(numbers),
        invalid=draw(st.none() | numbers),
        trigger_id=draw(u32),
        part_id=draw(part_ids),
        recipe=draw(st.none() | names),
        t_exposure_us=draw(counts),
        t_sent_us=draw(counts),
        clock=draw(st.sampled_from(["ptp", "realtime", "device"])),
        sensor=draw(printable),
    )


@st.composite
def results(draw: st.DrawFn) -> Result:
    score, threshold = draw(numbers), draw(numbers)
    verdict = draw(st.sampled_from(Verdict))
    reason = Reason.GOOD
    if verdict is Verdict.OK:
        score, threshold = min(score, threshold), max(score, threshold)
    elif verdict is Verdict.NG:
        reason = draw(st.sampled_from([Reason.SCORE_ABOVE_THRESHOLD, Reason.SHAPE_OUT_OF_RANGE]))
    else:
        reason = draw(st.sampled_from(sorted(set(Reason) - JUDGED)))
    judged = verdict is not Verdict.UNKNOWN
    offsets = st.integers(-wire.MAX_INTEGER, wire.MAX_INTEGER)
    return Result(
        station=draw(names),
        session=draw(uuids),
        result_id=draw(positives),
        camera=draw(names),
        camera_session=draw(uuids),
        seq=draw(counts),
        trigger_id=draw(u32),
        part_id=draw(part_ids),
        verdict=verdict,
        score=score if judged else None,
        threshold=threshold if judged else None,
        p_value=draw(st.none() | st.floats(0, 1)) if judged else None,
        reason=reason,
        recipe=draw(st.just("") | names),
        bundle=draw(st.from_regex(r"[0-9a-f]{12}", fullmatch=True)),
        t_exposure_us=draw(counts),
        t_done_us=draw(counts),
        latency_us=draw(st.dictionaries(st.sampled_from(LATENCY_STAGES), counts)),
        deadline_us=draw(counts),
        deadline_missed=draw(st.booleans()),
        simulated=draw(st.booleans()),
        region=draw(st.none() | st.builds(Region, offsets, offsets, counts, counts, counts)) if judged else None,
        modality=draw(st.just("") | printable) if judged else "",
        lot=draw(batch_texts),
        order=draw(batch_texts),
        shift=draw(batch_texts),
        position=draw(positions),
    )


def as_sent(parts: list[bytes | memoryview]) -> list[bytes]:
    return [bytes(part) for part in parts]


@given(frames())
def test_frames_arrive_as_sent(frame: Frame) -> None:
    parts = as_sent(wire.encode_frame(frame))
    received = wire.decode_frame(parts)
    for field in fields(Frame):
        sent, got = getattr(frame, field.name), getattr(received, field.name)
        if isinstance(sent, np.ndarray):
            assert got.dtype == sent.dtype and got.shape == sent.shape and got.tobytes() == sent.tobytes()
        else:
            assert got == sent, field.name
    assert wire.peek_identity(parts) == wire.identity(frame)
    assert as_sent(wire.encode_frame(received)) == parts


@given(results())
def test_results_arrive_as_sent_and_accept_means_ok(result: Result) -> None:
    received = wire.decode_result(wire.encode_result(result))
    for field in fields(Result):
        assert getattr(received, field.name) == getattr(result, field.name), field.name
    assert received.accept == (result.verdict is Verdict.OK)


@given(results(), st.sampled_from(wire.State), st.integers(0, 65535))
def test_records_say_what_the_result_says(result: Result, state: wire.State, number: int) -> None:
    body = wire.encode_record(result, state=state, station_number=number)
    record = wire.decode_record(body)
    assert len(body) == wire.RECORD_BYTES
    assert (record.result_id, record.seq, record.t_exposure_us) == (result.result_id, result.seq, result.t_exposure_us)
    assert (record.trigger_id, record.station_number, record.state) == (result.trigger_id, number, state)
    assert record.latency_us == min(result.latency_us.get("total", 0), 2**32 - 1)
    assert math.isfinite(record.score) and math.isfinite(record.threshold)
    if record.accept:
        assert result.accept and state in wire.READY_STATES
    most = float(np.finfo(np.float32).max)
    fits = all(value is None or abs(value) <= most for value in (result.score, result.threshold))
    if fits:
        assert record.verdict == result.verdict and record.reason_code == result.reason
        assert record.accept == (result.accept and state in wire.READY_STATES)
    else:
        assert record.verdict == Verdict.UNKNOWN and not record.accept


@given(
    st.builds(
        wire.StationState,
        station=names,
        session=uuids,
        beat=counts,
        beat_timeout_ms=positives,
        state=st.integers(0, 255),
        ready=st.booleans(),
        recipe=st.just("") | names,
        engine=st.none() | st.builds(wire.EngineMessage, printable, printable, printable),
        last_result_id=counts,
        expected_rate_hz=st.none() | numbers,
        alarms=st.lists(printable, max_size=16).map(tuple),
        received=counts,
        unknown_by_reason=st.dictionaries(st.sampled_from([reason.name for reason in Reason]), counts),
        gpu=st.none() | st.dictionaries(printable, st.none() | printable | numbers, max_size=16),
        clocks=st.none() | st.builds(
            Clocks,
            computer=st.builds(
                ComputerClock, synchronised=st.none() | st.booleans(), source=printable, error_ms=st.none() | numbers
            ),
            camera=st.builds(CameraClock, clock=printable, offset_ms=st.none() | numbers, jumps=counts),
        ),
    )
)
def test_states_arrive_as_sent(state: wire.StationState) -> None:
    assert wire.decode_state(wire.encode_state(state)) == state


@given(
    st.builds(
        wire.Event,
        station=names,
        session=uuids,
        t_us=counts,
        severity=st.sampled_from(["info", "warning", "alarm"]),
        code=ids,
        text=st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
        result_id=st.none() | positives,
        seq=st.none() | counts,
    ),
    st.builds(
        wire.Trigger,
        station=names,
        session=uuids,
        trigger_id=st.integers(1, 2**32 - 1),
        part_id=part_ids,
        recipe=st.none() | names,
        timeout_ms=st.integers(1, 2**32 - 1),
        t_us=counts,
    ),
)
def test_events_and_triggers_arrive_as_sent(event: wire.Event, trigger: wire.Trigger) -> None:
    assert wire.decode_event(wire.encode_event(event)) == event
    assert wire.decode_trigger(wire.encode_trigger(trigger)) == trigger


@given(
    st.builds(
        wire.Request,
        id=ids,
        op=st.sampled_from(sorted(wire.OPERATIONS)),
        station=st.just("") | names,
        from_=positives,
        trigger_id=st.integers(1, 2**32 - 1),
        part_id=st.none() | part_ids,
        lot=st.none() | batch_texts,
        position=positions,
        recipe=names,
        timeout_ms=st.integers(1, 2**32 - 1),
        threshold=numbers,
    )
)
def test_requests_arrive_as_sent(request: wire.Request) -> None:
    body = wire.encode_request(request)
    assert wire.decode_request(body) == request
    assert wire.peek_request_id(body) == request.id


@settings(max_examples=30)
@given(ids, st.sampled_from(sorted(wire.CODES)), st.lists(results(), max_size=5), st.none() | positives)
def test_replies_arrive_as_sent(request_id: str, code: str, sent: list[Result], first: int | None) -> None:
    bodies = tuple(msgspec.Raw(wire.encode_result_body(result)) for result in sent)
    reply = wire.Reply(id=request_id, ok=code in ("OK", "ACCEPTED"), code=code, results=bodies, first_result_id=first)
    received = wire.decode_reply(wire.encode_reply(reply))
    assert (received.id, received.ok, received.code, received.first_result_id) == (request_id, reply.ok, code, first)
    assert [result.result_id for result in wire.reply_results(received)] == [result.result_id for result in sent]


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 5)),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    ),
    st.none() | st.builds(Window, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 99)),
    names,
    uuids,
    positives,
    st.none() | numbers,
)
def test_maps_arrive_as_sent(
    array: np.ndarray, window: Window | None, station: str, session: str, result_id: int, threshold: float | None
) -> None:
    sent = wire.Bulk("map", station, session, result_id, array, window=window, threshold=threshold)
    got = wire.decode_bulk(as_sent(wire.encode_bulk(sent)))
    assert np.array_equal(got.array, array)
    assert (got.station, got.session, got.result_id, got.window, got.threshold) == (
        station,
        session,
        result_id,
        window,
        threshold,
    )


@given(st.text(max_size=300) | part_ids, st.text(max_size=70) | batch_texts)
def test_a_text_that_no_rule_permits_is_refused_by_name_and_any_other_arrives(part_id: str, lot: str) -> None:
    """Whatever somebody sends: the frame, request or result is refused, or its texts are the same on the other side."""
    legal = not part_id_fault(part_id) and not batch_text_fault(lot)
    try:
        asked = wire.Request(id="1", op="trigger", trigger_id=1, timeout_ms=1, part_id=part_id, lot=lot)
        body = wire.encode_request(asked)
    except WireError as error:
        assert not legal and ("part_id" in str(error) or "lot" in str(error) or "surrogate" in str(error))
        return
    request = wire.decode_request(body)
    assert legal and (request.part_id, request.lot) == (part_id, lot)


@pytest.mark.parametrize("worst", ['"' * 256, "\x1d" * 85 + "ab", "\U0001f600" * 64, "\x1d" * 51 + "x" * 205])
def test_the_longest_result_fits_whatever_its_part_is_called(worst: str) -> None:
    """Or a station could not answer for a part that it has admitted."""
    name, most = "n" * 32, wire.MAX_INTEGER
    result = Result(
        station=name, session=str(uuid.uuid4()), result_id=most, camera=name, camera_session=str(uuid.uuid4()),
        seq=most, trigger_id=2**32 - 1, part_id=worst, verdict=Verdict.NG, reason=Reason.SCORE_ABOVE_THRESHOLD,
        score=-1.7976931348623157e308, threshold=-1.7976931348623157e308, p_value=1.2345678901234567e-300,
        recipe=name, bundle="0" * 12, t_exposure_us=most, t_done_us=most, deadline_us=most, deadline_missed=True,
        latency_us=dict.fromkeys(LATENCY_STAGES, most), simulated=True, region=Region(-most, -most, most, most, most),
        modality="descriptor", lot='"' * 64, order="\\" * 64, shift='"' * 64, position=-most,
    )  # fmt: skip
    body = wire.encode_result_body(result)
    assert len(body) <= wire.MAX_RESULT_BYTES and wire.decode_result_body(body).part_id == worst
    wire.encode_trigger(wire.Trigger(station=name, session=str(uuid.uuid4()), trigger_id=2**32 - 1, promise=most,
                                     part_id=worst, recipe=name, timeout_ms=2**32 - 1, t_us=most))
