"""HTTP gateways as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.runtime.gateways.floor import Loop, floors, looping
from tests.runtime.gateways.http.http_floor import Floor


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


@pytest.fixture
def make(loop: Loop) -> Iterator[Callable[..., Floor]]:
    with floors(Floor, loop) as make:
        yield make


@pytest.fixture
def floor(make: Callable[..., Floor]) -> Floor:
    return make()
