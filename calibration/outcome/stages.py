"""How long each stage of a calibration took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Stages:
    """Wall time of each stage, seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - begin, 2)
