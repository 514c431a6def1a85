"""Table of ``station.toml`` about parts that several cameras see, or one camera several times (docs/station.md)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from asperity.runtime.records.journal import PROMISES_MAX
from asperity.runtime.settings.toml_tables import NAME_RULE, Name, Section, number, path_text, text
from asperity.runtime.wire import VIEWS_MAX

COMBINED_MAX = 8
"""Combined stations that one process may host."""


class Combined(Section, frozen=True, forbid_unknown_fields=True):
    """A combined station: one result per part from the results of its views, which are [[stations]]; it has no camera.

    Only its result can accept a part; `accept` of a view is always false. How to commission it: docs/plc.md.
    """

    name: Annotated[Name, text(f"name used in every topic ({NAME_RULE}); what a PLC gateway shows")] = "part"
    number: Annotated[int, number(0, 65535, "number in the 64-byte record")] = 0
    views: Annotated[
        list[Name],
        text(
            f"names of [[stations]], 1 to {VIEWS_MAX}, in the order of the views; a station that is named n times "
            "takes n views of the part, one after the other, with one recipe"
        ),
    ] = msgspec.field(default_factory=list)
    triggered: Annotated[
        Literal["together", "one_by_one"],
        text(
            "`together`: one trigger is for all views, and a station named several times exposes again as soon as its "
            "frame has arrived; `one_by_one`: each trigger names its `view`, view 1 first, as when a robot or belt "
            "moves the part in between"
        ),
    ] = "together"
    complete_ms: Annotated[
        int,
        number(
            1, 86_400_000,
            "from the part's first trigger to its last view; then VIEW_MISSING. At least [limits] deadline_ms, with "
            "software triggers also [triggers] timeout_max_ms for each view of one station",
        ),
    ] = 61_000  # fmt: skip
    open_max: Annotated[
        int, number(1, PROMISES_MAX, "parts without a result; above it BUSY. More than 1: the cameras expose in time")
    ] = 1
    journal: Annotated[str, path_text("journal file; empty: `$XDG_STATE_HOME/asperity/NAME.journal`")] = ""
    recipes: Annotated[
        dict[Name, dict[Name, Name]],
        text(
            "recipes of a part whose views have different ones: `{ gear = { front = "
            '"gear_front", back = "gear_back" } }`; a recipe that is not here has the same name in every view'
        ),
    ] = msgspec.field(default_factory=dict)
