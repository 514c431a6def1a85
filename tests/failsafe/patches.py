"""What each row of docs/failsafe.md rests on, and how to switch it off. ``tests.failsafe.rows`` says how it is used.

A row has one entry or more: the test that must fail, what its message must then hold, and the patches. Where a row is
protected twice all of it is switched off in one entry. Short: a condition to False, a guard removed.
"""

from __future__ import annotations

from tests.failsafe import (
    bundle_rows,
    camera_rows,
    ethernetip_rows,
    folder_rows,
    gateway_rows,
    genicam_rows,
    picture_rows,
    realsense_rows,
    ros2_rows,
    station_rows,
    view_rows,
    vision_rows,
)
from tests.failsafe.rows import Entry

FAST = tuple(
    f"tests/{name}"
    for name in (
        "runtime/inspector/test_inspector_", "runtime/inspector/test_stations_", "runtime/inspector/test_part_matching",
        "runtime/inspector/test_combined_station", "runtime/inspector/test_part_views",
        "runtime/gateways/test_views_accept",
        "runtime/inspector/test_recipe_change", "runtime/inspector/test_request_age", "runtime/judging/test_recipes",
        "runtime/judging/test_served", "runtime/vision/test_scoring_verdicts", "runtime/records/test_journal",
        "runtime/records/test_audit", "runtime/engines/test_parity_gate", "runtime/bundle/test_bundle",
        "runtime/client/test_client_requests", "runtime/security/test_socket_files", "runtime/process/test_supervision",
        "runtime/gateways/modbus/test_modbus_re", "runtime/gateways/modbus/test_modbus_server",
        "runtime/gateways/ethernetip/test_eip_c",
        "runtime/gateways/log_ins/test_log_ins", "runtime/gateways/opcua/test_opcua_decoding",
        "runtime/cameras/realsense/test_realsense_pairing", "runtime/cameras/realsense/test_realsense_device",
        "runtime/gateways/mqtt/test_mqtt_gateway", "runtime/gateways/mqtt/test_mqtt_broker_faults", "examples/test_plc",
        "runtime/cameras/ros2/test_ros2_pairing", "runtime/cameras/pictures/",
        "runtime/cameras/folder/test_folder_source", "runtime/cameras/folder/test_folder_ends",
    )
)  # fmt: skip
"""Tests without processes, a second or two each: their entries are part of every run of the suite."""
SLOW = {
    "test_no_part_has_anothers_picture_whatever_goes_wrong", "test_sigterm_during_the_start_ends_without_a_traceback",
    "test_an_answer_that_cannot_be_true_is_an_alarm_and_nothing_is_accepted",
    "test_the_loop_turns_while_passwords_are_checked_and_few_are_at_once",
    "test_garbage_costs_its_sender_the_connection_and_nobody_else",
    "test_a_connection_of_which_nothing_comes_is_closed_and_another_may_own",
}  # fmt: skip
"""All the same."""

WITHOUT: dict[tuple[str, str, str], str] = {
    ("A live camera", "its driver's call does not return",
     "test_a_process_that_stands_still_is_killed_by_its_watchdog_and_comes_back"):
        "the watchdog is systemd's, which the test plays; a loop that does not turn cannot feed it",
    ("A live camera", "killed or stopped in any phase",
     "test_kill_9_in_each_phase_and_it_comes_back_with_a_new_session"):
        "nothing outlives the process, and its session is a new random number",
    ("What surrounds it", "bytes that are not ZMTP, incomplete messages, floods on any port, with and without CURVE",
     "test_strangers_on_every_port_of_the_inspector_cost_the_line_nothing"):
        "each connection has a thread that ends with it, whatever came: no one guard; two more see the bounds",
    ("The gateways", "200 log-ins at once, right and wrong: OPC UA",
     "test_two_hundred_log_ins_leave_accept_fresh_and_lock_nobody_else_out"):
        "its crowd is as slow as the gateway, so it sees only what is wrong for good; test_log_ins sees the turns",
}  # fmt: skip
"""Section, fault and test of what rests on nothing that could be switched off, and why."""


def _soak(node: str) -> bool:
    return not node.startswith(FAST) or node.rpartition("::")[2].partition("[")[0] in SLOW


ENTRIES = [
    Entry(section, fault, node, says, patches, _soak(node))
    for rows in (
        station_rows, bundle_rows, camera_rows, picture_rows, folder_rows, genicam_rows, realsense_rows, ros2_rows,
        gateway_rows, ethernetip_rows, vision_rows, view_rows,
    )
    for section, faults in rows.TABLE.items()
    for fault, entries in faults.items()
    for node, says, patches in entries
]
