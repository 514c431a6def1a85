"""The camera's sender: never waits, never queues stale frames, counts what it could not send."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from asperity.runtime import wire
from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.errors import CameraError, WireError
from tests.runtime.wire import wire_golden as golden

WAIT_MS = 20_000
TRIGGER = golden.TRIGGER


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/frames"


def test_frames_arrive_with_the_run_and_the_count(endpoint: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, FrameSender("cam9", endpoint) as sender:
        pull.bind(endpoint)
        assert sender.wait_connected(WAIT_MS)
        assert sender.send(golden.FRAME_XYZ)
        assert pull.poll(WAIT_MS)
        frame = wire.decode_frame([part.buffer for part in pull.recv_multipart(copy=False)])
        assert (frame.camera, frame.camera_session, frame.seq) == ("cam9", sender.camera_session, 1)
        assert abs(frame.t_sent_us - time.time_ns() // 1000) < 60_000_000
        assert frame.xyz is not None and np.array_equal(frame.xyz, golden.XYZ)
        assert frame.t_exposure_us == golden.FRAME_XYZ.t_exposure_us


def test_without_a_reader_nothing_waits_and_seq_goes_on(endpoint: str) -> None:
    with zmq.Context() as context, FrameSender("cam1", endpoint) as sender:
        for _ in range(3):
            assert not sender.send(golden.FRAME_XYZ)
        sender.missed()
        assert (sender.seq, sender.sent, sender.dropped) == (4, 0, 4)
        with context.socket(zmq.PULL) as pull:
            pull.bind(endpoint)
            assert sender.wait_connected(WAIT_MS)
            assert sender.send(golden.FRAME_XYZ)
            assert pull.poll(WAIT_MS)
            assert wire.decode_frame(pull.recv_multipart()).seq == 5, "no stale frame, and the gap shows"
            assert not pull.poll(100)


def test_a_reader_that_does_not_read_gets_few_frames_and_none_is_waited_for(endpoint: str) -> None:
    big = np.zeros((480, 640, 3), np.float32)
    frame = golden.FRAME_XYZ.__class__(
        camera="cam1", camera_session=golden.CAMERA_SESSION, seq=0, rgb=np.zeros((480, 640, 3), np.uint8), xyz=big
    )
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.setsockopt(zmq.RCVHWM, 1)
        pull.bind(endpoint)
        with FrameSender("cam1", endpoint) as sender:
            assert sender.wait_connected(WAIT_MS)
            taken = 0
            for _ in range(40):
                taken += sender.send(frame)
                time.sleep(0.01)
            assert sender.seq == 40
            assert 1 <= taken <= 4, "default options would take more and deliver them stale"
            assert sender.dropped == 40 - taken


def test_a_triggered_frame_carries_the_triggers_ids(endpoint: str, tmp_path: Path) -> None:
    results = f"ipc://{tmp_path}/results"
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.XPUB) as pub:
        pull.bind(endpoint)
        pub.bind(results)
        with FrameSender("cam1", endpoint, station="st1", results_endpoint=results) as sender:
            assert pub.poll(WAIT_MS) and pub.recv() == b"\x01trigger/st1/"
            assert sender.wait_trigger(0) is None
            for parts in (
                [b"trigger/st1/", b"{"],
                [b"trigger/st10/", b"{}"],
                wire.encode_trigger(TRIGGER),
            ):
                pub.send_multipart(parts)
            trigger = sender.wait_trigger(WAIT_MS)
            assert trigger == TRIGGER, "the malformed one is passed over"
            assert sender.wait_connected(WAIT_MS) and sender.send(golden.FRAME_XYZ, trigger)
            assert pull.poll(WAIT_MS)
            frame = wire.decode_frame(pull.recv_multipart())
            assert (frame.trigger_id, frame.part_id, frame.recipe) == (7, "4711", "gear-2")


def test_triggers_arrive_after_the_inspector_was_started_again(endpoint: str, tmp_path: Path) -> None:
    results = f"ipc://{tmp_path}/results"
    with zmq.Context() as context, FrameSender("cam1", endpoint, station="st1", results_endpoint=results) as sender:
        for _ in range(2):
            with context.socket(zmq.XPUB) as pub:
                pub.bind(results)
                for _ in range(1000):
                    sender.send(golden.FRAME_XYZ)
                    if pub.poll(20):
                        break
                assert pub.recv(zmq.NOBLOCK) == b"\x01trigger/st1/", "a camera that only sends frames subscribes anew"


def test_waiting_for_a_trigger_ends(endpoint: str, tmp_path: Path) -> None:
    with FrameSender("cam1", endpoint, station="st1", results_endpoint=f"ipc://{tmp_path}/r") as sender:
        assert sender.wait_trigger(30) is None
    with FrameSender("cam1", endpoint) as sender, pytest.raises(CameraError, match="results_endpoint"):
        sender.wait_trigger(30)


def test_a_frame_that_breaks_the_contract_spends_its_seq(endpoint: str) -> None:
    with FrameSender("cam1", endpoint) as sender:
        broken = golden.FRAME_XYZ.__class__(camera="x", camera_session="", seq=0, rgb=golden.RGB, xyz=None)
        with pytest.raises(WireError):
            sender.send(broken)
        assert (sender.seq, sender.dropped) == (1, 1)


def test_impossible_names_and_endpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="nonsense"):
        FrameSender("cam1", "nonsense")
    with pytest.raises(WireError, match="Cam"):
        FrameSender("Cam", f"ipc://{tmp_path}/f")
    with pytest.raises(WireError):
        FrameSender("cam1", f"ipc://{tmp_path}/f", station="", results_endpoint=f"ipc://{tmp_path}/r")


def test_with_a_wait_the_frame_goes_as_soon_as_somebody_listens(endpoint: str) -> None:
    with zmq.Context() as context, FrameSender("cam1", endpoint) as sender:
        assert not sender.send(golden.FRAME_XYZ, wait_ms=20), "the wait is bounded"
        reader = threading.Thread(target=lambda: (time.sleep(0.05), pull.bind(endpoint)))
        with context.socket(zmq.PULL) as pull:
            reader.start()
            assert sender.send(golden.FRAME_XYZ, wait_ms=WAIT_MS)
            reader.join()
            assert pull.poll(WAIT_MS)
            assert wire.decode_frame(pull.recv_multipart()).seq == 2
