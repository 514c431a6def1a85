"""The OPC UA gateway in one process with a client, on a link that says what the test wants."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.uaerrors import (
    BadArgumentsMissing,
    BadInvalidArgument,
    BadTooManyMonitoredItems,
    BadTooManySubscriptions,
    BadUserAccessDenied,
)

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import ConfigError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.config import GatewayConfig, Opcua, Users
from asperity.runtime.gateways.log_ins import users
from asperity.runtime.gateways.opcua.access import certificate_files
from asperity.runtime.gateways.opcua.gateway import serve
from asperity.runtime.gateways.opcua.tags import TAGS, Of
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import NO_ANSWER, FakeLink, Loop, looping, reply, result
from tests.runtime.gateways.opcua.opcua_floor import Served, Told, connected, node, read, soon, until_shown

U32, U64, TEXT = ua.VariantType.UInt32, ua.VariantType.UInt64, ua.VariantType.String
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the certificate that all of this file's gateways share: making one takes a moment."""
    return tmp_path_factory.mktemp("opcua")


@pytest.fixture(scope="module")
def open_house(loop: Loop, folder: Path) -> Iterator[Served]:
    served = Served(loop, folder, results_kept=3, subscriptions_max=2, items_max=40)
    yield served
    served.close()


@pytest.fixture
def served(open_house: Served) -> Served:
    """The same server, with a link that is as at the start."""
    FakeLink.__init__(open_house.link)
    open_house.refresh()
    return open_house


