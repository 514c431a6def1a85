"""The vision system of OPC 40100-1: its types, what is mandatory, its values, events and methods."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from asyncua import Client, Node, ua
from asyncua.common.utils import Buffer, ServiceError
from asyncua.ua.ua_binary import struct_to_binary, variant_from_binary
from asyncua.ua.uaerrors import BadInvalidArgument, BadMethodInvalid, BadTooManyArguments
from msgspec.structs import replace

from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.opcua.companion.methods import LIST_MAX
from asperity.runtime.gateways.opcua.companion.nodeset import FILE
from asperity.runtime.gateways.opcua.decoding import DECODING, Budget
from asperity.runtime.wire import RecipeChange
from tests.places import DOCS
from tests.runtime.gateways.floor import SESSION, FakeLink, Loop, looping, reply, result
from tests.runtime.gateways.opcua.opcua_floor import Served, Told, connected, soon, until_shown

SET = "{http://opcfoundation.org/UA/2011/03/UANodeSet.xsd}"
MODE = "VisionStateMachine"
AUTOMATIC = f"{MODE}.AutomaticModeStateMachine"
NONE = ua.Variant(None, ua.VariantType.ExtensionObject)
HOLDS = {ua.ObjectIds.HasComponent, ua.ObjectIds.HasProperty, ua.ObjectIds.HasOrderedComponent}


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
    FakeLink.__init__(house.link)
    parts = house.gateway._parts
    house.loop.call(lambda: parts.__init__(parts._most))  # type: ignore[misc]
    house.refresh()
    return house


def at(client: Client, path: str = "") -> Node:
    return client.get_node(ua.NodeId(f"MachineVision.{path}" if path else "MachineVision", 2))


def number(value: int, kind: ua.VariantType = ua.VariantType.Int32) -> ua.Variant:
    return ua.Variant(value, kind)


def unsigned(value: int) -> ua.Variant:
    return number(value, ua.VariantType.UInt32)


def named(kind: str, name: str) -> Any:
    return getattr(ua, f"{kind}DataType")(Id=name)


async def call(client: Client, path: str, *arguments: Any) -> Any:
    parent, _, name = path.rpartition(".")
    return await at(client, parent).call_method(f"3:{name}", *arguments)


class Browser:
    """References of nodes, as a client sees them; each asked for once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._seen: dict[ua.NodeId, list[ua.ReferenceDescription]] = {}

    async def refs(self, node_id: ua.NodeId) -> list[ua.ReferenceDescription]:
        if node_id not in self._seen:
            self._seen[node_id] = await self._client.get_node(node_id).get_references()
        return self._seen[node_id]

    async def targets(self, node_id: ua.NodeId, kind: int, forward: bool = True) -> list[ua.NodeId]:
        wanted = ua.NodeId(kind)
        return [r.NodeId for r in await self.refs(node_id) if r.ReferenceTypeId == wanted and r.IsForward == forward]

    async def children(self, node_id: ua.NodeId) -> dict[tuple[int, str], ua.ReferenceDescription]:
        return {
            (ref.BrowseName.NamespaceIndex, ref.BrowseName.Name): ref
            for ref in await self.refs(node_id)
            if ref.IsForward and ref.ReferenceTypeId.NamespaceIndex == 0 and ref.ReferenceTypeId.Identifier in HOLDS
        }

    async def missing(self, instance: ua.NodeId, declared: list[ua.NodeId], path: str) -> list[str]:
        """What ``declared`` and its type and supertypes ask of an instance and it does not have."""
        of = await self.targets(instance, ua.ObjectIds.HasTypeDefinition)
        while of:
            declared = [*declared, of[0]]
            of = await self.targets(of[0], ua.ObjectIds.HasSubtype, forward=False)
        has, found = await self.children(instance), []
        for each in declared:
            for name, child in (await self.children(each)).items():
                own = has.get(name)
                rule = await self.targets(child.NodeId, ua.ObjectIds.HasModellingRule)
                if own is None and rule == [ua.NodeId(ua.ObjectIds.ModellingRule_Mandatory)]:
                    found.append(f"{path}/{name[1]}")
                if own is not None and rule:
                    found += [f"{path}/{name[1]}: class"] if own.NodeClass != child.NodeClass else []
                    found += await self.missing(own.NodeId, [child.NodeId], f"{path}/{name[1]}")
        return found


