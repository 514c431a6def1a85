"""The rows of docs/failsafe.md about the camera, the parts and the inspector: what each rests on, switched off."""
# ruff: noqa: E501 - the code that is switched off stands here as it stands there

from __future__ import annotations

from tests.failsafe.rows import Off, off

CAMERA_GONE = ("inspector/station.py", "return self.sockets.camera_connected(self.camera) and not silent", "return not silent")
NO_PULSE = ("sockets/plain_sockets.py", 'peer.cut("no reply to the heartbeat")', "pass")
NO_BOUND_OF_THE_QUEUE = ("judging/inbox.py", "if len(waiting) >= self._length:", "if False:")
TRUST_FOR_EVER = (
    # The client's view of the beat; the link's, also while nothing is polled; and no part of before ever again.
    ("client/station_client.py", "return (time.monotonic() - self._beat_s) * 1000 <= self.state.beat_timeout_ms", "return True"),
    ("gateways/link.py", "return time.monotonic() <= seen.trusted_until_s", "return seen.trusted_until_s > 0"),
    ("gateways/link.py", "since_s = seen.trusted_since_s if same and now_s <= seen.trusted_until_s else now_s",
     "since_s = seen.trusted_since_s"),
)
NO_DEADLINE = (
    # While it passes, and as the score comes.
    ("inspector/station.py", "if work.judged is None and now.ns >= work.deadline_ns]:", "if False]:"),
    ("inspector/station.py", "work.judged is not None or self.clock().ns >= work.deadline_ns:", "work.judged is not None:"),
)
IDS_FROM_ONE = (
    "records/journal.py", "next_id = max((entry.result_id for entry in self.entries()), default=header.first_id - 1) + 1",
    "next_id = header.first_id",
)  # fmt: skip
NOT_LOST = ("engines/cuda.py", 'raise self._lose(f"{error}{again}") from error', "return")
JUDGING_STARTS = ("inspector/line_guard.py", 'self._line.unsync("judging has started")', "pass")
UNANNOUNCED = (
    "inspector/station.py", "(trigger is None and not free_run and self.line is None, Reason.UNANNOUNCED)",
    "(False, Reason.UNANNOUNCED)",
)  # fmt: skip
NOT_SHARED = ("inspector/desk.py", "if station is finder or (", "if station is finder or False and (")

