"""The rows of docs/failsafe.md about live cameras: what each rests on, switched off."""
# ruff: noqa: E501 - the code that is switched off stands here as it stands there

from __future__ import annotations

from tests.failsafe.rows import Off, off

LOOP = "runtime/cameras/live/test_live_loop.py::"
TRIGGERS = "runtime/cameras/live/test_live_triggers.py::"
PARTS = "runtime/cameras/live/test_live_parts.py::"
SYSTEM = "system/test_live_camera.py::"
NO_PAUSE = ("cameras/live.py", "if now_ns - self._returned_ns > self._settings.late_ms * MS:", "if False:")
ALWAYS_FRESH = ("cameras/trigger_inbox.py", "return self._clock().ns - asked.since_ns <= self._late_ns", "return True")
ANY_TIME = ("cameras/live.py", "if not in_time or late or self._inbox.is_followed(asked, latest_ns):", "if False:")

TABLE: dict[str, dict[str, list[Off]]] = {
    "A live camera": {
        "exposures are lost between camera and program": [
            off(LOOP + "test_each_exposure_that_the_camera_counted_is_one_seq", "(6, 6)",
                ("cameras/exposure_order.py", "missed = number - self._number - 1", "missed = 0")),
        ],
        "an exposure twice, out of order, over the one before in memory; a count that goes back or jumps": [
            off(LOOP + "test_an_exposure_twice_out_of_order_or_out_of_count_is_a_lost_camera", "assert 'twice' in",
                ("cameras/exposure_order.py", "if frame.t_exposure_us and frame.t_exposure_us == self._exposed_us:", "if False:"),
                ("cameras/exposure_order.py", "if frame.t_exposure_us and frame.t_exposure_us < self._exposed_us:", "if False:"),
                ("cameras/exposure_order.py", "        self._check_memory(frame)\n", ""),
                ("cameras/exposure_order.py", "if missed < 0:", "if False:")),
        ],
        "another camera, size, unit, lens, clock or kind of data than before": [
            off(LOOP + "test_a_camera_that_is_not_as_it_was_is_lost_and_nothing_more_is_sent", "gave no exposure for 5000 ms",
                ("cameras/exposure_order.py", "        self._check_steady(frame)\n", "")),
            off(LOOP + "test_a_first_frame_of_another_camera_than_was_opened_is_not_sent", "gave no exposure for 5000 ms",
                ("cameras/exposure_order.py", "if self._sensor is not None and frame.sensor != self._sensor:", "if False:")),
        ],
        "unplugged, silent, or its driver fails": [
            off(LOOP + "test_silence_is_a_lost_camera_and_a_pause_of_the_process_is_not", "the camera was not lost",
                ("cameras/live.py", "if limit_ms and self._silent_ns > limit_ms * MS:", "if False:")),
            off(TRIGGERS + "test_a_camera_that_is_gone_while_nobody_asks_is_noticed", "the camera was not lost",
                ("cameras/live.py", "self._call(self._source.shot, 1)", "pass")),
            off(LOOP + "test_whatever_a_source_raises_the_camera_is_lost", "unplugged",
                ("cameras/source.py", "raise CameraLostError(str(error)) from error", "raise")),
            off(SYSTEM + "test_a_camera_that_is_gone_ends_the_process_even_if_its_driver_hangs", "ready again",
                ("commands/live_camera.py", "limit.start(error.exit_code, shown(error))", "pass")),
        ],
        "the program stood still, and exposures waited": [
            off(LOOP + "test_exposures_that_waited_while_the_process_stood_still_are_not_sent", "(5, 5) != (6, 6)", NO_PAUSE),
        ],
        "exposures wait in the camera or its driver (`device` clock; with a shared clock the station rejects them STALE)": [
            off(LOOP + "test_an_exposure_that_was_late_by_the_devices_clock_is_not_sent", "(3, 3)",
                ("cameras/ages.py", "return delay_us - self.least_us", "return 0")),
        ],
        "exposures from before the inspector was there": [
            off(LOOP + "test_exposures_from_before_the_inspector_came_are_not_sent", "== [7]",
                ("cameras/live.py", "            self._discard_waiting(1)\n            self._alive(", "            self._alive(")),
        ],
        "triggers wait: the camera was being opened or busy, the program stood still, the network held them back": [
            off(TRIGGERS + "test_triggers_that_waited_while_the_camera_was_opened_are_not_answered", "(2, 1)",
                ("cameras/trigger_inbox.py", "self._empty_ns: int | None = None", "self._empty_ns: int | None = clock().ns"),
                ("cameras/live.py", "            self._inbox.discard(0)", "            pass")),
            off(TRIGGERS + "test_triggers_that_waited_while_the_process_stood_still_are_not_answered", "(4, 2) != (6, 2)", NO_PAUSE,
                ALWAYS_FRESH, ANY_TIME),
            off(TRIGGERS + "test_a_trigger_that_the_network_held_back_is_not_answered", "[1, 2, 3]", ALWAYS_FRESH, ANY_TIME),
        ],
        "the next part's trigger comes before the camera was triggered for this one": [
            off(PARTS + "test_a_trigger_that_is_followed_by_another_parts_is_not_answered", "[1, 2",
                ("cameras/trigger_inbox.py", "if self.is_fresh(asked) and not self.is_followed(asked):", "if self.is_fresh(asked):"),
                ("cameras/live.py", " or self._inbox.is_followed(asked, latest_ns):", ":")),
        ],
        "the next part's trigger comes before the camera has exposed for this one": [
            off(PARTS + "test_an_exposure_made_after_the_next_parts_trigger_does_not_answer_the_one_before", "[1, 2",
                ("cameras/live.py", " or self._inbox.is_followed(asked, latest_ns):", ":")),
            off("runtime/cameras/live/test_which_part.py::test_a_camera_that_exposes_when_the_next_part_is_there_gives_its_picture_to_no_other", "True)]",
                ("cameras/live.py", " or self._inbox.is_followed(asked, latest_ns):", ":")),
        ],
        "the computer's clock is set while it dates the exposures": [
            off(PARTS + "test_a_clock_that_is_set_while_exposures_are_dated_by_it_is_a_lost_camera", "gave no exposure for 5000 ms",
                ("cameras/exposure_order.py", "if before_us is not None and abs(ahead_us - before_us) > CLOCK_STEP_US:", "if False:")),
        ],
        "the exposure for a trigger is made long after it": [
            off(TRIGGERS + "test_an_exposure_long_after_its_trigger_came_is_not_sent_for_it", "(2, 2)", ANY_TIME),
            off(TRIGGERS + "test_an_exposure_that_nobody_asked_for_long_after_a_trigger_does_not_answer_it", "(2, 3)", ANY_TIME),
            off(PARTS + "test_an_exposure_that_may_have_been_made_too_late_does_not_answer_its_trigger", "[1, 2]",
                ("cameras/live.py", "late = latest_ns - asked.since_ns > late_ns or ", "late = ")),
        ],
        "an exposure from before its trigger, or for an earlier trigger": [
            off(TRIGGERS + "test_an_exposure_from_before_its_trigger_is_a_lost_camera", "the camera was not lost",
                ("cameras/exposure_order.py", "if early_us > STAMP_TOLERANCE_US:", "if False:")),
            off(TRIGGERS + "test_an_exposure_that_comes_too_late_does_not_answer_the_next_trigger", "the camera was not lost",
                ("cameras/exposure_order.py", "if missed < unanswered:", "if False:")),
        ],
        "a source that answers triggers by itself": [
            off(LOOP + "test_a_source_cannot_answer_triggers_by_itself", "(7, 9, 'p')",
                ("cameras/live.py", "frame = replace(shot.frame, trigger_id=0, promise=0)", "frame = shot.frame")),
        ],
        "killed or stopped in any phase": [
            off(SYSTEM + "test_stopped_in_each_phase_it_goes_on_and_gives_no_part_the_next_ones_picture", "GOOD", ALWAYS_FRESH,
                ANY_TIME),
        ],
    },
}
