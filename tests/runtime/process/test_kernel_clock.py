"""What the kernel says of the computer's clock, by a seam in place of ``adjtimex``."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from asperity.runtime.process.kernel_clock import STA_NANO, STA_UNSYNC, TIME_ERROR, KernelClock, Timex, look
from tests.places import ROOT

NO_PROC = Path("/does/not/exist")


def test_the_structure_is_the_c_librarys() -> None:
    """208 bytes where a long has 8 (glibc and musl, x86-64 and aarch64), with the status at 40."""
    if ctypes.sizeof(ctypes.c_long) == 8:
        assert (ctypes.sizeof(Timex), Timex.status.offset, Timex.tai.offset) == (208, 40, 160)


@pytest.mark.parametrize(
    ("status", "returned", "synchronised"),
    [(0, 0, True), (STA_UNSYNC, TIME_ERROR, False), (STA_UNSYNC, 0, False), (0, TIME_ERROR, False)],
)
@pytest.mark.parametrize(("unit", "offset"), [(0, -1500), (STA_NANO, -1_500_000)])
def test_what_the_kernel_says_is_in_milliseconds(
    status: int, returned: int, synchronised: bool, unit: int, offset: int
) -> None:
    def ask(seen: Timex) -> int:
        assert seen.modes == 0, "it only reads"
        seen.status, seen.offset, seen.maxerror = status | unit, offset, 250
        return returned

    assert look(ask, NO_PROC) == KernelClock(synchronised, -1.5, 0.25)


@pytest.mark.parametrize("error", [PermissionError(1, "not permitted"), AttributeError("no adjtimex")])
def test_where_the_call_is_refused_it_is_unknown_and_says_why(error: Exception) -> None:
    def ask(seen: Timex) -> int:
        raise error

    seen = look(ask, NO_PROC)
    assert seen.synchronised is None and str(error) in seen.why
    assert (seen.offset_ms, seen.error_ms) == (None, None)


def test_the_programs_that_set_clocks_are_named(tmp_path: Path) -> None:
    running = {"1": "systemd", "20": "ptp4l", "21": "phc2sys", "22": "systemd-timesyn", "self": "chronyd"}
    for number, name in running.items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "comm").write_text(f"{name}\n")
    (tmp_path / "30").mkdir()  # it has ended meanwhile
    assert look(lambda seen: 0, tmp_path).source == "phc2sys+ptp4l+systemd-timesyncd"


def test_this_kernel_is_asked_without_an_error() -> None:
    assert look().synchronised in (True, False, None)


def test_the_shipped_unit_lets_the_inspector_ask() -> None:
    lines = (ROOT / "deploy/systemd/asperity-inspector.service").read_text().splitlines()
    allowed = [line.partition("=")[2].split() for line in lines if line.startswith("SystemCallFilter=")]
    assert [{"adjtimex", "clock_adjtime"} <= set(calls) for calls in allowed] == [True]
    assert "CapabilityBoundingSet=" in lines, "without a capability nobody sets the clock"
    assert not any(line.startswith("ProtectClock=") for line in lines), "it forbids both calls"
