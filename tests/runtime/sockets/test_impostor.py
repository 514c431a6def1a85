"""Clients of what is no station: whatever it says, they live, and they are served once a station is there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from asperity.benchmarks.line.strangers import Impostor, sayings
from asperity.runtime.client.frame_sender import FrameSender, SenderLimits
from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.frame import Frame
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.inspector_sockets import InspectorSockets
from asperity.runtime.wire import StationState, decode_frame, encode_state

PATIENCE_S = 120.0
SESSION = "6f6e9f2c-8a51-4d6f-b0f1-3c1d2e9a7b10"
ENOUGH = len(sayings(b"PULL", random.Random(0)))
NAMES = ("frames", "results", "control")


@pytest.fixture
def ends(tmp_path: Path) -> dict[str, str]:
    return {name: f"ipc://{tmp_path}/{name}" for name in (*NAMES, "bulk")}


@contextmanager
def station(ends: dict[str, str]) -> Iterator[InspectorSockets]:
    sockets = InspectorSockets(msgspec.convert({"sockets": ends}, StationConfig))
    try:
        yield sockets
    finally:
        sockets.close(0)


def until(condition: Callable[[], bool], what: str) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_s, f"{what} did not come"


def picture() -> Frame:
    return Frame(
        camera="cam1", camera_session="", seq=0, unit="mm", rgb=np.zeros((4, 4, 3), np.uint8),
        xyz=np.zeros((4, 4, 3), np.float32),
    )  # fmt: skip


def test_a_camera_sends_to_the_station_that_comes_after_an_impostor(ends: dict[str, str]) -> None:
    limits = SenderLimits(renew_ms=100)
    impostor = Impostor({name: ends[name] for name in ("frames", "results")}, random.Random(1))
    with FrameSender("cam1", ends["frames"], station="st1", results_endpoint=ends["results"], limits=limits) as sender:

        def met_much() -> bool:
            sender.send(picture(), wait_ms=5)
            sender.wait_trigger(5)
            return impostor.said["frames"] >= 15 and impostor.said["results"] >= 5

        until(met_much, "much of what it says")
        impostor.close()
        with station(ends) as sockets:

            def served() -> bool:
                sender.send(picture())
                sockets.wait(5)
                return any(decode_frame(parts).camera == "cam1" for parts in sockets.frames())

            until(served, "a frame")

            def heard() -> bool:
                sockets.wait(1)
                sockets.publish([b"trigger/st1/", b"{}"])  # malformed, and so passed over
                sender.wait_trigger(5)
                return sockets.admitted("results") == 1

            until(heard, "its subscription")


def test_a_client_hears_the_station_that_comes_after_an_impostor(ends: dict[str, str]) -> None:
    limits = ClientLimits(renew_ms=100, request_timeout_ms=50, request_tries=1000)
    impostor = Impostor({name: ends[name] for name in ("results", "control")}, random.Random(2))
    with StationClient(ends["results"], ends["control"], station="st1", limits=limits) as client:
        question = client.begin("get_state")

        def met_all() -> bool:
            client.poll(10)
            client.answer(question)
            return min(impostor.said[name] for name in ("results", "control")) >= ENOUGH

        until(met_all, "all that it says")
        assert client.state is None
        impostor.close()
        with station(ends) as sockets:
            asked = []

            def served() -> bool:
                sockets.wait(5)
                sockets.publish(encode_state(StationState(station="st1", session=SESSION, beat=1, state=8)))
                asked.extend(sockets.requests())
                client.poll(0)
                client.answer(question)
                return client.state is not None and bool(asked)

            until(served, "a state and the request")
