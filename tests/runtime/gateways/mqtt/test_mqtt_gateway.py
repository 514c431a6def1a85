"""What the MQTT gateway says, in which order, and what it lets a broker keep: with a connection that gives all back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.mqtt.gateway import ALARM
from asperity.runtime.gateways.mqtt.messages import Message
from asperity.runtime.wire import RecipeChange
from tests.runtime.gateways.floor import COUNTERS, SESSION, FakeLink, result
from tests.runtime.gateways.mqtt.fake_broker import BASE, OTHER, Floor, accepts


def test_accept_true_is_kept_by_nobody_and_false_by_the_broker(floor: Floor) -> None:
    said = floor.said(lambda: floor.link.put(result(1, part_id="p1", trigger_id=7, recipe="bracket")))
    assert [name for name, *_ in said] == ["accept", "result", "accept"]
    (_, denied, qos, retained), (_, told, *_), (_, affirmed, true_qos, true_retained) = said
    assert not denied["accept"] and qos == 1 and retained
    assert told["accept"] and affirmed["accept"]
    assert true_qos == 0 and not true_retained, "what is true is queued and kept for nobody"
    of_part = {"result_id": 1, "trigger_id": 7, "part_id": "p1", "recipe": "bracket", "valid_ms": 2000}
    assert of_part.items() <= affirmed.items() and floor.broker.expiries[-1] == 2
    floor.pass_s(1.2)
    repeated = [each for each in floor.broker.published if each[0] == "accept" and each[1]["accept"]]
    assert len(repeated) >= 3 and not any(retained for *_, retained in repeated)
    assert msgspec.json.decode(floor.broker.kept["accept"])["accept"] is False


def test_each_change_says_accept_false(floor: Floor) -> None:
    assert accepts(floor.said(lambda: floor.link.put(result(1, Verdict.NG)))) == [False]

    def distrust() -> None:
        floor.link.good = False

    def trust() -> None:
        floor.link.good = True

    def session() -> None:
        assert floor.link.state is not None
        other = "00000000-0000-4000-8000-000000000001"
        floor.link.state = msgspec.structs.replace(floor.link.state, session=other)

    for change in (distrust, trust, session):
        assert accepts(floor.said(change)) == [False], change.__name__
    assert accepts(floor.said()) == []
    began = len(floor.broker.published)
    floor.pass_s(2.05)
    again = accepts(floor.broker.published[began:])
    assert again.count(False) >= 3 and not any(again), "and twice a second"


def test_a_reconnection_begins_with_accept_false_and_listens_before_a_part_may_pass(floor: Floor) -> None:
    floor.said(lambda: floor.link.put(result(1)))
    floor.broker.disconnect()
    floor.pass_s(0.5)
    assert len(floor.connections) == 2
    name, body, qos, retained = floor.broker.published[0]
    assert (name, body["accept"], qos, retained) == ("accept", False, 1, True)
    assert accepts(floor.said(lambda: floor.link.put(result(2)))) == [False], "it has not listened long enough"
    assert not floor.last("state")[1]["trusted"]
    floor.pass_s(4)
    assert not any(accepts(floor.broker.published)), "and that part never passes"
    assert accepts(floor.said(lambda: floor.link.put(result(3)))) == [False, True]


def test_nothing_passes_while_the_broker_does_not_give_accept_back(new: Callable[..., Floor]) -> None:
    floor = new()
    floor.broker.gives_back = False
    floor.broker.watched.clear()
    floor.pass_s(10)
    floor.said(lambda: floor.link.put(result(1)))
    assert not any(accepts(floor.broker.published)) and not floor.last("result")[1]["accept"]
    assert "deliver the gateway's own accept back" in floor.last("state")[1]["why"]


@pytest.mark.parametrize("passing", [False, True])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("accept", {"accept": True, "result_id": 5}),
        ("accept", {"accept": True, "result_id": 5, "instance": OTHER, "n": 3}),
        ("accept", {"accept": False, "instance": OTHER, "n": 3}),
        ("online", {"online": True}),
        ("state", {"ready": True, "instance": OTHER}),
        ("result", {"accept": True, "result_id": 5}),
        ("recipe", {"status": "done"}),
        ("gap", {"first_id": 1, "last_id": 2}),
    ],
)
def test_whatever_is_foreign_takes_accept_away_is_answered_and_shown(
    floor: Floor, passing: bool, name: str, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    if passing:
        floor.said(lambda: floor.link.put(result(1)))
        assert floor.last("accept")[1]["accept"]
    assert accepts(floor.said(lambda: floor.broker.foreign(name, fields))) == [False]
    assert msgspec.json.decode(floor.broker.kept["online"])["online"] is False
    assert ALARM in caplog.text and caplog.text.count("ALARM") == 1
    assert msgspec.json.decode(floor.broker.kept["accept"])["accept"] is False
    _, state, _, retained = floor.last("state")
    assert ALARM in state["alarms"] and not state["ready"] and not state["trusted"] and retained
    assert f"({name})" in state["why"]
    assert accepts(floor.said(lambda: floor.link.put(result(2)))) == [False] and not floor.last("result")[1]["accept"]
    floor.pass_s(2.5)
    assert accepts(floor.said(lambda: floor.link.put(result(3)))) == [False]
    floor.pass_s(1)
    assert ALARM not in floor.last("state")[1]["alarms"]
    assert accepts(floor.said(lambda: floor.link.put(result(4)))) == [False, True]


def test_each_foreign_accept_is_answered_at_once_and_two_gateways_do_not_answer_each_other(floor: Floor) -> None:
    for _ in range(5):
        assert accepts(floor.said(lambda: floor.broker.foreign("accept", {"accept": True}))) == [False]
        assert msgspec.json.decode(floor.broker.kept["accept"])["accept"] is False
    denial = {"accept": False, "instance": OTHER, "n": 1}
    for _ in range(5):
        assert accepts(floor.said(lambda: floor.broker.foreign("accept", denial))) == []
    # A flood costs no more than the broker acknowledges.
    floor.broker.acknowledges = False
    for _ in range(100):
        floor.said(lambda: floor.broker.foreign("accept", {"accept": True}))
    assert len(floor.gateway._inflight) <= 12


def test_what_is_foreign_and_more_than_can_be_read_is_noticed(floor: Floor) -> None:
    floor.broker.unseen = 3
    floor.said()
    assert "more messages arrive" in floor.last("state")[1]["why"]


def test_two_gateways_of_one_name_accept_nothing_until_one_is_gone(new: Callable[..., Floor]) -> None:
    one, two = new(), new(OTHER)
    copied = [0, 0]

    def turns(count: int, which: tuple[Floor, ...] = (one, two)) -> None:
        """One broker: what either says the other hears."""
        for _ in range(count):
            two.now_s += 0.1
            for floor in which:
                floor.gateway.refresh()
            for number, (source, sink) in enumerate(((one, two), (two, one))):
                for name, body, _, retain in source.broker.published[copied[number] :]:
                    sink.broker.foreign(name, body, retain)
                copied[number] = len(source.broker.published)

    turns(50)
    for number in range(1, 21):
        one.link.put(result(number))
        two.link.put(result(number))
        turns(3)
    one.link.state = two.link.state = None  # stations that are dead: the gateways are heard all the same
    turns(50)
    for floor in (one, two):
        assert not any(accepts(floor.broker.published)), "neither"
        assert floor.gateway._foreign
    turns(40, (one,))
    one.link.state = FakeLink().state
    one.link.put(result(21))
    turns(2, (one,))
    assert accepts(one.broker.published)[-1], "alone again"
    assert len(one.broker.published) < 1500, "they do not answer each other"


def test_what_says_ready_is_not_kept_either(floor: Floor) -> None:
    _, state, _, retained = floor.last("state")
    assert state["ready"] and state["trusted"] and not retained
    assert msgspec.json.decode(floor.broker.kept["state"])["ready"] is False
    assert floor.last("online")[1]["online"] and not floor.last("online")[3]
    assert msgspec.json.decode(floor.broker.kept["online"])["online"] is False
    floor.close()
    assert msgspec.json.decode(floor.broker.kept["state"])["why"] == "the gateway has ended"
    assert not floor.last("accept")[1]["accept"] and not floor.last("online")[1]["online"]


def test_online_is_repeated_however_many_results_there_are(floor: Floor) -> None:
    began = len(floor.broker.published)
    for number in range(1, 31):
        floor.link.put(result(number))
        floor.pass_s(0.1)
    assert len([name for name, *_ in floor.broker.published[began:] if name == "online"]) >= 5


def test_a_change_of_recipe_is_told_to_its_end(floor: Floor) -> None:
    def change(**fields: Any) -> None:
        assert floor.link.state is not None
        floor.link.state = msgspec.structs.replace(floor.link.state, **fields)

    number_0 = msgspec.json.decode(floor.broker.kept["recipe"])
    assert (number_0["number"], number_0["status"], number_0["session"]) == (0, "", SESSION)
    for status, text in (("under_way", ""), ("failed", "no such bundle")):
        moved = RecipeChange(1, "shaft", status, text)
        [(name, body, qos, retained)] = floor.said(lambda moved=moved: change(recipe_change=moved))
        assert (name, qos, retained) == ("recipe", 1, True)
        expected = {"number": 1, "recipe": "shaft", "status": status, "text": text, "session": SESSION}
        assert expected.items() <= body.items()
    assert floor.last("state")[1]["recipe_change"] == {
        "number": 1, "recipe": "shaft", "status": "failed", "text": "no such bundle"
    }  # fmt: skip
    assert floor.said() == [], "once"
    floor.broker.foreign("recipe", {"number": 1, "recipe": "shaft", "status": "done"})
    floor.said()
    assert msgspec.json.decode(floor.broker.kept["recipe"])["status"] == "failed", "a foreign word is corrected"


def test_the_counters_are_published_once_each_and_kept_by_nobody(floor: Floor) -> None:
    def counted() -> None:
        floor.link.counters = COUNTERS

    [(name, body, qos, retained)] = floor.said(counted)
    assert (name, qos, retained) == ("counters", 0, False) and (body["ok"], body["rows"][0]["lot"]) == (9, "L-7\u00fc")
    assert floor.said() == []


def test_while_somebody_else_speaks_for_the_station_only_what_is_safe_is_passed_on(floor: Floor) -> None:
    def asked(op: str) -> None:
        body = msgspec.json.encode({"id": op, "trigger_id": 1, "timeout_ms": 9, "recipe": "shaft", "from": 1})
        floor.broker.requests.append(Message(f"{BASE}/command/{op}", body, False, False))
        floor.gateway.refresh()

    floor.said(lambda: floor.broker.foreign("state", {}))
    for op in ("trigger", "expect", "prepare_recipe", "start", "reset", "self_test"):
        asked(op)
        assert floor.last(f"reply/{op}")[1]["code"] == "REFUSED", op
    for op in ("get_state", "get_result", "stop", "halt", "abort"):
        asked(op)
    assert [op for op, _ in floor.link.asked] == ["get_state", "get_result", "stop", "halt", "abort"]


def test_a_broker_that_stands_still_is_not_given_more_and_more(floor: Floor) -> None:
    floor.broker.acknowledges = False
    floor.pass_s(30)
    assert len(floor.gateway._inflight) < 6


def test_the_library_is_never_given_more_than_it_sends_at_once(floor: Floor) -> None:
    """Beyond 20 unacknowledged messages it keeps back what comes, and a withdrawal would wait behind results."""
    floor.broker.acknowledges = False
    floor.link.put(*(result(number) for number in range(1, 200)))
    for number in range(100):
        body = msgspec.json.encode({"id": f"r{number}"})
        floor.broker.requests.append(Message(f"{BASE}/command/shutdown", body, False, False))
    floor.pass_s(30)
    assert len(floor.gateway._inflight) < 20
