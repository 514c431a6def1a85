"""The CPU stand-in of the kernels as a fixture."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asperity.runtime.cuda.build import missing_for_simt
from asperity.runtime.cuda.shim import ShimDevice


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
