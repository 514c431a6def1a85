"""The OPC UA gateway on the real link, with a station that answers late or never, or says what it should not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from asyncua import Client

from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.gateways.config import Gateway, GatewayConfig, GatewayStation
from asperity.runtime.gateways.link import Link
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import RecipeChange, Request
from asperity.testing import STATION
from tests.runtime.gateways.fake_station import FakeStation
from tests.runtime.gateways.floor import Loop, looping, until
from tests.runtime.gateways.opcua.opcua_floor import Served, accepts, call, connected, soon, until_shown, values

FOREVER_MS = 3_600_000


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("opcua")


@pytest.fixture
def station() -> Iterator[FakeStation]:
    station = FakeStation()
    yield station
    station.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is given up, however slow the machine."""
    monkeypatch.setattr("asperity.runtime.gateways.link.ClientLimits", partial(ClientLimits, request_tries=100))


@contextmanager
def serving(station: FakeStation, loop: Loop, folder: Path) -> Iterator[Served]:
    link = Link(
        GatewayConfig(
            station=GatewayStation(name=STATION, **station.ends),
            gateway=Gateway(accept_hold_ms=FOREVER_MS, patience_ms=FOREVER_MS),
        )
    )
    link.start()
    until(lambda: link.view().good, "trust")
    served = Served(loop, folder, link=link)
    try:
        yield served
    finally:
        served.close()
        link.close()


def good(result_id: int, trigger_id: int, recipe: str = "bracket") -> Result:
    return Result(
        station=STATION, session="", result_id=result_id, trigger_id=trigger_id, verdict=Verdict.OK, reason=Reason.GOOD,
        score=0.25, threshold=0.5, recipe=recipe,
    )  # fmt: skip


async def asked(station: FakeStation, count: int) -> Request:
    await soon(lambda: len(station.asked) == count)
    assert station.asked[-1].actor == "opcua anonymous"
    return station.asked[-1]


async def accepted(served: Served, station: FakeStation, client: Client, result_id: int, trigger_id: int) -> bool:
    """Of the good result that the station says next."""
    station.publish(good(result_id, trigger_id))
    await until_shown(client, result_id, served.refresh)
    return await accepts(client)


def told_status(served: Served) -> str:
    state = served.link.view().state
    assert state is not None and state.recipe_change is not None
    return state.recipe_change.status


@pytest.mark.parametrize("triggers", ["software", "hard_wired", "of a later version"])
def test_a_good_result_of_no_trigger_passes_only_where_the_camera_runs_free(
    station: FakeStation, loop: Loop, folder: Path, triggers: str
) -> None:
    async def play() -> None:
        station.say(triggers=triggers)
        with serving(station, loop, folder) as served:
            async with connected(served.url) as client:
                assert not await accepted(served, station, client, 1, 0)
                assert await values(client, "Verdict", "Ready") == [1, True]
                assert await accepted(served, station, client, 2, 7)
                station.say(triggers="free_run")
                await soon(lambda: served.link.view().state.triggers == "free_run")  # type: ignore[union-attr]
                assert await accepted(served, station, client, 3, 0)

    asyncio.run(play())


@pytest.mark.parametrize("answered", ["before its result", "after its result", "never"])
def test_over_opc_ua_a_trigger_that_was_given_up_and_carried_out_is_no_pass(
    station: FakeStation, loop: Loop, folder: Path, answered: str
) -> None:
    async def play() -> None:
        with serving(station, loop, folder) as served:
            async with connected(served.url) as client, connected(served.url) as other:
                asking = asyncio.create_task(call(other, "Trigger", 7, "p7", 300))
                request = await asked(station, 1)
                assert (request.op, request.trigger_id, request.part_id) == ("trigger", 7, "p7")
                assert (await asking)[:2] == [2, ""]
                if answered == "before its result":
                    station.answer(request, "ACCEPTED")
                assert not await accepted(served, station, client, 1, 7)
                if answered == "after its result":
                    station.answer(request, "ACCEPTED")
                number, told = 7, 2
                while told:  # a crowded machine may cost an answer
                    number += 1
                    asking = asyncio.create_task(call(other, "Trigger", number, "", 300))
                    station.answer(await asked(station, number - 6), "ACCEPTED")
                    told = (await asking)[0]
                assert await accepted(served, station, client, 2, number)

    asyncio.run(play())


@pytest.mark.usefixtures("patient")
def test_over_opc_ua_a_change_of_recipe_is_followed_to_its_end(station: FakeStation, loop: Loop, folder: Path) -> None:
    async def play() -> None:
        with serving(station, loop, folder) as served:
            async with connected(served.url) as client:
                asking = asyncio.create_task(call(client, "PrepareRecipe", "lid"))
                request = await asked(station, 1)
                assert (request.op, request.recipe) == ("prepare_recipe", "lid")
                station.say(recipe_change=RecipeChange(1, "lid", "under_way", ""))
                station.answer(request, "ACCEPTED", recipe_change=1)
                assert (await asking) == [0, "ACCEPTED", "", 1]
                assert not await accepted(served, station, client, 1, 7), "judged by the recipe before"
                for status in ("failed", "done"):
                    station.say(recipe_change=RecipeChange(1, "lid", status, "why"))
                    await soon(lambda status=status: told_status(served) == status)  # type: ignore[misc]
                    assert await values(client, "RecipeChangeStatus") == [status]
                    assert await values(client, "RecipeChangeNumber", "RecipeAskedFor") == [1, "lid"]
                assert not await accepted(served, station, client, 2, 8)
                station.publish(good(3, 9, "lid"))
                await until_shown(client, 3, served.refresh)
                assert await accepts(client)

    asyncio.run(play())
