"""The client kits on a line with triggers: what a sender copies, and what a subscriber lets pass."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.structs import replace

from asperity.runtime import wire
from asperity.runtime.states import State
from tests.examples.test_kits import KITS, PATIENCE_S, built, command
from tests.runtime.client.fake_station import SESSION, FakeStation, made

__all__ = ["built"]
PART_ID = 'P"7\\\x1d10\u00fc'
"""A part's name with what JSON has to escape, and the group separator of GS1."""


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeStation]:
    station = FakeStation(tmp_path)
    station.state_interval_s = 0.1  # as seldom as a station's: a kit asks the journal again at each
    yield station
    station.close()


@pytest.mark.parametrize("kit", KITS)
def test_a_sender_copies_the_promise_of_the_trigger_that_it_answers(kit: str, tmp_path: Path, built: Path) -> None:
    trigger = wire.Trigger(
        station="st1", session=SESSION, trigger_id=2**32 - 1, promise=2**53 - 1, part_id=PART_ID, timeout_ms=500
    )
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.XPUB) as pub:
        pull.bind(f"ipc://{tmp_path}/frames")
        pub.bind(f"ipc://{tmp_path}/results")
        where = [f"ipc://{tmp_path}/frames", "cam1", "2", "5", f"ipc://{tmp_path}/results", "st1"]
        process = subprocess.Popen([*command(kit, "send", built), *where], stdout=subprocess.DEVNULL)
        try:
            assert pub.poll(1000 * PATIENCE_S), "the sender listens to triggers"
            assert pub.recv() == b"\x01trigger/st1/"
            for part_id in (PART_ID, ""):
                pub.send_multipart(wire.encode_trigger(replace(trigger, part_id=part_id)))
                assert pull.poll(1000 * PATIENCE_S), "one frame a trigger"
                frame = wire.decode_frame(pull.recv_multipart())
                assert (frame.trigger_id, frame.promise, frame.part_id) == (2**32 - 1, 2**53 - 1, part_id)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.wait()


class Kit:
    """A subscriber of a kit, and the lines that it has printed."""

    def __init__(self, kit: str, fake: FakeStation, built: Path) -> None:
        where = [fake.results] + ([] if kit == "c" else [fake.control])
        # The C program writes its lines when nothing is waiting, so all of them come.
        self.process = subprocess.Popen(
            [*command(kit, "subscribe", built), *where, "st1", "0"], stdout=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest, fake: FakeStation, built: Path) -> Iterator[Kit]:
    made_kit = Kit(request.param, fake, built)
    yield made_kit
    made_kit.close()


def publish(fake: FakeStation, number: int, trigger_id: int) -> None:
    """A good result and its record."""
    with fake.lock:
        result = made(number, trigger_id=trigger_id)
        record = wire.encode_record(result, state=State.CONTINUOUS_EXECUTION, station_number=1)
        fake.send(wire.record_message("st1", record))
        fake.publish(number, trigger_id=trigger_id)


def passes(fake: FakeStation, kit: Kit, trigger_id: int) -> list[bool]:
    """What the kit says of good results of a trigger, until one passes or ten did not."""
    said: list[bool] = []
    ends_s = time.monotonic() + PATIENCE_S
    while len(said) < 10 and not any(said):
        seen = len(kit.lines)
        publish(fake, fake.last_id + 1, trigger_id)
        while len(kit.lines) == seen and time.monotonic() < ends_s:
            time.sleep(0.05)
        assert time.monotonic() < ends_s, "the kit says nothing"
        said += [line["pass"] for line in kit.lines[seen:] if "pass" in line]
    return said


def test_a_subscriber_lets_pass_only_what_answers_a_trigger_where_frames_need_one(fake: FakeStation, kit: Kit) -> None:
    until_heard(fake, kit)
    assert any(passes(fake, kit, 0)), "free run: the control"
    fake.triggers = "software"
    said: list[bool] = []
    ends_s = time.monotonic() + PATIENCE_S
    while said[-5:] != [False] * 5:  # results that came before the state that says so may pass
        said += passes(fake, kit, 0)
        assert time.monotonic() < ends_s, "a stray exposure passes"
    assert any(passes(fake, kit, 7)), "the answer to a trigger"


def until_heard(fake: FakeStation, kit: Kit) -> None:
    """Publish until the kit has joined."""
    ends_s = time.monotonic() + PATIENCE_S
    while not kit.lines:
        publish(fake, fake.last_id + 1, 0)
        time.sleep(0.1)
        assert time.monotonic() < ends_s and kit.process.poll() is None, "the kit hears nothing"


@pytest.mark.parametrize("kit", KITS[:2], indirect=True)
def test_a_subscriber_lets_nothing_pass_that_the_journal_brought_back(fake: FakeStation, kit: Kit) -> None:
    until_heard(fake, kit)
    assert any(passes(fake, kit, 0))
    lost = fake.last_id + 1
    fake.publish(lost, lost=True)
    ends_s = time.monotonic() + PATIENCE_S
    while not any(line.get("result_id") == lost for line in kit.lines):
        time.sleep(0.05)
        assert time.monotonic() < ends_s, "the journal brings it back"
    (line,) = [line for line in kit.lines if line.get("result_id") == lost]
    assert line["accept"] is True and line["pass"] is False
    assert any(passes(fake, kit, 0))
