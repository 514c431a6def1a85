"""The rows of docs/failsafe.md about what surrounds the inspector and the gateways: what each rests on, switched off."""
# ruff: noqa: E501 - the code that is switched off stands here as it stands there

from __future__ import annotations

from tests.failsafe.rows import Off, off
from tests.failsafe.station_rows import NO_PULSE, TRUST_FOR_EVER, UNANNOUNCED

ANY_AGE = (
    # On arrival, and again when its turn comes.
    ("inspector/frame_times.py", "if abs(age_ns(frame, now.wall_us)) > limit_ms * MS:", "if False:"),
    ("judging/pipeline.py", "if now_ns > job.stale_ns:", "if False:"),
)
ANNOUNCED_OR_NOT = (
    ("gateways/modbus/registers.py", 'or (record.trigger_id == 0 and (state is None or state.triggers != "free_run"))', "or False"),
    ("examples/generated/asperity_modbus.st", "AND (status.trigger_id <> 0 OR status.triggers = 1);", ";"),
)
NO_BASELINE = ("gateways/modbus/registers.py", "if name in self._known and value != self._written[name]}", "if value}")
NOTHING_GIVEN_UP = ("gateways/modbus/registers.py", "self._given_up.answered(trigger_id, status)", "pass")
ANYBODYS = (
    # The link of every gateway, and the client below it.
    ("gateways/link.py", "return result.trigger_id != 0 or", "return True or"),
    ("client/station_client.py", "answers_trigger = result.trigger_id != 0 or", "answers_trigger = True or"),
)
NO_MODBUS = ("gateways/modbus/server.py", "if protocol != 0 or not 2 <= nbytes <= PDU_MAX_NBYTES + 1:", "if False:")
LARGE = ("sockets/plain_connection.py", "if size > bounds.part_nbytes or nbytes > bounds.message_nbytes:", "if False:")
NO_RENEWAL = (
    "client/station_client.py", "if (time.monotonic() - max(self._heard_s, self._connected_s)) * 1000 > self._limits.renew_ms:", "if False:",
)
OPCUA_FORGETS = ("gateways/parts.py", "            self._given_up.answered(trigger_id, status)", "            pass")
ANY_RECIPE = ("gateways/parts.py", 'return self.recipe not in ("", result.recipe)', "return False")
NO_WILL = ("gateways/mqtt/connection.py", "client.will_set(", "(lambda *_, **__: None)(")
ANYBODYS_TOPIC = (
    "gateways/mqtt/connection.py", 'return bool(self._requests) and topic.rpartition("/")[0] == self._requests', "return True",
)
DEAF_TO_OTHERS = ("gateways/mqtt/topic_watch.py", "self._foreign_s = now_s", "pass")

