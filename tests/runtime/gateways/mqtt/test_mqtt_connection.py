"""One connection to brokers that do as a script says, over a real socket and the real library."""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from asperity.runtime.gateways.config import Mqtt
from asperity.runtime.gateways.mqtt.connection import MAX_PACKET_BYTES, REQUESTS_WAITING_MAX, Connection, tls_context
from asperity.runtime.gateways.mqtt.paho_client import INCOMING_NBYTES_MAX
from asperity.runtime.wire import OPERATIONS
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import until
from tests.runtime.gateways.mqtt.mqtt_floor import make_certificate
from tests.runtime.gateways.mqtt.scripted_broker import CLOSE_AFTER, HOLD, TAKE_OVER, Behaviour, ScriptedBroker

Connect = Callable[..., tuple[Connection, ScriptedBroker]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connects to a broker of these behaviours."""
    with ExitStack() as stack:

        def make(version: str, *script: Behaviour, **own: Any) -> tuple[Connection, ScriptedBroker]:
            broker = ScriptedBroker(version == "5", *script)
            stack.callback(broker.close)
            config = Mqtt(version=version, port=broker.port, **own)  # type: ignore[arg-type]
            will = ("a/st1/accept", b"{}")
            connection = Connection(config, "me", will, "a/st1/command", ["a/st1/accept"], None, lambda: None)
            stack.callback(connection.abandon, "")
            connection.start()
            return connection, broker

        yield make


def ended(connection: Connection) -> str:
    until(lambda: connection.ended, "its end")
    return connection.why


BOTH = pytest.mark.parametrize("version", ["3.1.1", "5"])


@pytest.mark.parametrize("code", range(1, 6))
def test_each_refusal_of_mqtt_3_is_said_in_words(connect: Connect, code: int) -> None:
    why = ended(connect("3.1.1", Behaviour(code=code))[0])
    assert why.startswith("the broker refused the connection: ") and f"(code {code})" in why


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x80, "unspecified error"), (0x84, "set [mqtt] version"), (0x85, "client_id"), (0x86, "password_file"),
        (0x87, "ACL"), (0x95, "packet too large"), (0x9A, "retains"), (0x9D, "set [mqtt] host"),
        (0xFE, "unknown reason"), (1, "set [mqtt] version"),
    ],
)  # fmt: skip
def test_refusals_of_mqtt_5_are_said_in_words(connect: Connect, code: int, words: str) -> None:
    why = ended(connect("5", Behaviour(code=code))[0])
    assert why.startswith("the broker refused the connection: ") and words in why


def test_the_brokers_own_words_are_passed_on(connect: Connect) -> None:
    said = {"ReasonString": "not in this\nlife", "ServerReference": "other:1883"}
    assert r"not in this\nlife other:1883" in ended(connect("5", Behaviour(code=0x9C, properties=said))[0])


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"MaximumPacketSize": 200}, "packets of 200 bytes"),
        ({"ReceiveMaximum": 2}, "Receive Maximum"),
        ({"RetainAvailable": 0}, "Retain Available 0"),
        ({"MaximumQoS": 0}, "Maximum QoS 0"),
    ],
)
def test_a_broker_that_is_too_small_is_left_with_a_sentence(
    connect: Connect, properties: dict[str, Any], words: str
) -> None:
    connection, broker = connect("5", Behaviour(properties=properties))
    assert words in ended(connection) and not broker.published and not connection.up


def test_what_the_broker_says_of_itself_is_kept(connect: Connect) -> None:
    says = {
        "MaximumPacketSize": 5000, "ReceiveMaximum": 10, "ServerKeepAlive": 60, "AssignedClientIdentifier": "theirs",
        "MaximumQoS": 1, "WildcardSubscriptionAvailable": 0, "TopicAliasMaximum": 3, "SessionExpiryInterval": 99,
    }  # fmt: skip
    connection, broker = connect("5", Behaviour(properties=says))
    until(lambda: connection.up, "a connection")
    limits = connection.limits
    assert (limits.packet_max_nbytes, limits.inflight, limits.keepalive_s) == (5000, 10, 60)
    assert connection.client_id == "theirs"
    assert connection.fits("a/st1/result", b"x" * 4900) and not connection.fits("a/st1/result", b"x" * 5000)
    until(lambda: len(broker.subscribed) == 1 + len(OPERATIONS), "each operation by its name")
    assert not any("+" in topic for topic in broker.subscribed)


@pytest.mark.parametrize(("theirs_s", "used_s"), [(0, 2), (1, 1), (60, 2)])
def test_a_broker_that_has_stopped_is_noticed_however_long_its_own_keep_alive_is(
    connect: Connect, theirs_s: int, used_s: int
) -> None:
    connection, _ = connect("5", Behaviour(properties={"ServerKeepAlive": theirs_s}))
    until(lambda: connection.up, "a connection")
    assert (connection._client._keepalive, connection.limits.keepalive_s) == (used_s, theirs_s)


@pytest.mark.parametrize(("version", "behaviour", "flags"), [
    ("5", TAKE_OVER, (True, False)), ("5", CLOSE_AFTER, (False, True)), ("3.1.1", CLOSE_AFTER, (False, True)),
])  # fmt: skip
def test_how_a_broker_ends_a_connection(
    connect: Connect, version: str, behaviour: Behaviour, flags: tuple[bool, bool]
) -> None:
    connection, _ = connect(version, behaviour)
    until(lambda: connection.up, "a connection")
    connection.publish("a/st1/online", b"{}", 1)
    why = ended(connection)
    assert (connection.taken_over, connection.silent) == flags
    assert ("another client uses the same client id: set [mqtt] client_id" in why) == flags[0]


def test_every_code_of_a_disconnect_is_read_also_one_that_nobody_knows(connect: Connect) -> None:
    for code, words in ((0x95, "packet too large"), (0x8B, "shutting down"), (0x77, "unknown reason (code 0x77)")):
        connection, _ = connect("5", Behaviour(then=bytes([0xE0, 2, code, 0]), closes=True))
        until(lambda connection=connection: connection.up, "a connection")  # type: ignore[misc]
        connection.publish("a/st1/online", b"{}", 1)
        assert words in ended(connection) and connection.too_large == (code == 0x95)


@BOTH
def test_a_broker_that_says_nothing_or_closes_before_a_word(connect: Connect, version: str) -> None:
    silent, broker = connect(version, Behaviour(answers=False))
    until(lambda: bool(broker.connects), "its CONNECT")
    broker.close()
    assert "without an answer" in ended(silent) and "[mqtt] tls = true" in silent.why and not silent.silent


@BOTH
def test_bytes_that_are_no_mqtt(connect: Connect, version: str) -> None:
    connection, _ = connect(version, Behaviour(then=b"\x00\x01\x02\x03" * 8))
    until(lambda: connection.up, "a connection")
    connection.publish("a/st1/online", b"{}", 1)
    assert "not MQTT" in ended(connection)


@BOTH
def test_a_packet_that_is_too_large_is_not_read(connect: Connect, version: str) -> None:
    connection, broker = connect(version, HOLD)
    until(lambda: len(broker.subscribed) > 1, "its subscriptions")
    broker.send("a/st1/command/start", b"x" * 100, claims_nbytes=INCOMING_NBYTES_MAX + 1)
    assert f"a packet of {INCOMING_NBYTES_MAX + 1} bytes" in ended(connection)


@BOTH
def test_requests_that_are_too_large_or_too_many_are_kept_for_their_reply(connect: Connect, version: str) -> None:
    connection, broker = connect(version, HOLD)
    until(lambda: len(broker.subscribed) > 1, "its subscriptions")
    broker.send("a/st1/command/start", msgspec.json.encode({"id": "big", "x": "x" * MAX_PACKET_BYTES}))
    broker.send("a/st1/command/start", b"x" * (MAX_PACKET_BYTES + 1))
    for number in range(REQUESTS_WAITING_MAX + 3):
        broker.send("a/st1/command/start", msgspec.json.encode({"id": f"r{number}"}))
    until(lambda: len(connection.refused) == 5, "five refusals")
    assert [(each.request_id, each.code) for each in connection.refused] == [
        ("big", "BAD_REQUEST"), ("", "BAD_REQUEST"), ("r64", "BUSY"), ("r65", "BUSY"), ("r66", "BUSY"),
    ]  # fmt: skip
    assert len(connection.requests) == REQUESTS_WAITING_MAX and connection.up


def test_a_refused_message_comes_with_the_reason(connect: Connect) -> None:
    connection, broker = connect("5", Behaviour(puback={"result": 0x97}, suback=0x87))
    until(lambda: bool(connection.denied), "that nothing may be read")
    assert all("not authorized (code 0x87)" in topic for topic in connection.denied)
    good, bad = (connection.publish(f"a/st1/{name}", b"{}", 1) for name in ("accept", "result"))
    until(lambda: len(connection.acknowledged) == 2, "both answers")
    told = dict(connection.acknowledged)
    assert told[good] == "" and told[bad].startswith("quota exceeded (code 0x97)")
    assert len(broker.published) == 2


def published(version: str, first: int, topic: bytes, rest: bytes = b"") -> bytes:
    inside = struct.pack(">H", len(topic)) + topic + rest + (b"\0" if version == "5" else b"") + b"{}"
    return bytes([first, len(inside)]) + inside


COMMAND = b"a/st1/command/start"


@BOTH
@pytest.mark.parametrize(
    ("before", "then", "words"),
    [
        ((0x30, COMMAND), None, "a message before CONNACK"),
        (None, (0x34, COMMAND, b"\0\7"), "QoS 2"),
        (None, (0x30, b""), "without a topic"),
        (None, (), "second CONNACK"),
    ],
)
def test_what_no_broker_may_send_ends_the_connection_and_is_not_obeyed(
    connect: Connect, version: str, before: Any, then: Any, words: str
) -> None:
    connack = b"\x20\x03\0\0\0" if version == "5" else b"\x20\x02\0\0"
    sent = published(version, *then) if then else connack if then is not None else None
    connection, _ = connect(version, Behaviour(before=published(version, *before) if before else b"", then=sent))
    if sent:
        until(lambda: connection.up, "a connection")
        connection.publish("a/st1/online", b"{}", 1)
    assert words in ended(connection) and not connection.requests


@BOTH
@pytest.mark.parametrize("topic", ["x/start", "a/st2/command/start", "a/st1/command/x/start", "a/st1/start", "start"])
def test_what_was_not_subscribed_to_is_not_a_request(
    connect: Connect, version: str, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection, broker = connect(version, HOLD)
    until(lambda: len(broker.subscribed) > 1, "its subscriptions")
    for _ in range(3):
        broker.send(topic, b'{"id":"x"}')
    broker.send("a/st1/command/stop", b'{"id":"y"}')
    until(lambda: bool(connection.requests), "the request")
    assert [each.topic for each in connection.requests] == ["a/st1/command/stop"]
    assert caplog.text.count("did not subscribe") == 1 and topic in caplog.text


def test_without_commands_nothing_is_a_request(caplog: pytest.LogCaptureFixture) -> None:
    """Also at a broker that subscribes its clients by itself."""
    with closing(ScriptedBroker(True, HOLD)) as broker:
        connection = Connection(Mqtt(port=broker.port), "me", ("a", b""), "", ["a/st1/accept"], None, lambda: None)
        connection.start()
        until(lambda: bool(broker.subscribed), "its subscription")
        for topic in ("a/st1/command/start", "/start", "start"):
            broker.send(topic, b'{"id":"x"}')
        broker.send("a/st1/accept", b"{}")
        until(lambda: bool(connection.watched), "a message")
        assert not connection.requests and "did not subscribe" in caplog.text
        connection.abandon("")


@BOTH
def test_a_subscription_that_was_not_answered_in_full_is_not_granted(connect: Connect, version: str) -> None:
    connection, _ = connect(version, Behaviour(suback_codes=1))
    until(lambda: bool(connection.denied), "what may not be read")
    assert connection.denied == ["a/st1/command/+ (no answer)"]


def test_the_keep_alive_is_of_a_connection_that_was_accepted(connect: Connect) -> None:
    """A broker that asks a directory who it is may take longer to accept it."""
    connection, broker = connect("5", Behaviour(answers=False), keepalive_s=1)
    until(lambda: bool(broker.connects), "its CONNECT")
    client = connection._client
    with client._msgtime_mutex:
        client._last_msg_out = client._last_bytes_received = client._last_msg_out - 1000
    client._check_keepalive()
    assert not connection.ended and client.socket() is not None


@pytest.mark.parametrize("in_order", [False, True])
def test_what_a_connection_that_is_given_up_had_not_sent_yet_does_not_arrive_later(
    connect: Connect, in_order: bool
) -> None:
    """The network was interrupted: when it works again, that would speak of a part that is gone."""
    connection, broker = connect("5", Behaviour(answers=False))
    until(lambda: bool(broker.connects), "its CONNECT")
    open_socket = connection._client.socket()
    assert isinstance(open_socket, socket.socket)
    with socket.socket(fileno=os.dup(open_socket.fileno())) as same:
        connection.disconnect() if in_order else connection.abandon("too slow")
        lingers = struct.unpack("ii", same.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    assert lingers == ((0, 0) if in_order else (1, 0))


def test_all_addresses_of_a_name_are_tried_within_the_time_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones are dead, as of a broker whose IPv6 does not reach this far."""
    now_s, waits_s, closed = [0.0], [], []

    class Socket:
        def __init__(self, family: int, kind: int, protocol: int) -> None:
            self.family = family

        def settimeout(self, seconds: float) -> None:
            self.wait_s = seconds

        def connect(self, where: tuple[Any, ...]) -> None:
            if where[0] != "last":
                now_s[0] += self.wait_s
                waits_s.append(self.wait_s)
                raise TimeoutError("timed out")

        def close(self) -> None:
            closed.append(self)

    found = [(10, 1, 6, "", ("dead", 1883, 0, 2))] * 4 + [(2, 1, 6, "", ("last", 1883))]
    there = SimpleNamespace(SOCK_STREAM=1, socket=Socket, getaddrinfo=lambda *_, **__: found)
    monkeypatch.setattr("asperity.runtime.gateways.mqtt.paho_client.socket", there)
    monkeypatch.setattr("asperity.runtime.gateways.mqtt.paho_client.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    connection = Connection(Mqtt(), "me", ("a", b""), "", [], None, lambda: None)
    made: Any = connection._client._create_socket_connection()
    assert made.family == 2 and len(closed) == 4 and waits_s == pytest.approx([0.6] * 4)
    found.pop()
    with pytest.raises(TimeoutError):
        connection._client._create_socket_connection()
    found.clear()
    with pytest.raises(OSError, match="no address"):
        connection._client._create_socket_connection()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    make_certificate(folder / "key", folder / "pem")
    return folder / "pem", folder / "key"


@pytest.mark.parametrize(
    ("server", "host", "words"),
    [
        ("requires a certificate", "localhost", "(refused TLS|without an answer).*certificate_file"),
        ("closes", "localhost", "without an answer; .*certificate_file"),
        ("other name", "127.0.0.1", "not trusted: .*mismatch.*check \\[mqtt\\] ca_file and host"),
    ],
)
def test_what_is_wrong_with_tls_is_said_and_nobody_is_told_to_do_without(
    certificate: tuple[Path, Path], server: str, host: str, words: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if server == "requires a certificate":
        context.load_verify_locations(certificate[0])
        context.verify_mode = ssl.CERT_REQUIRED
    with closing(ScriptedBroker(True, Behaviour(closes_at_once=True), context=context)) as broker:
        config = Mqtt(host=host, port=broker.port, tls=True, ca_file=str(certificate[0]), connect_ms=60_000)
        connection = Connection(config, "me", ("a", b""), "", [], tls_context(config), lambda: None)
        connection.start()
        assert re.search(words, ended(connection)) and "tls = false" not in connection.why


def test_a_port_that_does_not_answer_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = Mqtt(host="localhost", port=mute.getsockname()[1], tls=True, connect_ms=100)
        connection = Connection(config, "me", ("a", b""), "", [], tls_context(config), lambda: None)
        connection.start()
        assert "does not answer TLS within 100 ms; check that it expects TLS" in ended(connection)


def test_a_connection_that_was_given_up_does_not_come_up_later() -> None:
    """It would be a second client of this id, and end the next connection."""
    with closing(ScriptedBroker(True, HOLD)) as broker:
        connection = Connection(Mqtt(port=broker.port), "me", ("a", b""), "", ["a"], None, lambda: None)
        connects = connection._client.connect

        def late(*where: Any, **how: Any) -> Any:
            connection.abandon("too slow")
            return connects(*where, **how)

        connection._client.connect = late  # type: ignore[method-assign]
        connection.start()
        connection._thread.join(PATIENCE_S)
        assert connection.ended and not connection.up and connection.why == "too slow"
        assert connection._client._thread is None, "nothing runs on"


@pytest.mark.parametrize(
    ("host", "words"), [("nosuch.invalid", "cannot be resolved"), ("a" * 70, "cannot be resolved")]
)
def test_a_name_that_does_not_resolve(host: str, words: str) -> None:
    connection = Connection(Mqtt(host=host, insecure_lan=True), "me", ("a", b""), "", [], None, lambda: None)
    connection.start()
    assert words in ended(connection) and "[mqtt] host" in connection.why
