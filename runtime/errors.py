"""Typed errors. Each has a page in ``docs/errors.md`` (the class name is the heading) and an exit code.

A message names the field, the value and the remedy in one or two sentences; people read it on a shop floor.
"""

from __future__ import annotations

from asperity.runtime.reasons import JUDGED, Reason


class AsperityError(Exception):
    """Base of every error raised on purpose. Commands print it as one sentence and exit with ``exit_code``."""

    exit_code = 1


class UsageError(AsperityError):
    """An argument or option that cannot be right."""

    exit_code = 2


class ConfigError(AsperityError):
    """``station.toml`` or a profile holds a value that cannot be used."""

    exit_code = 3


class DataError(AsperityError):
    """A folder, file or array given to a command is missing, incomplete or of a wrong shape."""

    exit_code = 4


class BundleError(AsperityError):
    """A bundle that does not open: incomplete, altered, unsigned, of another version, or failing its golden frames."""

    exit_code = 5


class SignatureError(BundleError):
    """The bundle's signature is absent, wrong, or by a key this machine does not trust."""


class ParityError(BundleError):
    """The engine does not reproduce the golden frames' verdicts and scores."""


class CalibrationError(AsperityError):
    """The normal frames do not carry what was asked of them (too few, a rate not attainable, features collapsed)."""

    exit_code = 6


class EngineError(AsperityError):
    """The engine failed on a frame or cannot start. The frame's result is unknown with reason ENGINE."""

    exit_code = 7


class EngineLostError(EngineError):
    """The engine can score nothing more until the process is restarted (a device that failed permanently)."""

    exit_code = 18


class SystemLimitError(AsperityError):
    """The system gives too little for any command: open files, threads, addresses, a working folder."""

    exit_code = 14


class StateError(AsperityError):
    """An operation that the station's present state does not allow."""

    exit_code = 8


class JournalError(AsperityError):
    """The journal cannot be opened or written."""

    exit_code = 9


class AuditError(AsperityError):
    """The audit file is not one that only this user can write, or cannot be opened at its path."""

    exit_code = 19


class CameraError(AsperityError):
    """A camera or frame source cannot deliver."""

    exit_code = 10


class CameraLostError(CameraError):
    """A camera that was open is gone, silent, or no longer as it was set; the program must be restarted."""

    exit_code = 20


class SourceEnded(AsperityError):
    """A recording that a camera source plays has ended."""

    exit_code = 0


class StationError(AsperityError):
    """The inspector cannot be reached or did not answer in time."""

    exit_code = 11


class WireError(AsperityError):
    """Bytes that break the wire contract."""

    exit_code = 12


class AccessError(AsperityError):
    """A transport key that is missing, damaged, revoked, or that another user could read."""

    exit_code = 17


class FrameRefused(AsperityError):
    """A frame that must not be scored. It still gets its result: unknown, with ``reason``."""

    exit_code = 13

    def __init__(self, reason: Reason, message: str) -> None:
        if reason in JUDGED:
            raise ValueError(f"{reason.name} belongs to a judged frame and cannot refuse one")
        super().__init__(message)
        self.reason = reason


class GatewayError(AsperityError):
    """A gateway that cannot serve: its address is taken, its link to the station ended, its own loop is stuck."""

    exit_code = 16


class CommissioningError(AsperityError):
    """A row of a commissioning failed."""

    exit_code = 21


class NotCheckedError(AsperityError):
    """A row of a commissioning was not checked or not answered, which is not passed."""

    exit_code = 22


def first_line(error: BaseException) -> str:
    """Another library's error message in one line; its type if it has none."""
    said = str(error).strip()
    return said.splitlines()[0][:300] if said else type(error).__name__
