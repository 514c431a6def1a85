"""A station's whole life, by the commands that people type, for the box of ``sealed_box``, at the default endpoints.

Rendered frames, calibration, bundle; an inspector with the CPU engine that scores a camera's frames; all four gateways,
each read by a client of its protocol; what else opens a bundle or looks at the machine. Ends with 1 and the logs when
any of it did not work: what was not done proves nothing.

    python tests/system/sealed_station.py    # in an empty folder
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import asyncua

from tests.runtime.gateways.amqtt_broker import PROGRAM as BROKER

PATIENCE_S = 180.0
"""For a crowded machine; nothing here is a measurement."""
FRAMES = 6
UNKNOWN = 0
"""``Verdict.UNKNOWN``. Nothing of ours is imported here: the commands would inherit what it sets."""
GATEWAYS = ("modbus", "opcua", "mqtt", "http")
MQTT_PORT = 1883
NAMED = {
    *(f"tcp 127.0.0.1:{port}" for port in (5560, 5561)),  # frames and results of an inspector (station.toml)
    *(f"tcp 127.0.0.1:{port}" for port in (5020, 4840, MQTT_PORT, 8088)),  # gateways and the broker (gateway.toml)
    *(f"tcp 127.0.0.1:{port}" for port in (6560, 6561)),  # frames and results of the simulated station, named below
}
"""What this station's configuration names and this program has called."""
READ_REGISTERS = bytes.fromhex("0001 0000 0006 01 03 0000 0001")
"""Modbus TCP: the first holding register of unit 1."""

TIMED_SHORTLY = """
import sys
from asperity.export import bundle
from asperity.runtime.cli import main
bundle.export_bundle.__kwdefaults__["timing_s"] = 0.5
sys.argv[0] = "asperity"
main()
"""
"""``asperity``, which measures the time of a few frames instead of a hundred: each does what the first one does."""


def asperity(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "asperity.runtime.cli", *arguments]


class Process:
    """Something in the background, with its log; it is terminated at the end."""

    everyone: ClassVar[list[Process]] = []

    def __init__(self, name: str, command: list[str]) -> None:
        self.name, self._log = name, Path(f"{name}.log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.everyone.append(self)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def says(self, words: str) -> None:
        """Wait for words in its log."""

        def said() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended with {self._process.poll()}")
            return words in self.log()

        until(said, f"{words!r} of {self.name}")

    def succeeds(self) -> str:
        """Wait for its end; its log."""
        if code := self._process.wait(PATIENCE_S):
            raise RuntimeError(f"{self.name} has ended with {code}")
        return self.log()

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()


def until(condition: Callable[[], bool], what: str) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > ends_s:
            raise RuntimeError(f"{what} did not come")
        time.sleep(0.05)


def calibrate() -> None:
    """Frames, a calibration and a bundle."""
    write = ("--write", "normals", "--size", "128", "--train", "20", "--test", "1", "--defects", "dent")
    Process("virtual", asperity("camera", "virtual", *write)).succeeds()
    flags = ("-o", "station", "--method", "frozen", "--recipe", "bracket", "--threads", "1", "--no-smallest-defect")
    Process("calibrate", [sys.executable, "-c", TIMED_SHORTLY, "calibrate", "normals", *flags]).succeeds()


def look_around() -> list[Process]:
    """What needs no bundle."""
    wire = ("--frames", "tcp://127.0.0.1:6560", "--results", "tcp://127.0.0.1:6561", "--bulk", "tcp://127.0.0.1:6562")
    return [
        Process("doctor", asperity("doctor", "--engine", "cpu")),
        Process("simulate", asperity("simulate", "--once", "--rate", "20", "--station", "made", *wire)),
    ]


def serve() -> dict[str, Process]:
    """The gateways, which wait for their station, and a broker."""
    broker = Process("broker", [sys.executable, "-c", BROKER, str(MQTT_PORT)])
    Path("gateway.toml").write_text('[mqtt]\nversion = "3.1.1"\n')
    gateways = {name: Process(name, asperity("gateway", name, "--config", "gateway.toml")) for name in GATEWAYS}
    return {"broker": broker, **gateways}


def inspect() -> dict[str, Process]:
    """An inspector, whose engine scores the frames of a camera; and what else opens a bundle meanwhile."""
    inspector = Process("run", asperity("run", "station/bundle", "--threads", "1"))
    others = [
        Process("score", asperity("score", "station/bundle", "normals", "--limit", "2")),
        Process("inspect", asperity("inspect", "station/bundle")),
    ]
    inspector.says("is active")
    watch = Process("watch", asperity("watch", "result", "--json"))
    camera = Process("replay", asperity("camera", "replay", "normals", "--loop", "--rate", "4"))
    until(lambda: len(judged(watch.log())) >= FRAMES, f"{FRAMES} frames that were scored")
    for process in others:
        process.succeeds()
    return {"inspector": inspector, "camera": camera}


def judged(watched: str) -> list[int]:
    """The verdicts but unknown, which a slow machine gives too, of whole lines of ``asperity watch``."""
    verdicts = [json.loads(line)["verdict"] for line in watched.splitlines(keepends=True) if line.endswith("}\n")]
    return [verdict for verdict in verdicts if verdict != UNKNOWN]


def read() -> None:
    """Every gateway as a client of its protocol sees it."""
    until(lambda: page("readyz").startswith("200"), "the gateways' trust in the station")
    if "asperity" not in page("metrics"):
        raise RuntimeError("the HTTP gateway has no figures")
    with socket.create_connection(("127.0.0.1", 5020), PATIENCE_S) as modbus:
        modbus.sendall(READ_REGISTERS)
        if modbus.recv(256)[:4] != READ_REGISTERS[:4]:
            raise RuntimeError("the Modbus gateway answered another request")
    asyncio.run(browse())


def page(name: str) -> str:
    """Status and text of a page of the HTTP gateway; empty while it has none."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:8088/{name}", timeout=PATIENCE_S) as answer:
        return f"{answer.status} {answer.read().decode()}"
    return ""


async def browse() -> None:
    async with asyncua.Client("opc.tcp://127.0.0.1:4840", timeout=PATIENCE_S) as client:
        if not await client.nodes.objects.get_children():
            raise RuntimeError("the OPC UA gateway shows nothing")


def main() -> int:
    assert "asperity" not in sys.modules
    try:
        others = look_around()
        calibrate()
        running = serve()
        for process in others:
            process.succeeds()
        running |= inspect()
        running["mqtt"].says("connected to the broker")
        read()
        for process in running.values():
            process.says("")  # still there
    except Exception:  # noqa: BLE001 - told with every log
        traceback.print_exc()
        for process in Process.everyone:
            print(f"---- {process.name}\n{process.log()[-3000:]}")
        return 1
    finally:
        for process in reversed(Process.everyone):
            process.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