def test_no_mandatory_child_of_any_instance_is_missing(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            browser, seen, open_nodes = Browser(client), 0, [ua.NodeId("MachineVision", 2)]
            while open_nodes:
                each = open_nodes.pop()
                children = await browser.children(each)
                assert not await browser.missing(each, [], each.to_string())
                seen += 1
                open_nodes += [child.NodeId for child in children.values()]
            assert seen > 70
            told = await browser.children(ua.NodeId("MachineVision.VisionStateMachine", 2))
            # The walk itself: the type asks for what an object without it would miss.
            gap = await browser.missing(told[(3, "Halted")].NodeId, [ua.NodeId(1003, 3)], "")
            assert gap == ["/VisionStateMachine"]

    asyncio.run(play())


def test_the_types_are_those_of_the_published_file(served: Served) -> None:
    text = gzip.decompress(FILE.read_bytes())
    assert hashlib.sha256(text).hexdigest() in (DOCS / "decisions" / "opcua-companion.md").read_text()
    assert b"OPC Foundation MIT License 1.00" in text[:400]
    space, count = served.gateway._server.iserver.aspace, 0
    for element in ET.fromstring(text):
        if element.get("NodeId"):
            node = space[ua.NodeId(int(element.get("NodeId", "").removeprefix("ns=1;i=")), 3)]
            name = node.attributes[ua.AttributeIds.BrowseName].value.Value.Value  # type: ignore[union-attr]
            assert {0: "", 3: "1:"}[name.NamespaceIndex] + name.Name == element.get("BrowseName")
            kept = {(r.NodeId.NamespaceIndex, r.NodeId.Identifier, r.IsForward) for r in node.references}
            assert len({(r.ReferenceTypeId, r.NodeId, r.IsForward) for r in node.references}) == len(node.references)
            for ref in element.iter(f"{SET}Reference"):
                namespace, _, identifier = (ref.text or "").rpartition(";")
                forward = ref.get("IsForward") != "false"
                assert (3 if namespace else 0, int(identifier.removeprefix("i=")), forward) in kept or not forward
            count += 1
    assert count == 790


def test_states_are_nodes_of_the_types_and_their_changes_are_events(served: Served) -> None:
    link = served.link
    assert link.state is not None
    link.state = replace(link.state, state=6)
    served.refresh()

    async def say(**changes: Any) -> None:
        assert link.state is not None
        link.state = replace(link.state, **changes)
        await asyncio.to_thread(served.refresh)

    async def play() -> None:
        async with connected(served.url) as client:
            await soon(lambda: served.gateway._model._vision_system._states.get(AUTOMATIC) == "Ready")
            told, subscription = await events(client, 1013, 1018, 1019, 1022, 1023)
            for state in (8, 6, 3):
                await say(state=state)
                await soon(lambda state=state: served.gateway._model._vision_system._states[MODE] == STATES[state])
                await soon(lambda state=state: served.gateway._model._vision_system._states[AUTOMATIC] == SUB[state])
            await soon(lambda: len(told.events) >= 6)
            kinds = [(event.EventType.Identifier, getattr(event, "Transition", None)) for event in told.events]
            names = [(kind, text.Text if text else "") for kind, text in kinds]
            assert names == [
                (1018, "ReadyToContinuousExecutionAuto"), (1013, ""),
                (1018, "ContinuousExecutionToReadyAuto"), (1023, ""),
                (1018, "OperationalToErrorAuto"), (1019, "OperationalToErrorAuto"),
            ]  # fmt: skip
            first = told.events[0]
            ends = (getattr(first, "FromState/Id"), getattr(first, "ToState/Id"), getattr(first, "Transition/Id"))
            assert [each.Identifier for each in ends] == [5057, 5059, 5067]
            assert told.events[1].JobId.Id == SESSION
            states = [at(client, f"{path}.CurrentState") for path in (MODE, AUTOMATIC)]
            assert (await states[0].read_value()).Text == "Error"
            assert (await at(client, f"{MODE}.CurrentState.Id").read_value()) == ua.NodeId(5030, 3)
            inactive = await states[1].read_data_value(raise_on_bad_status=False)
            assert inactive.StatusCode.name == "BadStateNotActive"
            assert (await at(client, f"{MODE}.LastTransition").read_value()).Text == "OperationalToErrorAuto"
            await subscription.delete()

    asyncio.run(play())


STATES = {8: "Operational", 6: "Operational", 3: "Error"}
SUB = {8: "ContinuousExecution", 6: "Ready", 3: ""}


async def events(client: Client, *kinds: int) -> tuple[Told, Any]:
    told = Told()
    subscription = await client.create_subscription(20, told)
    await subscription.subscribe_events(at(client), [client.get_node(ua.NodeId(kind, 3)) for kind in kinds])
    return told, subscription


def test_a_result_is_a_structure_in_events_in_the_address_space_and_by_its_id(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            told, subscription = await events(client, 1024)
            served.link.put(result(1, part_id="p1", recipe="bracket", trigger_id=6, lot="L7", modality="rgb"))
            await until_shown(client, 1, served.refresh)
            await soon(lambda: told.events)
            event, content = told.events[0], [True, 1, 1, "GOOD", 0.25, 0.5, "rgb", 6, 101, "L7", "", ""]
            made = await at(client, "ResultManagement.Results.Latest").read_value()
            found = await call(client, "ResultManagement.GetResultById", named("ResultId", "1"), number(0))
            for each in (event, made, found[1]):
                assert [value.Value for value in each.ResultContent] == content
                ids = (each.ResultId, each.PartId, each.InternalRecipeId, each.JobId)
                assert [one.Id for one in ids] == ["1", "p1", "bracket", SESSION]
                assert (each.ResultState, each.IsPartial, each.IsSimulated) == (1, False, False)
            assert found[0] > 0 and found[2] == 0
            assert (await at(client, "ResultManagement.Results.Latest.ResultId").read_value()).Id == "1"
            served.link.expired.add(1)
            found = await call(client, "ResultManagement.GetResultById", named("ResultId", "1"), number(0))
            assert found[1].ResultContent[0].Value is False and found[1].ResultContent[1].Value == 1
            served.link.good = False
            latest = at(client, "ResultManagement.Results.Latest")
            bad = await latest.read_data_value(raise_on_bad_status=False)
            assert bad.StatusCode.name == "BadOutOfService" and bad.Value.Value.ResultState == 0
            assert [value.Value for value in bad.Value.Value.ResultContent][:3] == [False, 0, 0]
            await subscription.delete()

    asyncio.run(play())


def test_a_subscriber_to_the_latest_result_hears_of_it_before_it_is_accepted(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            served.link.put(result(1))
            await until_shown(client, 1, served.refresh)
            told, latest = Told(), at(client, "ResultManagement.Results.Latest")
            told.names[latest.nodeid] = "Latest"
            subscription = await client.create_subscription(20, told)
            await subscription.subscribe_data_change(latest, queuesize=100)
            await soon(lambda: told.changes)
            served.link.put(result(2), result(3, Verdict.NG), result(4))
            await until_shown(client, 4, served.refresh)
            await soon(lambda: (told.changes[-1][1].ResultId.Id, accepted(told)[-1]) == ("4", True))
            heard = list(zip([value.ResultId.Id for _, value, _ in told.changes], accepted(told), strict=True))
            assert heard == [("1", True), ("2", False), ("2", True), ("3", False), ("4", False), ("4", True)]
            await subscription.delete()

    asyncio.run(play())


def accepted(told: Told) -> list[bool]:
    return [value.ResultContent[0].Value for _, value, _ in told.changes]


def test_results_are_listed_by_what_they_are_of(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            served.link.put(result(1, part_id="a"), result(2, Verdict.UNKNOWN, part_id="a"), result(3, recipe="lid"))
            await until_shown(client, 3, served.refresh)

            async def listed(state: int = 0, most: int = 0, start: int = 0, **ids: Any) -> tuple[list[str], bool]:
                names = ("meas", "part", "er", "recipe", "ec", "ic", "product", "job")
                given = [ids.get(name, NONE) for name in names]
                page = (unsigned(most), unsigned(start), number(0))
                answer = await call(client, "ResultManagement.GetResultListFiltered", number(state), *given, *page)
                complete, count, _, found, error = answer
                assert count == len(found or []) and error == 0
                return [each.ResultId.Id for each in found or []], complete

            assert await listed() == (["1", "2", "3"], True)
            assert await listed(state=4) == (["2"], True)
            assert await listed(part=named("PartId", "a"), job=named("JobId", SESSION)) == (["1", "2"], True)
            assert await listed(recipe=named("RecipeIdInternal", "lid")) == (["3"], True)
            assert await listed(meas=named("MeasId", "m")) == ([], True)
            assert await listed(most=2) == (["1", "2"], False) and await listed(most=2, start=2) == (["3"], True)
            components = await call(
                client, "ResultManagement.GetResultComponentsById", named("ResultId", "3"), number(0)
            )
            assert components[8].Id == "lid" and components[-1] == 0 and len(components) == 17
            release = "ResultManagement.ReleaseResultHandle"
            assert await call(client, release, unsigned(components[1])) == 0
            assert await call(client, release, unsigned(4_000_000_000)) == -5
            for nobodys in ("9", "", "-1", "1" * 30, "x"):
                missing = await call(client, "ResultManagement.GetResultById", named("ResultId", nobodys), number(0))
                assert (missing[0], missing[1].ResultState, missing[2]) == (0, 0, -5)

    asyncio.run(play())
    assert LIST_MAX == 100


def test_methods_have_their_signatures_and_say_what_was_refused(served: Served) -> None:
    prepare, start = "RecipeManagement.PrepareRecipe", f"{AUTOMATIC}.StartSingleJob"
    parameters = ua.Variant([unsigned(7), unsigned(300)], ua.VariantType.Variant)

    async def play() -> None:
        async with connected(served.url) as client:
            link = served.link
            link.replies.extend([reply("ACCEPTED", recipe_change=3), reply("REFUSED"), reply("TOO_OLD")])
            answer = await call(client, prepare, named("RecipeIdExternal", "lid"), NONE)
            assert (answer[0].Id, *answer[1:]) == ("lid", False, 0)
            assert served.gateway._parts.recipe == "lid", "from now on only its results pass"
            assert await call(client, "RecipeManagement.Recipes.lid.Prepare") == [False, -1]
            assert await call(client, "RecipeManagement.Recipes.lid.Unprepare") == -4
            ids = (named("RecipeIdExternal", "lid"), named("RecipeIdInternal", "bracket"))
            assert (await call(client, prepare, *ids))[2] == -3
            link.replies.extend([reply("OK"), reply("ACCEPTED")])
            job = await call(client, start, NONE, named("PartId", "p9"), NONE, NONE, parameters)
            assert (job[0].Id, job[1]) == (SESSION, 0)
            assert (await call(client, start, NONE, NONE, NONE, NONE, ua.Variant()))[1] == -3
            link.replies.append(reply("WRONG_STATE"))
            nothing = (NONE, NONE, NONE, NONE, ua.Variant())
            assert (await call(client, f"{AUTOMATIC}.StartContinuous", *nothing))[1] == -1
            other = (NONE, NONE, named("RecipeIdExternal", "lid"), NONE, ua.Variant())
            assert (await call(client, f"{AUTOMATIC}.StartContinuous", *other))[1] == -3, "bracket is active"
            for path in (f"{MODE}.Halt", f"{MODE}.Reset", f"{AUTOMATIC}.Stop", f"{AUTOMATIC}.Abort"):
                link.replies.append(reply("OK"))
                assert await call(client, path, number(1), "shift ends") == 0
            ops = ["prepare_recipe", "prepare_recipe", "unprepare_recipe", "start", "trigger", "start"]
            assert [op for op, _ in link.asked] == [*ops, "halt", "reset", "stop", "abort"]
            assert link.asked[4][1]["part_id"] == "p9" and link.asked[4][1]["trigger_id"] == 7
            link.replies.append(reply("OK"))
            of_type = ua.NodeId(7094, 3)
            assert await at(client, MODE).call_method(of_type, number(1), "by the type's method") == 0
            with pytest.raises(BadMethodInvalid):
                await at(client, AUTOMATIC).call_method(of_type, number(1), "not one of this object")
            with pytest.raises(BadTooManyArguments):
                await call(client, f"{MODE}.Halt", number(1), "", "")
            for wrong in ((unsigned(1), ""), (number(1), ua.Variant())):
                with pytest.raises(BadInvalidArgument):
                    await call(client, f"{MODE}.Halt", *wrong)
            with pytest.raises(BadInvalidArgument):
                await call(client, prepare, named("PartId", "lid"), NONE)
            listed = "RecipeManagement.GetRecipeListFiltered"
            for prepared, names in ((2, ["bracket", "lid"]), (1, ["bracket"]), (0, ["lid"])):
                page = (unsigned(0), unsigned(0), number(0))
                answer = await call(client, listed, NONE, NONE, number(prepared), *page)
                assert [each.Id for each in answer[3]] == names

    asyncio.run(play())


def test_a_recipe_that_is_active_is_an_event_and_one_that_failed_is_none(served: Served) -> None:
    async def play() -> None:
        async with connected(served.url) as client:
            told, subscription = await events(client, 1022)
            for change in ((1, "failed"), (2, "done")):
                served.link.state = replace(
                    served.link.state, recipe_change=RecipeChange(number=change[0], recipe="lid", status=change[1])
                )
                await asyncio.to_thread(served.refresh)
            await soon(lambda: told.events)
            assert [event.InternalId.Id for event in told.events] == ["lid"]
            await subscription.delete()

    asyncio.run(play())


def test_structures_in_structures_are_decoded_to_a_depth_and_not_beyond(served: Served) -> None:
    inner = end = b"\x03\x01"  # a byte, 1
    whole = struct_to_binary(ua.ResultDataType(ResultContent=[ua.Variant(1, ua.VariantType.Byte)]))
    assert whole.endswith(end)
    levels: dict[int, bytes] = {}
    for level in range(1, 601):
        body = whole.removesuffix(end) + inner
        inner = b"\x16" + b"\x01\x03" + (5018).to_bytes(2, "little") + b"\x01" + len(body).to_bytes(4, "little") + body
        levels[level] = inner
    assert len(levels[600]) < served.gateway._server.iserver.bounds.message_max_nbytes
    token = DECODING.set(Budget(served.gateway._server.iserver.bounds.operations_max))
    try:
        made = variant_from_binary(Buffer(levels[20])).Value
        assert made.ResultContent[0].Value.ResultState == 0
        with pytest.raises((RecursionError, ServiceError)):
            variant_from_binary(Buffer(levels[600]))
    finally:
        DECODING.reset(token)


def test_files_of_others_come_with_their_licence() -> None:
    text = (Path(FILE).parent / "LICENSE.OPCFoundation.txt").read_text()
    assert "OPC Foundation MIT License 1.00" in text and "2005-2020 The OPC Foundation" in text
