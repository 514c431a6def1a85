"""The law of the live loop, over thousands of runs of a camera that loses, repeats, delays and swaps exposures.

Every exposure that the camera counted is one seq, in order; no exposure is sent twice, old, or for another trigger than
that after which it was made; nothing is sent after the camera was lost.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime.cameras.exposure_order import ExposureOrder
from asperity.runtime.cameras.live import WAIT_MS, LiveLoop
from asperity.runtime.cameras.source import Shot
from asperity.runtime.cameras.trigger_inbox import TriggerInbox
from asperity.runtime.clock import MS
from asperity.runtime.errors import CameraLostError
from tests.runtime.cameras.live.live_world import Over, Rig, rig

LATE_MS = 1000
EVENTS = st.one_of(
    st.tuples(st.just("expose"), st.just(0)),
    st.tuples(st.just("make"), st.sampled_from([0, 0, 0, 5, 1500])),
    st.tuples(st.sampled_from(["freeze", "freeze_in_trigger"]), st.integers(100, 4000)),
    st.tuples(st.just("lose"), st.integers(1, 3)),
    st.tuples(st.just("deaf"), st.integers(1, 2)),
    st.tuples(st.just("connected"), st.integers(0, 1)),
    st.tuples(st.sampled_from(["repeat", "swap", "expose_two", "restart", "other"]), st.just(0)),
)
SCRIPTS = st.lists(st.tuples(st.integers(0, 700), EVENTS), min_size=1, max_size=25)


def happen(made: Rig, kind: str, value: int) -> None:
    camera, sender = made.camera, made.sender
    if kind == "expose":
        camera.expose()
    elif kind == "make":
        sender.make(len(sender.made_ns) + 1, delay_ms=value, timeout_ms=1500)
    elif kind == "freeze":
        made.world.freeze(value)
    elif kind == "freeze_in_trigger":
        camera.on_trigger.append(lambda: made.world.freeze(value))
    elif kind == "repeat" and camera.waiting:
        frame, number = camera.waiting[-1]
        frame = replace(frame, rgb=frame.rgb.copy(), xyz=np.ones((4, 5, 3), np.float32))
        camera.number_before -= 1
        camera.arrive(Shot(frame, None if number is None else number + 1))
    elif kind == "expose_two":
        camera.expose()
        made.world.ns += MS
        camera.expose()
    elif kind == "swap" and len(camera.waiting) > 1:
        camera.waiting.append(camera.waiting.popleft())
    elif kind == "restart":
        camera.number_before, camera.lose = camera.serial, 0
        camera.expose()
    elif kind == "other":
        camera.sensor = "Stand-in 2"
    elif kind in ("lose", "deaf", "connected"):
        setattr(camera if kind != "connected" else sender, kind, value)


def play(triggers: str, script: list[tuple[int, tuple[str, int]]], **camera: Any) -> Rig:
    """One run, to its end or the camera's."""
    made = rig(triggers, **camera)
    made.world.at(50, lambda: happen(made, "make", 0))
    at_ms = 100
    for pause_ms, (kind, value) in script:
        at_ms += pause_ms
        made.world.at(at_ms, lambda kind=kind, value=value: happen(made, kind, value))  # type: ignore[misc]
    made.world.at(at_ms + 3000, made.world.over)
    with suppress(Over, CameraLostError):
        made.loop.run()
    check(made, triggers)
    return made


def check(made: Rig, triggers: str) -> None:
    sender, camera = made.sender, made.camera
    serials = [serial for _, serial in sender.pairs]
    assert serials == sorted(set(serials)), "an exposure twice, or out of order"
    assert {frame.sensor for *_, frame in sender.sent} <= {"Stand-in 1"}, "another camera"
    # Between two triggers a camera can be restarted and count up to where it was: its pictures are right.
    if triggers == "free_run" or camera.number_before <= 0:
        assert len({camera.numbers[serial] - seq for seq, serial in sender.pairs}) <= 1, "an exposure without its seq"
    assert made.loop.summary.exposures == sender.seq or made.loop.summary.exposures == sender.seq - 1
    answered = [trigger for trigger, _ in sender.answers if trigger]
    assert len(answered) == len(set(answered)), "a trigger answered twice"
    for trigger, serial in sender.answers:
        if triggers == "software":
            waited_ms = (camera.exposed[serial] - sender.made_ns[trigger]) / MS
            assert 0 <= waited_ms <= LATE_MS + WAIT_MS, "the picture of another part"
            later = [sender.made_ns[one] for one in sender.made_ns if one > trigger and one not in sender.delayed]
            assert not any(ns < camera.exposed[serial] for ns in later), "the picture of the next part"
    if triggers == "free_run":
        for serial, sent_ns in sender.sent_ns.items():
            assert (sent_ns - camera.exposed[serial]) / MS <= LATE_MS + WAIT_MS, "an old picture"


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
@given(SCRIPTS, st.sampled_from(["realtime", "device"]))
def test_the_law_holds_for_exposures(script: list[tuple[int, tuple[str, int]]], clock: str) -> None:
    play("free_run", script, clock=clock)


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
@given(SCRIPTS, st.sampled_from(["realtime", "device"]), st.sampled_from([0, 30, 900]), st.sampled_from([0, 0, 300]))
def test_the_law_holds_for_triggers(
    script: list[tuple[int, tuple[str, int]]], clock: str, transit_ms: int, lag_ms: int
) -> None:
    play("software", script, clock=clock, transit_ms=transit_ms, lag_ms=lag_ms)


def test_the_law_is_broken_without_its_checks() -> None:
    """The controls: the same runs, with one check switched off, must find a picture that is wrong."""
    from unittest.mock import patch

    def broken(triggers: str, **camera: Any) -> bool:
        @settings(max_examples=2000, deadline=None, derandomize=True, database=None, report_multiple_bugs=False,
                  suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate])  # fmt: skip
        @given(SCRIPTS)
        def run(script: list[tuple[int, tuple[str, int]]]) -> None:
            # By the other clock, what is looked for is seen in a second way.
            play(triggers, script, clock="device" if triggers == "software" else "realtime", **camera)

        try:
            run()
        except AssertionError:
            return True
        return False

    with patch.object(ExposureOrder, "missed_before", lambda *given: 0):
        assert broken("free_run"), "no check of the order"
    with patch.object(LiveLoop, "_back", lambda loop: None):
        assert broken("free_run"), "no check of pauses"
    with patch.object(ExposureOrder, "latest_ns", lambda *given: 0):
        assert broken("software", lag_ms=300), "no check of exposures long after their trigger"
        with patch.object(TriggerInbox, "is_fresh", lambda inbox, asked: True):
            assert broken("software"), "no check of triggers that waited"
