"""The rows of docs/failsafe.md about the views of one part: what each rests on, switched off."""
# ruff: noqa: E501 - the code that is switched off stands here as it stands there

from __future__ import annotations

from tests.failsafe.rows import Off, off

LINE, CORE = "runtime/inspector/test_combined_station.py", "runtime/inspector/test_part_views.py"
WIRE = "runtime/gateways/test_views_accept_nothing.py"
ANY_CHANGE = f"{CORE}::test_no_change_to_any_one_view_leaves_the_part_accepted"
ACCEPTED = "assert <Verdict.OK: 1> is not <Verdict.OK: 1>"
NO_MISSING = (
    ("vision/scoring.py", "if missing or not part.views:", "if not in_time:"),
    ("vision/scoring.py", "results = [in_time[view.ticket] for view in part.views]",
     "results = [in_time[view.ticket] for view in part.views if view.ticket in in_time]"),
)  # fmt: skip
NOBODY_FOLLOWS = (
    ("inspector/combined_station.py", 'station.triggers.follow(request.trigger_id, request.part_id or "", self.clock().ns)', "pass"),
    ("inspector/combined_station.py", 'self.parts.follow(request.trigger_id, request.part_id or "")', "pass"),
)

TABLE: dict[str, dict[str, list[Off]]] = {
    "Views of one part": {
        "a view alone is ok": [
            off(f"{WIRE}::test_json_and_record_of_a_view_accept_nothing_though_it_is_ok", "assert (1, 1, True) == (1, 1, False)",
                ("frame.py", 'return self.verdict is Verdict.OK and self.view_of == ""', "return self.verdict is Verdict.OK")),
            off(f"{LINE}::test_a_view_alone_accepts_nothing", "a view accepts",
                ("inspector/results.py", "t_done_us=self._clock().wall_us, view_of=self.view_of)", "t_done_us=self._clock().wall_us)"),
                ("inspector/results.py", "            view_of=self.view_of,\n", "")),
        ],
        "a view is missing or late": [
            off(f"{LINE}::test_the_plc_triggers_each_view_itself", "(4, 'GOOD', True)", *NO_MISSING),
            off(ANY_CHANGE, ACCEPTED, ("vision/scoring.py", "for one in seen if one.at_ns <= part.ends_ns}", "for one in seen}")),
        ],
        "a view without a verdict, or with a bad one": [
            off(f"{LINE}::test_a_view_without_a_frame_makes_the_part_unknown", "NO_FRAME",
                ("vision/scoring.py", "    if unknown:\n", "    if False:\n")),
            off(f"{LINE}::test_one_bad_view_makes_the_part_bad", "NG",
                ("vision/scoring.py", "    if bad:\n", "    if False:\n")),
        ],
        "a view comes twice": [
            off(ANY_CHANGE, ACCEPTED, ("vision/scoring.py", 'if len({one.ticket for one in seen}) != len(seen) else ""', 'if False else ""')),
            off(f"{LINE}::test_the_plc_triggers_each_view_itself", "VIEW_CONFLICT",
                ("inspector/combined_operations.py", "        part.end(Reason.VIEW_CONFLICT, why)\n", "        pass\n")),
        ],
        "views of two parts or two cameras are swapped": [
            off(f"{LINE}::test_pictures_swapped_between_two_parts_or_two_cameras_accept_neither", "(1, 'GOOD', True)",
                ("inspector/triggers.py", "if pending is None or promise == 0 or pending.promise != promise:", "if pending is None:")),
            off(ANY_CHANGE, ACCEPTED,
                ("vision/scoring.py", "if result.trigger_id != part.trigger_id or (part.part_id and result.part_id != part.part_id):", "if False:")),
            off(ANY_CHANGE, ACCEPTED,
                ("vision/scoring.py", "if (result.view_of, result.session, result.station) != (part.station, part.session, view.station):", "if False:")),
        ],
        "a trigger that a view cannot take": [
            off(f"{LINE}::test_what_one_view_cannot_take_leaves_no_trigger_at_the_other", "BUSY",
                ("inspector/combined_station.py", "            if busy := trigger_busy(station, trigger_id):", "            if busy := \"\":")),
            off(f"{LINE}::test_after_a_trigger_that_was_not_taken_a_later_exposure_may_show_that_part", "AMBIGUOUS",
                NOBODY_FOLLOWS[0]),
        ],
        "the next part comes before one camera has taken all its views of this one": [
            off(f"{LINE}::test_a_part_that_still_waits_for_exposures_is_over_when_the_next_one_comes", "AMBIGUOUS",
                NOBODY_FOLLOWS[1]),
        ],
        "one camera dead": [
            off(f"{LINE}::test_state_is_that_of_the_view_that_is_least_ready", "a camera is gone",
                ("inspector/combined_station.py", "recipe is not None and all(view.ready for view in views)", "recipe is not None")),
        ],
        "one view stopped, halted or in Error": [
            off(f"{LINE}::test_state_is_that_of_the_view_that_is_least_ready", "[6, 6, 8] == [6, 6, 6]",
                ("inspector/combined_station.py", "least = next((state for state in LEAST_FIRST if state in states), State.CONTINUOUS_EXECUTION)",
                 "least = State.CONTINUOUS_EXECUTION")),
        ],
        "a recipe changes between trigger and view, or in one view only": [
            off(f"{LINE}::test_a_recipe_changes_in_every_view_or_the_part_is_not_judged", "WRONG_RECIPE",
                ("inspector/combined_station.py", "    name = recipe.name if recipe else None\n", "    name = None\n")),
            off(ANY_CHANGE, ACCEPTED,
                ("vision/scoring.py", "if judged and (result.recipe, result.bundle) != (view.recipe, view.bundle):", "if False:")),
            off(f"{LINE}::test_a_recipe_changes_in_every_view_or_the_part_is_not_judged", "no row",
                ("inspector/combined_station.py", "if least in READY_STATES and self.recipes.active is None:", "if False:")),
        ],
        "restart between two views": [
            off(f"{LINE}::test_a_restart_answers_each_open_part_once_and_its_late_views_not", "(2, 'RESTARTED', False)",
                ("inspector/combined_station.py", "entry = self.journal.promise(wire.encode_result_body(owed))", "entry = 0")),
        ],
        "the journal of parts is lost": [
            off(f"{LINE}::test_a_lost_journal_accepts_nothing", "[True] == [False]",
                ("inspector/results.py", "if not self._journal.answer(result.result_id, body) and result.verdict is not Verdict.UNKNOWN:",
                 "if not self._journal.answer(result.result_id, body) and False:"),
                ("inspector/combined_station.py", 'self.fail("JOURNAL", self.journal.fault)', "pass")),
        ],
        "1 000 parts with lost, late, swapped and doubled views, kills and stops, one in eight": [
            off("runtime/inspector/test_combined_line.py::test_no_part_passes_of_which_a_view_is_missing_or_not_ok", "a part passed",
                *NOBODY_FOLLOWS),
        ],
    },
}
