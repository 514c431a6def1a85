"""Gateways connected to a broker in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.runtime.gateways.mqtt.fake_broker import Floor


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Floor]]:
    """Makes gateways; the time in them is that of the last one made."""
    with ExitStack() as stack:

        def make(instance: str = "0123456789abcdef") -> Floor:
            floor = Floor(Path(mkdtemp(dir=tmp_path)), monkeypatch, instance)
            stack.callback(floor.gateway._events.close)
            return floor

        yield make


@pytest.fixture
def floor(new: Callable[..., Floor]) -> Floor:
    floor = new()
    floor.pass_s(4)
    return floor
