"""`asperity gateway mqtt` on a real inspector and a real broker: amqtt (MQTT 3.1.1), and mosquitto (5) where it is."""

from __future__ import annotations

import datetime
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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

from runtime.errors import ConfigError
from runtime.frame import Result, Verdict
from runtime.reasons import Reason
from tests.gateways.floor import GatewayProcess, until
from tests.system.line import PATIENCE_S, STATION, Camera, Line, kill

RUNNING = 8
BASE = f"asperity/{STATION}"
FALL_S = 5.0
"""Generous, for a crowded machine; the measured time is printed."""
AMQTT = """
import asyncio, logging, sys
from amqtt.broker import Broker
logging.disable(logging.CRITICAL)
async def main():
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:" + sys.argv[1]}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    await asyncio.Event().wait()
asyncio.run(main())
"""
TOML = """
[gateway]
accept_simulated = true
accept_hold_ms = 3_600_000
[mqtt]
version = "{version}"
commands = true
state_file = "{folder}/state"
keepalive_s = 60
retry_max_ms = 300
"""


def free_port() -> int:
    """One that the kernel gives to nobody by itself, such as to a client that looks for the broker while it is away."""
    kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(kernels // 2, kernels)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Broker:
    """A broker that others wrote, as a process."""

    def __init__(self, line: Line, kind: str) -> None:
        self.kind, self._line = kind, line
        self.version = "5" if kind == "mosquitto" else "3.1.1"
        ended: int | None = 1
        while ended is not None:  # another process may have taken the port meanwhile
            self.port = free_port()
            ended = self.start()

    def start(self) -> int | None:
        """None once it listens; its exit code if it cannot."""
        command = [sys.executable, "-c", AMQTT, str(self.port)]
        if self.kind == "mosquitto":
            file = self._line.folder / "mosquitto.conf"
            file.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n")
            command = [str(MOSQUITTO), "-c", str(file)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._line.processes.append(self.process)
        until(lambda: self.process.poll() is not None or self.listens(), "the broker")
        return self.process.poll()

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


MOSQUITTO = _mosquitto()


class Subscriber:
    """Keeps everything that the broker says of the station, in order."""

    def __init__(self, broker: Broker) -> None:
        self.heard: list[tuple[str, dict[str, Any], float]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
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
        self.heard.append((name, msgspec.json.decode(message.payload), time.monotonic()))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [body for topic, body, _ in list(self.heard) if topic == name]

    def last(self, name: str) -> dict[str, Any]:
        return next((body for topic, body, _ in reversed(list(self.heard)) if topic == name), {})

    def publish(self, name: str, body: bytes) -> None:
        self._client.publish(f"{BASE}/{name}", body, qos=1)

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


GOOD: dict[str, Any] = {"reason": Reason.GOOD, "score": 0.25, "threshold": 0.5}


def test_a_control_that_must_fail_the_watcher_finds_lies() -> None:
    ng = {3: Result(station=STATION, session="", result_id=3)}
    ok = {4: Result(station=STATION, session="", result_id=4, verdict=Verdict.OK, **GOOD)}
    assert lies([("result", {"accept": True, "result_id": 3})], ng)
    assert lies([("accept", {"accept": True, "result_id": 4}), ("result", {"accept": False, "result_id": 5})], ok)
    assert not lies([("accept", {"accept": True, "result_id": 4}), ("accept", {"accept": False})], ok)


@pytest.fixture(
    scope="module",
    params=[
        "amqtt",
        pytest.param(
            "mosquitto",
            marks=[pytest.mark.foreign, pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")],
        ),
    ],
)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    # Many faults: where a crowded machine drops frames between them, three "nan" in a row come by chance.
    with Line("ok ok ng nan refuse shape", limits={"engine_faults_max": 1000}) as line:
        line.start()
        line.await_state(RUNNING)
        yield Broker(line, request.param)


@pytest.fixture
def line(broker: Broker) -> Line:
    return broker._line


@pytest.fixture
def camera(line: Line) -> Iterator[Camera]:
    with Camera(line) as camera:
        camera.wait_connected(10_000)
        yield camera


@pytest.fixture
def ear(broker: Broker) -> Iterator[Subscriber]:
    ear = Subscriber(broker)
    yield ear
    ear.close()


def start_gateway(broker: Broker, folder: Path) -> GatewayProcess:
    toml = TOML.format(version=broker.version, folder=folder)
    gateway = GatewayProcess(broker._line, "mqtt", toml, "--port", str(broker.port))
    gateway.port()
    return gateway


def trusted(ear: Subscriber, began: int = 0) -> Callable[[], bool]:
    return lambda: any(topic == "state" and body["trusted"] for topic, body, _ in ear.heard[began:])


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
            camera.stream(line, 1, 0)
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


def test_results_commands_kills_and_restarts(
    broker: Broker, line: Line, camera: Camera, ear: Subscriber, tmp_path: Path
) -> None:
    gateway = start_gateway(broker, tmp_path)
    until(trusted(ear), "a trusted state")
    camera.stream(line, 30, 10)
    until(told(ear, max(line.settle(camera))), "30 results")

    assert len(asked(ear, "get_result", **{"from": 1, "to": 2})["results"]) == 2
    assert asked(ear, "prepare_recipe", recipe="nosuch")["code"] == "REFUSED"
    ear.publish("command/trigger", b"{")
    until(lambda: bool(ear.of("reply/none")), "the reply")
    assert ear.last("reply/none")["code"] == "BAD_REQUEST"

    # The gateway is killed: the broker gives the will; started again it goes on where it was.
    began_s = time.monotonic()
    kill(gateway.process)
    until(lambda: ear.last("accept").get("why") == "the gateway is gone", "the will")
    print(f"{broker.kind}: kill -9 of the gateway: accept false after {(time.monotonic() - began_s) * 1000:.0f} ms")
    camera.stream(line, 10, 10)
    meanwhile = max(line.settle(camera))
    began = len(ear.heard)
    gateway = start_gateway(broker, tmp_path)
    until(lambda: any(name == "online" and body["online"] for name, body, _ in ear.heard[began:]), "the gateway again")
    until(trusted(ear, began), "a trusted state")
    until(told(ear, meanwhile), "what was judged meanwhile")
    late = [body for topic, body, _ in ear.heard[began:] if topic == "result"]
    assert not any(body["accept"] for body in late), "what was judged before it was there may not pass"
    passing(ear, line, camera)

    # The broker dies and comes back. It keeps nothing, so the ear must be there before the gateway goes on.
    ear.subscribed.clear()
    kill(broker.process)
    camera.stream(line, 10, 10)
    gateway.process.send_signal(signal.SIGSTOP)
    broker.start()
    assert ear.subscribed.wait(PATIENCE_S)
    gateway.process.send_signal(signal.SIGCONT)
    until(told(ear, max(line.settle(camera))), "what waited for the broker")
    camera.stream(line, 6, 10)
    journal = line.settle(camera)
    until(lambda: ear.of("result")[-1]["seq"] == camera.seq, "results over the new broker")
    ear.check(journal)

    began_s = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(PATIENCE_S) == 0, gateway.log()
    print(f"{broker.kind}: SIGTERM: ended after {time.monotonic() - began_s:.2f} s")
    until(lambda: not ear.last("online")["online"], "offline")
    assert not ear.last("accept")["accept"]


def test_a_stopped_or_killed_inspector_withdraws_accept(broker: Broker, tmp_path: Path) -> None:
    with Line("ok") as line, Camera(line) as camera:
        own = Broker(line, broker.kind)
        gateway = start_gateway(own, tmp_path)
        ear = Subscriber(own)
        try:
            until(lambda: bool(ear.last("state") and ear.last("accept")), "what the broker keeps")
            assert not ear.last("state")["ready"]
            assert not ear.last("accept")["accept"]
            line.start()
            for cause in (signal.SIGSTOP, signal.SIGKILL):
                until(lambda: ear.last("state").get("trusted") is True, "a trusted state, without hands")
                passing(ear, line, camera)
                began_s = time.monotonic()
                os.kill(line.processes[-1].pid, cause)
                until(lambda: not ear.last("accept")["accept"] and not ear.last("state")["trusted"], "the fall", 0.002)
                fell_s = time.monotonic() - began_s
                print(f"{broker.kind}: {cause.name}: accept withdrawn after {fell_s * 1000:.0f} ms")
                assert fell_s < FALL_S
                if cause is signal.SIGSTOP:
                    os.kill(line.processes[-1].pid, signal.SIGCONT)
                else:
                    kill(line.processes[-1])
                    line.start()
            until(lambda: ear.last("state")["trusted"], "a trusted state again")
            assert not ear.last("accept")["accept"], "the same part never passes again"
            assert gateway.process.poll() is None
        finally:
            ear.close()


def test_a_broker_that_is_away_is_said_once_and_tried_on(broker: Broker, line: Line, tmp_path: Path) -> None:
    gateway = GatewayProcess(line, "mqtt", TOML.format(version="5", folder=tmp_path), "--port", str(free_port()))
    until(lambda: "no connection to the broker" in gateway.log(), "a word about it")
    time.sleep(1.0)  # several tries
    assert gateway.log().count("no connection to the broker") == 1
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(PATIENCE_S) == 0
    assert list(itertools.islice(tmp_path.iterdir(), 1)) == [], "nothing was sent, so nothing is on file"


@pytest.mark.foreign
@pytest.mark.skipif(MOSQUITTO is None or not shutil.which("mosquitto_passwd"), reason="mosquitto is not installed")
def test_tls_and_a_password_from_a_file(tmp_path: Path) -> None:
    with Line("ok") as line:
        key, certificate = tmp_path / "broker.key", tmp_path / "broker.pem"
        make_certificate(key, certificate)
        passwords, secret = tmp_path / "passwords", tmp_path / "secret"
        subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "gate", "correct horse"], check=True)
        secret.touch(mode=0o600)
        secret.write_text("correct horse\n")
        for path in (tmp_path.parent.parent, tmp_path.parent, tmp_path, key, certificate, passwords):
            path.chmod(0o755)  # mosquitto drops to its own user
        port, file = free_port(), tmp_path / "mosquitto.conf"
        file.write_text(
            f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\nallow_anonymous false\n"
            f"password_file {passwords}\n"
        )
        line.processes.append(subprocess.Popen([str(MOSQUITTO), "-c", str(file)], stderr=subprocess.DEVNULL))

        def gateway(ca: Path, password: str) -> GatewayProcess:
            own = (
                f'[mqtt]\ntls = true\nhost = "localhost"\nca_file = "{ca}"\nuser = "gate"\nretry_max_ms = 300\n'
                f'password_file = "{secret}"\nstate_file = "{tmp_path}/state"\n'
            )
            secret.write_text(password)
            return GatewayProcess(line, "mqtt", own, "--port", str(port))

        good = gateway(certificate, "correct horse\n")
        until(lambda: "connected to the broker" in good.log(), "a connection over TLS")
        other_key, other = tmp_path / "other.key", tmp_path / "other.pem"
        make_certificate(other_key, other)
        stranger = gateway(other, "correct horse\n")
        until(lambda: "CERTIFICATE_VERIFY_FAILED" in stranger.log().upper(), "that the broker is not believed")
        wrong = gateway(certificate, "wrong horse\n")
        until(lambda: "the broker refused" in wrong.log(), "that the password is refused")
        assert "horse" not in good.log() + stranger.log() + wrong.log(), "no secret in a log"
        for process in (good, stranger, wrong):
            process.process.send_signal(signal.SIGTERM)
            assert process.process.wait(PATIENCE_S) == 0
        secret.chmod(0o644)
        open_to_all = gateway(certificate, "correct horse\n")
        assert open_to_all.process.wait(PATIENCE_S) == ConfigError.exit_code and "chmod 600" in open_to_all.log()


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
