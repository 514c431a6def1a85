"""What the MQTT gateway takes for its own words, and for somebody else's."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.gateways.mqtt.topic_watch import ECHOES_MAX, WATCHED, Watch, denies

ME, OTHER = "0123456789abcdef", "fedcba9876543210"
QUIET_S = 3.0


def said(watch: Watch, now_s: float, name: str = "accept") -> bytes:
    return watch.encode(name, {"accept": False}, now_s)


def alone(now_s: float = 100.0) -> Watch:
    """A watch that has listened for the quiet time and heard itself alone; clear at ``now_s``."""
    watch = Watch(ME, QUIET_S)
    watch.connected()
    for at_s in (now_s - QUIET_S, now_s):
        assert not watch.heard("accept", said(watch, at_s), at_s)
    assert watch.why(now_s) == ""
    return watch


def test_nothing_passes_before_own_words_came_back_and_the_quiet_time_is_over() -> None:
    watch = Watch(ME, QUIET_S)
    assert "own accept back" in watch.why(0)
    watch.connected()
    first = said(watch, 0.0)
    assert "own accept back" in watch.why(0)
    watch.heard("accept", first, 0.1)
    assert "just connected" in watch.why(0.1)
    watch.heard("accept", said(watch, 3.0), 3.05)
    assert "just connected" in watch.why(3.05)
    assert watch.why(3.11) == ""


def test_a_broker_that_gives_nothing_back_any_more_ends_acceptance() -> None:
    watch = alone(100.0)
    said(watch, 101.0)
    assert watch.why(100.0 + QUIET_S) == ""
    assert "own accept back" in watch.why(100.1 + QUIET_S)


def test_an_old_echo_proves_nothing_of_now() -> None:
    watch = alone(100.0)
    late = said(watch, 100.5)
    # The process stood still for ten seconds; what it reads first is old.
    assert not watch.heard("accept", late, 110.0)
    assert "own accept back" in watch.why(110.0)
    assert not watch.heard("accept", said(watch, 110.0), 110.1)
    assert watch.why(110.1) == ""


@pytest.mark.parametrize("name", WATCHED)
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (msgspec.json.encode({"accept": True, "instance": OTHER, "n": 1}), f"another gateway (instance {OTHER})"),
        (msgspec.json.encode({"accept": False, "instance": OTHER, "n": 0}), f"another gateway (instance {OTHER})"),
        (msgspec.json.encode({"accept": True}), "not a gateway"),
        (msgspec.json.encode({"accept": True, "instance": "<b>"}), "not a gateway"),
        (msgspec.json.encode({"accept": True, "instance": ME, "n": 999}), "published again"),
        (b"1", "not a gateway"),
        (b"", "not a gateway"),
        (b"\xff{", "not a gateway"),
        (b"[" * 5000, "not a gateway"),
    ],
)
def test_whatever_was_not_said_by_this_gateway_stops_acceptance_for_the_quiet_time(
    name: str, body: bytes, words: str
) -> None:
    watch = alone(100.0)
    assert watch.heard(name, body, 100.0)
    assert words in watch.why(100.0) and f"({name})" in watch.foreign(100.0)
    for at_s in (101.0, 102.9):
        watch.heard("accept", said(watch, at_s), at_s)
        assert words in watch.why(at_s)
    assert watch.why(103.0) == "" and watch.foreign(103.0) == ""


def test_the_quiet_time_begins_again_with_each_foreign_message() -> None:
    watch = alone(100.0)
    for at_s in (100.0, 102.0, 104.0, 106.0):
        watch.heard("state", b"{}", at_s)
        watch.heard("accept", said(watch, at_s), at_s)
        assert watch.why(at_s + 1.9) != ""
    assert watch.why(108.9) != "" and watch.foreign(109.0) == ""


def test_own_words_published_again_by_another_are_foreign() -> None:
    watch = alone(100.0)
    body = said(watch, 100.0)
    assert not watch.heard("accept", body, 100.1)
    assert watch.heard("accept", body, 100.2), "each comes back once"
    assert watch.heard("state", said(watch, 100.3), 100.4), "and on its own topic"


def test_the_broker_itself_may_repeat() -> None:
    watch = alone(100.0)
    body = said(watch, 100.0)
    assert not watch.heard("accept", body, 100.1) and not watch.heard("accept", body, 100.1, again=True)


def test_what_was_kept_from_before_the_gateways_start_says_nothing_and_after_a_reconnection_it_does() -> None:
    watch = Watch(ME, QUIET_S)
    watch.connected()
    mine = said(watch, 0.0)
    theirs = Watch(OTHER, QUIET_S).encode("accept", {"accept": True}, 0.0)
    assert not watch.heard("accept", theirs, 0.1, retained=True)
    watch.connected()
    assert not watch.heard("accept", mine, 1.0, retained=True), "its own of the connection before"
    assert not watch.heard("accept", watch.will, 1.0), "the will of the connection before"
    assert watch.heard("accept", theirs, 1.0, retained=True), "somebody published meanwhile"


def test_a_new_connection_must_prove_itself_again() -> None:
    watch = alone(100.0)
    late = said(watch, 100.0)
    watch.connected()
    assert "own accept back" in watch.why(100.0)
    assert watch.heard("accept", late, 100.1), "of the connection before nothing comes back"


def test_the_memory_of_own_words_is_bounded() -> None:
    watch = alone(100.0)
    first = said(watch, 100.0)
    for _ in range(ECHOES_MAX):
        said(watch, 100.0)
    assert watch.heard("accept", first, 100.0), "what was forgotten counts as foreign"


@given(st.lists(st.tuples(st.sampled_from(WATCHED), st.booleans()), max_size=40))
def test_own_words_in_any_order_are_never_foreign(steps: list[tuple[str, bool]]) -> None:
    watch = alone(100.0)
    waiting: list[tuple[str, bytes]] = []
    for name, comes in steps:
        waiting.append((name, said(watch, 100.0, name)))
        if comes:
            assert not watch.heard(*waiting.pop(len(waiting) // 2), 100.0)
    assert all(not watch.heard(name, body, 100.0) for name, body in waiting) and watch.why(100.0) == ""


@pytest.mark.parametrize(
    ("body", "nothing_passes"),
    [(b'{"accept":false}', True), (b'{"accept":true}', False), (b'{"accept":0}', False), (b"0", False), (b"", False)],
)
def test_only_a_plain_false_lets_nothing_pass(body: bytes, nothing_passes: bool) -> None:
    assert denies(body) is nothing_passes
