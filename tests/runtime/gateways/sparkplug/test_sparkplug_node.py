"""The edge node's words, read by a decoder that others wrote."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime.errors import WireError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.sparkplug.metrics import GAP, RESULT, STATION, result_metrics, station_values
from asperity.runtime.gateways.sparkplug.node import Node
from asperity.runtime.gateways.sparkplug.payload import DataType, Metric, booleans, encode
from tests.runtime.gateways.floor import FakeLink, result
from tests.runtime.gateways.sparkplug.sparkplug_decoder import command, decoded

VALUES = {
    DataType.UINT8: st.integers(0, 2**8 - 1), DataType.UINT16: st.integers(0, 2**16 - 1),
    DataType.UINT32: st.integers(0, 2**32 - 1), DataType.UINT64: st.integers(0, 2**64 - 1),
    DataType.INT64: st.integers(-(2**63), 2**63 - 1),
    DataType.DATETIME: st.integers(0, 2**63 - 1), DataType.BOOLEAN: st.booleans(),
    DataType.DOUBLE: st.floats(allow_nan=False), DataType.STRING: st.text(max_size=300),
}  # fmt: skip
TYPED = st.sampled_from(list(VALUES)).flatmap(lambda kind: st.tuples(st.just(kind), st.none() | VALUES[kind]))


@settings(deadline=None)
@given(values=st.lists(TYPED, max_size=6), seq=st.none() | st.integers(0, 255))
def test_every_value_is_read_as_it_was_written(values: list[tuple[DataType, object]], seq: int | None) -> None:
    metrics = [Metric(f"m{n}", kind, value, 7, historical=n == 1) for n, (kind, value) in enumerate(values)]  # type: ignore[arg-type]
    found = decoded(encode(metrics, 9, seq))
    assert found == (seq, {f"m{n}": value for n, (_, value) in enumerate(values)}, {"m1"} if len(values) > 1 else set())


@settings(deadline=None)
@given(body=st.binary(max_size=200) | st.binary(max_size=8).map(command(Node_Control__Rebirth=True).__add__))
def test_no_command_does_more_than_be_refused(body: bytes) -> None:
    try:
        found = booleans(body)
    except WireError:
        return
    assert all(isinstance(value, bool) for value in found.values())


@pytest.mark.parametrize(
    "body",
    [b"\x12\xff\xff\xff\xff\x0f", b"\x12" * 70_000, b"\x12\x00" * 300, b"\x80" * 11, b"\x0b",
     b"\x12\x04\x0a\x02\xff\xff"],
)
def test_what_claims_too_much_is_refused_before_it_is_read(body: bytes) -> None:
    if body[-2:] == b"\xff\xff":
        assert booleans(body) == {}, "a name without a value is nothing"
        return
    with pytest.raises(WireError):
        booleans(body)


def test_birth_data_rebirth_and_death_follow_the_sequence() -> None:
    link, node = FakeLink(), Node("plant", "st1", "", 258)
    topic, body = node.death(1)
    assert topic == "spBv1.0/plant/NDEATH/st1" and decoded(body)[:2] == (None, {"bdSeq": 2})
    topic, body = node.birth(station_values(link.view()), 2)
    seq, born, _ = decoded(body)
    assert (topic, seq, born["bdSeq"]) == ("spBv1.0/plant/NBIRTH/st1", 0, 2)
    names = {row.name for row in (*STATION, *RESULT, *GAP)}
    assert set(born) == names | {"bdSeq", "Node Control/Rebirth"}
    assert born["Station/Good"] is True and born["Result/Verdict"] is None
    assert node.news(station_values(link.view()), 3) is None
    link.good = False
    news = node.news(station_values(link.view()), 4)
    assert news is not None
    assert decoded(news[1])[:2] == (1, {"Station/Good": False, "Station/Why": "the station's heartbeat has stopped"})
    seqs = []
    for number in range(300):
        topic, body = node.data(result_metrics(result(number + 1, Verdict.NG), historical=False), 5)
        seq, values, historical = decoded(body)
        seqs.append(seq)
        assert topic == "spBv1.0/plant/NDATA/st1" and values["Result/Id"] == number + 1 and not historical
        assert set(values) == {row.name for row in RESULT}
    assert seqs == [(2 + number) % 256 for number in range(300)]
    assert node.hear(node.commands, command(Node_Control__Rebirth=True)) == "" and node.rebirth
    assert decoded(node.birth(station_values(link.view()), 6)[1])[0] == 0 and not node.rebirth


def test_another_command_is_not_followed_and_named() -> None:
    node = Node("plant", "st1", "", 0)
    assert "there is Node Control/Rebirth only" in node.hear(node.commands, command(Node_Control__Reboot=True))
    assert "not protobuf" in node.hear(node.commands, b"\x0b")
    assert "did not subscribe" in node.hear("spBv1.0/plant/NCMD/other", command(Node_Control__Rebirth=True))
    assert not node.rebirth


def test_the_primary_host_must_be_online_and_an_old_word_of_it_says_nothing() -> None:
    node = Node("plant", "st1", "scada", 0)
    assert node.host_topic == "spBv1.0/STATE/scada" and not node.host_online

    def hear(online: object, at_ms: object) -> bool:
        node.hear(node.host_topic, json.dumps({"online": online, "timestamp": at_ms}).encode())
        return node.host_online

    assert hear(True, 100) and hear(False, 99) and not hear(False, 100) and not hear(True, 50) and hear(True, 101)
    for body in (b"", b"{}", b'{"online": 1, "timestamp": 200}', b"[" * 5000, b'{"online": false, "timestamp": "x"}'):
        assert node.hear(node.host_topic, body) and node.host_online
