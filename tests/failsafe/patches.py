"""What each row of docs/failsafe.md rests on, and how to switch it off. ``tests.failsafe.rows`` says how it is used.

A row has one entry or more: the test that must fail, what its message must then hold, and the patches. Where a row is
protected twice all of it is switched off in one entry. Short: a condition to False, a guard removed.
"""

from __future__ import annotations

from tests.failsafe.rows import Entry, Patch

FAST = (
    "tests/runtime/test_inspector_", "tests/runtime/test_stations_", "tests/runtime/test_part_matching",
    "tests/runtime/test_recipes", "tests/runtime/test_scoring_verdicts",
    "tests/runtime/test_journal", "tests/runtime/test_served", "tests/runtime/test_gate", "tests/runtime/test_supervision",
    "tests/gateways/test_modbus_registers", "tests/gateways/test_modbus_server",
    "tests/gateways/test_modbus_recipes", "tests/gateways/test_modbus_requests", "tests/examples/test_plc",
    "tests/gateways/test_mqtt_gateway", "tests/gateways/test_log_ins", "tests/gateways/test_opcua_decoding",
)  # fmt: skip
"""Tests without processes, a second or two each: their entries are part of every run of the suite."""
SLOW = {
    "test_no_part_has_anothers_picture_whatever_goes_wrong", "test_sigterm_during_the_start_ends_without_a_traceback",
    "test_garbage_costs_its_sender_the_connection_and_nobody_else",
}  # fmt: skip
"""All the same."""

Parts = tuple[str, str, tuple[Patch, ...]]


def _e(node: str, says: str, *patches: tuple[str, str, str]) -> Parts:
    """Files are of ``runtime/`` unless they are of ``examples/``."""
    made = [Patch(file if file.startswith("examples/") else f"runtime/{file}", *change) for file, *change in patches]
    return f"tests/{node}", says, tuple(made)


CAMERA_GONE = ("station.py", "return self.sockets.camera_connected(self.camera) and not silent", "return not silent")
NO_BOUND_OF_THE_QUEUE = ("inbox.py", "if len(waiting) >= self._length:", "if False:")
ANY_AGE = (
    # On arrival, and again when its turn comes.
    ("station.py", "too_old = self.line is None and abs(", "too_old = False and abs("),
    ("pipeline.py", "if now_ns > job.stale_ns:", "if False:"),
)
TRUST_FOR_EVER = (
    # The client's view of the beat; the link's, also while nothing is polled; and no part of before ever again.
    ("client.py", "return (time.monotonic() - self._beat_s) * 1000 <= self.state.beat_timeout_ms", "return True"),
    ("gateways/link.py", "return time.monotonic() <= seen.trusted_until_s", "return seen.trusted_until_s > 0"),
    ("gateways/link.py", "since_s = seen.trusted_since_s if now_s <= seen.trusted_until_s else now_s",
     "since_s = seen.trusted_since_s"),
)
NO_DEADLINE = (
    # While it passes, and as the score comes.
    ("station.py", "if work.judged is None and now.ns >= work.deadline_ns]:", "if False]:"),
    ("station.py", "work.judged is not None or self.clock().ns >= work.deadline_ns:", "work.judged is not None:"),
)
IDS_FROM_ONE = (
    "journal.py", "next_id = max((entry.result_id for entry in self.entries()), default=header.first_id - 1) + 1",
    "next_id = header.first_id",
)  # fmt: skip
NOT_LOST = ("engines/cuda.py", 'raise self._lose(f"{error}{again}") from error', "return")
JUDGING_STARTS = ("station.py", 'self.line.unsync("judging has started")', "pass")
UNANNOUNCED = (
    "station.py", "(trigger is None and not free_run and self.line is None, Reason.UNANNOUNCED)",
    "(False, Reason.UNANNOUNCED)",
)  # fmt: skip
ANNOUNCED_OR_NOT = (
    ("gateways/modbus.py", 'or (record.trigger_id == 0 and (state is None or state.triggers != "free_run"))', "or False"),
    ("examples/generated/asperity_modbus.st", "AND (status.trigger_id <> 0 OR status.triggers = 1);", ";"),
)
NO_BASELINE = ("gateways/modbus.py", "if name in self._known and value != self._written[name]}", "if value}")
NOTHING_GIVEN_UP = ("gateways/modbus.py", "self._given_up.answered(trigger_id, status)", "pass")
ANYBODYS = ("gateways/link.py", "return result.trigger_id != 0 or", "return True or")
NO_WILL = ("gateways/mqtt_connection.py", "client.will_set(", "str(")
DEAF_TO_OTHERS = ("gateways/mqtt_watch.py", "self._foreign_s = now_s", "pass")
NOT_SHARED = ("inspector.py", "if station is finder or (", "if station is finder or False and (")

