"""Runs the blocks of the pages: what each kind is run by, and the simulated station that they meet."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asperity.runtime import wire
from asperity.runtime.cameras import camera_toml
from asperity.runtime.cameras import source as camera_source
from asperity.runtime.errors import ConfigError, WireError
from asperity.runtime.gateways import config as gateway_toml
from asperity.runtime.settings import loading as station_toml
from asperity.runtime.settings.toml_tables import Section
from asperity.runtime.wire.bulk import BulkHeader
from asperity.runtime.wire.frame import FrameHeader
from tests.docs.blocks import Block
from tests.docs.command_lines import commands, is_placeholder
from tests.examples.structured_text import Block as StBlock
from tests.examples.structured_text import Program
from tests.places import EXAMPLES, ROOT

LIMIT_S = 60.0
CLI = [sys.executable, "-m", "asperity.runtime.cli"]
ENDPOINTS = {
    "frames": "tcp://127.0.0.1:5560",
    "results": "tcp://127.0.0.1:5561",
    "bulk": "tcp://127.0.0.1:5562",
    "control": "",
}
LIVE = ("asperity simulate", "asperity watch", "asperity gateway")
"""Commands that go on until they are stopped: run as soon as they have said something, then ended."""
NOT_RUN = {
    "asperity bench": "measures for minutes",
    "asperity calibrate": "minutes: run by make demo",
    "asperity camera": "needs an inspector with an engine: run by tests/system",
    "asperity doctor": "seconds of CPU: run by tests/runtime/doctor",
    "asperity engines build": "needs TensorRT",
    "asperity evaluate": "needs a data set",
    "asperity gateway user": "asks for a password",
    "asperity inspect": "needs a bundle: run by make demo",
    "asperity run": "needs a bundle: run by make demo",
    "asperity tune": "minutes",
    "cc": "run by tests/examples",
    "cd": "leads to the reader's folder",
    "cmake": "needs nvcc",
    "export": "sets what the reader's shell needs",
    "gcc": "run by tests/examples",
    "git": "needs a network",
    "make": "sets up an environment first",
    "node": "run by tests/examples",
    "npm": "needs a network",
    "pip": "changes the environment",
    "python -m asperity.benchmarks": "measures for minutes",
    "python -m asperity.runtime.cuda.build": "needs nvcc",
    "python -m pip": "changes the environment",
    "python -m pytest": "runs tests",
    "python -m venv": "changes the environment",
    "python examples": "run by tests/examples",
    "systemctl": "needs a supervisor",
}
"""Beginning of a command -> why no test of the pages runs it; that it exists is checked all the same."""
ADDRESSED: dict[str, Callable[[Sequence[bytes]], object]] = {
    "state": wire.decode_state,
    "event": wire.decode_event,
    "trigger": wire.decode_trigger,
}
BODIES: Sequence[Callable[[bytes], object]] = (wire.decode_reply, wire.decode_result_body)
HEADERS: Sequence[type[msgspec.Struct]] = (FrameHeader, BulkHeader)


class Station:
    """A simulated station on sockets of its own, started when the first block needs it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="asp-"))
        self.endpoints = {name: f"ipc://{self.folder}/{name}" for name in ENDPOINTS}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        if self._process is None:
            where = [f"--{name}={endpoint}" for name, endpoint in self.endpoints.items()]
            command = [*CLI, "simulate", "--rate=20", "--script=ok ng STALE", *where]
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(LIMIT_S)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def own_folder(station: Station) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder for the commands of one block, with a gateway.toml for the station, and their environment."""
    folder = Path(tempfile.mkdtemp(prefix="asp-"))
    lines = ["[station]", *(f'{name} = "{station.endpoints[name]}"' for name in ("results", "control"))]
    for gateway in ("modbus", "opcua", "http", "ethernetip"):
        with socket.create_server(("127.0.0.1", 0)) as found:
            lines += [f"[{gateway}]", f"port = {found.getsockname()[1]}"]
    lines.append("cyclic_port = 0")
    (folder / "gateway.toml").write_text("\n".join(lines) + "\n")
    own = {"ASPERITY_KEYS": str(folder / "keys"), "XDG_STATE_HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    try:
        yield folder, {**os.environ, **own, "XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def why_not(words: list[str]) -> str:
    """Why a command is not run; empty: it is."""
    if any(is_placeholder(word) for word in words[1:]):
        return "names something of the reader's"
    program = words[0].rpartition("/")[2]
    plain = " ".join(["python" if program == "python3" else program, *words[1:]])
    return next((why for begin, why in NOT_RUN.items() if f"{plain} ".startswith(tuple(begin + c for c in " ./"))), "")


def shell(block: Block, station: Station) -> None:
    """Each command that can be run, one after another, in one folder."""
    with own_folder(station) as (folder, environment):
        for words in commands(block.text):
            if why_not(words):
                continue
            assert words[0] == "asperity", f"neither run here nor is there a reason why not: {' '.join(words)}"
            line = " ".join(words)
            if live := line.startswith(LIVE):
                station.start()
            _run([*CLI, *words[1:], *_where(line, station, folder)], folder, environment, live)


def _where(line: str, station: Station, folder: Path) -> list[str]:
    """What leads a command to the station of the test, instead of to the usual addresses."""
    if line.startswith("asperity simulate"):
        return [f"--{name}=ipc://{folder}/{name}" for name in ENDPOINTS]
    if line.startswith("asperity watch"):
        return [f"--{name}={station.endpoints[name]}" for name in ("results", "bulk")]
    return ["--config=gateway.toml"] if line.startswith("asperity gateway") and "--config" not in line else []


def _run(command: list[str], folder: Path, environment: dict[str, str], live: bool) -> None:
    """Run to its end, which must be a good one; ``live``: or until it says something that is not an error."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    limit = threading.Timer(LIMIT_S, process.kill)
    limit.start()
    try:
        said = process.stdout.readline() if live else ""
        if said and not said.startswith(("asperity:", "Traceback", "Usage")):
            return
        said += process.communicate()[0]
        assert process.returncode == 0, f"{' '.join(command[3:])} ended with {process.returncode}: {said}"
    finally:
        limit.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def python(block: Block, station: Station) -> None:
    """As a program against the station; one that goes on for ever is ended once it has printed something."""
    station.start()
    text = block.text
    for name, usual in ENDPOINTS.items():
        text = text.replace(usual, station.endpoints[name]) if usual else text
    endless = any(isinstance(node, (ast.For, ast.While)) for node in ast.walk(ast.parse(text)))
    with own_folder(station) as (folder, environment):
        _run([sys.executable, "-u", "-c", text], folder, environment, live=endless)


