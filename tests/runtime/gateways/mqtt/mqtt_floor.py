"""What the tests of the MQTT gateway stand on: a real broker, a subscriber that keeps everything, a liar's watcher."""

from __future__ import annotations

import datetime
import itertools
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from asperity.runtime.frame import Result, Verdict
from asperity.testing import PATIENCE_S, STATION, Camera, Line
from asperity.testing.site import free_port
from tests.runtime.gateways.amqtt_broker import PROGRAM as AMQTT
from tests.runtime.gateways.floor import GatewayProcess, until

RUNNING = 8
BASE = f"asperity/{STATION}"
TOML = """
[gateway]
accept_simulated = true
accept_hold_ms = 3_600_000
[mqtt]
clash_quiet_ms = 2000
version = "{version}"
commands = true
state_file = "{folder}/state"
keepalive_s = 60
retry_max_ms = 300
"""


def open_to_mosquitto(folder: Path) -> None:
    """Let every user enter a temporary folder: mosquitto drops to its own."""
    root = Path(tempfile.gettempdir()).resolve()
    for each in (folder.resolve(), *folder.resolve().parents):
        if each == root:
            return
        each.chmod(0o755)


class Broker:
    """A broker that others wrote, as a process."""

    def __init__(self, line: Line, kind: str, acl: str = "") -> None:
        """``acl``: lines of mosquitto's access list."""
        self.kind, self.line, self._acl = kind, line, acl
        self.version = "5" if kind == "mosquitto" else "3.1.1"
        ended: int | None = 1
        while ended is not None:  # another process may have taken the port meanwhile
            self.port = free_port()
            ended = self.start()

    def start(self) -> int | None:
        """None once it listens; its exit code if it cannot."""
        command = [sys.executable, "-c", AMQTT, str(self.port)]
        if self.kind == "mosquitto":
            file = self.line.folder / "mosquitto.conf"
            text = f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n"
            if self._acl:
                acl = self.line.folder / "acl"
                acl.write_text(self._acl)
                text += f"acl_file {acl}\n"
                self.line.folder.chmod(0o755)  # mosquitto drops to its own user
            file.write_text(text)
            command = [str(MOSQUITTO), "-c", str(file)]
        self.process = self.line.spawn(*command)
        until(lambda: self.process.poll() is not None or listens(self.port), "address of the broker")
        return self.process.poll()


def listens(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


MOSQUITTO = _mosquitto()


class Subscriber:
    """Keeps everything that the broker says of the station, in order."""

    def __init__(self, broker: Broker, user: str = "") -> None:
        self.heard: list[tuple[str, dict[str, Any], float]] = []
        self.retained: list[bool] = []
        """Of each message in ``heard``: was it kept from before the subscription."""
        self.raw: dict[str, list[bytes]] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        if user:
            self._client.username_pw_set(user)
        self._client.on_connect = lambda client, *rest: client.subscribe(f"{BASE}/#", qos=1)
        self.subscribed = threading.Event()
        self._client.on_subscribe = lambda *rest: self.subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self.subscribed.wait(PATIENCE_S)

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        name = message.topic.removeprefix(BASE + "/")
        if name.startswith("command/"):
            return
        self.raw.setdefault(name, []).append(message.payload)
        self.retained.append(message.retain)
        self.heard.append((name, msgspec.json.decode(message.payload), time.monotonic()))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [body for topic, body, _ in list(self.heard) if topic == name]

    def last(self, name: str) -> dict[str, Any]:
        return next((body for topic, body, _ in reversed(list(self.heard)) if topic == name), {})

    def publish(self, name: str, body: bytes, retain: bool = False) -> None:
        self._client.publish(f"{BASE}/{name}", body, qos=1, retain=retain)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def check(self, journal: dict[int, Result]) -> None:
        """Order, none twice, everything missing named, and no accept without an ok of the station."""
        numbers = [body["result_id"] for body in self.of("result")]
        assert numbers == sorted(set(numbers)), "in order, none twice"
        gaps = [(body["first_id"], body["last_id"]) for body in self.of("gap")]
        named = {number for first, last in gaps for number in range(first, last + 1)}
        unnamed = set(range(numbers[0], numbers[-1] + 1)) - set(numbers) - named
        assert not unnamed, f"neither told nor named: {sorted(unnamed)}"
        assert not lies([(topic, body) for topic, body, _ in self.heard], journal)


def lies(told: list[tuple[str, dict[str, Any]]], journal: dict[int, Result]) -> list[dict[str, Any]]:
    """Messages with accept true of a result that the station did not judge ok, and any that is not yet taken back
    while the next result is told."""
    wrong, standing = [], 0
    for topic, body in told:
        if topic in ("result", "accept") and body["accept"]:
            known = journal.get(body["result_id"])
            if known is None or known.verdict is not Verdict.OK:
                wrong.append(body)
        if topic == "accept":
            standing = body["result_id"] if body["accept"] else 0
        elif topic == "result" and standing not in (0, body["result_id"]):
            wrong.append(body)
    return wrong


BROKERS = [
    "amqtt",
    pytest.param(
        "mosquitto",
        marks=[pytest.mark.foreign, pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")],
    ),
]


def start_gateway(broker: Broker, folder: Path) -> GatewayProcess:
    toml = TOML.format(version=broker.version, folder=folder)
    gateway = GatewayProcess(broker.line, "mqtt", toml, "--port", str(broker.port))
    gateway.port()
    return gateway


def trusted(ear: Subscriber, began: int = 0) -> Callable[[], bool]:
    return lambda: any(topic == "state" and body.get("trusted") for topic, body, _ in ear.heard[began:])


def told(ear: Subscriber, result_id: int) -> Callable[[], bool]:
    """A result was told, or named among those that are not."""

    def come() -> bool:
        gaps = [(body["first_id"], body["last_id"]) for body in ear.of("gap")]
        numbers = [body["result_id"] for body in ear.of("result")]
        return result_id in numbers or any(first <= result_id <= last for first, last in gaps)

    return come


def passing(ear: Subscriber, line: Line, camera: Camera) -> None:
    """Until a part may pass. Where a crowded machine was late for one, another is sent once it is answered."""
    began, first = len(ear.heard), camera.seq + 1

    def passes() -> bool:
        said = [(topic, body) for topic, body, _ in ear.heard[began:]]
        last = [body["accept"] for topic, body in said if topic == "result" and body["seq"] == camera.seq]
        if camera.seq < first or last == [False]:
            line.stream(camera, 1, 0)
        return any(topic == "accept" and body["accept"] for topic, body in said)

    until(passes, "a part that may pass")


def asked(ear: Subscriber, op: str, **fields: Any) -> dict[str, Any]:
    """The reply; asked again where a crowded machine let the station give none."""
    for number in itertools.count(1):
        name = f"{op}-{number}"
        ear.publish(f"command/{op}", msgspec.json.encode({"id": name, **fields}))
        until(lambda name=name: bool(ear.of(f"reply/{name}")), "the reply")  # type: ignore[misc]
        if ear.last(f"reply/{name}")["code"] != "FAILED":
            break
    return ear.last(f"reply/{name}")


def make_certificate(key: Path, certificate: Path) -> None:
    """A certificate for localhost that proves itself."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    no_password = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(private.private_bytes(pem, pkcs8, no_password))
    certificate.write_bytes(made.public_bytes(pem))
