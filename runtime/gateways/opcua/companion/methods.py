"""The methods of OPC 40100-1, with its signatures. What the station refuses is a negative ``Error``."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace

from asperity.runtime.gateways.link import Delivered, Link
from asperity.runtime.gateways.opcua.companion.nodeset import number, status, value_of
from asperity.runtime.gateways.opcua.companion.results import UNDEFINED, Structures, result_state
from asperity.runtime.gateways.opcua.methods import BAD_REQUEST, DENIED, Methods
from asperity.runtime.gateways.parts import Parts

Type, Ids = ua.VariantType, ua.ObjectIds
Call = Callable[..., Coroutine[Any, Any, "list[Any] | int"]]
"""Takes the arguments' values; returns the outputs' values, or a status code that is bad."""
NOT_THERE = -5
"""``Error``: no such result, recipe or handle here. -1 to -4 are those of ``methods`` with another sign."""
LIST_MAX = 100
"""Results in one answer, of 1 KB each."""
PREPARED, NOT_PREPARED = 1, 0
"""Of TriStateBooleanDataType; anything else: do not care."""
_NUMBER = re.compile(r"[0-9]{1,20}")
_PLAIN_MAX = 25
"""Built-in types."""


class CompanionMethods:
    """Methods of one gateway; ``methods`` sends requests to the station, and knows who may."""

    structures: Structures

    def __init__(self, methods: Methods, link: Link, parts: Parts, recipes: tuple[str, ...]) -> None:
        self._methods = methods
        self._link = link
        self._parts = parts
        self._recipes = recipes
        self._handles = count(1)
        self._last_handle = 0

    def table(self) -> dict[str, Call]:
        """Path below the vision system -> what it does."""
        mode, results = "VisionStateMachine", "ResultManagement"
        automatic = f"{mode}.AutomaticModeStateMachine"
        return {
            f"{mode}.Halt": self._plain("halt"),
            f"{mode}.Reset": self._plain("reset"),
            f"{automatic}.Stop": self._plain("stop"),
            f"{automatic}.Abort": self._plain("abort"),
            f"{automatic}.StartContinuous": self.start_continuous,
            f"{automatic}.StartSingleJob": self.start_single_job,
            "RecipeManagement.GetRecipeListFiltered": self.recipes,
            "RecipeManagement.PrepareRecipe": self.prepare_recipe,
            "RecipeManagement.UnprepareRecipe": self.unprepare_recipe,
            f"{results}.GetResultById": self.result,
            f"{results}.GetResultComponentsById": self.result_components,
            f"{results}.GetResultListFiltered": self.results,
            f"{results}.ReleaseResultHandle": self.release,
        }

    def of_recipe(self, name: str) -> dict[str, Call]:
        """Methods of a RecipeType."""

        async def prepare() -> list[Any] | int:
            answer = await self.prepare_recipe(None, self.structures.make("RecipeIdInternal", Id=name))
            return answer if isinstance(answer, int) else answer[1:]

        async def unprepare() -> list[Any] | int:
            answer = await self.unprepare_recipe(None, self.structures.make("RecipeIdInternal", Id=name))
            return answer if isinstance(answer, int) else answer[1:]

        return {"Prepare": prepare, "Unprepare": unprepare}

    def _plain(self, op: str, **fields: Any) -> Call:
        async def call(*cause: Any) -> list[Any] | int:
            said = await self._methods.ask(op, **fields)
            return _denied(said.error) or [-said.error]

        return call

    async def start_continuous(
        self, meas: Any, part: Any, recipe: Any, product: Any, parameters: Any
    ) -> list[Any] | int:
        """What the station cannot do as asked is refused: parts are named by their triggers, recipes are prepared."""
        if any(map(_id, (meas, part, product))) or parameters or self._of_another_recipe(recipe):
            return [self._job(), -BAD_REQUEST]
        said = await self._methods.ask("start", mode="continuous")
        return _denied(said.error) or [self._job(), -said.error]

    async def start_single_job(
        self, meas: Any, part: Any, recipe: Any, product: Any, parameters: Any
    ) -> list[Any] | int:
        """``parameters``: id of the trigger, and how long its frame may take in ms."""
        given = [each.Value if isinstance(each, ua.Variant) else each for each in parameters or []]
        whole = len(given) == 2 and all(type(each) is int and 0 < each < 2**32 for each in given)
        if any(map(_id, (meas, product))) or self._of_another_recipe(recipe) or not whole:
            return [self._job(), -BAD_REQUEST]
        trigger, timeout = (ua.Variant(each, Type.UInt32) for each in given)
        answer = await self._methods.start_single_job(ua.NodeId(), trigger, ua.Variant(_id(part), Type.String), timeout)
        if not answer.OutputArguments:
            return int(answer.StatusCode.value)
        return [self._job(), -int(answer.OutputArguments[0].Value)]

    async def prepare_recipe(self, external: Any, internal: Any) -> list[Any] | int:
        """Completed is what RecipePrepared reports later."""
        return await self._change("prepare_recipe", external, internal, [False])

    async def unprepare_recipe(self, external: Any, internal: Any) -> list[Any] | int:
        """Close a recipe."""
        return await self._change("unprepare_recipe", external, internal, [])

    async def _change(self, op: str, external: Any, internal: Any, extra: list[Any]) -> list[Any] | int:
        names = {_id(external), _id(internal)} - {""}
        name = names.pop() if len(names) == 1 else ""
        internal_id = self.structures.make("RecipeIdInternal", Id=name)
        if not name:
            return [internal_id, *extra, -BAD_REQUEST]
        value = ua.Variant(name, Type.String)
        change = self._methods.prepare_recipe if op == "prepare_recipe" else self._methods.unprepare_recipe
        answer = await change(ua.NodeId(), value)
        if not answer.OutputArguments:
            return int(answer.StatusCode.value)
        return [internal_id, *extra, -int(answer.OutputArguments[0].Value)]

    async def recipes(
        self, external: Any, product: Any, prepared: int, most: int, start: int, timeout: int
    ) -> list[Any] | int:
        """Of the configured recipes and the active one; external ids are internal ones, and there are no products."""
        state = self._link.view().state
        active = "" if state is None else state.recipe
        names = [name for name in dict.fromkeys((*self._recipes, active)) if name and _id(external) in ("", name)]
        names = [] if _id(product) else names
        if prepared in (PREPARED, NOT_PREPARED):
            names = [name for name in names if (name == active) == (prepared == PREPARED)]
        page, complete = _page(names, most, start)
        found = [self.structures.make("RecipeIdInternal", Id=name) for name in page]
        return [complete, len(found), 0, found, 0]

    async def result(self, result_id: Any, timeout: int) -> list[Any] | int:
        """A kept result; its Accept is what may pass now."""
        item = self._kept(result_id)
        return [0, self.structures.nothing(), NOT_THERE] if item is None else [self._handle(), self._made(item), 0]

    async def result_components(self, result_id: Any, timeout: int) -> list[Any] | int:
        """The same, component by component."""
        item = self._kept(result_id)
        made = self.structures.nothing() if item is None else self._made(item)
        return [
            bool(made.HasTransferableDataOnFile), 0 if item is None else self._handle(), made.IsPartial,
            bool(made.IsSimulated), made.ResultState, made.MeasId, made.PartId, made.ExternalRecipeId,
            made.InternalRecipeId, made.ProductId, made.ExternalConfigurationId, made.InternalConfigurationId,
            made.JobId, made.CreationTime, made.ProcessingTimes, made.ResultContent, NOT_THERE if item is None else 0,
        ]  # fmt: skip

    async def results(
        self, state: int, meas: Any, part: Any, external_recipe: Any, internal_recipe: Any, external_configuration: Any,
        internal_configuration: Any, product: Any, job: Any, most: int, start: int, timeout: int,
    ) -> list[Any] | int:  # fmt: skip
        """Of those that are kept, ascending."""
        asked = [_id(each) for each in (part, internal_recipe, internal_configuration, job)]
        nobodys = any(map(_id, (meas, external_recipe, external_configuration, product)))

        def fits(item: Delivered | None) -> bool:
            if item is None or nobodys:
                return False
            result = item.result
            has = (result.part_id, result.recipe, result.bundle, result.session)
            return state in (UNDEFINED, result_state(result)) and all(
                wanted in ("", own) for wanted, own in zip(asked, has, strict=True)
            )

        found = [item for number in self._parts.ids(0) if fits(item := self._parts.get(number))]
        page, complete = _page(found, most, start)
        return [complete, len(page), self._handle() if page else 0, [self._made(each) for each in page if each], 0]

    async def release(self, handle: int) -> list[Any] | int:
        """Nothing is held for a handle: results are kept for as long as there is room."""
        return [0 if 0 < handle <= self._last_handle else NOT_THERE]

    def _handle(self) -> int:
        self._last_handle = next(self._handles) % 2**32
        return self._last_handle

    def _kept(self, result_id: Any) -> Delivered | None:
        text = _id(result_id)
        return self._parts.get(int(text)) if _NUMBER.fullmatch(text) else None

    def _made(self, item: Delivered) -> Any:
        return self.structures.result(item.result, self._link.may_pass(item))

    def _of_another_recipe(self, recipe: Any) -> bool:
        state = self._link.view().state
        return _id(recipe) not in ("", "" if state is None else state.recipe)

    def _job(self) -> Any:
        state = self._link.view().state
        return self.structures.make("JobId", Id="" if state is None else state.session)


def checked(
    space: AddressSpace, call: Call, inputs: list[ua.Argument], outputs: list[ua.Argument]
) -> Callable[..., Coroutine[Any, Any, ua.CallMethodResult]]:
    """As the server calls it: arguments of other numbers or types than declared are refused."""
    wanted = [(_built_in(space, each.DataType), each.DataType, each.ValueRank >= 1) for each in inputs]
    given = [(_built_in(space, each.DataType), each.ValueRank >= 1) for each in outputs]

    def wrong(value: ua.Variant, kind: ua.VariantType, data_type: ua.NodeId, many: bool) -> bool:
        if kind is Type.Variant:
            return value.Value is not None and bool(value.is_array) != many
        if kind is not Type.ExtensionObject:
            return value.VariantType is not kind or bool(value.is_array) or value.Value is None
        if value.VariantType not in (Type.ExtensionObject, Type.Null) or value.is_array:
            return True
        return not (_empty(value.Value) or isinstance(value.Value, ua.extension_objects_by_datatype[data_type]))

    async def run(parent: ua.NodeId, *values: ua.Variant) -> ua.CallMethodResult:
        if len(values) != len(wanted):
            few = len(values) < len(wanted)
            code = ua.StatusCodes.BadArgumentsMissing if few else ua.StatusCodes.BadTooManyArguments
            return ua.CallMethodResult(StatusCode=status(code))
        if any(wrong(value, *of) for value, of in zip(values, wanted, strict=True)):
            return ua.CallMethodResult(StatusCode=status(ua.StatusCodes.BadInvalidArgument))
        answer = await call(*(None if _empty(value.Value) else value.Value for value in values))
        if isinstance(answer, int):
            return ua.CallMethodResult(StatusCode=status(answer))
        typed = [ua.Variant(value, kind, is_array=many) for value, (kind, many) in zip(answer, given, strict=True)]
        return ua.CallMethodResult(OutputArguments=typed)

    return run


def variant_type(space: AddressSpace, node_id: ua.NodeId) -> ua.VariantType:
    """Of a variable's values."""
    return _built_in(space, value_of(space, node_id, ua.AttributeIds.DataType))


def _built_in(space: AddressSpace, data_type: Any) -> ua.VariantType:
    while not (data_type.NamespaceIndex == 0 and data_type.Identifier <= _PLAIN_MAX):
        if data_type == number(Ids.Enumeration):
            return Type.Int32
        refs = space[data_type].references
        data_type = next(
            ref.NodeId for ref in refs if not ref.IsForward and ref.ReferenceTypeId == number(Ids.HasSubtype)
        )
    return Type(data_type.Identifier)


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, ua.ExtensionObject) and value.TypeId.is_null())


def _id(structure: Any) -> str:
    """Of a structure that may be left out."""
    return "" if structure is None else structure.Id or ""


def _denied(error: int) -> int:
    return int(ua.StatusCodes.BadUserAccessDenied) if error == DENIED.error else 0


def _page(found: list[Any], most: int, start: int) -> tuple[list[Any], bool]:
    """A part of a list, and whether it reaches its end."""
    page = found[start : start + min(most or LIST_MAX, LIST_MAX)]
    return page, start + len(page) >= len(found)