TABLE: dict[str, dict[str, list[Parts]]] = {
    "The camera": {
        "killed": [
            _e("system/test_kill.py::test_kill_9_of_the_camera_costs_nothing_but_what_it_did_not_send",
               "a state without camera did not come", CAMERA_GONE),
        ],
        "stopped (SIGSTOP), then goes on": [
            _e("system/test_faults.py::test_a_stopped_camera_is_noticed_and_what_it_sends_late_is_answered",
               "the end of ready did not come", ("station.py", "silent = expected and", "silent = False and")),
        ],
        "ten times its rate": [
            _e("system/test_faults.py::test_ten_times_the_rate_is_overload_and_the_newest_frames_are_judged",
               "", NO_BOUND_OF_THE_QUEUE),
        ],
        "sends garbage, half messages, wrong types": [
            _e("system/test_line.py::test_rubbish_on_both_sockets_keeps_the_law_and_leaves_no_request_unanswered",
               "", ("wire/frame.py", "if not expected_bytes == stream.nbytes == received_bytes:", "if False:")),
        ],
        "a seq twice, going back, missing": [
            _e("runtime/test_inspector_frames.py::test_seq_tells_what_is_lost_repeated_or_not_believed",
               "", ("ledger.py", "if seq <= run.last:", "if False:")),
            _e("runtime/test_inspector_frames.py::test_seq_tells_what_is_lost_repeated_or_not_believed",
               "", ("ledger.py", "lost = range(run.last + 1, seq)", "lost = range(0)")),
        ],
        "one frame with a wrong seq": [
            _e("runtime/test_inspector_frames.py"
               "::test_one_frame_with_a_wrong_number_makes_no_duplicates_of_those_that_follow",
               "", ("ledger.py", "confirmed = run.leapt_to is not None and seq == run.leapt_to + 1", "confirmed = True")),
        ],
        "a reconnection overtakes a frame": [
            _e("runtime/test_inspector_frames.py::test_an_exposure_that_a_reconnection_overtook_has_one_result",
               "", ("ledger.py", "if run is None or seq not in run.lost:", "if True:")),
        ],
        "two senders in one camera's name": [
            _e(f"runtime/test_inspector_frames.py::{test}",
               "CAMERA_CONFLICT", ("camera_guard.py", "if self._open.keys() - {connection}:", "if False:"))
            for test in (
                "test_while_two_connections_send_for_one_camera_nothing_is_accepted",
                "test_the_session_of_the_camera_itself_sent_by_another_connection_is_a_conflict_too",
            )
        ],
        "the same picture again": [
            _e("runtime/test_inspector_frames.py::test_the_same_picture_again_is_frozen",
               "FROZEN_IMAGE", ("pipeline.py", "if repeated:", "if False:")),
        ],
        "another camera's frames": [
            _e("runtime/test_inspector_frames.py::test_a_frame_of_another_camera_is_refused_and_counts_for_nothing",
               "WRONG_CAMERA", ("station.py", "if frame.camera != self.camera:", "if False:")),
        ],
        "no frame for a trigger": [
            _e("runtime/test_inspector_requests.py::test_a_trigger_without_a_frame_is_answered_and_its_late_frame_apart",
               "NO_FRAME",
               ("station.py", "self._answer_triggers(self.triggers.expired(now.ns), Reason.NO_FRAME)", "pass")),
        ],
    },
    # test_part_matching's own test_each_rule_is_needed takes out every rule of the matcher; here are those that a row
    # names, and what stands around the matcher.
    "Which part a picture is of": {
        "an announcement after the exposure, an exposure lost, broken or never made": [
            _e("runtime/test_inspector_parts.py"
               "::test_bad_parts_whose_exposures_are_lost_are_never_accepted_by_their_neighbours_pictures",
               "", ("part_matching.py", "self._gaps.append((since_ns, until_ns))", "pass")),
            _e("runtime/test_part_matching.py::test_no_part_has_anothers_picture_whatever_goes_wrong",
               "", ("part_matching.py", 'self.unsync("an exposure was not announced")', "pass")),
        ],
        "a picture exposed long before its announcement": [
            _e("runtime/test_inspector_parts.py"
               "::test_a_frame_exposed_long_before_the_announcement_is_not_its_answer",
               "", ("part_matching.py", "self._before_ns = late + tolerance", "self._before_ns = 1000 * MS")),
        ],
        "two announcements or exposures that could belong together": [
            _e("runtime/test_part_matching.py::test_row[two_exposures_in_a_window_are_nobodys]",
               "too many values to unpack", ("part_matching.py", "if len(inside) > 1:", "if False:")),
            _e("runtime/test_part_matching.py::test_row[an_exposure_in_two_windows_is_nobodys]",
               "AMBIGUOUS", ("part_matching.py", "if len(self._claims(inside[0])) > 1:", "if False:")),
        ],
        "an announcement waits unread while the inspector stands still": [
            _e("runtime/test_inspector_parts.py::test_messages_that_are_not_read_yet_hold_the_answer_back",
               "", ("wired_line.py", "self._matcher.settle(min(now.ns, read_up_to_ns))", "self._matcher.settle(now.ns)")),
        ],
        "camera or inspector started again, clock stepped, no time of exposure": [
            _e("runtime/test_inspector_parts.py"
               f"::test_what_makes_times_doubtful_leaves_the_station_unsynced_until_a_pause[{what}]", "UNSYNCED", *patches)
            for what, patches in {
                "session": [("camera_guard.py", "self._on_restart()", "pass")],
                "step": [("wired_line.py", "if abs(offset_ns - before_ns) > max(", "if False and abs(0) > max(")],
                # As judging starts, and before it as it stopped.
                "start": [
                    JUDGING_STARTS,
                    ("station.py", 'self.line.unsync(f"everything under way was answered {reason.name}")', "pass"),
                ],
                # As the matcher is made, and as judging starts.
                "restart": [
                    JUDGING_STARTS,
                    ("part_matching.py", "self.synced = False\n        self.why", "self.synced = True\n        self.why"),
                ],
            }.items()
        ],
        "an old picture answers a used trigger id": [
            _e("runtime/test_inspector_requests.py::test_a_used_id_given_again_is_not_answered_by_the_picture_of_before",
               "", ("triggers.py", "or promise == 0 or pending.promise != promise:", ":")),
        ],
        "a picture of no announced part": [
            _e("runtime/test_inspector_requests.py::test_a_frame_that_nobody_announced_is_unknown_on_a_line_with_triggers",
               "UNANNOUNCED", UNANNOUNCED),
        ],
    },
    "The inspector": {
        "kill -9, idle or streaming": [
            _e("system/test_kill.py::test_kill_9_of_the_inspector_leaves_no_frame_without_its_one_result",
               "", IDS_FROM_ONE),
        ],
        "kill -9 in the middle of a frame": [
            _e("system/test_kill.py::test_kill_9_in_the_middle_of_a_frame_is_answered_restarted",
               "", ("restart.py", "if entry.owed:", "if False:")),
        ],
        "stopped (SIGSTOP), then goes on": [
            _e("gateways/test_link.py::test_a_stopped_inspector_takes_accept_away_and_the_same_part_never_gets_it_back",
               "distrust did not come", *TRUST_FOR_EVER),
            _e("gateways/test_link.py::test_a_stopped_inspector_takes_accept_away_and_the_same_part_never_gets_it_back",
               "may_pass", ("gateways/link.py", "and item.at_s >= seen.trusted_since_s", "")),
        ],
        "stopped for longer, or asleep with the computer": [
            _e("runtime/test_inspector_frames.py::test_a_pause_of_the_whole_process_is_no_stuck_engine",
               "", ("operation.py", "or unwatched_ms > max(limit_ms / 2, 2 * self._config.timing.poll_ms):", ":")),
        ],
        "SIGTERM under load": [
            _e("system/test_kill.py::test_sigterm_answers_every_admitted_frame_and_leaves_nothing_owed",
               "an answer for each did not come",
               ("inspector.py", "self._answer_everything()\n        finally", "pass\n        finally")),
        ],
        "SIGTERM while starting": [
            _e("runtime/test_supervision.py::test_sigterm_during_the_start_ends_without_a_traceback",
               "", ("cli.py", "sys.exit(TERMINATED_EXIT_CODE)", "raise KeyboardInterrupt")),
        ],
        "two inspectors of one station": [
            _e("system/test_kill.py::test_a_second_inspector_of_the_same_station_does_not_start",
               "", ("held_file.py", "fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass")),
        ],
        "its journal is removed, replaced, cut or overwritten, or the disk takes nothing more": [
            _e("system/test_files.py::test_a_journal_lost_under_a_running_inspector_is_an_error_and_no_id_comes_twice",
               "state 3 did not come",
               ("journal.py", "if not self.fault and (found := self._file.fault() or self._ids.fault()):", "if False:")),
            _e("runtime/test_journal_lost.py::test_a_good_result_that_cannot_be_kept_passes_no_part",
               "['GOOD'] == ['ENGINE']",
               ("station.py", "if not self.journal.answer(result.result_id, body) and",
                "if not self.journal.answer(result.result_id, body) and False and")),
            _e("runtime/test_journal.py::test_a_disk_that_takes_nothing_more_is_a_fault_and_no_crash",
               "No space left on device",
               ("journal.py", "self._file.write(at, data)\n        except OSError as error:",
                "self._file.write(at, data)\n        except KeyError as error:")),
        ],
        "its journal is a link, a pipe, another user's, damaged or an older copy": [
            _e("runtime/test_journal.py::test_a_link_a_pipe_a_folder_and_another_users_file_are_refused",
               "DID NOT RAISE", ("files.py", "(0 if follow else os.O_NOFOLLOW)", "0")),
            _e("runtime/test_journal.py::test_a_copy_from_before_does_not_bring_ids_back",
               "", ("journal.py", "if elsewhere.reserved > header.reserved:", "if False:")),
        ],
        "the engine hangs": [
            _e("system/test_line.py::test_a_stuck_engine_misses_deadlines_stops_the_beat_and_ends_in_error",
               "the result did not come", *NO_DEADLINE, ("operation.py", "stuck = silent_ms > limit_ms", "stuck = False")),
            _e("system/test_line.py::test_a_stuck_engine_misses_deadlines_stops_the_beat_and_ends_in_error",
               "state 3 did not come", ("operation.py", "stuck = silent_ms > limit_ms", "stuck = False")),
            _e("runtime/test_supervision.py::test_a_stuck_engine_starves_the_watchdog",
               "", ("status.py", "supervision.progress(desk.bench.beat)", "supervision.progress(desk.bench.beat + desk.clock().ns)")),
        ],
        "the engine raises, gives NaN": [
            _e("runtime/test_inspector_frames.py::test_an_engine_fault_is_unknown_and_repeated_ones_are_an_error[raise]",
               "", ("operation.py", "if self._faults == self._config.limits.engine_faults_max:", "if False:")),
            _e("runtime/test_scoring_verdicts.py::test_damage_is_unknown_and_carries_no_numbers",
               "Verdict.UNKNOWN", ("scoring.py", "    if damage:\n", "    if False:\n")),
        ],
        "the engine is slow": [
            _e("system/test_line.py::test_a_slow_engine_is_late_and_its_score_only_logged",
               "the late score did not come", *NO_DEADLINE),
        ],
        "the GPU's library fails once in mid frame": [
            _e("system/test_cuda_faults.py::test_a_gpu_that_fails_costs_a_frame_or_the_process_and_never_a_wrong_verdict",
               "one failed call costs one frame",
               ("engines/cuda.py", "self._drain(way.lane, error)\n            self._free.append(way.lane)",
                "self._drain(way.lane, error)")),
            _e("cuda/test_cuda_engine.py::test_an_answer_of_another_frame_is_never_taken",
               "DID NOT RAISE", ("cuda/readback.py", "if found != number:", "if False:")),
        ],
        "the GPU is lost: every call fails, or it never comes back": [
            _e("cuda/test_cuda_engine.py::test_a_device_that_hangs_is_lost_in_bounded_time", "", NOT_LOST),
            _e("system/test_cuda_faults.py::test_a_gpu_that_fails_costs_a_frame_or_the_process_and_never_a_wrong_verdict",
               "state 3 did not come", NOT_LOST),
        ],
        "the GPU is lost in a gap between parts": [
            _e("system/test_cuda_faults.py::test_a_gpu_that_is_lost_in_a_gap_is_found_before_the_next_part",
               "timed out", ("engines/cuda.py", "if not settings.keep_warm_ms or resting", "if True or resting")),
        ],
        "the engine that several stations share is lost": [
            _e("runtime/test_stations_engine.py"
               "::test_a_lost_engine_takes_every_station_that_shares_it_to_error_and_no_other", "", NOT_SHARED),
            _e("system/test_several.py"
               "::test_a_lost_engine_is_every_stations_error_and_ends_the_process_for_the_supervisor", "", NOT_SHARED),
        ],
        "one of several stations is halted, in Error or without a recipe": [
            _e("runtime/test_stations_apart.py::test_what_is_asked_of_one_station_is_done_to_one",
               "", ("control.py", "return desk.by_name[name]", "return desk.stations[0]")),
            _e("runtime/test_stations_apart.py::test_faults_in_a_row_are_counted_for_each_station",
               "", ("operation.py", "if self._faults == self._config.limits.engine_faults_max:", "if False:")),
            _e("runtime/test_stations_apart.py::test_a_first_recipe_that_does_not_open_leaves_the_others",
               "", ("inspector.py", "if len(failures) + (len(waiting) if lost else 0) < len(operations):",
                    "if not failures:")),
        ],
        "one of several stations is flooded": [
            _e("system/test_several.py::test_a_station_that_is_flooded_starves_no_other", "OVERLOAD", NO_BOUND_OF_THE_QUEUE),
            _e("runtime/test_stations_engine.py::test_stations_take_turns_however_many_frames_one_sends",
               "in three turns each station has one",
               ("inbox.py", "self._turns.remove(station)\n                self._turns.append(station)", "pass")),
        ],
        "a frame comes to the wrong one of several stations": [
            _e("runtime/test_stations_apart.py::test_a_frame_goes_by_its_camera_and_each_station_counts_its_own",
               "", ("inspector.py", "self.by_camera.get(frame.camera, self.stations[0]).on_frame(frame, now)",
                    "self.stations[0].on_frame(frame, now)")),
            _e("runtime/test_stations_apart.py::test_what_is_nobodys_is_answered_once_by_the_first_station[False]",
               "WRONG_CAMERA", ("station.py", "if frame.camera != self.camera:", "if False:")),
        ],
        "kill -9 of a process of several stations": [
            _e("system/test_several.py::test_kill_9_leaves_no_frame_of_any_station_without_its_one_result",
               "", IDS_FROM_ONE),
        ],
        "the GPU gives a number that is none": [
            _e("cuda/test_cuda_engine.py::test_a_network_that_gives_no_number_is_an_engine_error",
               "",
               # What the kernels noticed, and what the search says of its queries.
               ("cuda/readback.py", "if fault:", "if False:"),
               ("cuda/readback.py", "if not_finite or no_row:", "if False:")),
        ],
        "no GPU, driver, plan or room where one was asked for": [
            _e("runtime/test_recipes.py::test_a_station_told_to_use_the_gpu_never_goes_on_without_it",
               "", ("engines/opening.py", 'if config.engine.name == "cpu":', "if True:")),
            _e("cuda/test_cuda_engine.py::test_too_little_memory_is_said_with_figures_and_a_remedy",
               "DID NOT RAISE", ("cuda/budget.py", "if needed > free:", "if False:")),
        ],
        "the engine gives constants": [
            _e("runtime/test_gate.py::test_constants_that_were_signed_into_the_bundle_do_not_pass_either",
               "DID NOT RAISE",
               ("bundle_checks.py", 'if golden.kind == "normal" and golden.verdict == "ng":', "if False:")),
            _e("runtime/test_gate.py::test_an_engine_that_disagrees_does_not[constant]",
               "DID NOT RAISE",
               # Verdict and reason, score, and what the verdict rests on.
               ("gate.py", "if judgement.score is None or seen != golden.verdict or", "if False and"),
               ("gate.py", "if not abs(judgement.score - golden.score) <= tolerance:", "if False:"),
               ("gate.py", "if modality is None:", "if True:")),
        ],
        "a bundle is altered, or swapped for one that is broken": [
            _e("system/test_line.py::test_the_recipe_changes_between_two_frames_of_a_running_stream",
               "'RECIPE' in", ("operation.py", 'else:\n            self.alarm("RECIPE", str(error))', "else:\n            pass")),
            _e("runtime/test_recipes.py::test_a_child_process_finds_out_first_and_says_why",
               "DID NOT RAISE", ("recipes.py", "if done.returncode != 0:", "if False:")),
        ],
        "a bundle is made to harm (weights from outside, a loop without end, bombs, pipes), be it signed": [
            _e("runtime/test_hostile_bundles.py"
               f"::test_a_hostile_bundle_is_refused_with_a_sentence_soon_and_in_little_memory[{what}]", "", *patches)
            for what, patches in {
                "operator of somebody": [("onnx_graphs.py", "if domain not in OPERATOR_DOMAINS:", "if False:")],
                "PNG bomb": [(
                    "picture_files.py",
                    "if max(height_px, width_px) > MAX_SIDE_PX or height_px * width_px > MAX_PIXELS:", "if False:",
                )],
                # Opened without waiting, and refused.
                "manifest is a pipe": [
                    ("files.py", "flags | os.O_NONBLOCK |", "flags |"),
                    ("files.py", "if not stat.S_ISREG(mode):", "if False:"),
                ],
            }.items()
        ],
        "an older bundle of a recipe is put back": [
            _e("runtime/test_served.py::test_an_older_bundle_opens_on_request_alone_and_says_so",
               "DID NOT RAISE", ("served.py", "if manifest.created_us >= newest_us:", "if True:")),
        ],
        "that memory is gone, damaged or another user's": [
            _e("runtime/test_served.py::test_a_memory_that_cannot_tell_opens_nothing_unasked",
               "DID NOT RAISE",
               # As a bundle is looked at, and as it is served.
               ("served.py", "if not config.engine.allow_older:\n            raise\n        return f", "if False:\n            raise\n        return f"),
               ("served.py", "if not config.engine.allow_older:\n            raise\n        memory", "if False:\n            raise\n        memory")),
        ],
        "a network or bank of zeros, signed again": [
            _e("export/test_export_bundle.py::test_a_zeroed_graph_does_not_open_though_signed_again",
               "DID NOT RAISE", ("bundle_checks.py", "if not large or all(large):", "if False:")),
            _e("export/test_export_bundle.py::test_a_zeroed_bank_does_not_open_though_signed_again",
               "DID NOT RAISE",
               ("bundle_checks.py", "if fault := _rows_fault(bank) if name in MODALITIES else usual_fault(bank):",
                "if fault := False:")),
        ],
    },
    "What surrounds it": {
        "the camera's cable is pulled, and back": [
            _e("system/test_faults.py::test_a_pulled_cable_is_noticed_and_the_line_goes_on_when_it_is_back",
               "the end of ready did not come",
               ("sockets.py", "zmq.HEARTBEAT_IVL: sizes.heartbeat_ms", "zmq.HEARTBEAT_IVL: 0")),
        ],
        "the road is slow": [
            _e("system/test_faults.py::test_a_slow_road_makes_frames_stale_not_wrong", "STALE", *ANY_AGE),
        ],
        "the wall clock steps an hour, forth or back": [
            _e("system/test_faults.py::test_a_wall_clock_that_steps_makes_frames_stale_and_nothing_late_or_early",
               "STALE", *ANY_AGE),
        ],
        "the disk is full": [
            _e("system/test_faults.py::test_a_full_disk_stops_a_start_in_words_and_a_running_station_not_at_all",
               "", ("held_file.py", "os.posix_fallocate(fd, 0, nbytes)", "os.ftruncate(fd, nbytes)")),
        ],
        "a subscriber never reads": [
            _e("system/test_faults.py::test_a_subscriber_that_never_reads_costs_nobody_anything",
               "memory_kb", ("sockets.py", "zmq.SNDHWM: sizes.results_hwm", "zmq.SNDHWM: 0")),
        ],
        "mutated requests": [
            _e("system/test_line.py::test_rubbish_on_both_sockets_keeps_the_law_and_leaves_no_request_unanswered",
               "", ("control.py", "request = wire.decode_request(body)\n    except WireError as error:",
                    "request = wire.decode_request(body)\n    except KeyError as error:")),
        ],
        "a client without, with a wrong or with a revoked key; one that may only read": [
            _e("system/test_curve.py::test_whoever_may_not_is_refused_logged_and_counted_and_the_station_goes_on",
               "DID NOT RAISE", ("access.py", 'return Decision("300", reason)', 'return Decision("200", reason)')),
            _e("system/test_curve.py::test_whoever_may_not_is_refused_logged_and_counted_and_the_station_goes_on",
               "", ("access.py", "elif not any(op in OPERATIONS_OF[role] for role in key.roles):", "elif False:")),
            _e("system/test_curve.py::test_a_revoked_client_is_cut_off_and_nobody_else_misses_a_result",
               "", ("access.py", "            self._granted[socket].clear()\n        return stale",
                    "            self._granted[socket].clear()\n        return set()")),
        ],
        "garbage, half handshakes, crowds on a CURVE socket": [
            _e("runtime/test_curve_sockets.py::test_garbage_silence_and_half_handshakes_harm_nobody_and_are_no_camera",
               "camera_connected", ("connections.py", "self._under_way[value] = now_ns", "self._proven.add(value)")),
        ],
        "a client floods control": [
            _e("system/test_curve.py::test_a_client_that_floods_is_answered_busy_and_the_others_are_served",
               "", ("access.py", 'if self._take("requests", who, 1, often, often) and', "if True or")),
        ],
    },
    "The gateways": {
        "results lost on PUB": [
            _e("system/test_kill.py::test_the_customers_client_sees_every_result_once_over_a_restart",
               "", ("client.py", "if missing is not None and self._control is not None and", "if False and")),
        ],
        "the inspector dies or stops: Modbus": [
            _e("gateways/test_modbus_line.py"
               "::test_a_dead_or_stopped_inspector_takes_accept_and_quality_away_and_both_come_back_without_hands",
               "accept = 0 did not come", *TRUST_FOR_EVER),
        ],
        "... OPC UA": [
            _e("gateways/test_opcua_line.py::test_a_killed_or_stopped_inspector_takes_accept_away_and_ready_comes_back",
               "the fall of accept", *TRUST_FOR_EVER,
               ("gateways/opcua.py", "(time.monotonic() - self._heard_s) * 1000 <= view.state.beat_timeout_ms", "True")),
        ],
        "... MQTT": [
            _e("gateways/test_mqtt_line.py::test_a_stopped_or_killed_inspector_withdraws_accept",
               "the fall", *TRUST_FOR_EVER),
        ],
        "... HTTP": [
            _e("gateways/test_http.py::test_on_a_line_ready_follows_the_inspector_and_the_process_ends_well",
               "not ready", *TRUST_FOR_EVER),
        ],
        "a gateway's loop is stuck": [
            _e("gateways/test_watch_loop.py::test_a_stuck_asyncio_loop_ends_its_process_with_the_exit_code_of_gateways",
               "timed out", ("gateways/watch_loop.py", "if looks >= CHECKS:", "if False:")),
            _e("gateways/test_opcua.py::test_accept_is_computed_as_it_is_read_so_that_no_stuck_loop_keeps_it_true",
               "", ("gateways/opcua.py", "not self._clearing and self._link.may_pass(shown)",
                    "not self._clearing and getattr(shown, 'accept', False)")),
        ],
        "the MQTT gateway is killed": [
            _e("gateways/test_mqtt_line.py::test_results_commands_kills_and_restarts[amqtt]",
               "the will did not come", NO_WILL),
            _e("gateways/test_mqtt_guard.py"
               "::test_a_lie_that_a_broker_keeps_does_not_outlive_the_gateways_first_word[amqtt]",
               "the will did not come", NO_WILL),
        ],
        "the broker is killed, or keeps messages back": [
            _e("gateways/test_mqtt_line.py::test_a_broker_that_is_away_is_said_once_and_tried_on[amqtt]",
               "no connection to the broker", ("gateways/mqtt.py", "if self._lost != connection.why:", "if True:")),
            _e("gateways/test_mqtt_gateway.py::test_nothing_passes_while_the_broker_does_not_give_accept_back",
               "",
               # It never came back, and it has not come back for long.
               ("gateways/mqtt_watch.py", "if self._since_s is None or now_s - self._proven_s > self._quiet_s:", "if False:"),
               ("gateways/mqtt_watch.py", "if now_s - self._since_s < self._quiet_s:", "if False:")),
        ],
        "a broker keeps an accept true of somebody else": [
            _e("gateways/test_mqtt_guard.py"
               "::test_a_lie_that_a_broker_keeps_does_not_outlive_the_gateways_first_word[amqtt]",
               "its first word did not come",
               ("gateways/mqtt.py", 'self._deny(connection, "the gateway has just connected")', "pass")),
        ],
        "somebody else publishes on the station's MQTT topics, or publishes an old message again": [
            _e("gateways/test_mqtt_gateway.py::test_whatever_is_foreign_takes_accept_away_is_answered_and_shown",
               "", DEAF_TO_OTHERS),
            _e("gateways/test_mqtt_guard.py"
               "::test_a_lie_while_the_gateway_runs_is_withdrawn_shown_and_ends_in_acceptance_again[amqtt]",
               "the alarm did not come", DEAF_TO_OTHERS),
        ],
        "two MQTT gateways of one station's name": [
            _e("gateways/test_mqtt_guard.py::test_two_stations_of_one_name_pass_nothing_until_one_is_gone[amqtt-]",
               "that each notices the other did not come", DEAF_TO_OTHERS),
            _e("gateways/test_mqtt_gateway.py::test_two_gateways_of_one_name_accept_nothing_until_one_is_gone",
               "neither", DEAF_TO_OTHERS),
        ],
        "a good result that nobody announced, on a line with triggers": [
            _e("gateways/test_link.py::test_a_good_result_that_nobody_announced_is_no_parts_on_a_line_with_triggers",
               "", ANYBODYS),
            # The station refuses it, and the link.
            _e("gateways/test_mqtt_parts.py::test_no_part_is_accepted_that_was_not_exposed_and_judged_ok[200-amqtt]",
               "", UNANNOUNCED, ANYBODYS),
        ],
        "200 log-ins at once, right and wrong: OPC UA": [
            _e("gateways/test_opcua_hostile.py::test_two_hundred_log_ins_leave_accept_fresh_and_lock_nobody_else_out",
               "", ("gateways/log_ins.py", "user = await loop.run_in_executor(self._pool, users.check_password, self._known, name, password)",
                    "user = users.check_password(self._known, name, password)")),
            _e("gateways/test_log_ins.py::test_the_loop_turns_while_passwords_are_checked_and_few_are_at_once",
               "",
               ("gateways/log_ins.py", "asyncio.Semaphore(config.login_checks)", "asyncio.Semaphore(64)"),
               ("gateways/log_ins.py", "ThreadPoolExecutor(config.login_checks, ", "ThreadPoolExecutor(64, ")),
        ],
        "requests that ask or claim too much: OPC UA": [
            _e("gateways/test_opcua_hostile.py"
               "::test_a_request_that_asks_too_much_costs_its_sender_and_nobody_else[a read of 501]",
               "DID NOT RAISE", ("gateways/opcua_decoding.py", "if length > self._operations_max:", "if False:")),
            _e("gateways/test_opcua_decoding.py::test_a_variant_that_claims_much_is_refused[arrays in arrays]",
               "DID NOT RAISE", ("gateways/opcua_decoding.py", "if self._left < 0:", "if False:")),
        ],
        "a client that reaches for another's subscription: OPC UA": [
            _e("gateways/test_opcua_hostile.py::test_nobody_reaches_a_subscription_or_session_of_another",
               "DID NOT RAISE",
               ("gateways/opcua_session.py", "if found is None or found.session_id != self.session_id:", "if found is None:")),
        ],
        "silent connections: OPC UA, HTTP": [
            _e("gateways/test_opcua_hostile.py::test_silent_connections_make_room_and_end_in_a_named_time",
               "",
               ("gateways/opcua_connection.py", "if len(self.clients) >= self.iserver.bounds.connections_max:", "if False:")),
            _e("gateways/test_http.py::test_probes_are_answered_always_however_many_clients_stay_silent",
               "<= 8", ("gateways/http.py", "if len(self._clients) >= self._config.connections_max:", "if False:")),
        ],
        "a client that keeps a gateway busy: OPC UA": [
            _e("gateways/test_opcua_hostile.py::test_who_took_more_than_its_share_waits_and_nobody_else",
               "not waiting.done()", ("gateways/opcua_connection.py", "return max(0.0, self._busy_s - BURST_S) / share", "return 0.0")),
            _e("gateways/test_opcua_hostile.py::test_the_loop_turns_between_the_requests_of_clients_that_send_many",
               "no two requests in one turn",
               ("gateways/opcua_connection.py",
                "async with self.iserver.turns[self.logged_in]:\n                await asyncio.sleep(0)", "pass")),
        ],
        "a PLC that acknowledges too late": [
            _e("gateways/test_modbus_registers.py"
               "::test_the_ninth_unacknowledged_result_is_an_overrun_that_is_named_and_counted",
               "", ("gateways/modbus.py", "elif len(self._buffer) == self._config.modbus.buffer_results:", "elif False:")),
        ],
        "the Modbus gateway is started again, and the PLC holds old requests": [
            _e("gateways/test_modbus_requests.py"
               "::test_after_a_restart_of_the_gateway_what_stands_in_the_plc_is_not_done_again", "", NO_BASELINE),
            _e("gateways/test_modbus_parts.py"
               "::test_a_station_that_an_operator_stopped_stays_stopped_when_the_gateway_is_started_again",
               "the status of a first write", NO_BASELINE),
        ],
        "a trigger that was given up (status 20) is carried out all the same": [
            _e("gateways/test_modbus_station.py::test_a_trigger_that_was_given_up_and_carried_out_is_no_pass",
               "", NOTHING_GIVEN_UP),
            _e("gateways/test_modbus_parts.py::test_a_trigger_that_a_stopped_inspector_carries_out_late_is_no_pass",
               "", NOTHING_GIVEN_UP),
        ],
        "a change of recipe fails, or the station restarts meanwhile: Modbus": [
            _e("gateways/test_modbus_station.py::test_a_change_of_recipe_ends_as_the_station_says",
               "did not come",
               ("gateways/modbus_requests.py", "if state.session != self._session:", "if False:"),
               ("gateways/modbus_requests.py", 'if change.number > self._number or change.status == "failed":', "if False:")),
            _e("gateways/test_modbus_recipes.py::test_only_results_of_the_selected_recipe_pass",
               "", ("gateways/modbus.py", "return selected == 0 or", "return True or")),
        ],
        "something else fires the camera on a line with triggers: Modbus, the PLC's block": [
            _e("gateways/test_modbus_requests.py::test_a_frame_that_nobody_announced_passes_on_a_free_running_line_only",
               "", ANNOUNCED_OR_NOT[0]),
            _e("examples/test_plc.py::test_on_a_line_with_triggers_a_frame_that_nobody_announced_opens_no_gate[translated]",
               "assert (1 and not 1)", ANNOUNCED_OR_NOT[1],
               ("examples/plc/asperity_station.st", "AND trigger_request = 0 AND status.trigger_id", "AND status.trigger_id")),
            # The station refuses it, the link, the gateway, and the block.
            _e("gateways/test_modbus_parts.py::test_the_gate_opens_for_no_part_that_was_not_exposed_and_judged_ok",
               "", UNANNOUNCED, ANYBODYS, *ANNOUNCED_OR_NOT),
        ],
        "garbage, silence, reconnections: Modbus, HTTP": [
            _e("gateways/test_modbus_server.py::test_garbage_costs_its_sender_the_connection_and_nobody_else",
               "", ("gateways/modbus_server.py", "if protocol != 0 or not 2 <= nbytes <= PDU_MAX_NBYTES + 1:", "if False:")),
            _e("gateways/test_http.py::test_malformed_and_oversized_requests_are_answered_and_closed",
               "", ("gateways/http.py", 'if len(words) != 3 or not words[2].startswith("HTTP/1."):', "if False:")),
        ],
    },
}  # fmt: skip

WITHOUT: dict[tuple[str, str, str], str] = {
    ("What surrounds it", "1 000 reconnections", "test_a_thousand_reconnections_leave_nothing_behind"):
        "nothing of ours closes them: ZeroMQ does",
}  # fmt: skip
"""Section, fault and test of what rests on nothing that could be switched off, and why."""


def _soak(node: str) -> bool:
    return not node.startswith(FAST) or node.rpartition("::")[2].partition("[")[0] in SLOW


ENTRIES = [
    Entry(section, fault, node, says, patches, _soak(node))
    for section, faults in TABLE.items()
    for fault, entries in faults.items()
    for node, says, patches in entries
]
