"""`asperity gateway mqtt` on a real inspector and a real broker: amqtt (MQTT 3.1.1), and mosquitto (5) where it is."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime.errors import ConfigError
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.reasons import Reason
from asperity.testing import PATIENCE_S, STATION, Camera, Line
from asperity.testing.site import free_port
from tests.runtime.gateways.floor import GatewayProcess, until
from tests.runtime.gateways.mqtt.mqtt_floor import (
    BROKERS,
    MOSQUITTO,
    RUNNING,
    TOML,
    Broker,
    Subscriber,
    asked,
    lies,
    make_certificate,
    open_to_mosquitto,
    passing,
    start_gateway,
    told,
    trusted,
)

pytestmark = pytest.mark.usefixtures("forked_starts")

FALL_S = 5.0
"""Generous, for a crowded machine; the measured time is printed."""
GOOD: dict[str, Any] = {"reason": Reason.GOOD, "score": 0.25, "threshold": 0.5}


def test_a_control_that_must_fail_the_watcher_finds_lies() -> None:
    ng = {3: Result(station=STATION, session="", result_id=3)}
    ok = {4: Result(station=STATION, session="", result_id=4, verdict=Verdict.OK, **GOOD)}
    assert lies([("result", {"accept": True, "result_id": 3})], ng)
    assert lies([("accept", {"accept": True, "result_id": 4}), ("result", {"accept": False, "result_id": 5})], ok)
    assert not lies([("accept", {"accept": True, "result_id": 4}), ("accept", {"accept": False})], ok)


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    # Many faults: where a crowded machine drops frames between them, three "nan" in a row come by chance.
    with Line("ok ok ng nan refuse shape", limits={"engine_faults_max": 1000}) as line:
        line.start()
        line.await_state(RUNNING)
        yield Broker(line, request.param)


@pytest.fixture
def line(broker: Broker) -> Line:
    return broker.line


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


def test_results_commands_kills_and_restarts(
    broker: Broker, line: Line, camera: Camera, ear: Subscriber, tmp_path: Path
) -> None:
    gateway = start_gateway(broker, tmp_path)
    until(trusted(ear), "a trusted state")
    line.stream(camera, 30, 10)
    until(told(ear, max(line.settle(camera))), "30 results")

    assert len(asked(ear, "get_result", **{"from": 1, "to": 2})["results"]) == 2
    assert asked(ear, "prepare_recipe", recipe="nosuch")["code"] == "REFUSED"
    ear.publish("command/trigger", b"{")
    until(lambda: bool(ear.of("reply/none")), "the reply")
    assert ear.last("reply/none")["code"] == "BAD_REQUEST"

    # The gateway is killed: the broker gives the will; started again it goes on where it was.
    began_s = time.monotonic()
    gateway.process.kill()
    until(lambda: ear.last("accept").get("why") == "the gateway has disconnected", "the will")
    print(f"{broker.kind}: kill -9 of the gateway: accept false after {(time.monotonic() - began_s) * 1000:.0f} ms")
    line.stream(camera, 10, 10)
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
    broker.process.kill()
    line.stream(camera, 10, 10)
    gateway.process.send_signal(signal.SIGSTOP)
    broker.start()
    assert ear.subscribed.wait(PATIENCE_S)
    gateway.process.send_signal(signal.SIGCONT)
    until(told(ear, max(line.settle(camera))), "what waited for the broker")
    line.stream(camera, 6, 10)
    journal = line.settle(camera)
    until(lambda: ear.of("result")[-1]["seq"] == camera.seq, "results over the new broker")
    ear.check(journal)

    began_s = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(PATIENCE_S) == 0, gateway.log()
    print(f"{broker.kind}: SIGTERM: ended after {time.monotonic() - began_s:.2f} s")
    # A broker that is slow to acknowledge gives the last will in place of the last word.
    willed = "the gateway has disconnected"
    until(lambda: not ear.last("online")["online"] or ear.last("accept")["why"] == willed, "offline")
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
                os.kill(line.inspector.pid, cause)
                until(lambda: not ear.last("accept")["accept"] and not ear.last("state")["trusted"], "the fall", 0.002)
                fell_s = time.monotonic() - began_s
                print(f"{broker.kind}: {cause.name}: accept withdrawn after {fell_s * 1000:.0f} ms")
                assert fell_s < FALL_S
                if cause is signal.SIGSTOP:
                    os.kill(line.inspector.pid, signal.SIGCONT)
                else:
                    line.kill()
                    line.start()
            until(lambda: ear.last("state")["trusted"], "a trusted state again")
            assert not ear.last("accept")["accept"], "the same part never passes again"
            assert gateway.process.poll() is None
        finally:
            ear.close()


def test_a_broker_that_is_away_is_said_once_and_tried_on(broker: Broker, line: Line, tmp_path: Path) -> None:
    gateway = GatewayProcess(line, "mqtt", TOML.format(version="5", folder=tmp_path), "--port", str(free_port()))
    until(lambda: "cannot reach the broker" in gateway.log(), "a word about it")
    time.sleep(1.0)  # several tries
    assert gateway.log().count("cannot reach the broker") == 1
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(PATIENCE_S) == 0
    assert (tmp_path / "state").read_bytes() == bytes(256), "nothing was sent, so nothing is on file"


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.foreign
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_two_gateways_of_one_client_id_say_so_and_stop_hurrying(version: str, tmp_path: Path) -> None:
    with Line("ok") as line:
        broker = Broker(line, "mosquitto")
        both = []
        for name in "ab":
            (tmp_path / name).mkdir()
            toml = TOML.format(version=version, folder=tmp_path / name).replace("retry_max_ms = 300\n", "")
            toml += 'client_id = "gate"\n'
            both.append(GatewayProcess(line, "mqtt", toml, "--port", str(broker.port)))
        for gateway in both:
            until(lambda gateway=gateway: "ALARM CLIENT_ID" in gateway.log(), "the alarm")  # type: ignore[misc]
            assert "another client uses client id gate: set [mqtt] client_id" in gateway.log()
            assert gateway.log().count("retrying") <= 2, "said once"


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
        open_to_mosquitto(tmp_path)
        for path in (key, certificate, passwords):
            path.chmod(0o755)  # mosquitto drops to its own user
        port, file = free_port(), tmp_path / "mosquitto.conf"
        file.write_text(
            f"listener {port} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}\nallow_anonymous false\n"
            f"password_file {passwords}\n"
        )
        line.spawn(str(MOSQUITTO), "-c", str(file))

        numbers = itertools.count()

        def gateway(ca: Path, password: str) -> GatewayProcess:
            own = (
                f'[mqtt]\ntls = true\nhost = "localhost"\nca_file = "{ca}"\nuser = "gate"\nretry_max_ms = 300\n'
                f'password_file = "{secret}"\nstate_file = "{tmp_path}/state{next(numbers)}"\n'
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