def toml(block: Block, station: Station) -> None:
    """A file of a station, its gateways or one of its cameras."""
    faults = []
    with own_folder(station) as (folder, _):
        path = folder / "block.toml"
        path.write_text(block.text)
        for load in (station_toml.load, gateway_toml.load, _load_camera):
            try:
                load(path)
            except ConfigError as error:
                faults.append(str(error))
    assert len(faults) < 3, f"neither station.toml nor gateway.toml nor camera.toml: {' / '.join(faults)}"


def _load_camera(path: Path) -> None:
    """For the source whose table is in it."""
    own = [name for name in re.findall(r"^\[([\w-]+)\]", path.read_text(), re.M) if name not in ("camera", "live")]
    options = camera_source.load(own[0]).options if own and own[0] in camera_source.names() else Section
    camera_toml.load(own[0] if own else "mine", options, path)


def json_(block: Block, station: Station) -> None:
    """JSON, one value or several; one with the wire's version in it is a message of the wire."""
    text, at = block.text.strip(), 0
    while at < len(text):
        values, end = json.JSONDecoder().raw_decode(text, at)
        at = end + len(text[end:]) - len(text[end:].lstrip())
        if isinstance(values, dict) and "v" in values:
            assert _is_message(values), "no message of the wire has these fields"


def _is_message(values: dict[str, Any]) -> bool:
    body = json.dumps(values).encode()
    if "op" in values:
        return wire.decode_request(body).op in wire.OPERATIONS
    tries = [(decode, body) for decode in BODIES]
    tries += [(decode, [f"{kind}/{values.get('station')}/".encode(), body]) for kind, decode in ADDRESSED.items()]
    tries += [(lambda given, kind=kind: msgspec.convert(given, kind), values) for kind in HEADERS]
    for decode, given in tries:
        with suppress(WireError, msgspec.ValidationError):
            decode(given)
            return True
    return False


def structured_text(block: Block, station: Station) -> None:
    """Called once by the translation of examples/plc; names that are not declared are the reader's."""
    sources = [*sorted((EXAMPLES / "generated").glob("*.st")), *sorted((EXAMPLES / "plc").glob("*.st"))]
    plain = re.sub(r"\(\*.*?\*\)", "", block.text, flags=re.S)
    declared = re.findall(r"^\s*\w+ : \w+;\s*$", plain, re.M)
    body = re.sub(r"^\s*\w+ : \w+;\s*$", "", plain, flags=re.M)
    unit = "FUNCTION_BLOCK PAGE\nVAR\n" + "\n".join(declared) + "\nEND_VAR\n" + body + "\nEND_FUNCTION_BLOCK\n"
    program = StBlock(Program(*(path.read_text() for path in sources), unit), "PAGE")
    for called, arguments in re.findall(r"(\w+)\(([^)]*)\)", body):
        inputs = set(re.findall(r"(\w+) :=", arguments))
        assert inputs <= set(vars(getattr(program, called))), f"{called} has no {inputs}"
    readers = dict.fromkeys(re.findall(r":= (\w+)\b(?!\.)", body), False)
    program(**readers | {name: [0] * 256 for name in re.findall(r"words := (\w+)", body)})


def compiler(*command: str) -> Callable[[Block, Station], None]:
    """The block on the compiler's standard input."""

    def run(block: Block, station: Station) -> None:
        if shutil.which(command[0]) is None:
            pytest.skip(f"no {command[0]}")
        done = subprocess.run(command, input=block.text, text=True, capture_output=True, check=False, timeout=LIMIT_S)
        assert done.returncode == 0, done.stderr

    return run


RUN_BY: dict[str, Callable[[Block, Station], None]] = {
    "c": compiler("gcc", "-fsyntax-only", "-std=c11", f"-I{EXAMPLES / 'generated'}", "-xc", "-"),
    "js": compiler("node", "--input-type=module", "--check", "-"),
    "json": json_,
    "python": python,
    "sh": shell,
    "st": structured_text,
    "toml": toml,
    "text": lambda block, station: None,
}
