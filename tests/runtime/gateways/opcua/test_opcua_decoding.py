"""What a request may make the library decode is bounded, whatever lengths it claims."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer, NotEnoughData, ServiceError
from asyncua.ua import ua_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime.gateways.opcua.decoding import DECODING, READS_PER_OPERATION, Budget

OPERATIONS = 50
ARRAY, MATRIX = 0x80, 0xC0
NULL, INT32, STRING, VARIANT = 0, 6, 12, 24


def int32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


@pytest.fixture
def budget() -> Iterator[Budget]:
    budget = Budget(OPERATIONS)
    token = DECODING.set(budget)
    yield budget
    DECODING.reset(token)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(bytes([NULL | ARRAY]) + int32(5_000_000), "BadTooManyOperations", id="Nulls that take no byte"),
        pytest.param(bytes([INT32 | ARRAY]) + int32(2**31 - 1), "BadTooManyOperations", id="an array of no end"),
        pytest.param(
            bytes([INT32 | MATRIX]) + int32(1, 7) + int32(200_000) + int32(*[1] * 200_000),
            "BadTooManyOperations",
            id="200 000 dimensions",
        ),
        pytest.param(
            bytes([INT32 | MATRIX]) + int32(1, 7) + int32(2) + int32(1000, 900),
            "BadEncodingLimitsExceeded",
            id="a matrix that is filled up",
        ),
        pytest.param(
            bytes([VARIANT | ARRAY]) + int32(50) + (bytes([VARIANT | ARRAY]) + int32(50) + bytes(50)) * 50,
            "BadEncodingLimitsExceeded",
            id="arrays in arrays",
        ),
        pytest.param(
            bytes([VARIANT | ARRAY]) + int32(50) + (bytes([VARIANT]) * 100 + bytes([NULL])) * 50,
            "BadEncodingLimitsExceeded",
            id="variants in variants",
        ),
    ],
)
def test_a_variant_that_claims_much_is_refused(budget: Budget, sent: bytes, code: str) -> None:
    with pytest.raises(ServiceError) as caught:
        ua_binary.variant_from_binary(Buffer(sent))
    assert ua.StatusCode(ua.UInt32(caught.value.code)).name == code


def test_a_field_of_negative_length_does_not_go_back(budget: Budget) -> None:
    with pytest.raises(NotEnoughData):
        ua_binary.variant_from_binary(Buffer(bytes([STRING | ARRAY]) + int32(2) + int32(-4, -4)))


def test_a_request_of_too_many_nodes_is_refused_before_they_are_decoded(budget: Budget) -> None:
    def request(count: int) -> Buffer:
        nodes = [ua.ReadValueId(ua.NodeId("Tags.Accept", 2), ua.AttributeIds.Value) for _ in range(count)]
        return Buffer(ua_binary.struct_to_binary(ua.ReadParameters(NodesToRead=nodes)))

    assert len(ua_binary.struct_from_binary(ua.ReadParameters, request(OPERATIONS)).NodesToRead) == OPERATIONS
    budget.begin()
    with pytest.raises(ServiceError):
        ua_binary.struct_from_binary(ua.ReadParameters, request(OPERATIONS + 1))
    assert budget._left > (READS_PER_OPERATION - 1) * OPERATIONS, "next to nothing was decoded"


@settings(deadline=None)
@given(sent=st.binary(max_size=300), kind=st.sampled_from([ua.Variant, ua.CallParameters, ua.RequestHeader]))
def test_nothing_that_is_sent_costs_more_than_the_budget(sent: bytes, kind: type) -> None:
    budget = Budget(OPERATIONS)
    token = DECODING.set(budget)
    try:
        ua_binary.from_binary(kind, Buffer(sent))
    except Exception:  # noqa: BLE001 - whatever the library says of it
        pass
    finally:
        DECODING.reset(token)
    assert budget._left >= -OPERATIONS


def test_a_client_in_the_same_process_decodes_as_ever() -> None:
    matrix = ua.Variant([[1, 2], [3, 4]], ua.VariantType.Int32)
    many = ua.Variant(list(range(100_000)), ua.VariantType.Int32)
    for value in (matrix, many):
        assert ua_binary.variant_from_binary(Buffer(ua_binary.variant_to_binary(value))) == value