TABLE: dict[str, dict[str, list[Off]]] = {
    "The camera": {
        "killed": [
            off("system/test_kill.py::test_kill_9_of_the_camera_costs_nothing_but_what_it_did_not_send",
                "a state without camera did not come", CAMERA_GONE),
        ],
        "... without an expected rate": [
            off("runtime/sockets/test_plain_sockets.py::test_a_connection_that_answers_no_heartbeat_is_no_camera_and_one_that_does_is",
                "did not come", NO_PULSE),
        ],
        "its connection is reset while its frames wait and the I/O thread is busy": [
            off("runtime/sockets/test_plain_sockets.py"
                "::test_a_reset_connection_with_a_heartbeat_behind_a_full_queue_harms_nobody",
                "the end of it did not come", ("sockets/plain_connection.py", "            gone(self)", "            pass")),
            off("runtime/sockets/test_curve_bounds.py"
                "::test_a_reset_connection_with_much_unread_and_heartbeats_of_both_sides_harms_nobody",
                "-6 == 0", ("sockets/curve_sockets.py", "socket.setsockopt(zmq.RCVHWM, 0)", "socket.setsockopt(zmq.RCVHWM, 2)")),
        ],
        "it connected to a process that is not a station (another program on the port)": [
            off("runtime/sockets/test_impostor.py::test_a_camera_sends_to_the_station_that_comes_after_an_impostor",
                "did not come", ("client/frame_sender.py", "elif now_s > self._renew_s:", "elif False:")),
        ],
        "stopped (SIGSTOP), then resumed": [
            off("system/test_faults.py::test_a_stopped_camera_is_noticed_and_what_it_sends_late_is_answered",
                "the end of ready did not come", ("inspector/station.py", "silent = expected and", "silent = False and")),
        ],
        "ten times its rate": [
            off("system/test_faults.py::test_ten_times_the_rate_is_overload_and_the_newest_frames_are_judged",
                "and 0 > ", NO_BOUND_OF_THE_QUEUE),
        ],
        "sends invalid data, incomplete messages, wrong types": [
            off("system/test_line.py::test_rubbish_on_both_sockets_keeps_the_law_and_leaves_no_request_unanswered",
                "StationError", ("wire/frame.py", "if not expected_bytes == stream.nbytes == received_bytes:", "if False:")),
        ],
        "writes missing points as numbers that nobody declared (-1, -32768, a far plane)": [
            off("runtime/vision/test_missing_points.py::test_a_frame_with_undeclared_missing_points_is_refused",
                "REFUSED_DATA", ("vision/missing_points.py", "if geometry.invalid != ():", "if False:")),
            off("runtime/cuda/test_cuda_engine.py"
                "::test_missing_points_written_as_numbers_are_refused_or_as_declared",
                "DID NOT RAISE", ("engines/cuda.py", "frame = as_declared(frame, self._geometry)", "pass")),
        ],
        "a seq repeated, decreasing, missing": [
            off("runtime/inspector/test_inspector_frames.py::test_seq_tells_what_is_lost_repeated_or_not_believed",
                "(13, 'GOOD') != (13, 'DUPLICATE_SEQ')", ("records/ledger.py", "if seq <= run.last:", "if False:")),
            off("runtime/inspector/test_inspector_frames.py::test_seq_tells_what_is_lost_repeated_or_not_believed",
                "(13, 'GOOD') != (11, 'LOST')", ("records/ledger.py", "lost = range(run.last + 1, seq)", "lost = range(0)")),
        ],
        "one frame with a wrong seq": [
            off("runtime/inspector/test_inspector_frames.py"
                "::test_one_frame_with_a_wrong_number_makes_no_duplicates_of_those_that_follow",
                "(3, 'DUPLICATE_SEQ') != (3, 'GOOD')", ("records/ledger.py", "confirmed = run.leapt_to is not None and seq == run.leapt_to + 1", "confirmed = True")),
        ],
        "a reconnection overtakes a frame": [
            off("runtime/inspector/test_inspector_frames.py::test_an_exposure_that_a_reconnection_overtook_has_one_result",
                "{(2, 'CAMERA_CONFLICT'): 2}", ("records/ledger.py", "if run is None or seq not in run.lost:", "if True:")),
        ],
        "two senders with the same camera name": [
            off(f"runtime/inspector/test_inspector_frames.py::{test}",
                "CAMERA_CONFLICT", ("inspector/camera_guard.py", "if self._open.keys() - {connection}:", "if False:"))
            for test in (
                "test_while_two_connections_send_for_one_camera_nothing_is_accepted",
                "test_the_session_of_the_camera_itself_sent_by_another_connection_is_a_conflict_too",
            )
        ],
        "the same picture again": [
            off("runtime/inspector/test_inspector_frames.py::test_the_same_picture_again_is_frozen",
                "FROZEN_IMAGE", ("judging/pipeline.py", "if repeated:", "if False:")),
        ],
        "another camera's frames": [
            off("runtime/inspector/test_inspector_frames.py::test_a_frame_of_another_camera_is_refused_and_counts_for_nothing",
                "WRONG_CAMERA", ("inspector/station.py", "if frame.camera != self.camera:", "if False:")),
        ],
        "no frame for a trigger": [
            off("runtime/inspector/test_inspector_requests.py::test_a_trigger_without_a_frame_is_answered_and_its_late_frame_apart",
                "NO_FRAME",
                ("inspector/station.py", "self.results.answer_triggers(self.triggers.expired(now.ns), Reason.NO_FRAME)", "pass")),
        ],
    },
    # test_part_matching's own test_each_rule_is_needed takes out every rule of the matcher; here are those that a row
    # names, and what stands around the matcher.
    "Which part a picture is of": {
        "an announcement after the exposure, an exposure lost, broken or never made": [
            off("runtime/inspector/test_inspector_parts.py"
                "::test_bad_parts_whose_exposures_are_lost_are_never_accepted_by_their_neighbours_pictures",
                "the next part's window touches the time of the lost exposure", ("inspector/part_matching.py", "self._gaps.append((since_ns, until_ns))", "pass")),
            off("runtime/inspector/test_part_matching.py::test_no_part_has_anothers_picture_whatever_goes_wrong",
                "== 0", ("inspector/part_matching.py", 'self.unsync("an exposure was not announced")', "pass")),
        ],
        "a picture exposed long before its announcement": [
            off("runtime/inspector/test_inspector_parts.py"
                "::test_a_frame_exposed_long_before_the_announcement_is_not_its_answer",
                "'UNANNOUNCED')", ("inspector/part_matching.py", "self._before_ns = late + tolerance", "self._before_ns = 1000 * MS")),
        ],
        "two announcements or exposures that could belong together": [
            off("runtime/inspector/test_part_matching.py::test_row[two_exposures_in_a_window_are_nobodys]",
                "too many values to unpack", ("inspector/part_matching.py", "if len(inside) > 1:", "if False:")),
            off("runtime/inspector/test_part_matching.py::test_row[an_exposure_in_two_windows_is_nobodys]",
                "AMBIGUOUS", ("inspector/part_matching.py", "if len(self._claims(inside[0])) > 1:", "if False:")),
        ],
        "an announcement waits unread while the inspector is stopped": [
            off("runtime/inspector/test_inspector_parts.py::test_messages_that_are_not_read_yet_hold_the_answer_back",
                "another announcement may wait in the socket", ("inspector/hard_wired_line.py", "self._matcher.settle(min(now.ns, read_up_to_ns))", "self._matcher.settle(now.ns)")),
        ],
        "a part is called something that could break a line, a screen or the journal, or that no result can hold": [
            off("runtime/inspector/test_part_identity.py"
                "::test_a_trigger_that_breaks_a_rule_is_refused_by_field_and_pends_nothing[fields3-lot]",
                "lot = ", ("wire/control.py", 'check_part(f"request {request.op}", request.part_id, request.lot, request.order, request.shift)', "pass")),
            off("runtime/inspector/test_part_identity.py"
                "::test_a_trigger_that_breaks_a_rule_is_refused_by_field_and_pends_nothing[fields1-part_id]",
                "BAD_REQUEST", ("text/part_identity.py", "if in_json > PART_ID_MAX_JSON_NBYTES:", "if False:")),
        ],
        "camera or inspector restarted, clock stepped, no time of exposure": [
            off("runtime/inspector/test_inspector_parts.py"
                f"::test_what_makes_times_doubtful_leaves_the_station_unsynced_until_a_pause[{what}]", "UNSYNCED", *patches)
            for what, patches in {
                "session": [("inspector/camera_guard.py", "self._on_restart()", "pass")],
                "step": [("inspector/hard_wired_line.py", "if abs(offset_ns - before_ns) > max(", "if False and abs(0) > max(")],
                # As judging starts, and before it as it stopped.
                "start": [
                    JUDGING_STARTS,
                    ("inspector/station.py", 'self.line.unsync(f"all pending frames were answered {reason.name}")', "pass"),
                ],
                # As the matcher is made, and as judging starts.
                "restart": [
                    JUDGING_STARTS,
                    ("inspector/part_matching.py", "self.synced = False\n        self.why", "self.synced = True\n        self.why"),
                ],
            }.items()
        ],
        "a trigger is BUSY, and its part comes before the camera has exposed for the one before": [
            off("runtime/inspector/test_inspector_requests.py"
                "::test_an_exposure_that_may_be_of_the_part_whose_trigger_was_busy_is_no_earlier_parts[other2-realtime-1-AMBIGUOUS]",
                "GOOD", ("inspector/operations.py", "station.triggers.follow(request.trigger_id, request.part_id or \"\", station.clock().ns)", "pass")),
        ],
        "the same, and that clock is not synchronised, or not known to be": [
            off("runtime/inspector/test_clocks.py"
                "::test_a_clock_that_may_be_wrong_does_not_tell_the_part_of_a_busy_trigger_from_the_one_before[kernel1-0-AMBIGUOUS]",
                "GOOD", ("inspector/frame_times.py", "return not (clocks.comparable(frame.clock) and ", "return not (True and ")),
        ],
        "frames may arrive nearly a pitch after their exposure, and the clocks are not known to agree": [
            off("runtime/inspector/test_clocks.py"
                "::test_a_line_whose_frames_may_come_a_pitch_late_needs_clocks_that_are_known_to_agree[350-kernel1-ptp-False]",
                "UNSYNCED", ("inspector/hard_wired_line.py", "if not self._wide and clocks.doubtful(frame.clock):", "if False:")),
        ],
        "the camera's clock runs ahead, so that an old picture looks new": [
            off("runtime/inspector/test_clocks.py::test_a_camera_that_ran_ahead_does_not_make_an_old_picture_new", "STALE",
                # On arrival, and again when its turn comes.
                ("inspector/frame_times.py", "if clocks.age_ns(frame, now.wall_us) > limit_ms * MS:", "if False:"),
                ("inspector/station.py", "max(0, self.clocks.age_ns(frame, now.wall_us))", "0")),
        ],
        "an old picture answers a reused trigger id": [
            off("runtime/inspector/test_inspector_requests.py::test_a_used_id_given_again_is_not_answered_by_the_picture_of_before",
                "(0, 'before', 'TRIGGER_EXPIRED')", ("inspector/triggers.py", "or promise == 0 or pending.promise != promise:", ":")),
        ],
        "a picture without an announced part": [
            off("runtime/inspector/test_inspector_requests.py::test_a_frame_that_nobody_announced_is_unknown_on_a_line_with_triggers",
                "UNANNOUNCED", UNANNOUNCED),
        ],
    },
    "The inspector": {
        "kill -9, idle or streaming": [
            off("system/test_kill.py::test_kill_9_of_the_inspector_leaves_no_frame_without_its_one_result",
                "what was published is what the journal says", IDS_FROM_ONE),
        ],
        "kill -9 in the middle of a frame": [
            off("system/test_kill.py::test_kill_9_in_the_middle_of_a_frame_is_answered_restarted",
                "assert [] == [(1", ("records/recovery.py", "if entry.owed:", "if False:")),
        ],
        "stopped (SIGSTOP), then resumed": [
            off("runtime/gateways/test_link.py::test_a_stopped_inspector_takes_accept_away_and_the_same_part_never_gets_it_back",
                "distrust did not come", *TRUST_FOR_EVER),
            off("runtime/gateways/test_link.py::test_a_stopped_inspector_takes_accept_away_and_the_same_part_never_gets_it_back",
                "may_pass", ("gateways/link.py", "and item.at_s >= seen.trusted_since_s", "")),
        ],
        "stopped for longer, or suspended with the computer": [
            off("runtime/inspector/test_inspector_time.py::test_a_pause_of_the_whole_process_is_no_stuck_engine",
                "State.CONTINUOUS_EXECUTION", ("inspector/controller.py", "or unwatched_ms > max(limit_ms / 2, 2 * self._config.timing.poll_ms):", ":")),
        ],
        "stopped while a camera without a shared clock goes on: what it sent waits in the socket": [
            off("runtime/inspector/test_inspector_frames.py::test_what_may_have_waited_in_the_socket_is_stale_where_no_clock_says_otherwise",
                "'GOOD'", ("inspector/frame_times.py", "return clocks.doubtful(frame.clock) and now.ns - read_up_to_ns > unread_ms * MS", "return False")),
        ],
        "SIGTERM under load": [
            off("system/test_kill.py::test_sigterm_answers_every_admitted_frame_and_leaves_nothing_owed",
                "an answer for each did not come",
                ("inspector/desk.py", "self._answer_everything()\n        finally", "pass\n        finally")),
        ],
        "SIGTERM while starting": [
            off("runtime/process/test_supervision.py::test_sigterm_during_the_start_ends_without_a_traceback",
                "TimeoutExpired", ("process/early_signals.py", "_told = True\n    sys.exit(EXIT_CODE)", "pass")),
        ],
        "two inspectors for one station": [
            off("system/test_kill.py::test_a_second_inspector_of_the_same_station_does_not_start",
                "timed out", ("records/held_file.py", "fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass")),
        ],
        "its journal is removed, replaced, truncated or overwritten, or the disk accepts no more data": [
            off("system/test_files_taken_away.py::test_a_journal_lost_under_a_running_inspector_is_an_error_and_no_id_comes_twice",
                "state 3 did not come",
                ("records/journal.py", "if not self.fault and (found := self._file.fault() or self._ids.fault()):", "if False:")),
            off("runtime/records/test_journal_lost.py::test_a_good_result_that_cannot_be_kept_passes_no_part",
                "['GOOD'] == ['ENGINE']",
                ("inspector/results.py", "if not self._journal.answer(result.result_id, body) and",
                "if not self._journal.answer(result.result_id, body) and False and")),
            off("runtime/records/test_journal_files.py::test_a_disk_that_takes_nothing_more_is_a_fault_and_no_crash",
                "No space left on device",
                ("records/journal.py", "self._file.write(at, data)\n        except OSError as error:",
                "self._file.write(at, data)\n        except KeyError as error:")),
        ],
        "its journal is a link, a pipe, another user's, damaged or an older copy": [
            off("runtime/records/test_journal_files.py::test_a_link_a_pipe_a_folder_and_another_users_file_are_refused",
                "DID NOT RAISE", ("files.py", "(0 if follow else os.O_NOFOLLOW)", "0")),
            off("runtime/records/test_journal_files.py::test_a_copy_from_before_does_not_bring_ids_back",
                "IndexError", ("records/journal.py", "if elsewhere.reserved > header.reserved:", "if False:")),
        ],
        "the engine hangs": [
            off("system/test_line.py::test_a_stuck_engine_misses_deadlines_stops_the_beat_and_ends_in_error",
                "the result did not come", *NO_DEADLINE, ("inspector/controller.py", "stuck = silent_ms > limit_ms", "stuck = False")),
            off("system/test_line.py::test_a_stuck_engine_misses_deadlines_stops_the_beat_and_ends_in_error",
                "state 3 did not come", ("inspector/controller.py", "stuck = silent_ms > limit_ms", "stuck = False")),
            off("runtime/process/test_supervision.py::test_a_stuck_engine_starves_the_watchdog",
                "WATCHDOG=1", ("inspector/desk.py", "supervision.progress(self.engine_thread.beat)", "supervision.progress(self.engine_thread.beat + self.clock().ns)")),
        ],
        "the engine raises, returns NaN": [
            off("runtime/inspector/test_inspector_frames.py::test_an_engine_fault_is_unknown_and_repeated_ones_are_an_error[raise]",
                "8 == <State.ERROR: 3>", ("inspector/controller.py", "if self._faults == self._config.limits.engine_faults_max:", "if False:")),
            off("runtime/vision/test_scoring_verdicts.py::test_damage_is_unknown_and_carries_no_numbers",
                "Verdict.UNKNOWN", ("vision/scoring.py", "    if damage:\n", "    if False:\n")),
        ],
        "the engine is slow": [
            off("system/test_line.py::test_a_slow_engine_is_late_and_its_score_only_logged",
                "the late score did not come", *NO_DEADLINE),
        ],
        "the GPU's library fails once during a frame": [
            off("system/test_cuda_faults.py::test_a_gpu_that_fails_costs_a_frame_or_the_process_and_never_a_wrong_verdict",
                "one failed call costs one frame",
                ("engines/cuda.py", "self._drain(way.lane, error)\n            self._free.append(way.lane)",
                "self._drain(way.lane, error)")),
            off("runtime/cuda/test_cuda_engine_failing.py::test_an_answer_of_another_frame_is_never_taken",
                "DID NOT RAISE", ("cuda/readback.py", "if found != number:", "if False:")),
        ],
        "the GPU is lost: every call fails, or a call never returns": [
            off("runtime/cuda/test_cuda_engine_failing.py::test_a_device_that_hangs_is_lost_in_bounded_time", "did not finish within", NOT_LOST),
            off("system/test_cuda_faults.py::test_a_gpu_that_fails_costs_a_frame_or_the_process_and_never_a_wrong_verdict",
                "state 3 did not come", NOT_LOST),
        ],
        "the GPU is lost in a gap between parts": [
            off("system/test_cuda_faults.py::test_a_gpu_that_is_lost_in_a_gap_is_found_before_the_next_part",
                "timed out", ("engines/cuda.py", "if not settings.keep_warm_ms or resting", "if True or resting")),
        ],
        "the engine that several stations share is lost": [
            off("runtime/inspector/test_stations_engine.py"
                "::test_a_lost_engine_takes_every_station_that_shares_it_to_error_and_no_other", "before a frame of its own has found it out", NOT_SHARED),
            off("system/test_several.py"
                "::test_a_lost_engine_is_every_stations_error_and_ends_the_process_for_the_supervisor", "timed out", NOT_SHARED),
        ],
        "one of several stations is halted, in Error or without a recipe": [
            off("runtime/inspector/test_stations_apart.py::test_what_is_asked_of_one_station_is_done_to_one",
                "State.CONTINUOUS_EXECUTION", ("inspector/requests.py", "return self._by_name[name]", "return self._stations[0]")),
            off("runtime/inspector/test_stations_apart.py::test_faults_in_a_row_are_counted_for_each_station",
                "8 == <State.ERROR: 3>", ("inspector/controller.py", "if self._faults == self._config.limits.engine_faults_max:", "if False:")),
            off("runtime/inspector/test_stations_apart.py::test_a_first_recipe_that_does_not_open_leaves_the_others",
                "'RECIPE' in ()", ("inspector/desk.py", "if len(failures) + (len(waiting) if lost else 0) < len(controllers):",
                    "if not failures:")),
        ],
        "one of several stations is flooded": [
            off("system/test_several.py::test_a_station_that_is_flooded_starves_no_other", "assert (0 > 0", NO_BOUND_OF_THE_QUEUE),
            off("runtime/inspector/test_stations_engine.py::test_stations_take_turns_however_many_frames_one_sends",
                "in three turns each station has one",
                ("judging/inbox.py", "self._turns.remove(station)\n                self._turns.append(station)", "pass")),
        ],
        "a frame comes to the wrong one of several stations": [
            off("runtime/inspector/test_stations_apart.py::test_a_frame_goes_by_its_camera_and_each_station_counts_its_own",
                "ids of its own", ("inspector/desk.py", "self.by_camera.get(frame.camera, self.stations[0]).on_frame(frame, now)",
                    "self.stations[0].on_frame(frame, now)")),
            off("runtime/inspector/test_stations_apart.py::test_what_is_nobodys_is_answered_once_by_the_first_station[False]",
                "WRONG_CAMERA", ("inspector/station.py", "if frame.camera != self.camera:", "if False:")),
        ],
        "kill -9 of a process of several stations": [
            off("system/test_several.py::test_kill_9_leaves_no_frame_of_any_station_without_its_one_result",
                "what was published is what the journal says", IDS_FROM_ONE),
        ],
        "the GPU returns NaN or infinity": [
            off("runtime/cuda/test_cuda_engine.py::test_a_network_that_gives_no_number_is_an_engine_error",
                "DID NOT RAISE",
                # What the kernels noticed, and what the search says of its queries.
                ("cuda/readback.py", "if fault:", "if False:"),
                ("cuda/readback.py", "if not_finite or no_row:", "if False:")),
            off("runtime/cuda/test_surface_kernels.py::test_features_that_are_not_numbers_are_a_fault",
                "assert", ("cuda/heights.py", "np.float32(LARGEST), self.features, fault,", "np.float32(LARGEST), self.features, self._plane,")),
            off("runtime/cuda/test_surface_kernels.py::test_features_that_are_not_numbers_are_a_fault",
                "assert", ("cuda/descriptor.py", "self._usual, self.features, fault,", "self._usual, self.features, self._steps,")),
        ],
        "no GPU, driver, plan or memory although the GPU is configured": [
            off("runtime/judging/test_recipes.py::test_a_station_told_to_use_the_gpu_never_goes_on_without_it",
                "ParityError", ("engines/opening.py", 'if config.engine.name == "cpu":', "if True:")),
            off("runtime/cuda/test_cuda_engine.py::test_too_little_memory_is_said_with_figures_and_a_remedy",
                "DID NOT RAISE", ("cuda/budget.py", "if needed > free:", "if False:")),
        ],
        "a requested recipe does not open, or takes too long": [
            off("runtime/inspector/test_recipe_change.py"
                "::test_one_that_does_not_open_fails_in_words_and_the_recipe_before_it_judges_on",
                "under_way", ("inspector/controller.py", "self.changes.failed(why)", "pass")),
            off("runtime/inspector/test_recipe_change.py::test_one_that_takes_too_long_fails_and_does_not_come_about_later",
                "under_way", ("inspector/controller.py", "if self.busy and now.ns > self._busy_until_ns:", "if False:")),
        ],
        "fault, halt or reset while a recipe is being changed": [
            off("runtime/inspector/test_recipe_change.py::test_what_happens_to_the_station_meanwhile_ends_no_change_twice[fault]",
                "a recipe starts nothing",
                ("states.py", "Transition(_ERROR, Cause.RECIPE_TAKEN, _ERROR,", "Transition(_ERROR, Cause.RECIPE_TAKEN, _READY,")),
        ],
        "an operator sets a threshold that would let defects pass": [
            off("runtime/inspector/test_inspector_requests.py"
                "::test_a_threshold_above_every_normal_score_of_calibration_is_refused",
                "ACCEPTED", ("bundle/ceilings.py", "if not threshold <= highest:", "if False:")),
        ],
        "a request arrives late, from an earlier session, or again": [
            off("runtime/inspector/test_request_age.py::test_what_changes_something_is_done_while_it_is_young_and_never_later",
                "TOO_OLD", ("inspector/requests.py", "if not 0 <= age_ms <= limit_ms:", "if False:")),
            off("runtime/inspector/test_request_age.py::test_a_request_whose_answer_may_be_forgotten_is_not_done_again",
                "TOO_OLD", ("inspector/requests.py", "if forgotten_ns is not None and", "if False and")),
        ],
    },
}  # fmt: skip
