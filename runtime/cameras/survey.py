"""What `asperity camera list` shows: every installed source and the cameras that it sees.

Each source is looked at in a separate process, since its package may be broken and its SDK may hang, print or crash.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import msgspec

from asperity.runtime.cameras import source
from asperity.runtime.errors import AsperityError
from asperity.runtime.files import shown
from asperity.runtime.process import start
from asperity.runtime.process.child import of_ours
from asperity.runtime.settings.toml_tables import NAME_RULE

LOOK_S = 15.0
"""Longest look at all sources; SDKs of cameras on a network ask it for some seconds."""
DEVICES_MAX = 64
TEXT_MAX = 400
ANSWER_MAX_NBYTES = 2**16


class Found(msgspec.Struct):
    """A source, as far as it could be looked at."""

    name: str
    summary: str = ""
    triggers: list[str] = []
    devices: list[dict[str, str]] | None = None
    """``id`` and ``text`` of each camera that it sees; None: it cannot say, or could not be asked."""
    lacking: list[str] = []
    """Modules that are not installed."""
    remedy: str = ""
    """The command that installs them."""
    problem: str = ""
    """Why the source cannot be used, or its cameras not be listed; empty: no reason."""


def survey(limit_s: float = LOOK_S) -> list[Found]:
    """Look at every installed source, all at the same time and for at most ``limit_s``."""
    looks = {name: _Look(name) for name in source.names()}
    ends_s = time.monotonic() + limit_s
    return [look.answer(ends_s, limit_s) for look in looks.values()]


def look_at(name: str) -> Found:
    """Look at one source in this process."""
    found = Found(name)
    try:
        kind = source.load(name)
        found.summary, found.triggers = _text(kind.summary), list(kind.triggers)
        found.lacking = kind.lacking()
        if found.lacking:
            found.remedy = kind.remedy()
        elif kind.devices is not list:
            devices = list(kind.devices())[:DEVICES_MAX]
            found.devices = [{"id": _text(device.id), "text": _text(device.text)} for device in devices]
    except AsperityError as error:
        found.problem = _text(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - another package, or an SDK, may raise anything
        found.problem = f"its cameras cannot be listed: {_text(source.what_failed(kind, error))}"
    return found


class _Look:
    """A process that looks at one source."""

    def __init__(self, name: str) -> None:
        self._name = name
        if not source.is_name(name):
            self._process = None
            return
        self._hear, say = os.pipe()
        # What an SDK prints goes nowhere; the answer has a pipe of its own.
        self._process = subprocess.Popen(
            of_ours(__name__, name, str(say)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, pass_fds=[say], start_new_session=True,
        )  # fmt: skip
        os.close(say)

    def answer(self, ends_s: float, limit_s: float) -> Found:
        """What it found, or why it found nothing."""
        if self._process is None:
            return Found(_text(self._name), problem=f"a source's name is {NAME_RULE}, not camera or live")
        late = False
        try:
            self._process.wait(max(0.0, ends_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            late = True
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # also what an SDK has started
        code = self._process.wait()
        with os.fdopen(self._hear, "rb") as answer:
            said = b"" if late else answer.read(ANSWER_MAX_NBYTES)
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(said, type=Found)
        why = f"it did not answer within {limit_s:g} s" if late else f"its SDK ended the process with {code}"
        return Found(self._name, problem=f"its cameras cannot be listed: {why}")


def _text(value: object) -> str:
    return shown(str(value).replace("\n", " "))[:TEXT_MAX]


if __name__ == "__main__":
    start.begin()
    looked = msgspec.json.encode(look_at(sys.argv[1]))
    os.write(int(sys.argv[2]), looked)
