"""The CPU stand-in of the kernels as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asperity.runtime.cuda.build import missing_for_simt
from asperity.runtime.cuda.shim import ShimDevice
from asperity.runtime.cuda.shim.streams import ShimFrameDevice


@pytest.fixture(scope="session")
def shim_of() -> Callable[..., ShimDevice]:
    """``shim_of("nearest")``: a device with these sources' kernels, built once a run; skips without a compiler."""
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(f"kernels cannot be built for the CPU here: {reason}")
    made: dict[tuple[str, ...], ShimDevice] = {}

    def device(*sources: str) -> ShimDevice:
        if sources not in made:
            made[sources] = ShimDevice(sources)
        made[sources].forget()
        made[sources].order = 0
        return made[sources]

    return device


@pytest.fixture(scope="session")
def kernels() -> ShimFrameDevice:
    """All kernels, compiled once; skips without a compiler."""
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(f"kernels cannot be built for the CPU here: {reason}")
    return ShimFrameDevice()


@pytest.fixture
def device_of(kernels: ShimFrameDevice) -> Iterator[Callable[..., ShimFrameDevice]]:
    """Devices that share the compiled kernels."""
    made: list[ShimFrameDevice] = []

    def device(**options: Any) -> ShimFrameDevice:
        made.append(ShimFrameDevice(like=kernels, **options))
        return made[-1]

    yield device
    for one in made:
        one.lost, one.hangs = "", False
        one.close()


@pytest.fixture
def device(device_of: Callable[..., ShimFrameDevice]) -> ShimFrameDevice:
    return device_of()