def test_accept_is_computed_as_it_is_read_so_that_no_stuck_loop_keeps_it_true(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            served.link.put(result(21), result(22, Verdict.NG), result(23))
            served.refresh()
            await until_shown(client, 23)
            accept, copy, verdict = await read(client, "Accept", "ResultId", "Verdict")
            assert accept.Value.Value is True and (copy.Value.Value, verdict.Value.Value) == (23, 1)
            served.link.expired.add(23)  # nobody refreshes: the gateway's own turn may be stuck
            assert (await read(client, "Accept"))[0].Value.Value is False
            served.link.expired.clear()
            served.link.good = False
            bad = await read(client, *(tag.name for tag in TAGS if tag.of is Of.RESULT))
            assert all(value.StatusCode.is_bad() for value in bad) and bad[0].Value.Value is False
            station = await read(client, "State", "Ready", "Why")
            assert [value.Value.Value for value in station] == [8, False, "the station's heartbeat has stopped"]

    asyncio.run(play())


def test_a_subscriber_is_told_accept_false_then_the_result_then_accept(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            served.link.put(Gap(30, 30, "before"))
            served.refresh()
            await until_shown(client, 30)
            told = Told()
            subscription = await client.create_subscription(20, told)
            index = await client.get_namespace_index("urn:asperity:vision")
            for name in ("Accept", "ResultId", "Verdict", "ResultIdCopy"):
                item = client.get_node(ua.NodeId(f"Tags.{name}", index))
                told.names[item.nodeid] = name
                await subscription.subscribe_data_change(item, queuesize=100)
            system = await node(client, "3:VisionSystem")
            await subscription.subscribe_events(system, [client.get_node(ua.NodeId(n, index)) for n in EVENTS])
            for number in (31, 32, 33):
                served.link.put(result(number, Verdict.NG if number == 32 else Verdict.OK))
            served.link.put(Gap(34, 36, "gone"))
            served.refresh()
            await soon(lambda: ("ResultIdCopy", 36, True) in told.changes and len(told.events) >= 4)
            accepts = [value for name, value, _ in told.changes if name == "Accept"]
            # One notification has an item's values together; within an item they are in order.
            assert accepts[-1] is False and accepts.count(True) == 2
            for earlier, later in pairwise(accepts):
                assert not (earlier and later), "accept must fall between two parts"
            assert [e.ResultId for e in told.events if e.ResultId is not None] == [31, 32, 33]
            assert [e.Accept for e in told.events if e.ResultId is not None] == [True, False, True]
            assert [(e.FirstId, e.LastId, e.Why) for e in told.events if e.FirstId is not None] == [(34, 36, "gone")]
            served.link.put(result(37))
            served.refresh()
            await soon(lambda: accepted_last(told))
            served.link.good = False
            served.refresh()
            await soon(lambda: ("Accept", False, False) in told.changes)

    asyncio.run(play())


ANONYMOUS = {"actor": "opcua anonymous"}
EVENTS = ("ResultReadyEventType", "GapEventType")


def accepted_last(told: Told) -> bool:
    return [value for name, value, _ in told.changes if name == "Accept"][-1] is True


def test_methods_ask_the_station_and_answer_with_what_it_said(served: Served) -> None:
    link = served.link

    async def play() -> None:
        async with connected(served.url) as client:
            machine = await node(client, "3:VisionSystem", "3:VisionStateMachine")
            automatic = await machine.get_child("3:AutomaticModeStateMachine")
            recipes = await node(client, "3:VisionSystem", "3:RecipeManagement")
            link.replies.extend([reply("OK"), reply("WRONG_STATE"), NO_ANSWER])
            assert await automatic.call_method("3:StartContinuous") == [0, "OK", ""]
            assert (await machine.call_method("3:Reset"))[:2] == [1, "WRONG_STATE"]
            assert (await machine.call_method("3:Halt"))[0] == 2
            link.replies.extend([reply("OK"), reply("BUSY"), reply("OK")])
            job = (ua.Variant(7, U32), ua.Variant("p7", TEXT), ua.Variant(300, U32))
            assert (await automatic.call_method("3:StartSingleJob", *job))[:2] == [1, "BUSY"]
            link.replies.append(reply("ACCEPTED"))
            assert (await recipes.call_method("3:UnprepareRecipe", "lid"))[0] == 0
            assert link.asked == [
                ("start", {"mode": "continuous", **ANONYMOUS}),
                ("reset", ANONYMOUS),
                ("halt", ANONYMOUS),
                ("start", {"mode": "single", **ANONYMOUS}),
                ("trigger", {"trigger_id": 7, "part_id": "p7", "timeout_ms": 300, **ANONYMOUS}),
                ("stop", ANONYMOUS),
                ("unprepare_recipe", {"recipe": "lid", **ANONYMOUS}),
            ]
            with pytest.raises(BadInvalidArgument):
                await recipes.call_method("3:PrepareRecipe", ua.Variant(7, U32))
            with pytest.raises(BadArgumentsMissing):
                await recipes.call_method("3:PrepareRecipe")
            assert len(link.asked) == 7
            offered = await (await recipes.get_child("3:Recipes")).get_children()
            assert [await each.read_value() for each in offered] == ["bracket", "lid"]

    asyncio.run(play())


def test_the_last_results_are_looked_up_by_id_with_the_accept_of_now(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            served.link.put(*(result(number) for number in range(41, 46)))
            served.refresh()
            await until_shown(client, 45)
            results = await node(client, "3:VisionSystem", "3:ResultManagement")
            kept = await results.call_method("3:GetResultIds", ua.Variant(0, U64), ua.Variant(0, U32))
            assert kept == [43, 44, 45]
            assert (await results.call_method("3:GetResultById", ua.Variant(41, U64))) == [1, ""]
            error, text = await results.call_method("3:GetResultById", ua.Variant(44, U64))
            assert error == 0 and '"result_id":44' in text and '"accept":true' in text
            served.link.expired.add(44)
            assert '"accept":false' in (await results.call_method("3:GetResultById", ua.Variant(44, U64)))[1]

    asyncio.run(play())


def test_nobody_may_write_a_tag_and_what_a_client_may_hold_is_bounded(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            accept = await node(client, "2:Tags", "2:Accept")
            with pytest.raises(BadUserAccessDenied):
                await accept.write_value(True)
            with pytest.raises(BadUserAccessDenied):
                await client.nodes.objects.add_variable(2, "Mine", 1)
            first = await client.create_subscription(100, Told())
            await client.create_subscription(100, Told())
            with pytest.raises(BadTooManySubscriptions):
                await client.create_subscription(100, Told())
            with pytest.raises(BadTooManyMonitoredItems):
                await first.subscribe_data_change([accept] * 41)

    asyncio.run(play())


def test_users_and_roles_over_an_encrypted_channel(loop: Loop, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "users"
    users.put_user(file, users.new_user("viewer", "read", PASSWORD))
    users.put_user(file, users.new_user("plc", "operate", PASSWORD))
    audit = tmp_path / "audit.jsonl"
    served = Served(loop, folder, accounts=Users(file=str(file)), encryption="required", audit_file=str(audit))

    async def call(name: str | None, password: str = PASSWORD) -> Any:
        certificate, key = certificate_files(tmp_path / "client", "urn:test:client", "test")
        client = Client(served.url, timeout=PATIENCE_S)
        client.application_uri = "urn:test:client"
        await client.set_security(SecurityPolicyBasic256Sha256, str(certificate), str(key))
        if name is not None:
            client.set_user(name)
            client.set_password(password)
        async with client:
            assert (await read(client, "Ready"))[0].Value.Value is True
            automatic = await node(client, "3:VisionSystem", "3:VisionStateMachine", "3:AutomaticModeStateMachine")
            return await automatic.call_method("3:Stop")

    async def play() -> None:
        served.link.replies.append(reply("OK"))
        assert await call("plc") == [0, "OK", ""]
        for name in ("viewer", None):
            with pytest.raises(BadUserAccessDenied):
                await call(name)
        for name, password in (("plc", "wrong horse"), ("nobody", PASSWORD)):
            with pytest.raises(BadUserAccessDenied):
                await call(name, password)
        assert served.link.asked == [("stop", {"actor": "opcua plc"})]
        with pytest.raises(Exception, match=r"(?i)policy|security|endpoint|closed|connection"):
            async with connected(served.url):
                pass

    try:
        asyncio.run(play())
    finally:
        served.close()
    entries = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(e["op"], e["code"], e["actor"].get("name", ""), e["actor"].get("says", "")) for e in entries] == [
        ("log_in", "OK", "plc", ""), ("log_in", "OK", "viewer", ""),
        ("log_in", "REFUSED", "", "'plc'"), ("log_in", "REFUSED", "", "'nobody'"),
    ]  # fmt: skip
    assert PASSWORD not in audit.read_text() and "wrong horse" not in audit.read_text()
    assert stat.S_IMODE((folder / "server.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"host": "0.0.0.0"}, 'encryption = "required"'),
        ({"host": "0.0.0.0", "encryption": "required"}, "users. file"),
        ({"host": "plc.local"}, "IP address"),
    ],
)
def test_what_others_could_misuse_is_refused_in_words(own: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        serve(GatewayConfig(opcua=Opcua(**own)))  # type: ignore[arg-type]


def test_a_file_of_users_that_others_may_read_or_that_is_damaged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "users"
    users.put_user(file, users.new_user("plc", "operate", PASSWORD))
    known = users.read_users(file)
    assert PASSWORD not in file.read_text() and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert users.check_password(known, "plc", PASSWORD) is not None
    assert users.check_password(known, "plc", PASSWORD + " ") is None
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        users.read_users(file)
    file.chmod(0o600)
    for line in ("plc operate scrypt$3$8$1$AAAA$AAAA", "plc admin x", "plc operate scrypt$16384$8$1$AAAA$AAAA"):
        file.write_text(line + "\n")
        with pytest.raises(ConfigError, match="line 1"):
            users.read_users(file)
