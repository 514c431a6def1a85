"""How long a frame takes from the camera's process to a decoded Frame in the inspector's: the wire alone.

A camera process sends random frames at a fixed rate through ``client.frame_sender`` (open loop: a late frame does not
delay the next one); this process takes them from the inspector's own sockets and decodes them. Measured from just
before ``encode_frame`` to just after ``decode_frame``, and from when the frame was due (this includes the camera's
wake-up), on the clocks that all processes of a machine share. No pixel is copied in our own code: arrays are sent and
received with ``copy=False``.
"""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np

from asperity.benchmarks.results_tools import conditions, statistics
from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.errors import StationError
from asperity.runtime.frame import Frame, Intrinsics
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.inspector_sockets import InspectorSockets
from asperity.runtime.wire import decode_frame

Form = Literal["xyz", "depth"]
Transport = Literal["tcp", "ipc"]
PICTURES = 8
"""Number of different frames, sent in turn: a repeated frame would stay in the processor's cache.
Of large frames there are fewer."""
PICTURES_NBYTES = 250_000_000
SILENCE_MS = 60_000
WAIT_MS = 50


@dataclass(frozen=True, slots=True)
class WireBenchmark:
    """What to measure."""

    frames: int = 1000
    warm_up: int = 50
    rate_hz: float = 30.0
    rows: int = 480
    columns: int = 640
    forms: tuple[Form, ...] = ("xyz", "depth")
    transports: tuple[Transport, ...] = ("tcp", "ipc")
    seed: int = 1


def run_wire(options: WireBenchmark) -> dict[str, Any]:
    """Measure every format over every transport. Raises StationError when the camera stops sending."""
    before = conditions.begin()
    cases = [measure_case(options, form, transport) for form in options.forms for transport in options.transports]
    main = cases[0]
    return {
        "benchmark": "wire",
        "measured": "from just before a frame is encoded in the camera's process to a decoded Frame in another",
        **conditions.end(before),
        "rate_hz": options.rate_hz,
        "size": [options.rows, options.columns],
        "seed": options.seed,
        **{key: main["latency"][key] for key in ("count", "p50_ms", "p99_ms", "max_ms")},
        "cases": cases,
    }


def measure_case(options: WireBenchmark, form: Form, transport: Transport) -> dict[str, Any]:
    """One format over one transport. Raises StationError when the camera stops sending."""
    with tempfile.TemporaryDirectory() as folder:
        ends = {name: f"ipc://{folder}/{name}" for name in ("frames", "results", "bulk", "control")}
        if transport == "tcp":
            ends["frames"] = "tcp://127.0.0.1:*"
        sockets = InspectorSockets(msgspec.convert({"sockets": ends}, StationConfig))
        endpoint = sockets.endpoints["frames"]
        camera = multiprocessing.get_context("spawn").Process(target=_camera, args=(options, form, endpoint))
        camera.start()
        try:
            latencies_us, from_due_us, nbytes = _receive(sockets, options)
        finally:
            sockets.close(0)
            camera.join(timeout=SILENCE_MS / 1000)
            if camera.is_alive():
                camera.kill()
                camera.join()
    not_sent = options.frames - len(latencies_us)
    return {
        "name": f"{form} over {transport}, {options.rate_hz:g} frames/s",
        "form": form,
        "transport": transport,
        "message_bytes": nbytes,
        "not_sent": not_sent,
        "latency": statistics.summary(latencies_us, not_sent),
        "from_due": statistics.summary(from_due_us, not_sent),
        "latencies_us": latencies_us,
    }


def _receive(sockets: InspectorSockets, options: WireBenchmark) -> tuple[list[int], list[int], int]:
    """Of the frames after the warm-up: latencies from sending and from when they were due, and a message's size."""
    latencies_us: list[int] = []
    from_due_us: list[int] = []
    seq = nbytes = 0
    heard_s = time.monotonic()
    while seq < options.warm_up + options.frames:
        sockets.wait(WAIT_MS)
        if time.monotonic() - heard_s > SILENCE_MS / 1000:
            if seq:
                break  # the last frames were dropped by the sender: they count as not sent
            raise StationError(f"no frame from the camera process in {SILENCE_MS} ms; look at its output above")
        for parts in sockets.frames():
            frame = decode_frame(parts)
            now_us, wall_us = time.monotonic_ns() // 1000, time.time_ns() // 1000
            heard_s, seq = now_us / 1e6, frame.seq
            if seq > options.warm_up:
                latencies_us.append(wall_us - frame.t_sent_us)
                from_due_us.append(now_us - frame.t_exposure_us)
                nbytes = sum(memoryview(part).nbytes for part in parts)
    return latencies_us, from_due_us, nbytes


def _camera(options: WireBenchmark, form: Form, endpoint: str) -> None:
    """The camera process. ``t_exposure_us`` carries the monotonic clock, which all processes of a machine share."""
    pictures = pictures_of(options, form)
    with FrameSender("bench", endpoint) as sender:
        if not sender.wait_connected(SILENCE_MS):
            raise StationError(f"{endpoint} did not answer in {SILENCE_MS} ms")
        due_s = time.monotonic()
        for picture in itertools.islice(itertools.cycle(pictures), options.warm_up + options.frames):
            time.sleep(max(0.0, due_s - time.monotonic()))
            sender.send(replace(picture, t_exposure_us=round(1e6 * due_s)))
            due_s += 1 / options.rate_hz


def pictures_of(options: WireBenchmark, form: Form) -> list[Frame]:
    """Random frames."""
    rng = np.random.default_rng(options.seed)
    nbytes = options.rows * options.columns * (15 if form == "xyz" else 5)
    return [_picture(rng, options, form) for _ in range(max(2, min(PICTURES, PICTURES_NBYTES // nbytes)))]


def _picture(rng: np.random.Generator, options: WireBenchmark, form: Form) -> Frame:
    rows, columns = options.rows, options.columns
    xyz = 500 + 50 * rng.standard_normal((rows, columns, 3), dtype=np.float32) if form == "xyz" else None
    depth = rng.integers(1000, 9000, (rows, columns), np.uint16) if form == "depth" else None
    return Frame(
        camera="bench",
        camera_session="",
        seq=0,
        rgb=rng.integers(0, 256, (rows, columns, 3), np.uint8),
        xyz=xyz,
        depth=depth,
        intrinsics=Intrinsics(600.0, 600.0, columns / 2, rows / 2),
        unit="mm",
    )
