"""Exposure times in names of files."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from asperity.runtime.cameras.sources.folder.name_times import NameTime
from asperity.runtime.errors import ConfigError

AT_US = 1_706_711_035_123_456  # 2024-01-31 14:23:55.123456 UTC


@pytest.mark.parametrize(
    ("form", "name", "us"),
    [
        ("part_%Y%m%d_%H%M%S_%f", "part_20240131_142355_123456", AT_US),
        ("%Y-%m-%dT%H-%M-%S.%f*", "2024-01-31T14-23-55.123_left", AT_US - 456),
        ("*_%d.%m.%Y %H.%M.%S", "a_b_31.01.2024 14.23.55", AT_US - 123_456),
        ("%s.%f", "1706711035.5", AT_US - 123_456 + 500_000),
        ("*%L", "cam1_1706711035123", AT_US - 456),
        ("%U", "1706711035123456", AT_US),
        ("%f_%Y%m%d%H%M%S", "123456789_20240131142355", AT_US),
        ("%U", "1706711035", None),
        ("%U", "x1706711035123456", None),
        ("%Y%m%d%H%M%S", "20240231142355", None),
        ("%Y%m%d%H%M%S", "19600131142355", None),
        ("%Y%m%d%H%M%S", "२०२४0131142355", None),
    ],
)
def test_a_time_is_read_as_the_form_says(form: str, name: str, us: int | None) -> None:
    assert NameTime(form, "utc").exposed_us(name) == us


@pytest.mark.parametrize("form", ["", "%Y", "%Q", "%U%U", "%s%L", "%f", "%U.%f%Y", "100%", "%Y%m%d%H%M", "%L%f"])
def test_a_form_without_a_whole_time_is_refused(form: str) -> None:
    with pytest.raises(ConfigError, match=r"%Y %m %d %H %M %S"):
        NameTime(form, "utc")


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_berlin")
def test_an_hour_that_the_clock_shows_twice_or_never_gives_no_time() -> None:
    local = NameTime("%Y%m%d%H%M%S", "local")
    assert local.exposed_us("20240131152355") == AT_US - 123_456
    assert local.exposed_us("20241027023000") is None
    assert local.exposed_us("20240331023000") is None
    assert local.exposed_us("20241027033000") is not None
