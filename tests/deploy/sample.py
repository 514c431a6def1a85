"""A folder of deploy/ as a user copies it, on free ports, and the commands of its README as processes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from asperity.runtime.client.station_client import StationClient
from asperity.runtime.wire import ReceivedResult
from asperity.testing.site import ASPERITY, PATIENCE_S, UNHURRIED, free_port
from tests.docs.blocks import blocks
from tests.places import ROOT
from tests.runtime.gateways.floor import until

DEPLOY = ROOT / "deploy"
PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+|(?<=port = )\d+|(?<=--port )\d+|(?<=\"port\": \")\d+")


def readme_commands(name: str) -> list[list[str]]:
    """The commands of each block of a sample's README."""
    return [block.text.splitlines() for block in blocks(DEPLOY / name / "README.md")]


class Sample:
    """For a ``with``: the folder is removed and every process ends."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="asp-"))
        self._ports: dict[str, str] = {}
        self._started: list[Process] = []
        self._ends = ExitStack()
        self._ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
        shutil.copytree(DEPLOY / name, self.folder, dirs_exist_ok=True)
        for path in self.folder.glob("*.*"):
            if path.suffix in (".toml", ".json"):
                path.write_text(self.own(path.read_text()))
        home = {f"XDG_{kind}_HOME": str(self.folder / kind.lower()) for kind in ("STATE", "CONFIG", "CACHE")}
        self._environment = {**os.environ, **home, "XDG_RUNTIME_DIR": str(self.folder)}

    def own(self, text: str) -> str:
        """A file or command with a free port in place of each of its ports, the same for the same one."""
        return PORT.sub(lambda found: self.port(found[0]), text)

    def port(self, shipped: str) -> str:
        """The free port in place of a shipped one."""
        while shipped not in self._ports:
            port = str(free_port())
            if port not in self._ports.values():
                self._ports[shipped] = port
        return self._ports[shipped]

    def start(self, line: str) -> Process:
        """A command as in the README."""
        program, *words = shlex.split(self.own(line))
        command = [sys.executable, "-c", ASPERITY, *words] if program == "asperity" else [program, *words]
        self._started.append(self._ends.enter_context(Process(line, command, self.folder, self._environment)))
        return self._started[-1]

    def client(self, shipped: str, station: str, since: int | None = None) -> StationClient:
        """A client of a station; ``shipped``: the port of its results socket."""
        control = f"ipc://{self.folder}/asperity/{station}.control"
        ends = f"tcp://127.0.0.1:{self.port(shipped)}"
        return StationClient(ends, control, station=station, since=since, limits=UNHURRIED)

    def results(self, shipped: str, station: str, count: int, after: str = "") -> list[ReceivedResult]:
        """The first results of a station, or those that are not of the camera's run ``after``."""
        results: list[ReceivedResult] = []
        with self.client(shipped, station, since=1) as client:

            def come() -> bool:
                items = client.poll(20)
                received = [item for item in items if isinstance(item, ReceivedResult)]
                results.extend(item for item in received if not after or item.camera_session != after)
                return len(results) >= count

            until(come, f"{count} results of {station}")
        return results

    def __enter__(self) -> Sample:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:  # pytest shows it where a test fails
            print(*(f"--- {each.line}\n{each.log()}" for each in self._started), sep="\n")
        self._ends.close()


class Process(subprocess.Popen[bytes]):
    """A command of a sample; it ends with the ``with``, or with the tests."""

    def __init__(self, line: str, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.line = line
        handle, name = tempfile.mkstemp(dir=folder, suffix=".log")
        self._log = Path(name)
        super().__init__(command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=handle, stderr=handle)
        os.close(handle)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def says(self, words: str) -> None:
        """Awaits these words in what it prints."""

        def said() -> bool:
            assert self.poll() is None, f"{self.line}:\n{self.log()}"
            return re.search(words, self.log()) is not None

        until(said, f"{words!r} of {self.line}")

    def end(self) -> int:
        """SIGTERM, as of a terminal that is closed; its exit code."""
        self.terminate()
        return self.wait(PATIENCE_S)

    def __exit__(self, *error: object) -> None:
        if self.poll() is None:
            self.kill()
        super().__exit__(*error)  # type: ignore[arg-type]
