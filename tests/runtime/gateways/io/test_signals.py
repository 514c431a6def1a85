"""The outputs over time: one strobe for each result, and accept only while the part may pass."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import GatewayError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.io.signals import Signals, Timing, all_off
from asperity.runtime.gateways.link import Delivered, Item
from tests.runtime.gateways.floor import result

TIMING = Timing(setup_ms=5, strobe_ms=20, hold_ms=50, gap_ms=20, toggle_ms=0)


def item(result_id: int, *, accept: bool = True) -> Delivered:
    return Delivered(result(result_id, Verdict.OK if accept else Verdict.NG), accept, time.monotonic())


class Line:
    """Outputs that are looked at every millisecond."""

    def __init__(self, timing: Timing = TIMING, queue_max: int = 16) -> None:
        self.expired: set[int] = set()
        self.signals = Signals(timing, queue_max, self._may_pass)
        self.now_ms = 1000

    def _may_pass(self, one: Item) -> bool:
        return isinstance(one, Delivered) and one.accept and one.result.result_id not in self.expired

    def at(self, *, good: bool = True) -> dict[str, bool]:
        self.now_ms += 1
        return dict(self.signals.at(self.now_ms, good=good, in_flight=False))

    def run(self, steps_ms: int) -> list[dict[str, bool]]:
        return [self.at() for _ in range(steps_ms)]


def pulses(seen: list[dict[str, bool]], name: str) -> list[int]:
    """Lengths of the pulses, in ms."""
    text = "".join("#" if one[name] else " " for one in seen)
    return [len(pulse) for pulse in text.split()]


def test_a_good_part_and_a_bad_one() -> None:
    line = Line()
    line.signals.put(item(1))
    line.signals.put(item(2, accept=False))
    seen = line.run(200)
    assert pulses(seen, "accept") == [50] and pulses(seen, "reject") == [50] and pulses(seen, "strobe") == [20, 20]
    first = seen.index(next(one for one in seen if one["strobe"]))
    assert first == 5 and seen[first]["accept"] and not seen[first]["reject"]
    assert not any(one["accept"] and one["reject"] for one in seen)
    assert seen[0]["busy"] and not seen[-1]["busy"] and all(one["ready"] for one in seen)


def test_accept_that_falls_stays_down_for_its_part_and_is_a_reject() -> None:
    line = Line()
    line.signals.put(item(1))
    assert all(one["accept"] for one in line.run(10))
    line.expired.add(1)
    assert not line.at()["accept"]
    line.expired.clear()
    assert all(one["reject"] and not one["accept"] for one in line.run(30))


def test_a_station_that_is_not_good_rejects_and_is_not_ready() -> None:
    line = Line()
    line.signals.put(item(1))
    line.run(3)
    assert line.at(good=False) == {"ready": False, "busy": True, "accept": False, "reject": True, "strobe": False}
    assert not any(one["accept"] for one in line.run(60)), "the part it was shown for does not pass any more"
    assert all_off()["reject"] and not any(on for name, on in all_off().items() if name != "reject")


def test_missing_results_have_their_strobe_and_too_many_end_the_gateway() -> None:
    line = Line(queue_max=4)
    line.signals.put(Gap(1, 3, "lost"))
    line.signals.put(item(4))
    seen = line.run(400)
    assert pulses(seen, "strobe") == [20] * 4 and pulses(seen, "reject") == [50] * 3 and pulses(seen, "accept") == [50]
    with pytest.raises(GatewayError, match="queue_max is 4"):
        line.signals.put(Gap(5, 10**12, "lost"))


def test_accept_that_toggles_never_stands() -> None:
    line = Line(Timing(0, 20, 200, 20, toggle_ms=10))
    line.signals.put(item(1))
    found = pulses(line.run(250), "accept")
    assert len(found) >= 9 and max(found) <= 10


def test_a_process_that_stands_still_leaves_no_strobe_out() -> None:
    line, seen = Line(), []
    line.signals.put(item(1))
    line.signals.put(item(2, accept=False))
    for _ in range(40):
        line.now_ms += 60
        seen.append(line.at())
    strobes = [one for one in seen if one["strobe"]]
    assert [one["accept"] for one in strobes] == [not one["reject"] for one in strobes] == [True, False]


STEPS = st.lists(
    st.tuples(st.sampled_from(["ok", "ng", "gap", "expire", "wait", "bad"]), st.integers(1, 90)), max_size=25
)


@given(steps=STEPS)
def test_whatever_comes_accept_is_of_a_part_that_may_pass_and_none_goes_without_its_strobe(
    steps: list[tuple[str, int]],
) -> None:
    line, put, seen = Line(queue_max=1000), 0, []
    for what, count in steps:
        if what in ("ok", "ng"):
            put += 1
            line.signals.put(item(put, accept=what == "ok"))
        elif what == "gap":
            line.signals.put(Gap(put + 1, put + 2, "lost"))
            put += 2
        elif what == "expire":
            line.expired |= set(range(put + 1))
        for _ in range(count):
            now = line.at(good=what != "bad")
            shown = line.signals._shown
            assert not now["accept"] or (what != "bad" and shown is not None and line._may_pass(shown))
            assert not (now["accept"] and now["reject"])
            seen.append(now)
    seen += line.run(70 * put + 100)
    assert len(pulses(seen, "strobe")) == put
