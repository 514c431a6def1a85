"""How often a gateway may try: whatever the other side does, and however the chance falls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.gateways.back_off import BackOff
from asperity.runtime.gateways.config import Mqtt

CONNECTS_PER_MIN = 32
"""As docs/gateways.md says."""


def defaults(chance: float) -> BackOff:
    own = Mqtt()
    return BackOff(own.retry_min_ms / 1000, own.retry_max_ms / 1000, own.retry_held_ms / 1000, lambda: chance)


def test_pauses_grow_to_their_bound_and_only_a_held_connection_ends_that() -> None:
    back_off = defaults(0.0)
    assert [round(back_off.ended(9.9), 2) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert back_off.ended(10.0) == 0.1 and back_off.ended(0.0) == 0.2
    for _ in range(5000):
        assert back_off.ended(0.0) <= 5.0


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1)), min_size=1, max_size=150))
def test_connects_within_any_minute_are_bounded(lasting: list[tuple[float, float]]) -> None:
    now_s, connects, chance = 0.0, [], [0.0]
    own = Mqtt()
    back_off = BackOff(own.retry_min_ms / 1000, own.retry_max_ms / 1000, own.retry_held_ms / 1000, lambda: chance[0])
    for held_s, chance[0] in [*lasting, *[(0.0, 1.0)] * 40]:
        connects.append(now_s)
        now_s += held_s + back_off.ended(held_s)
    for at_s in connects:
        assert sum(at_s <= other_s < at_s + 60 for other_s in connects) <= CONNECTS_PER_MIN


def test_the_worst_that_a_broker_can_do() -> None:
    """It holds a connection just long enough to be trusted again, or never: counted to the end."""
    most = 0
    for held_first in range(8):
        back_off, now_s, count = defaults(1.0), 0.0, 0
        while now_s < 60:
            count += 1
            held_s = 10.0 if held_first and count % held_first == 0 else 0.0
            now_s += held_s + back_off.ended(held_s)
        most = max(most, count)
    assert 20 < most <= CONNECTS_PER_MIN
