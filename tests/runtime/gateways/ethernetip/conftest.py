"""Fixtures of the EtherNet/IP gateway's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.runtime.gateways.ethernetip.eip_floor import Floor
from tests.runtime.gateways.floor import Loop, floors, looping


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as running:
        yield running


@pytest.fixture
def new_floor(loop: Loop) -> Iterator[Callable[..., Floor]]:
    with floors(Floor, loop) as new:
        yield new
