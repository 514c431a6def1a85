"""The result of a check, and the overall judgement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from asperity.runtime.errors import ConfigError


class Engine(str, Enum):
    """Engines that judge parts (``simulated`` needs nothing)."""

    CPU = "cpu"
    CUDA = "cuda"


class State(str, Enum):
    """The status of one item."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing to fix."""
    WARNING = "warning"
    """It runs, but slower, later or less safely than it could."""
    MISSING = "missing"
    """An engine of ``needed_by`` does not run like this."""


BOTH = (Engine.CPU, Engine.CUDA)
CUDA_ONLY = (Engine.CUDA,)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table."""

    name: str
    state: State
    found: str
    mend: str = ""
    """The exact command, or what to do where no command does it."""
    needed_by: tuple[Engine, ...] = ()

    def __post_init__(self) -> None:
        if (self.state is State.MISSING) != bool(self.needed_by):
            raise ValueError(f"{self.name}: what is missing is needed by an engine, and nothing else is")
        if self.state in (State.MISSING, State.WARNING) and not self.mend:
            raise ValueError(f"{self.name}: {self.state.value} without a remedy")


def ok(name: str, found: str) -> Finding:
    """A check that passed."""
    return Finding(name, State.OK, found)


def note(name: str, found: str, mend: str = "") -> Finding:
    """Worth knowing."""
    return Finding(name, State.NOTE, found, mend)


def warning(name: str, found: str, mend: str) -> Finding:
    """Runs, with a drawback."""
    return Finding(name, State.WARNING, found, mend)


def missing(name: str, found: str, mend: str, needed_by: tuple[Engine, ...] = BOTH) -> Finding:
    """Does not run."""
    return Finding(name, State.MISSING, found, mend, needed_by)


def no_folder(name: str, error: ConfigError, needed_by: tuple[Engine, ...] = BOTH) -> Finding:
    """The user has no folder for this."""
    why, _, mend = str(error).partition("; ")
    return missing(name, why, mend, needed_by)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, and what they come to."""

    findings: tuple[Finding, ...]
    wanted: Engine
    why: str
    """Why this engine was looked at."""

    def lacks(self, engine: Engine) -> list[Finding]:
        """The problems that keep an engine from running."""
        return [finding for finding in self.findings if engine in finding.needed_by]

    @property
    def runs(self) -> bool:
        """Whether the wanted engine has everything it needs."""
        return not self.lacks(self.wanted)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "wanted": self.wanted.value,
            "why": self.why,
            "runs": self.runs,
            "engines": {engine.value: [finding.name for finding in self.lacks(engine)] for engine in Engine},
            "findings": [
                {
                    "name": finding.name,
                    "state": finding.state.value,
                    "found": finding.found,
                    "mend": finding.mend,
                    "needed_by": [engine.value for engine in finding.needed_by],
                }
                for finding in self.findings
            ],
        }


def listed(names: Iterable[str]) -> str:
    """``a, b and c``."""
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