TABLE: dict[str, dict[str, list[Off]]] = {
    "What surrounds it": {
        "the camera's cable is unplugged and plugged in again": [
            off("system/test_faults.py::test_a_pulled_cable_is_noticed_and_the_line_goes_on_when_it_is_back",
                "the end of ready did not come",
                # Its heartbeat, and TCP's own.
                NO_PULSE,
                ("sockets/plain_sockets.py", "end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)", "pass")),
        ],
        "the network is slow": [
            off("system/test_faults.py::test_a_slow_road_makes_frames_stale_not_wrong", "assert 0 > 0", *ANY_AGE),
        ],
        "the wall clock steps by an hour, forwards or backwards": [
            off("system/test_faults.py::test_a_wall_clock_that_steps_makes_frames_stale_and_nothing_late_or_early",
                "STALE", *ANY_AGE),
        ],
        "the disk is full": [
            off("system/test_faults.py::test_a_full_disk_stops_a_start_in_words_and_a_running_station_not_at_all",
                "timed out", ("records/held_file.py", "os.posix_fallocate(fd, 0, nbytes)", "os.ftruncate(fd, nbytes)")),
        ],
        "a subscriber never reads": [
            off("system/test_faults.py::test_a_subscriber_that_never_reads_costs_nobody_anything",
                "memory_kb", ("sockets/plain_connection.py", "if self.closed or self.reason or len(self._pending) >= hwm:", "if self.closed or self.reason:")),
        ],
        "1 000 reconnections": [
            off("system/test_faults.py::test_a_thousand_reconnections_leave_nothing_behind",
                "the end of every connection did not come",
                # Closed, and forgotten, by which Python would close it.
                ("sockets/plain_connection.py", "                self._end.close()", "                pass"),
                ("sockets/plain_connection.py", "            gone(self)", "            pass")),
        ],
        "bytes that are not ZMTP, incomplete messages, floods on any port, with and without CURVE": [
            off("runtime/sockets/test_plain_sockets.py::test_a_connection_beyond_a_bound_is_cut_before_more_is_read_and_nobody_else_is",
                "the cut did not come", LARGE),
            off("runtime/sockets/test_plain_sockets.py::test_half_a_message_may_not_stay_half_nor_stand_in_the_way_of_others",
                "did not come", ("sockets/plain_connection.py", "if until_ns and now_ns > until_ns:", "if False:")),
        ],
        "mutated requests": [
            off("system/test_line.py::test_rubbish_on_both_sockets_keeps_the_law_and_leaves_no_request_unanswered",
                "requests have no answer", ("inspector/requests.py", "request = wire.decode_request(body)\n        except WireError as error:",
                    "request = wire.decode_request(body)\n        except KeyError as error:")),
        ],
        "a message that names a part, trigger or command twice, of which readers take different ones": [
            off("runtime/wire/test_wire_messages.py::test_a_message_with_a_key_twice_is_refused_whichever_it_is",
                "DID NOT RAISE", ("wire/common.py", 'check_keys(str(view, "utf-8"))', "pass")),
            off("runtime/gateways/mqtt/test_mqtt.py::test_a_request_that_may_not_be_is_answered_and_not_passed_on",
                "None is not None", ("gateways/requests.py", 'check_keys(str(body, "utf-8"))', "pass"),
                ("wire/common.py", "if name not in twice}", "}"),
                ("gateways/requests.py", 'if "op" in fields and bytes(fields["op"]) != named:', "if False:")),
        ],
        "the file of counters is lost, damaged or cannot be written": [
            off("runtime/inspector/test_counting.py::test_a_file_that_cannot_be_written_is_an_alarm_and_judging_goes_on",
                "COUNTERS", ("inspector/counting.py",
                             'self.problem = f"{self._file.path} cannot be written ({error.strerror or error})"', "pass")),
            off("runtime/inspector/test_counting.py::test_a_lost_or_damaged_file_costs_counts_and_nothing_else[rubbish]",
                "is damaged", ("inspector/counting.py", "except (OSError, ValueError, msgspec.MsgspecError) as error:",
                               "except OSError as error:")),
        ],
        "the disk of the audit file hangs, fails or is full": [
            off("runtime/records/test_audit.py::test_a_disk_that_hangs_holds_nobody_up_and_what_is_lost_is_counted",
                "AUDIT", ("records/audit.py", "if len(self._queue) >= self._queue_max:", "if False:")),
            off("runtime/records/test_audit.py::test_a_disk_that_fails_is_an_alarm_is_tried_again_and_loses_nothing",
                "'AUDIT' in", ("records/audit.py", "self._problem = str(error)\n                return False", "return False")),
        ],
        "a request is read late: the station or the connection to it was stopped": [
            off("runtime/client/test_client_requests.py::test_what_the_client_has_given_up_is_not_done_later",
                "== []",
                ("client/station_client.py", "return structs.replace(request, session=self.state.session, uptime_ms=self.state.uptime_ms)",
                 "return request")),
        ],
        "another process answers on the control socket in place of the station": [
            off("runtime/client/test_client_requests.py::test_no_answer_of_the_journal_comes_before_the_true_result",
                "is not asked for",
                ("client/ordering.py", "if missing is None or missing[0] > self._settled_id:", "if missing is None:"),
                ("client/ordering.py", "return missing[0], min(missing[1], self._settled_id)", "return missing")),
            off("runtime/client/test_client_requests.py::test_an_answer_that_cannot_be_true_is_an_alarm_and_nothing_is_accepted",
                "not True", ("client/station_client.py", "        self._contradicted_session = session", "        pass")),
        ],
        "another user created the socket's folder first": [
            off("runtime/security/test_socket_files.py::test_a_folder_that_another_user_made_first_is_not_used",
                "DID NOT RAISE", ("security/socket_files.py", "if is_foreign(found):", "if False:")),
        ],
        "a client without, with a wrong or with a revoked key; one that may only read": [
            off("system/test_curve.py::test_whoever_may_not_is_refused_logged_and_counted_and_the_station_goes_on",
                "NOT_ALLOWED", ("sockets/access.py", "elif not any(op in OPERATIONS_OF[role] for role in key.roles):", "elif False:")),
            off("system/test_curve.py::test_a_revoked_client_is_cut_off_and_nobody_else_misses_a_result",
                "they did not come back to be refused", ("sockets/access.py", "            self._granted[socket].clear()\n        return stale",
                    "            self._granted[socket].clear()\n        return set()")),
        ],
        "invalid data, incomplete handshakes, very many connections on a CURVE socket": [
            off("runtime/sockets/test_curve_sockets.py::test_garbage_silence_and_half_handshakes_harm_nobody_and_are_no_camera",
                "camera_connected", ("sockets/curve_connections.py", "self._under_way[value] = now_ns", "self._proven.add(value)")),
        ],
        "a client floods control": [
            off("system/test_curve.py::test_a_client_that_floods_is_answered_busy_and_the_others_are_served",
                "the count of the flood did not come", ("sockets/access.py", 'if self._take("requests", who, 1, often, often) and', "if True or")),
        ],
    },
    "The gateways": {
        "results lost on PUB": [
            off("system/test_kill.py::test_the_customers_client_sees_every_result_once_over_a_restart",
                "first extra item", ("client/station_client.py", "asked = self._order.to_ask()", "asked = None")),
        ],
        "the inspector dies or stops: Modbus": [
            off("runtime/gateways/test_fault_table.py::test_a_stopped_or_killed_inspector_takes_accept_away_over_every_protocol",
                "the fall of accept did not come", *TRUST_FOR_EVER),
        ],
        "... OPC UA": [
            off("runtime/gateways/test_fault_table.py::test_a_stopped_or_killed_inspector_takes_accept_away_over_every_protocol",
                "the fall of accept", *TRUST_FOR_EVER,
                ("gateways/opcua/gateway.py", "(time.monotonic() - self._heard_s) * 1000 <= view.state.beat_timeout_ms", "True")),
        ],
        "... OPC UA, the structure `Latest`": [
            off("runtime/gateways/opcua/test_opcua_companion.py"
                "::test_a_result_is_a_structure_in_events_in_the_address_space_and_by_its_id",
                "assert", ("gateways/opcua/companion/results.py", "if not good or moment.shown is None:", "if moment.shown is None:")),
        ],
        "... MQTT": [
            off("runtime/gateways/mqtt/test_mqtt_line.py::test_a_stopped_or_killed_inspector_withdraws_accept",
                "the fall", *TRUST_FOR_EVER),
        ],
        "... HTTP": [
            off("runtime/gateways/http/test_http.py::test_on_a_line_ready_follows_the_inspector_and_the_process_ends_well",
                "not ready", *TRUST_FOR_EVER),
        ],
        "the inspector is restarted while a gateway stands still": [
            off("runtime/gateways/test_link.py"
                "::test_a_part_of_the_session_before_passes_no_more_though_one_poll_brought_all_of_the_change",
                "not True", ("gateways/link.py", "since_s = seen.trusted_since_s if same and now_s", "since_s = seen.trusted_since_s if now_s")),
        ],
        "a gateway's event loop is blocked": [
            off("runtime/gateways/test_watch_loop.py::test_a_stuck_asyncio_loop_ends_its_process_with_the_exit_code_of_gateways",
                "timed out", ("gateways/watch_loop.py", "if looks >= CHECKS:", "if False:")),
            off("runtime/gateways/opcua/test_opcua.py::test_accept_is_computed_as_it_is_read_so_that_no_stuck_loop_keeps_it_true",
                "True is False", ("gateways/opcua/gateway.py", "not self._clearing and self._link.may_pass(shown)",
                    "not self._clearing and getattr(shown, 'accept', False)")),
        ],
        "the MQTT gateway is killed": [
            off("runtime/gateways/mqtt/test_mqtt_line.py::test_results_commands_kills_and_restarts[amqtt]",
                "the will did not come", NO_WILL),
            off("runtime/gateways/mqtt/test_mqtt_guard.py"
                "::test_a_lie_that_a_broker_keeps_does_not_outlive_the_gateways_first_word[amqtt]",
                "the will did not come", NO_WILL),
        ],
        "the broker is killed, or withholds messages": [
            off("runtime/gateways/mqtt/test_mqtt_line.py::test_a_broker_that_is_away_is_said_once_and_tried_on[amqtt]",
                "cannot reach the broker", ("gateways/mqtt/broker_session.py", "if why not in self._said and len(self._said) < SAID_MAX:", "if True:")),
            off("runtime/gateways/mqtt/test_mqtt_gateway.py::test_nothing_passes_while_the_broker_does_not_give_accept_back",
                "assert (not True)",
                # It never came back, and it has not come back for long.
                ("gateways/mqtt/topic_watch.py", "if self._since_s is None or now_s - self._proven_s > self._quiet_s:", "if False:"),
                ("gateways/mqtt/topic_watch.py", "if now_s - self._since_s < self._quiet_s:", "if False:")),
        ],
        "a broker retains an accept true from another client": [
            off("runtime/gateways/mqtt/test_mqtt_guard.py"
                "::test_a_lie_that_a_broker_keeps_does_not_outlive_the_gateways_first_word[amqtt]",
                "its first word did not come",
                ("gateways/mqtt/gateway.py", 'self._deny(connection, "the gateway has just connected")', "pass")),
        ],
        "another client publishes on the station's MQTT topics, or publishes an old message again": [
            off("runtime/gateways/mqtt/test_mqtt_gateway.py::test_whatever_is_foreign_takes_accept_away_is_answered_and_shown",
                "FOREIGN_PUBLISHER", DEAF_TO_OTHERS),
            off("runtime/gateways/mqtt/test_mqtt_guard.py"
                "::test_a_lie_while_the_gateway_runs_is_withdrawn_shown_and_ends_in_acceptance_again[amqtt]",
                "the alarm did not come", DEAF_TO_OTHERS),
        ],
        "... Sparkplug B": [
            off("runtime/gateways/sparkplug/test_sparkplug_gateway.py"
                "::test_over_a_broker_each_result_of_a_line_comes_once_and_a_dead_station_is_not_good",
                "the end of good did not come", *TRUST_FOR_EVER),
        ],
        "the connection of the Sparkplug gateway breaks with results in it": [
            off("runtime/gateways/sparkplug/test_sparkplug_gateway.py"
                "::test_what_was_not_written_comes_again_after_a_loss_and_is_historical", "assert",
                ("gateways/sparkplug/gateway.py", "self._waiting.extendleft(item for item in reversed(self._unsent.values()) if item is not None)", "pass")),
        ],
        "... digital outputs": [
            off("runtime/gateways/io/test_io_gateway.py::test_a_modules_coils_follow_a_line_until_the_gateway_is_killed",
                "reject of a dead station did not come", *TRUST_FOR_EVER),
            off("runtime/gateways/io/test_io_gateway.py::test_what_could_leave_accept_on_or_means_nothing_is_refused[own0-"
                "keeps its level when the process is killed]", "DID NOT RAISE",
                ("gateways/io/gateway.py", "        _check_accept(config)\n", "        pass\n"),
                ("gateways/io/gateway.py", "    outputs = outputs_of(config.io)\n", "    outputs_of(config.io)\n    return\n"),
                ("gateways/io/gateway.py", "    run(config, lambda link: IoGateway(config, link, outputs))\n", "")),
        ],
        "parts come faster than their strobes: digital outputs": [
            off("runtime/gateways/io/test_signals.py::test_missing_results_have_their_strobe_and_too_many_end_the_gateway",
                "DID NOT RAISE", ("gateways/io/signals.py", "if len(self._waiting) > self._queue_max:", "if False:")),
        ],
        "a part that may no longer pass is being put out: digital outputs": [
            off("runtime/gateways/io/test_signals.py::test_accept_that_falls_stays_down_for_its_part_and_is_a_reject",
                "assert", ("gateways/io/signals.py", "self._passes = shown and self._passes and good", "self._passes = shown and good")),
        ],
        "two MQTT gateways with the same station name": [
            off("runtime/gateways/mqtt/test_mqtt_guard.py::test_two_stations_of_one_name_pass_nothing_until_one_is_gone[amqtt-]",
                "that each notices the other did not come", DEAF_TO_OTHERS),
            off("runtime/gateways/mqtt/test_mqtt_gateway.py::test_two_gateways_of_one_name_accept_nothing_until_one_is_gone",
                "neither", DEAF_TO_OTHERS),
        ],
        "two MQTT gateways with the same client id and station name": [
            off("runtime/gateways/mqtt/test_mqtt_broker_faults.py"
                "::test_two_gateways_of_one_client_id_and_station_pass_nothing_though_they_never_meet[5]",
                "neither may pass a part",
                ("gateways/mqtt/gateway.py", "return self._session.doubt or self._watch.why(now_s)", "return self._watch.why(now_s)")),
        ],
        "a broker delivers messages to which the MQTT gateway did not subscribe, such as requests although `commands` is false": [
            off("runtime/gateways/mqtt/test_mqtt_connection.py::test_without_commands_nothing_is_a_request",
                "assert (not deque(", ANYBODYS_TOPIC),
            off("runtime/gateways/mqtt/test_mqtt_connection.py::test_what_was_not_subscribed_to_is_not_a_request[x/start-5]",
                "assert [", ANYBODYS_TOPIC),
        ],
        "a good result that was not announced, on a line with triggers": [
            off("runtime/gateways/test_link.py::test_a_good_result_that_nobody_announced_is_no_parts_on_a_line_with_triggers",
                "assert (True is False or (False))", *ANYBODYS),
            # The station refuses it, and the link.
            off("runtime/gateways/mqtt/test_mqtt_parts.py::test_no_part_is_accepted_that_was_not_exposed_and_judged_ok[120-amqtt]",
                "0 in {", UNANNOUNCED, *ANYBODYS),
        ],
        "200 log-ins at once, right and wrong: OPC UA": [
            off("runtime/gateways/log_ins/test_log_ins.py::test_the_loop_turns_while_passwords_are_checked_and_few_are_at_once",
                "TimeoutError",
                ("gateways/log_ins/checks.py", "asyncio.Semaphore(config.checks)", "asyncio.Semaphore(64)"),
                ("gateways/log_ins/checks.py", "ThreadPoolExecutor(config.checks, ", "ThreadPoolExecutor(64, ")),
        ],
        "requests that want or claim too much: OPC UA": [
            off("runtime/gateways/opcua/test_opcua_hostile_requests.py"
                "::test_a_request_that_asks_too_much_costs_its_sender_and_nobody_else[a read of 501]",
                "DID NOT RAISE", ("gateways/opcua/decoding.py", "if length > self._operations_max:", "if False:")),
            off("runtime/gateways/opcua/test_opcua_decoding.py::test_a_variant_that_claims_much_is_refused[arrays in arrays]",
                "DID NOT RAISE", ("gateways/opcua/decoding.py", "if self._left < 0:", "if False:")),
        ],
        "a client that accesses another client's subscription: OPC UA": [
            off("runtime/gateways/opcua/test_opcua_hostile_requests.py::test_nobody_reaches_a_subscription_or_session_of_another",
                "DID NOT RAISE",
                ("gateways/opcua/session.py", "if found is None or found.session_id != self.session_id:", "if found is None:")),
        ],
        "silent connections: OPC UA, HTTP": [
            off("runtime/gateways/opcua/test_opcua_hostile.py::test_silent_connections_make_room_and_end_in_a_named_time",
                "== 'in'",
                ("gateways/opcua/connection.py", "if len(self.clients) >= self.iserver.bounds.connections_max:", "if False:")),
            off("runtime/gateways/http/test_http_hostile.py::test_probes_are_answered_always_however_many_clients_stay_silent",
                "<= 8", ("gateways/http/gateway.py", "if len(self._clients) >= self._config.connections_max:", "if False:")),
        ],
        "a client that keeps a gateway busy: OPC UA": [
            off("runtime/gateways/opcua/test_opcua_hostile_requests.py::test_who_took_more_than_its_share_waits_and_nobody_else",
                "assert not True", ("gateways/opcua/connection.py", "return max(0.0, self._busy_s - BURST_S) / share", "return 0.0")),
            off("runtime/gateways/opcua/test_opcua_hostile_requests.py::test_the_loop_turns_between_the_requests_of_clients_that_send_many",
                "no two requests in one turn",
                ("gateways/opcua/connection.py",
                "async with self.iserver.turns[self.logged_in]:\n                await asyncio.sleep(0)", "pass")),
        ],
        "a PLC that acknowledges too late": [
            off("runtime/gateways/modbus/test_modbus_registers.py"
                "::test_the_ninth_unacknowledged_result_is_an_overrun_that_is_named_and_counted",
                "(1, 12, 0, 0) == (1, 8, 1, 4)", ("gateways/modbus/registers.py", "elif len(self._buffer) == self._block.buffer_results:", "elif False:")),
        ],
        "the Modbus gateway is restarted, and the PLC holds old requests": [
            off("runtime/gateways/modbus/test_modbus_requests.py"
                "::test_after_a_restart_of_the_gateway_what_stands_in_the_plc_is_not_done_again", "nor is the block refused", NO_BASELINE),
            off("runtime/gateways/modbus/test_modbus_parts.py"
                "::test_a_station_that_an_operator_stopped_stays_stopped_when_the_gateway_is_started_again",
                "the status of a first write", NO_BASELINE),
        ],
        "a trigger that was given up (status 20) is executed anyway": [
            off("runtime/gateways/modbus/test_modbus_station.py::test_a_trigger_that_was_given_up_and_carried_out_is_no_pass",
                "(7, 1, 1) == (7, 1, 0)", NOTHING_GIVEN_UP),
            off("runtime/gateways/modbus/test_modbus_parts.py::test_a_trigger_that_a_stopped_inspector_carries_out_late_is_no_pass",
                " not in ({", NOTHING_GIVEN_UP),
        ],
        "a recipe change fails, or the station restarts in the meantime: Modbus": [
            off("runtime/gateways/modbus/test_modbus_station.py::test_a_change_of_recipe_ends_as_the_station_says",
                "did not come",
                ("gateways/modbus/requests.py", "if state.session != self._session:", "if False:"),
                ("gateways/modbus/requests.py", 'if change.number > self._number or change.status == "failed":', "if False:")),
            off("runtime/gateways/modbus/test_modbus_recipes.py::test_only_results_of_the_selected_recipe_pass",
                "(2, 1, 1) == (2, 1, 0)", ("gateways/modbus/registers.py", "return selected == 0 or", "return True or")),
        ],
        "the part id that a PLC wrote for a trigger cannot be read: Modbus": [
            off("runtime/gateways/modbus/test_modbus_identity.py"
                r"::test_a_trigger_whose_id_cannot_be_read_is_not_sent_and_its_result_is_no_pass[\xff\xfe]",
                "== ([], 11)", ("gateways/modbus/part_blocks.py", "return None if part_id is None else fields", "return fields")),
        ],
        "an accepted part is on the way to the gate, and its place becomes doubtful: the PLC's gate block": [
            off("examples/test_plc.py::test_the_gate_forgets_a_part_on_the_way_when_in_doubt[then0]",
                "assert not True", ("examples/plc/asperity_gate.st", "IF clear OR NOT alive THEN", "IF clear THEN")),
            off("examples/test_plc.py::test_the_gate_forgets_a_part_on_the_way_when_in_doubt[then2]",
                "assert not True", ("examples/plc/asperity_gate.st", "IF taken[i] AND new_result AND", "IF FALSE AND new_result AND")),
        ],
        "two recipes have the same number in gateway.toml (1 and 01): Modbus, EtherNet/IP": [
            off("runtime/gateways/modbus/test_modbus_recipes.py::test_a_number_written_in_two_ways_is_refused",
                "DID NOT RAISE", ("gateways/modbus/registers.py", 'and text[0] != "0" and', "and")),
        ],
        "something else triggers the camera on a line with triggers: Modbus, the PLC's block": [
            off("runtime/gateways/modbus/test_modbus_requests.py::test_a_frame_that_nobody_announced_passes_on_a_free_running_line_only",
                "(2, 1) == (2, 0)", ANNOUNCED_OR_NOT[0]),
            off("examples/test_plc.py::test_on_a_line_with_triggers_a_frame_that_nobody_announced_opens_no_gate[translated]",
                "assert (1 and not 1)", ANNOUNCED_OR_NOT[1],
                ("examples/plc/asperity_station.st", "AND trigger_request = 0 AND status.trigger_id", "AND status.trigger_id")),
            # The station refuses it, the link, the gateway, and the block.
            off("runtime/gateways/modbus/test_modbus_parts.py::test_the_gate_opens_for_no_part_that_was_not_exposed_and_judged_ok",
                " <= {", UNANNOUNCED, *ANYBODYS, *ANNOUNCED_OR_NOT),
        ],
        "a gateway connects to a process that is not a station": [
            off("system/test_strangers.py::test_who_connects_to_an_impostor_lives_on_and_serves_when_the_station_is_there",
                "did not come", NO_RENEWAL),
        ],
        "bytes that are not Modbus, EtherNet/IP, HTTP, OPC UA": [
            off("system/test_strangers.py::test_strangers_on_the_ports_of_gateways_cost_no_other_connection", "Fatal error", NO_MODBUS),
        ],
        "... OPC UA: `Error` is not 0, or its result comes before the answer": [
            off("runtime/gateways/opcua/test_opcua_requests.py::test_a_trigger_that_was_not_taken_gives_no_accept_whatever_comes",
                "assert not True", OPCUA_FORGETS),
            off("runtime/gateways/opcua/test_opcua_station.py::test_over_opc_ua_a_trigger_that_was_given_up_and_carried_out_is_no_pass",
                "assert not True", OPCUA_FORGETS),
            off("runtime/gateways/opcua/test_opcua_requests.py::test_no_result_is_shown_before_its_trigger_was_answered",
                "assert", ("gateways/opcua/gateway.py", " and not self._parts.waits(self._arrived[0])", "")),
        ],
        "... HTTP: the answer is not 200 or 202, or its result comes before the answer": [
            off("runtime/gateways/http/test_api.py"
                "::test_a_trigger_that_was_refused_gives_no_accept_and_an_unanswered_one_shows_nothing",
                "assert [True, True] == [False, True]", OPCUA_FORGETS),
            off("runtime/gateways/http/test_api.py"
                "::test_a_trigger_that_was_refused_gives_no_accept_and_an_unanswered_one_shows_nothing",
                "its request has no answer yet", ("gateways/http/api.py", " and not self._parts.waits(self._arrived[0])", "")),
        ],
        "a user without the role commands: HTTP": [
            off("runtime/gateways/http/test_api.py::test_commands_need_a_user_who_may_operate", "assert",
                ("gateways/http/gateway.py", "if not user.may_operate:", "if False:")),
        ],
        "a trigger's id is used again: OPC UA": [
            off("runtime/gateways/opcua/test_opcua_requests.py::test_what_came_before_a_trigger_was_given_again_is_not_its_part",
                "assert", ("gateways/parts.py", "        if trigger_id:\n", "        if False:\n")),
            off("runtime/gateways/opcua/test_opcua_requests.py::test_a_trigger_given_again_before_its_result_came_costs_one_result",
                "assert", ("gateways/parts.py", "if trigger_id in self._owed:", "if False:")),
        ],
        "a recipe change fails, or the station restarts in the meantime: OPC UA": [
            off("runtime/gateways/opcua/test_opcua_requests.py::test_only_results_of_the_recipe_that_was_asked_for_pass",
                "assert", ANY_RECIPE),
            off("runtime/gateways/opcua/test_opcua_station.py::test_over_opc_ua_a_change_of_recipe_is_followed_to_its_end",
                "judged by the recipe before", ANY_RECIPE),
        ],
        "something else triggers the camera on a line with triggers: OPC UA, HTTP": [
            off("runtime/gateways/opcua/test_opcua_station.py::test_a_good_result_of_no_trigger_passes_only_where_the_camera_runs_free",
                "assert not True", *ANYBODYS),
            off("runtime/gateways/opcua/test_opcua_parts.py"
                "::test_over_opc_ua_and_http_no_part_is_accepted_that_was_not_exposed_and_judged_ok[60-2]",
                "assert", UNANNOUNCED, *ANYBODYS),
        ],
        "invalid data, silence, reconnections: Modbus, EtherNet/IP, HTTP": [
            off("runtime/gateways/modbus/test_modbus_server.py::test_garbage_costs_its_sender_the_connection_and_nobody_else",
                "timed out", NO_MODBUS),
            off("runtime/gateways/http/test_http_hostile.py::test_malformed_and_oversized_requests_are_answered_and_closed",
                "an answer, or a reset", ("gateways/http/requests.py", 'if len(words) != 3 or not words[2].startswith("HTTP/1."):', "if False:")),
        ],
    },
}  # fmt: skip
