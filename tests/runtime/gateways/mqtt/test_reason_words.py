"""Each code of each packet of a broker becomes a sentence, and so does each way of not reaching one."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways.config import Mqtt
from asperity.runtime.gateways.mqtt import identity
from asperity.runtime.gateways.mqtt.broker_limits import BrokerLimits, limits_of, publish_nbytes
from asperity.runtime.gateways.mqtt.messages import id_of
from asperity.runtime.gateways.mqtt.reason_words import WORDS, cannot_connect, reason, refusal

READ = {PacketTypes.CONNACK, PacketTypes.PUBACK, PacketTypes.SUBACK, PacketTypes.DISCONNECT}


def test_every_code_of_mqtt_5_that_a_gateway_is_sent_has_words() -> None:
    sent = {code for code, names in ReasonCode.names.items() for kinds in names.values() if READ & set(kinds)}
    assert {code for code in sent if code not in (0, 1, 2)} <= set(WORDS)


@given(code=st.integers(0, 255), said=st.text(max_size=500))
def test_whatever_the_code_it_is_one_printable_line(code: int, said: str) -> None:
    for text in (reason(code, said), refusal(code, said)):
        assert text and text.isprintable() and len(text) < 2600 and "(code " in text


@pytest.mark.parametrize(
    ("code", "words"),
    [(1, "[mqtt] version"), (2, "[mqtt] client_id"), (3, "server unavailable"), (4, "password_file"), (5, "ACL")],
)
def test_the_five_refusals_of_mqtt_3(code: int, words: str) -> None:
    assert words in refusal(code) and f"(code {code})" in refusal(code)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), ["nobody listens at plc port 1883"]),
        (socket.gaierror(-2, "Name or service not known"), ["'plc' cannot be resolved", "[mqtt] host"]),
        (UnicodeError("label too long"), ["cannot be resolved"]),
        (TimeoutError("timed out"), ["no answer within 3000 ms", "firewalls"]),
        (OSError(errno.EHOSTUNREACH, "No route to host"), ["no route to plc"]),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), ["no route to plc"]),
        (PermissionError(errno.EPERM, "Operation not permitted"), ["IPAddressAllow"]),
        (ConnectionResetError(errno.ECONNRESET, "reset"), ["[mqtt] tls = true"]),
        (ssl.SSLCertVerificationError(1, "CERTIFICATE_VERIFY_FAILED"), ["not trusted", "ca_file"]),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), ["TLS failed", "8883"]),
        (ValueError("Invalid host."), ["Invalid host", "[mqtt] host"]),
        (OSError(errno.EMFILE, "Too many open files"), ["Too many open files"]),
    ],
)
def test_why_a_broker_cannot_be_reached(error: Exception, words: list[str]) -> None:
    text = cannot_connect(error, Mqtt(host="plc"))
    assert all(word in text for word in words), text


@given(st.text(max_size=32), st.text("0123456789abcdef", min_size=16, max_size=16))
def test_a_client_id_of_our_own_is_one_that_every_broker_takes(station: str, instance: str) -> None:
    made = identity.client_id(Mqtt(), station, instance)
    assert 1 <= len(made.encode()) <= 23 and made.isascii() and made.isalnum() and made.endswith(instance[:8])
    assert identity.client_id(Mqtt(client_id="mine"), station, instance) == "mine"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"prefix": "a/#"}, "prefix"),
        ({"prefix": "a\0"}, "prefix"),
        ({"prefix": ""}, "prefix"),
        ({"prefix": "$SYS/a"}, "begin with \\$"),
        ({"prefix": "a" * 70_000}, "has 70000 bytes"),
        ({"client_id": "a\nb"}, "client_id"),
        ({"client_id": "a" * 70_000}, "client_id has 70000"),
        ({"retry_min_ms": 500, "retry_max_ms": 200}, "retry_min_ms 500 is above retry_max_ms 200"),
        ({"password_file": "/x"}, "without user"),
        ({"key_file": "/x"}, "without certificate_file"),
        ({"ca_file": "/x"}, "tls = true"),
        ({"certificate_file": "/x"}, "tls = true"),
    ],
)
def test_what_contradicts_itself_is_refused(own: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        identity.check(Mqtt(**own))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (BrokerLimits(retains=False), "Retain Available 0"),
        (BrokerLimits(qos_max=0), "Maximum QoS 0"),
        (BrokerLimits(receive_max=7), "Receive Maximum"),
        (BrokerLimits(packet_max_nbytes=2047), "2047 bytes"),
    ],
)
def test_a_broker_that_cannot_keep_what_the_gateway_promises_is_named(limits: BrokerLimits, words: str) -> None:
    assert words in limits.unusable()


def test_other_limits_are_lived_with() -> None:
    assert limits_of(None) == BrokerLimits() and not BrokerLimits().unusable()
    assert not BrokerLimits(2048, 8, 60, "x", qos_max=1, wildcards=False).unusable()
    assert (BrokerLimits(receive_max=8).inflight, BrokerLimits().inflight) == (8, 20)


@pytest.mark.parametrize("nbytes", [0, 1, 100, 127, 128, 16_383, 16_384, 70_000])
def test_the_size_of_a_packet(nbytes: int) -> None:
    inside = 2 + 3 + 2 + 6 + nbytes
    length_nbytes = 1 if inside < 128 else 2 if inside < 16_384 else 3
    assert publish_nbytes("a/b", b"x" * nbytes, 1, True) == 1 + length_nbytes + inside


@given(st.binary(max_size=100))
def test_an_id_is_one_that_a_topic_may_end_with(body: bytes) -> None:
    found = id_of(body)
    assert found == "" or (len(found) <= 64 and "/" not in found and "+" not in found and "#" not in found)
