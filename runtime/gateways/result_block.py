"""Settings of gateways that show one result at a time: a table of ``gateway.toml`` begins with them."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from asperity.runtime.settings.toml_tables import Name, Section, number, text


class ResultBlock(Section, frozen=True, forbid_unknown_fields=True):
    """What protocols share that show one result at a time until it is acknowledged."""

    handshake: Annotated[
        bool, text("a result is shown until it is acknowledged; false: until the next one arrives, read or not")
    ] = True
    buffer_results: Annotated[
        int, number(2, 1000, "results that may wait for acknowledgement; one more is an overrun")
    ] = 8
    hard_wired: Annotated[
        bool | None,
        text(
            "trigger_request announces a trigger that reaches the camera by wire; absent: as the station reports; "
            "if it contradicts the station: REFUSED"
        ),
    ] = None
    recipes: Annotated[
        dict[str, Name], text('recipes by number, for recipe_select and recipe: `recipes = { 1 = "name" }`')
    ] = field(default_factory=dict)
    recipe_silent_ms: Annotated[
        int, number(1000, 600_000, "recipe_status is NO_ANSWER if no state message reports the change for this long")
    ] = 10_000
