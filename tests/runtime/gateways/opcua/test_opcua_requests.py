"""What OPC UA's clients ask for, and which results are no pass for it: on a link that says what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.crypto.permission_rules import UserRole
from msgspec.structs import replace

from asperity.runtime.errors import WireError
from asperity.runtime.gateways.given_up import GIVEN_UP_MAX
from asperity.runtime.gateways.link import Delivered
from asperity.runtime.gateways.opcua.methods import actor
from asperity.runtime.gateways.opcua.session import Client as Caller
from asperity.runtime.gateways.opcua.tags import Moment
from asperity.runtime.gateways.parts import Parts
from asperity.runtime.wire import RecipeChange, Reply
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import NO_ANSWER, FakeLink, Loop, looping, reply, result
from tests.runtime.gateways.opcua.opcua_floor import (
    Served,
    Told,
    accepts,
    call,
    connected,
    node,
    read,
    soon,
    until_shown,
    values,
)

OTHER_SESSION = "0f6e9f2c-8a51-4d6f-b0f1-3c1d2e9a7b10"
TURNS = 100
"""Of the gateway's loop: many more than it needs to show a result."""


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


@pytest.fixture(scope="module")
def house(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(loop, tmp_path_factory.mktemp("opcua"))
    yield served
    served.close()


@pytest.fixture
def served(house: Served) -> Served:
    """The same server with a link as at the start and nothing asked for yet."""
    FakeLink.__init__(house.link)
    parts = house.gateway._parts
    house.loop.call(lambda: parts.__init__(parts._most))  # type: ignore[misc]
    say(house, triggers="software")
    house.refresh()
    return house


def say(served: Served, **changes: Any) -> None:
    assert served.link.state is not None
    served.link.state = replace(served.link.state, **changes)


async def show(served: Served, client: Client, result_id: int, **fields: Any) -> bool:
    """A good result comes; Accept as it is shown."""
    served.link.put(result(result_id, **fields))
    await until_shown(client, result_id, served.refresh)
    return await accepts(client)


async def trigger(served: Served, client: Client, number: int, answer: Reply | Exception) -> list[Any]:
    served.link.replies.append(answer)
    return await call(client, "Trigger", number, f"p{number}", 300)


@asynccontextmanager
async def asking(served: Served, *arguments: Any) -> AsyncIterator[asyncio.Task[list[Any]]]:
    """A call that the station has not answered yet; over a connection of its own, for the next request waits for it."""
    async with connected(served.url) as client:
        task = asyncio.create_task(call(client, *arguments))
        await soon(lambda: served.link.open_futures)
        try:
            yield task
        finally:
            for future in served.link.open_futures:
                if not future.done():
                    future.set_exception(NO_ANSWER)
            await task


NO = [reply(code) for code in ("BUSY", "REFUSED", "WRONG_STATE", "TOO_OLD", "FAILED", "of a later version")]


@pytest.mark.parametrize("answer", [NO_ANSWER, *NO], ids=lambda each: getattr(each, "code", "NO_ANSWER"))
def test_a_trigger_that_was_not_taken_gives_no_accept_whatever_comes(served: Served, answer: Reply | Exception) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            assert (await trigger(served, client, 7, answer))[0] != 0
            assert not await show(served, client, 1, trigger_id=7)
            asked = await call(client, "GetResultById", ua.Variant(1, ua.VariantType.UInt64))
            assert '"verdict":1' in asked[1] and '"accept":false' in asked[1]
            assert (await trigger(served, client, 8, reply("ACCEPTED")))[0] == 0
            assert await show(served, client, 2, trigger_id=8)

    asyncio.run(play())


def test_a_part_is_named_whole_by_a_trigger_and_a_batch_for_all(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            where = ua.Variant(-(2**40), ua.VariantType.Int64)
            texts, yes = ("L-7\u00fc", "", "late"), ua.Variant(True, ua.VariantType.Boolean)
            served.link.replies.extend([reply("ACCEPTED"), reply("OK"), reply("BUSY")])
            assert (await call(client, "TriggerPart", 7, "01\x1d10L", 300, *texts, yes, where))[0] == 0
            assert (await call(client, "SetBatch", *texts))[0] == 0
            assert (await call(client, "TriggerPart", 8, "", 300, *texts, yes, where))[0] == 1
            (_, part), (op, batch), _ = served.link.asked
            named = [part[name] for name in ("part_id", "lot", "order", "position")]
            assert named == ["01\x1d10L", "L-7\u00fc", None, -(2**40)]
            assert op == "set_batch" and [batch[name] for name in ("lot", "order", "shift")] == list(texts)
            assert await show(served, client, 1, trigger_id=7, part_id="01\x1d10L", lot="L-7\u00fc", position=-(2**40))
            assert await values(client, "PartId", "Lot", "Position", "PositionGiven") == [
                "01\x1d10L", "L-7\u00fc", -(2**40), True,
            ]  # fmt: skip
            assert not await show(served, client, 2, trigger_id=8), "it was not taken"

    asyncio.run(play())


def test_no_result_is_shown_before_its_trigger_was_answered(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            told = Told()
            index = await client.get_namespace_index("urn:asperity:vision")
            subscription = await client.create_subscription(20, told)
            kind = client.get_node(ua.NodeId("ResultReadyEventType", index))
            await subscription.subscribe_events(await node(client, "3:VisionSystem"), [kind])
            async with asking(served, "Trigger", 7, "p7", 300) as answer:
                assert await show(served, client, 1, trigger_id=6)
                served.link.put(result(2, trigger_id=7), result(3, trigger_id=8))
                for _ in range(TURNS):
                    served.refresh()
                assert await values(client, "ResultId") == [1]
                served.link.open_futures[0].set_exception(NO_ANSWER)
                assert (await answer)[0] == 2
            await soon(lambda: len(told.events) == 3)
            assert [(event.TriggerId, event.Accept) for event in told.events] == [(6, True), (7, False), (8, True)]

    asyncio.run(play())


@pytest.mark.parametrize("method", ["Trigger", "StartSingleJob"])
def test_what_came_before_a_trigger_was_given_again_is_not_its_part(served: Served, method: str) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            assert await show(served, client, 1, trigger_id=7)
            async with asking(served, method, 7, "p7", 300) as answer:
                assert not await accepts(client)
                served.link.open_futures[0].set_result(reply("BUSY"))
                assert (await answer)[:2] == [1, "BUSY"] and not await accepts(client)

    asyncio.run(play())


def test_a_trigger_given_again_while_a_result_is_being_told_takes_its_accept(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, parts, turns = served.gateway._model, served.gateway._parts, [7]
    clear = model.clear

    async def told(moment: Moment) -> None:
        if turns:  # another client has its turn while subscribers are told that Accept is false
            parts.given_again(turns.pop())
        await clear(moment)

    async def play() -> None:
        async with connected(served.url) as client:
            monkeypatch.setattr(model, "clear", told)
            assert not await show(served, client, 1, trigger_id=7) and not turns

    asyncio.run(play())


def test_a_trigger_given_again_before_its_result_came_costs_one_result(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            for _ in range(2):
                assert (await trigger(served, client, 7, reply("ACCEPTED")))[0] == 0
            assert not await show(served, client, 1, trigger_id=7), "it may be the first one's"
            assert await show(served, client, 2, trigger_id=7)
            assert (await trigger(served, client, 7, reply("ACCEPTED")))[0] == 0
            assert await show(served, client, 3, trigger_id=7)

    asyncio.run(play())


def test_the_memory_of_triggers_is_bounded() -> None:
    parts = Parts(2)
    for number in range(1, 3 * GIVEN_UP_MAX):
        future: Future[Reply] = Future()
        future.set_result(reply("ACCEPTED" if number % 2 else "BUSY"))
        parts.triggered(number, future)
        parts.show(Delivered(result(number), True, 0.0))
    assert len(parts._owed) == GIVEN_UP_MAX == len(parts._given_up._numbers)
    assert not parts._unanswered and parts.ids(0) == [3 * GIVEN_UP_MAX - 2, 3 * GIVEN_UP_MAX - 1]


def test_a_trigger_of_no_number_takes_nothing_from_a_line_that_runs_free(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            say(served, triggers="free_run")
            served.link.replies.append(WireError("trigger_id is 0"))
            assert (await call(client, "Trigger", 0, "", 300))[0] == 3
            assert await show(served, client, 1)

    asyncio.run(play())


@pytest.mark.parametrize(("triggers", "op"), [("software", "trigger"), ("hard_wired", "expect"), ("", "trigger")])
def test_a_part_is_triggered_or_announced_as_the_station_says(served: Served, triggers: str, op: str) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            say(served, triggers=triggers)
            await trigger(served, client, 7, reply("ACCEPTED"))
            served.link.replies.extend([reply("OK"), reply("ACCEPTED")])
            assert (await call(client, "StartSingleJob", 8, "p8", 300))[0] == 0
            assert [name for name, _ in served.link.asked] == [op, "start", op]

    asyncio.run(play())


def test_a_single_job_where_frames_need_no_trigger_is_refused_in_the_stations_words(served: Served) -> None:
    text = "mode single waits for a trigger, but [station] triggers is free_run"

    async def play() -> None:
        async with connected(served.url) as client:
            served.link.replies.append(Reply(id="1", ok=False, code="REFUSED", text=text))
            assert await call(client, "StartSingleJob", 7, "p7", 300) == [1, "REFUSED", text]
            assert [name for name, _ in served.link.asked] == ["start"]

    asyncio.run(play())


def test_what_was_too_long_on_its_way_is_told_as_such(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            assert (await trigger(served, client, 7, reply("TOO_OLD")))[:2] == [4, "TOO_OLD"]
            served.link.replies.append(reply("TOO_OLD"))
            assert (await call(client, "PrepareRecipe", "lid"))[:2] == [4, "TOO_OLD"]

    asyncio.run(play())


def test_a_change_of_recipe_has_a_number_and_its_end_is_told(served: Served) -> None:
    def change(number: int, status: str, text: str = "") -> RecipeChange:
        return RecipeChange(number=number, recipe="lid", status=status, text=text)

    async def play() -> None:
        async with connected(served.url) as client:
            told = Told()
            index = await client.get_namespace_index("urn:asperity:vision")
            subscription = await client.create_subscription(20, told)
            kinds = [
                client.get_node(ua.NodeId(f"Recipe{name}EventType", index)) for name in ("Prepared", "NotPrepared")
            ]
            await subscription.subscribe_events(await node(client, "3:VisionSystem"), kinds)
            names = ("RecipeChangeNumber", "RecipeAskedFor", "RecipeChangeStatus", "RecipeChangeText", "Recipe")
            assert await values(client, *names) == [0, "", "", "", "bracket"]
            served.link.replies.append(reply("ACCEPTED", recipe_change=3))
            assert await call(client, "PrepareRecipe", "lid") == [0, "ACCEPTED", "", 3]
            served.link.replies.append(NO_ANSWER)
            assert (await call(client, "PrepareRecipe", "lid"))[::3] == [2, 0]
            for ended, shown in ((change(3, "under_way"), ""), (change(3, "failed", "golden frames"), "golden frames")):
                say(served, recipe_change=ended)
                served.refresh()
                expected = [3, "lid", ended.status, shown, "bracket"]
                assert await values(client, *names) == expected
            await soon(lambda: len(told.events) == 1)
            say(served, beat=8)
            served.refresh()
            say(served, recipe_change=change(4, "done"), recipe="lid")
            served.refresh()
            await soon(lambda: len(told.events) == 2)
            say(served, recipe_change=change(4, "done"), session=OTHER_SESSION)
            served.refresh()
            await soon(lambda: len(told.events) == 3)
            assert [(event.Number, event.InternalId, event.Why) for event in told.events] == [
                (3, "lid", "golden frames"),
                (4, "lid", None),
                (4, "lid", None),
            ]

    asyncio.run(play())


def test_only_results_of_the_recipe_that_was_asked_for_pass(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            assert await show(served, client, 1, trigger_id=7, recipe="bracket")
            async with asking(served, "PrepareRecipe", "lid") as answer:
                assert not await accepts(client), "of the recipe before"
                served.link.open_futures[0].set_result(reply("REFUSED"))
                assert (await answer)[0] == 1
            assert not await show(served, client, 2, trigger_id=8, recipe="bracket")
            assert await values(client, "Verdict", "ResultRecipe", "RecipeWanted") == [1, "bracket", "lid"]
            assert await show(served, client, 3, trigger_id=9, recipe="lid")
            served.link.replies.append(WireError("recipe is BRACKET"))
            assert (await call(client, "PrepareRecipe", "BRACKET"))[0] == 3
            assert await values(client, "Accept", "RecipeWanted") == [True, "lid"]

    asyncio.run(play())


def test_who_may_not_ask_takes_accept_from_nobody(loop: Loop, tmp_path: Path) -> None:
    served = Served(loop, tmp_path, commands=False)

    async def play() -> None:
        async with connected(served.url) as client:
            assert await show(served, client, 1, trigger_id=7, recipe="bracket")
            served.link.replies.append(NO_ANSWER)
            assert (await call(client, "PrepareRecipe", "lid"))[0] == 2
            assert await accepts(client)

    try:
        asyncio.run(play())
    finally:
        served.close()


def test_what_frames_need_is_shown(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            names = ("Triggers", "Synced", "ThresholdInForce", "Late")
            assert await values(client, *names) == ["software", True, 0.0, 0]
            say(served, triggers="hard_wired", synced=False, threshold=0.5, late=6)
            assert await values(client, *names) == ["hard_wired", False, 0.5, 6]
            say(served, synced=None)
            assert await values(client, "Synced") == [False]
            say(served, synced=True)
            assert await values(client, "Synced") == [True]
            assert all(value.StatusCode.is_good() for value in await read(client, *names))

    asyncio.run(play())


def test_a_name_that_nobody_checked_is_nobodys(served: Served) -> None:
    async def play() -> None:
        client = Client(served.url, timeout=PATIENCE_S)
        client.set_user("boss")
        client.set_password("whatever")
        async with client:
            await trigger(served, client, 7, reply("ACCEPTED"))
        assert served.link.asked[0][1]["actor"] == "opcua anonymous"

    asyncio.run(play())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (None, "opcua anonymous"),
        ("plc", "opcua plc"),
        ("pl\tc\u00e9\n", r"opcua pl\tc\xe9\n"),
        pytest.param("\u4e2d" * 100, "opcua " + r"\u4e2d" * 9 + r"\u4e"[:4], id="long"),
    ],
)
def test_the_station_is_told_who_asks_in_printable_words(name: str | None, told: str) -> None:
    assert actor(Caller(UserRole.User, name)) == told and len(told) <= 64
