"""The station as a VisionSystemType of OPC 40100-1, next to the flat tags.

    Objects/MachineVision                      ns=2;s=MachineVision, and so on for everything below it
        VisionStateMachine/                    CurrentState, LastTransition, Halt, Reset
            AutomaticModeStateMachine/         likewise, StartContinuous, StartSingleJob, Stop, Abort
        RecipeManagement/                      GetRecipeListFiltered, PrepareRecipe, UnprepareRecipe, Recipes
        ResultManagement/                      GetResultById, ..., Results/Latest

Its events come from this object; conditions (``conditions``) also from the server object.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from asyncua import Server, ua
from asyncua.server.address_space import AddressSpace

from asperity.runtime.gateways.link import Delivered
from asperity.runtime.gateways.opcua.companion import methods
from asperity.runtime.gateways.opcua.companion.conditions import Conditions
from asperity.runtime.gateways.opcua.companion.events import Fields, tell
from asperity.runtime.gateways.opcua.companion.instances import Instances
from asperity.runtime.gateways.opcua.companion.machines import NOWHERE, Machine
from asperity.runtime.gateways.opcua.companion.methods import CompanionMethods
from asperity.runtime.gateways.opcua.companion.nodeset import NodeSet, number, refer, status, value_of
from asperity.runtime.gateways.opcua.companion.results import Structures, result_state, utc
from asperity.runtime.gateways.opcua.shown import Shown, show
from asperity.runtime.gateways.opcua.tags import AUTOMATIC_STATES, MODE_STATES, Moment, Of, automatic, mode, status_code
from asperity.runtime.wire import RecipeChange

Type, Ids, Status = ua.VariantType, ua.ObjectIds, ua.StatusCodes
ROOT = "MachineVision"
MODE, AUTOMATIC = "VisionStateMachine", "VisionStateMachine.AutomaticModeStateMachine"
RECIPES, RESULTS = "RecipeManagement", "ResultManagement"
OPTIONAL = (
    AUTOMATIC, RECIPES, RESULTS, f"{MODE}.LastTransition", f"{AUTOMATIC}.LastTransition", f"{RECIPES}.Recipes",
    f"{RESULTS}.Results", f"{RESULTS}.ReleaseResultHandle",
)  # fmt: skip
"""Optional parts that a station has."""
SEVERITY = {0: 700, 1: 100, 2: 400}
"""OPC UA severity (1 to 1000) by verdict."""
CHANGE_SEVERITY, ERROR_SEVERITY = 100, 800
MACHINE_TYPES = {MODE: 1017, AUTOMATIC: 1021}
SYSTEM_TYPE, RECIPE_TYPE, RESULT_TYPE, RESULT_DATA_TYPE = 1003, 1002, 2002, 3006
JOB_STARTED, STATE_CHANGED, ERROR, PREPARED, READY, RESULT_READY = 1013, 1018, 1019, 1022, 1023, 1024
"""Numbers of types in the node set."""
EXECUTING = ("SingleExecution", "ContinuousExecution")


class Vision:
    """The companion's part of an address space."""

    def __init__(self, server: Server, station: str, now: Callable[[], Moment], conditions: Conditions) -> None:
        """``now`` gives the moment a reader is shown."""
        self._space: AddressSpace = server.iserver.aspace
        self._subscriptions = server.iserver.subscription_service
        self._station = station
        self._now = now
        self._conditions = conditions
        self._shown: list[Shown] = []
        self._latest: list[Shown] = []
        self._nodes: dict[str, ua.NodeId] = {}
        self._calls: dict[tuple[ua.NodeId, str], Callable[..., Coroutine[Any, Any, ua.CallMethodResult]]] = {}
        """Object and name of each method -> what it does."""
        self._states: dict[str, str] = {}
        """Machine -> the state it was seen in; empty: inactive."""
        self._transitions = dict.fromkeys(MACHINE_TYPES, NOWHERE)

    def build(self, own: int, vision: int, calls: CompanionMethods, recipes: Iterable[str]) -> None:
        """Make every node; ``own``, ``vision``: indices of our namespace and the companion's."""
        space, self._own, self._vision = self._space, own, vision
        types = NodeSet(vision)
        types.put(space)
        self._structures = Structures(types.classes)
        calls.structures = self._structures
        self._machines = {path: Machine(space, number(of, vision)) for path, of in MACHINE_TYPES.items()}
        self._instances = Instances(space, self._id, {f"{ROOT}.{path}" for path in OPTIONAL})
        self._make(ROOT, ROOT, SYSTEM_TYPE, number(Ids.ObjectsFolder), Ids.Organizes)
        root = space[self._id(ROOT)]
        self._system = root.nodeid
        root.attributes[ua.AttributeIds.EventNotifier].value = ua.DataValue(ua.Variant(1, Type.Byte))
        text = ua.LocalizedText(self._station)
        root.attributes[ua.AttributeIds.DisplayName].value = ua.DataValue(ua.Variant(text, Type.LocalizedText))
        operational = self._nodes[f"{MODE}.Operational"]
        refer(space, operational, number(Ids.HasSubStateMachine), self._nodes[AUTOMATIC])
        for kind in (JOB_STARTED, STATE_CHANGED, ERROR, PREPARED, READY, RESULT_READY):
            refer(space, self._system, number(Ids.GeneratesEvent), number(kind, vision), inverse=False)
        self._conditions.build(space, own, vision, self._system, self._station)
        self._show_states()
        self._show_latest()
        for path, call in calls.table().items():
            self._serve(path, call)
        for name in recipes:
            self._add_recipe(name, calls)
        for node_id in types.elements:
            if value_of(space, node_id, ua.AttributeIds.NodeClass) == ua.NodeClass.Method:
                space[node_id].call = self._of_type(value_of(space, node_id, ua.AttributeIds.BrowseName).Name)

    # ------------------------------------------------------------------

    async def clear(self, moment: Moment) -> None:
        """Notify that the latest result is not accepted, before anything of another one."""
        for shown in self._latest:
            await shown.refresh(moment)

    async def refresh(self, moment: Moment) -> None:
        """Notify everything else."""
        for shown in self._shown:
            await shown.refresh(moment)

    async def observe(self, moment: Moment) -> None:
        """Events of what has changed in the station, and its conditions."""
        state = moment.view.state
        if moment.heard and state is not None:
            now = {MODE: MODE_STATES.get(mode(state), ""), AUTOMATIC: AUTOMATIC_STATES.get(automatic(state), "")}
            before, self._states = self._states, now
            for path, after in now.items():
                if before.get(path) and after and after != before[path]:
                    self._transitions[path] = self._machines[path].transition(before[path], after)
                    await self._state_changed(path, before[path], after, state.session)
        await self._conditions.update(moment)

    async def result_event(self, item: Delivered, accept: bool) -> None:
        """ResultReady."""
        result, made = item.result, self._structures.result(item.result, accept)
        fields: Fields = {
            name: (getattr(made, name), Type.ExtensionObject)
            for name in ("ResultId", "PartId", "InternalRecipeId", "InternalConfigurationId", "JobId")
        }
        fields |= {
            "ProcessingTimes": (made.ProcessingTimes, Type.ExtensionObject),
            "ResultState": (result_state(result), Type.Int32),
            "IsPartial": (False, Type.Boolean),
            "IsSimulated": (result.simulated, Type.Boolean),
            "CreationTime": (utc(result.t_done_us), Type.DateTime),
            "ResultContent": (made.ResultContent, Type.Variant),
        }
        text = f"result {result.result_id}: {result.verdict.name} ({result.reason.name})"
        severity = SEVERITY.get(int(result.verdict), SEVERITY[0])
        await self._tell(RESULT_READY, (self._system, self._station), severity, text, fields)

    async def recipe_event(self, change: RecipeChange) -> None:
        """RecipePrepared; the companion has no event for a change that failed."""
        if change.status == "done" and change.recipe:
            recipe = self._structures.make("RecipeIdInternal", Id=change.recipe)
            text = f"recipe {change.recipe} is active"
            source = (self._system, self._station)
            await self._tell(PREPARED, source, CHANGE_SEVERITY, text, {"InternalId": (recipe, Type.ExtensionObject)})

    async def _state_changed(self, path: str, before: str, after: str, session: str) -> None:
        machine = self._machines[path]
        fields: Fields = {}
        ends = {"FromState": machine.state(before), "ToState": machine.state(after)}
        for name, (node_id, text) in {**ends, "Transition": self._transitions[path]}.items():
            fields |= {
                name: (ua.LocalizedText(text), Type.LocalizedText),
                f"{name}/Id": (node_id, Type.NodeId),
            }
        source, text = (self._nodes[path], path.rpartition(".")[2]), f"from {before} to {after}"
        await self._tell(STATE_CHANGED, source, CHANGE_SEVERITY, text, fields)
        if after == "Error":
            await self._tell(ERROR, source, ERROR_SEVERITY, text, fields)
        job: Fields = {"JobId": (self._structures.make("JobId", Id=session), Type.ExtensionObject)}
        if after in EXECUTING:
            await self._tell(JOB_STARTED, source, CHANGE_SEVERITY, text, job)
        if after == "Ready" and before in EXECUTING:
            await self._tell(READY, source, CHANGE_SEVERITY, text, job)

    async def _tell(
        self, kind: int, source: tuple[ua.NodeId, str], severity: int, message: str, fields: Fields
    ) -> None:
        of = number(kind, self._vision)
        await tell(self._subscriptions, (self._system,), of, source, severity, message, fields)

    # ------------------------------------------------------------------

    def _show_states(self) -> None:
        for path, machine in self._machines.items():
            self._show(f"{path}.CurrentState", self._current(path, machine, Type.LocalizedText))
            self._show(f"{path}.CurrentState.Id", self._current(path, machine, Type.NodeId))
            self._show(f"{path}.LastTransition", self._last(path, Type.LocalizedText))
            self._show(f"{path}.LastTransition.Id", self._last(path, Type.NodeId))

    def _current(self, path: str, machine: Machine, kind: ua.VariantType) -> Callable[[Moment], ua.DataValue]:
        def read(moment: Moment) -> ua.DataValue:
            state, name = moment.view.state, ""
            if state is not None and path == MODE:
                name = MODE_STATES.get(mode(state), "")
            elif state is not None:
                name = AUTOMATIC_STATES.get(automatic(state), "")
            node_id = machine.state(name)[0]
            value = node_id if kind is Type.NodeId else ua.LocalizedText(name)
            return _data(value, kind, moment, Of.STATION, bad=0 if name else Status.BadStateNotActive)

        return read

    def _last(self, path: str, kind: ua.VariantType) -> Callable[[Moment], ua.DataValue]:
        def read(moment: Moment) -> ua.DataValue:
            node_id, name = self._transitions[path]
            return _data(node_id if kind is Type.NodeId else ua.LocalizedText(name), kind, moment, Of.STATION)

        return read

    def _show_latest(self) -> None:
        path = f"{RESULTS}.Results.Latest"
        self._make(path, "Latest", RESULT_TYPE, self._nodes[f"{RESULTS}.Results"])
        data_type = ua.DataValue(ua.Variant(number(RESULT_DATA_TYPE, self._vision), Type.NodeId))
        self._space[self._nodes[path]].attributes[ua.AttributeIds.DataType].value = data_type
        made = self._structures.shown
        self._latest.append(self._show(path, lambda m: _data(made(m), Type.ExtensionObject, m, Of.RESULT)))
        for each in [each for each in self._nodes if each.startswith(f"{path}.")]:
            kind = methods.variant_type(self._space, self._nodes[each])
            name = each.rpartition(".")[2]
            self._latest.append(self._show(each, _part(made, name, kind)))

    def _add_recipe(self, name: str, calls: CompanionMethods) -> None:
        path = f"{RECIPES}.Recipes.{name}"
        self._make(path, name, RECIPE_TYPE, self._nodes[f"{RECIPES}.Recipes"])
        internal = self._structures.make("RecipeIdInternal", Id=name)

        def prepared(moment: Moment) -> ua.DataValue:
            active = moment.view.state is not None and moment.view.state.recipe == name
            return _data(active, Type.Boolean, moment, Of.STATION)

        self._show(f"{path}.InternalId", lambda m: _data(internal, Type.ExtensionObject, m, Of.GATEWAY))
        self._show(f"{path}.IsPrepared", prepared)
        # No one tells the gateway when a recipe was made.
        unknown, code = utc(0), Status.BadDataUnavailable
        self._show(f"{path}.LastModified", lambda m: _data(unknown, Type.DateTime, m, Of.GATEWAY, bad=code))
        for method, call in calls.of_recipe(name).items():
            self._serve(f"{path}.{method}", call)

    def _make(self, path: str, name: str, of: int, parent: ua.NodeId, how: int = Ids.HasComponent) -> None:
        full = path if path == ROOT else f"{ROOT}.{path}"
        made = self._instances.make(full, ua.QualifiedName(name, self._own), number(of, self._vision), parent, how)
        self._nodes |= {each.removeprefix(f"{ROOT}."): node_id for each, node_id in made.items()}

    def _show(self, path: str, read: Callable[[Moment], ua.DataValue]) -> Shown:
        shown = show(self._space, path, self._nodes[path], read, self._now)
        self._shown.append(shown)
        return shown

    def _serve(self, path: str, call: methods.Call) -> None:
        node = self._space[self._nodes[path]]
        arguments = [
            value_of(self._space, self._nodes[side])
            if (side := f"{path}.{name}") in self._nodes
            else []
            for name in ("InputArguments", "OutputArguments")
        ]
        node.call = methods.checked(self._space, call, *arguments)
        parent, _, name = path.rpartition(".")
        self._calls[self._nodes[parent], name] = node.call

    def _of_type(self, name: str) -> Callable[..., Coroutine[Any, Any, ua.CallMethodResult]]:
        """A type's method node, which a client may call too, with an instance as the object."""

        async def run(parent: ua.NodeId, *values: ua.Variant) -> ua.CallMethodResult:
            call = self._calls.get((parent, name))
            if call is None:
                return ua.CallMethodResult(StatusCode=status(Status.BadMethodInvalid))
            return await call(parent, *values)

        return run

    def _id(self, path: str) -> ua.NodeId:
        return ua.NodeId(ua.String(path), ua.Int16(self._own))


def _part(made: Callable[[Moment], Any], name: str, kind: ua.VariantType) -> Callable[[Moment], ua.DataValue]:
    return lambda moment: _data(getattr(made(moment), name), kind, moment, Of.RESULT)


def _data(value: Any, kind: ua.VariantType, moment: Moment, of: Of, bad: int = 0) -> ua.DataValue:
    """``bad``: the status where that of ``of`` would be good."""
    code = status_code(of, moment)
    now = ua.DateTime.fromtimestamp(moment.now_s, datetime.timezone.utc)
    return ua.DataValue(
        Value=ua.Variant(value, kind), StatusCode=status(bad if bad and code == Status.Good else code),
        SourceTimestamp=now, ServerTimestamp=now,
    )  # fmt: skip
