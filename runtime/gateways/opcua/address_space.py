"""The OPC UA address space of a station: flat tags, and the same with names of OPC 40100-1 (Machine Vision).

    Objects/Tags/...                           ns=2;s=Tags.Accept and so on
    Objects/VisionSystem/                      browse names of OPC 40100-1
        VisionStateMachine/                    CurrentState, LastTransition, Halt, Reset
            AutomaticModeStateMachine/         CurrentState, StartContinuous, StartSingleJob, Stop, Abort, Trigger
        RecipeManagement/                      Recipes, PrepareRecipe, UnprepareRecipe
        ResultManagement/                      Results (the result tags once more), GetResultById, GetResultIds

Browse names are in the namespace of the companion specification, node ids in our own. ``VisionSystem`` has no types and
its structures are plain variables; the companion with its types is next to it (``companion/vision.py``).
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from asyncua import Node, Server, ua
from asyncua.server.event_generator import EventGenerator

from asperity.runtime.client.ordering import Gap
from asperity.runtime.gateways.link import Delivered
from asperity.runtime.gateways.opcua.companion.methods import CompanionMethods
from asperity.runtime.gateways.opcua.companion.nodeset import MACHINE_VISION
from asperity.runtime.gateways.opcua.companion.vision import SEVERITY, Vision
from asperity.runtime.gateways.opcua.methods import Method
from asperity.runtime.gateways.opcua.shown import Shown, show
from asperity.runtime.gateways.opcua.tags import (
    ACCEPT,
    AUTOMATIC_TAGS,
    MODE_TAGS,
    OTHER_TAGS,
    ZEROS,
    Moment,
    Of,
    Tag,
    Type,
    data_value,
)
from asperity.runtime.wire import RecipeChange

log = logging.getLogger("asperity.gateway")

NAMESPACE = "urn:asperity:vision"

Field = tuple[str, ua.VariantType, str, Callable[[Delivered, bool], Any]]
EVENT_FIELDS: tuple[Field, ...] = (
    (
        "ResultId",
        Type.UInt64,
        "number of the result, unique for the lifetime of the station",
        lambda d, a: d.result.result_id,
    ),
    ("PartId", Type.String, "as given by the trigger or frame", lambda d, a: d.result.part_id),
    ("Lot", Type.String, "of the part; empty: none", lambda d, a: d.result.lot),
    ("Order", Type.String, "likewise", lambda d, a: d.result.order),
    ("Shift", Type.String, "likewise", lambda d, a: d.result.shift),
    ("PositionGiven", Type.Boolean, "its trigger named a position", lambda d, a: d.result.position is not None),
    ("Position", Type.Int64, "encoder counts at its trigger; 0: none", lambda d, a: d.result.position or 0),
    ("TriggerId", Type.UInt32, "the trigger it answers; 0: none", lambda d, a: d.result.trigger_id),
    ("Seq", Type.UInt64, "number of the exposure", lambda d, a: d.result.seq),
    ("Verdict", Type.Byte, "0 unknown, 1 ok, 2 ng", lambda d, a: int(d.result.verdict)),
    (
        "Accept",
        Type.Boolean,
        "whether the part could pass when the event was created; a delayed event is history",
        lambda d, a: a,
    ),
    ("ReasonCode", Type.UInt16, "table of reasons in wire.md", lambda d, a: int(d.result.reason)),
    ("Reason", Type.String, "its name", lambda d, a: d.result.reason.name),
    ("Score", Type.Double, "anomaly score; 0 if there is none", lambda d, a: d.result.score or 0.0),
    ("Threshold", Type.Double, "ok needs Score <= Threshold", lambda d, a: d.result.threshold or 0.0),
    ("Modality", Type.String, "what added most to the score; empty: not said", lambda d, a: d.result.modality),
    ("LatencyUs", Type.UInt64, "from arrival to verdict, µs", lambda d, a: d.result.latency_us.get("total", 0)),
    ("InternalRecipeId", Type.String, "the recipe that judged it", lambda d, a: d.result.recipe),
    ("InternalConfigurationId", Type.String, "first digits of the bundle's SHA-256", lambda d, a: d.result.bundle),
    ("IsSimulated", Type.Boolean, "not scored by a real engine", lambda d, a: d.result.simulated),
    ("IsPartial", Type.Boolean, "never", lambda d, a: False),
    ("CreationTime", Type.DateTime, "of the exposure", lambda d, a: _time(d.result.t_exposure_us)),
)
GAP_FIELDS: tuple[tuple[str, ua.VariantType, str], ...] = (
    ("FirstId", Type.UInt64, "first missing result"),
    ("LastId", Type.UInt64, "last of them"),
    ("Why", Type.String, "as text"),
)
PREPARED_FIELDS: tuple[tuple[str, ua.VariantType, str], ...] = (
    ("Number", Type.UInt64, "of the change, in the station's session"),
    ("InternalId", Type.String, "the requested recipe; empty: none"),
)
NOT_PREPARED_FIELDS = (*PREPARED_FIELDS, ("Why", Type.String, "as text; the previous recipe stays active"))
PLAIN_EVENTS = {
    "GapEventType": GAP_FIELDS,
    "RecipePreparedEventType": PREPARED_FIELDS,
    "RecipeNotPreparedEventType": NOT_PREPARED_FIELDS,
}
GAP_SEVERITY = NOT_PREPARED_SEVERITY = 800
PREPARED_SEVERITY = 100


class Model:
    """The nodes of the address space that the gateway updates."""

    def __init__(self, server: Server, now: Callable[[], Moment], vision: Vision) -> None:
        """``now`` gives the moment a reader is shown."""
        self._vision_system = vision
        self._server = server
        self._now = now
        self._shown: list[Shown] = []
        self._accept: Shown | None = None
        self._results: list[EventGenerator] = []
        self._plain: dict[str, list[EventGenerator]] = {}

    async def build(self, methods: Iterable[Method], companion: CompanionMethods, recipes: tuple[str, ...]) -> None:
        """Make every node. Before the server is started."""
        server = self._server
        self._own = await server.register_namespace(NAMESPACE)
        self._vision = await server.register_namespace(MACHINE_VISION)
        objects = server.nodes.objects
        tags = await objects.add_folder(self._id("Tags"), ua.QualifiedName("Tags", self._own))
        self._accept, accept_node = await self._variable(tags, "Tags", ACCEPT, self._own)
        result_nodes = [accept_node]
        for tag in OTHER_TAGS:
            shown, node = await self._variable(tags, "Tags", tag, self._own)
            self._shown.append(shown)
            if tag.of is Of.RESULT:
                result_nodes.append(node)
        system = await objects.add_object(self._id("VisionSystem"), self._name("VisionSystem"))
        parents = {
            "Mode": await self._state_machine(system, "VisionStateMachine", MODE_TAGS),
            "Recipes": await system.add_object(self._id("RecipeManagement"), self._name("RecipeManagement")),
            "Results": await system.add_object(self._id("ResultManagement"), self._name("ResultManagement")),
        }
        parents["Automatic"] = await self._state_machine(parents["Mode"], "AutomaticModeStateMachine", AUTOMATIC_TAGS)
        folder = await parents["Recipes"].add_folder(self._id("Recipes"), self._name("Recipes"))
        for recipe in recipes:
            name = ua.QualifiedName(recipe, self._own)
            await folder.add_variable(self._id(f"Recipes.{recipe}"), name, recipe, Type.String)
        latest = await parents["Results"].add_folder(self._id("Results"), self._name("Results"))
        for node in result_nodes:
            await latest.add_reference(node, ua.ObjectIds.Organizes)
        for method in methods:
            await self._method(parents[method.parent], method)
        event_fields = [(name, kind, meaning) for name, kind, meaning, _ in EVENT_FIELDS]
        self._results = await self._events(system, "ResultReadyEventType", event_fields)
        self._plain = {kind: await self._events(system, kind, fields) for kind, fields in PLAIN_EVENTS.items()}
        self._vision_system.build(self._own, self._vision, companion, recipes)

    async def clear(self, moment: Moment) -> None:
        """Notify that Accept is false, before anything of another result."""
        assert self._accept is not None
        await self._accept.refresh(moment)
        await self._vision_system.clear(moment)

    async def refresh(self, moment: Moment) -> None:
        """Notify everything else, and Accept last."""
        for shown in self._shown:
            await shown.refresh(moment)
        await self._vision_system.refresh(moment)
        assert self._accept is not None
        await self._accept.refresh(moment)

    async def observe(self, moment: Moment) -> None:
        """What has changed in the station, as the companion tells it."""
        await self._vision_system.observe(moment)

    async def result_event(self, item: Delivered, accept: bool) -> None:
        """ResultReady, from the vision system and from the server object."""
        result = item.result
        for generator in self._results:
            for name, _, _, take in EVENT_FIELDS:
                setattr(generator.event, name, take(item, accept))
            generator.event.Severity = SEVERITY.get(int(result.verdict), SEVERITY[0])
            await _trigger(generator, f"result {result.result_id}: {result.verdict.name} ({result.reason.name})")
        await self._vision_system.result_event(item, accept)

    async def gap_event(self, gap: Gap) -> None:
        """Results that cannot be had."""
        text = f"results {gap.first_id} to {gap.last_id} are missing: {gap.why}"
        await self._tell("GapEventType", tuple(gap), GAP_SEVERITY, text)

    async def recipe_event(self, change: RecipeChange) -> None:
        """The outcome of a recipe change, regardless of who requested it."""
        values, recipe = (change.number, change.recipe), change.recipe or "none"
        if change.status == "done":
            await self._tell("RecipePreparedEventType", values, PREPARED_SEVERITY, f"recipe {recipe} is active")
        else:
            text = f"recipe {recipe} could not be prepared: {change.text}"
            await self._tell("RecipeNotPreparedEventType", (*values, change.text), NOT_PREPARED_SEVERITY, text)
        await self._vision_system.recipe_event(change)

    async def _tell(self, kind: str, values: tuple[Any, ...], severity: int, message: str) -> None:
        for generator in self._plain[kind]:
            for (name, _, _), value in zip(PLAIN_EVENTS[kind], values, strict=True):
                setattr(generator.event, name, value)
            generator.event.Severity = severity
            await _trigger(generator, message)

    async def _variable(self, parent: Node, path: str, tag: Tag, namespace: int) -> tuple[Shown, Node]:
        name = ua.QualifiedName(tag.name, namespace)
        node = await parent.add_variable(self._id(f"{path}.{tag.name}"), name, ZEROS[tag.type], tag.type)
        if tag.meaning:
            description = ua.DataValue(ua.Variant(ua.LocalizedText(tag.meaning), Type.LocalizedText))
            await node.write_attribute(ua.AttributeIds.Description, description)
        space = self._server.iserver.aspace
        return show(space, tag.name, node.nodeid, partial(data_value, tag), self._now), node

    async def _state_machine(self, parent: Node, name: str, tags: Iterable[Tag]) -> Node:
        machine = await parent.add_object(self._id(name), self._name(name))
        current: Node | None = None
        for tag in tags:
            holder = current if tag.name == "CurrentState.Number" and current is not None else machine
            shown_tag = Tag(tag.name.rpartition(".")[2], tag.type, tag.of, tag.meaning, tag.value)
            path = name if holder is machine else f"{name}.CurrentState"
            shown, node = await self._variable(holder, path, shown_tag, 0)
            self._shown.append(shown)
            if tag.name == "CurrentState":
                current = node
        return machine

    async def _method(self, parent: Node, method: Method) -> None:
        node_id = self._id(f"{method.parent}.{method.name}")
        arguments = [[_argument(*argument) for argument in side] for side in (method.inputs, method.outputs)]
        kinds = [kind for _, kind, _ in method.inputs]

        async def call(parent_id: ua.NodeId, *values: ua.Variant) -> ua.CallMethodResult:
            if len(values) != len(kinds):
                code = (
                    ua.StatusCodes.BadArgumentsMissing
                    if len(values) < len(kinds)
                    else ua.StatusCodes.BadTooManyArguments
                )
                return ua.CallMethodResult(StatusCode=ua.StatusCode(ua.UInt32(code)))
            wrong = [value.VariantType is not kind or value.is_array for value, kind in zip(values, kinds, strict=True)]
            if any(wrong):
                return ua.CallMethodResult(StatusCode=ua.StatusCode(ua.UInt32(ua.StatusCodes.BadInvalidArgument)))
            return await method.call(parent_id, *values)

        await parent.add_method(node_id, self._name(method.name), call, *arguments)

    async def _events(
        self, system: Node, name: str, fields: Iterable[tuple[str, ua.VariantType, str]]
    ) -> list[EventGenerator]:
        base = self._server.get_node(ua.NodeId(ua.Int32(ua.ObjectIds.BaseEventType)))
        kind = await base.add_object_type(self._id(name), self._name(name))
        for field, field_type, _ in fields:
            await kind.add_property(self._id(f"{name}.{field}"), self._name(field), ZEROS[field_type], field_type)
        return [
            await self._server.get_event_generator(kind, emitting_node=emitter)
            for emitter in (system.nodeid, ua.NodeId(ua.Int32(ua.ObjectIds.Server)))
        ]

    def _id(self, path: str) -> ua.NodeId:
        return ua.NodeId(ua.String(path), ua.Int16(self._own))

    def _name(self, name: str) -> ua.QualifiedName:
        return ua.QualifiedName(name, self._vision)


async def _trigger(generator: EventGenerator, message: str) -> None:
    try:
        await generator.trigger(message=message)
    except Exception as error:  # noqa: BLE001 - a client's own filter may fail
        log.warning("a subscriber of events could not be notified: %r", error)


def _argument(name: str, kind: ua.VariantType, meaning: str) -> ua.Argument:
    return ua.Argument(
        Name=name,
        DataType=ua.NodeId(ua.Int32(kind.value)),
        ValueRank=1 if name == "ResultIds" else -1,
        ArrayDimensions=[],
        Description=ua.LocalizedText(meaning),
    )


def _time(us: int) -> ua.DateTime:
    return ua.DateTime.fromtimestamp(us / 1e6, datetime.timezone.utc)
