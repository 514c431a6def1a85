"""What the gateway publishes on ``state`` and ``recipe``: what the station says, judged by the gateway. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from asperity.runtime.gateways.link import View
from asperity.runtime.wire import RecipeChange, StationState, encode_state

PACKET_LIMIT = "PACKET_LIMIT"
"""Among the alarms of the state while messages are left out that the broker does not take."""
ALARMS_MAX = 16


def state_message(station: str, view: View, why: str, own_alarms: Sequence[str]) -> dict[str, Any]:
    """The station's state with ``trusted``, ``why`` and ``ready`` as the gateway sees them.

    ``why``: what is wrong between the gateway and the broker; ``own_alarms`` likewise.
    """
    fields: dict[str, Any] = {"station": station, "ready": False, "alarms": []}
    if view.state is not None:
        fields = msgspec.json.decode(encode_state(view.state)[1])
    trusted = view.good and not why
    alarms = [*fields["alarms"][: ALARMS_MAX - len(own_alarms)], *own_alarms]
    own = {"ready": bool(fields["ready"]) and trusted, "trusted": trusted, "why": why or view.why, "alarms": alarms}
    return {**fields, **own}


def least_state(station: str) -> dict[str, Any]:
    """In place of a state that the broker does not take."""
    why = "the state is too large for the broker"
    return {"station": station, "ready": False, "alarms": [PACKET_LIMIT], "trusted": False, "why": why}


def recipe_message(state: StationState) -> dict[str, Any]:
    """Outcome of the last recipe change."""
    change = msgspec.to_builtins(state.recipe_change or RecipeChange(0, "", ""))
    return {"station": state.station, "session": state.session, **change}
