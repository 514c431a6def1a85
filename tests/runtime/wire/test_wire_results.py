"""Results on the wire and in the 64-byte record: what a receiver may believe, and ok only if everything agrees."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest

from asperity.runtime import wire
from asperity.runtime.errors import WireError
from asperity.runtime.frame import Verdict
from asperity.runtime.reasons import JUDGED, Reason
from tests.runtime.wire import wire_golden as golden
from tests.runtime.wire.wire_edits import GOLDEN, edited

# Results: energise to pass


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, Verdict.OK),
        ({"accept": ...}, Verdict.UNKNOWN),
        ({"accept": False}, Verdict.UNKNOWN),
        ({"verdict": ...}, Verdict.UNKNOWN),
        ({"verdict": 0}, Verdict.UNKNOWN),
        ({"verdict": 2}, Verdict.UNKNOWN),
        ({"verdict": 3}, Verdict.UNKNOWN),
        ({"reason_code": ...}, Verdict.UNKNOWN),
        ({"reason_code": 4}, Verdict.UNKNOWN),
        ({"reason_code": 999}, Verdict.UNKNOWN),
        ({"reason_code": int(Reason.STALE)}, Verdict.UNKNOWN),
        ({"reason_code": int(Reason.SCORE_ABOVE_THRESHOLD)}, Verdict.UNKNOWN),
        ({"score": None}, Verdict.UNKNOWN),
        ({"score": ...}, Verdict.UNKNOWN),
        ({"threshold": None}, Verdict.UNKNOWN),
        ({"score": 2.6}, Verdict.UNKNOWN),
        ({"score": 2.5}, Verdict.OK),
    ],
)
def test_ok_is_believed_only_if_everything_agrees(change: dict[str, Any], verdict: Verdict) -> None:
    received = wire.decode_result(edited("result_ok", **change))
    assert received.verdict is verdict
    assert received.accept is (verdict is Verdict.OK)


def test_codes_that_are_not_known_are_kept_for_people() -> None:
    received = wire.decode_result(edited("result_ok", verdict=9, reason_code=77, reason="FROM_LATER"))
    assert (received.verdict_code, received.reason_code, received.reason_text) == (9, 77, "FROM_LATER")
    assert received.verdict is Verdict.UNKNOWN and received.reason not in JUDGED


def test_the_modality_is_told_only_of_what_was_judged() -> None:
    """Left out by earlier senders, named by later ones, and never a reason to trust or to distrust."""
    assert wire.decode_result(edited("result_ok")).modality == "rgb"
    assert wire.decode_result(edited("result_ok", modality=...)).modality == ""
    later = wire.decode_result(edited("result_ng", modality="thermal"))
    assert (later.verdict, later.modality) == (Verdict.NG, "thermal")
    doubted = wire.decode_result(edited("result_ok", score=9.0))
    assert (doubted.verdict, doubted.modality) == (Verdict.UNKNOWN, "")
    with pytest.raises(WireError):
        wire.decode_result(edited("result_ok", modality=3))


@pytest.mark.parametrize(
    "change", [{"score": "2"}, {"verdict": -1}, {"result_id": 0}, {"result_id": ...}, {"accept": 1}]
)
def test_a_malformed_result_is_no_result(change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        wire.decode_result(edited("result_ok", **change))


def test_a_result_fits_2_KiB_whatever_it_holds() -> None:
    big = replace(
        golden.RESULT_OK,
        station="s" * 32,
        camera="c" * 32,
        part_id='"' * 64,
        recipe="r" * 32,
        bundle="\\" * 64,
        result_id=2**53 - 1,
        seq=2**53 - 1,
        score=-1.2345678901234567e-300,
        threshold=1.2345678901234567e300,
        latency_us=dict.fromkeys(("recv", "pre", "rgb", "points", "knn", "post", "total"), 2**53 - 1),
        deadline_us=2**53 - 1,
    )
    assert len(wire.encode_result_body(big)) <= wire.MAX_RESULT_BYTES
    with pytest.raises(WireError, match="at most 2048"):
        wire.decode_result([b"result/st1/", GOLDEN["result_ok"][1] + b" " * 2048])


@pytest.mark.parametrize(
    "change", [{"station": "St"}, {"result_id": 2**53}, {"seq": -1}, {"part_id": "\u2028"}, {"lot": "a\x1db"}]
)
def test_a_result_that_breaks_the_contract_is_not_sent(change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        wire.encode_result(replace(golden.RESULT_OK, **change))


# The 64-byte record


def test_record_fields_lie_where_the_table_says() -> None:
    record = wire.encode_record(golden.RESULT_OK, state=8, station_number=3)
    assert len(record) == 64

    def at(form: str, offset: int) -> Any:
        return struct.unpack_from("<" + form, record, offset)[0]

    assert record[:4] == b"ASPR"
    assert list(record[4:8]) == [1, 8, 1, 1]
    assert (at("Q", 8), at("Q", 16), at("q", 24)) == (1001, 41, 1_790_000_000_000_001)
    assert at("I", 32) == int(golden.SESSION.replace("-", ""), 16) & 0xFFFFFFFF
    assert (at("I", 36), at("f", 40), at("f", 44)) == (7, 0.8125, 2.5)
    assert (at("I", 48), at("H", 52), at("H", 54), at("I", 56)) == (126000, int(Reason.GOOD), 3, 4711)
    assert at("I", 60) == zlib.crc32(record[:60])


def test_record_flags_and_numbers_of_an_unknown() -> None:
    record = wire.decode_record(wire.encode_record(golden.RESULT_UNKNOWN, state=8, station_number=3))
    assert (record.verdict, record.flags, record.score, record.threshold) == (0, 2, 0.0, 0.0)
    ng = wire.decode_record(wire.encode_record(golden.RESULT_NG, state=8, station_number=3))
    assert (ng.verdict, ng.flags, ng.accept, ng.part_number) == (2, 4, False, 0)


def test_a_score_beyond_f32_is_no_score_and_no_verdict() -> None:
    huge = replace(golden.RESULT_OK, score=-1e300)
    record = wire.decode_record(wire.encode_record(huge, state=8, station_number=3))
    assert (record.verdict, record.flags, record.score, record.accept) == (0, 0, 0.0, False)


@pytest.mark.parametrize(
    ("part_id", "number"),
    [("4711", 4711), ("0", 0), ("4294967295", 2**32 - 1), ("4294967296", 0), ("-7", 0), ("7 ", 0), ("", 0), ("A7", 0)],
)
def test_part_number_is_0_if_the_id_is_no_number(part_id: str, number: int) -> None:
    record = wire.encode_record(replace(golden.RESULT_OK, part_id=part_id), state=8, station_number=3)
    assert wire.decode_record(record).part_number == number


@pytest.mark.parametrize("bit", range(0, 512, 7))
def test_a_damaged_record_is_refused(bit: int) -> None:
    record = bytearray(GOLDEN["record_ok"][1])
    record[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WireError):
        wire.decode_record(bytes(record))


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (5, "B", 3),
        (5, "B", 0),
        (5, "B", 4),
        (6, "B", 2),
        (6, "B", 7),
        (7, "B", 0),
        (40, "f", 3.0),
        (52, "H", 2),
        (52, "H", 99),
    ],
)
def test_record_accept_needs_every_field_to_agree(offset: int, form: str, value: float) -> None:
    record = bytearray(GOLDEN["record_ok"][1])
    assert wire.decode_record(bytes(record)).accept
    struct.pack_into("<" + form, record, offset, value)
    struct.pack_into("<I", record, 60, zlib.crc32(record[:60]))
    assert not wire.decode_record(bytes(record)).accept


def test_record_of_another_version_or_with_nan_is_refused() -> None:
    for offset, form, value in ((4, "B", 2), (40, "f", float("nan")), (44, "f", float("inf"))):
        record = bytearray(GOLDEN["record_ok"][1])
        struct.pack_into("<" + form, record, offset, value)
        struct.pack_into("<I", record, 60, zlib.crc32(record[:60]))
        with pytest.raises(WireError):
            wire.decode_record(bytes(record))


def test_a_record_number_that_does_not_fit_is_not_sent() -> None:
    with pytest.raises(WireError):
        wire.encode_record(golden.RESULT_OK, state=8, station_number=70000)
