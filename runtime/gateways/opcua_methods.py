"""The methods of the OPC UA gateway: each asks the station and answers with what it said."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec
from asyncua import ua

from runtime.errors import StationError, WireError
from runtime.gateways.link import Delivered, Link
from runtime.gateways.opcua_session import CALLER, Client
from runtime.wire import encode_result_body

Type = ua.VariantType
Answer = Coroutine[Any, Any, "ua.CallMethodResult"]

REFUSED, NO_ANSWER, BAD_REQUEST = 1, 2, 3
"""``Error`` of an answer; 0: done or begun. The code and the text say more."""
ACTOR_MAX = 64


@dataclass(frozen=True, slots=True)
class Method:
    """One method: where it hangs, its inputs and outputs as ``(name, type, meaning)``."""

    name: str
    parent: str
    call: Callable[..., Answer]
    inputs: tuple[tuple[str, ua.VariantType, str], ...] = ()
    outputs: tuple[tuple[str, ua.VariantType, str], ...] = (
        ("Error", Type.Int32, "0 done or begun, 1 refused, 2 no answer of the station, 3 bad request"),
        ("Code", Type.String, "the station's code (wire.md)"),
        ("Text", Type.String, "why, in words"),
    )


class KeptResults:
    """The last results, by id: what GetResultById knows."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[int, Delivered] = OrderedDict()

    def put(self, item: Delivered) -> None:
        """One more; the oldest goes."""
        self._kept[item.result.result_id] = item
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def get(self, result_id: int) -> Delivered | None:
        return self._kept.get(result_id)

    def ids(self, first_id: int) -> list[int]:
        """From ``first_id`` on, ascending."""
        return sorted(result_id for result_id in self._kept if result_id >= first_id)


def result_json(item: Delivered, accept: bool) -> str:
    """The result as on the wire, with ``accept`` as it is now."""
    fields = msgspec.json.decode(encode_result_body(item.result))
    return msgspec.json.encode({**fields, "accept": accept}).decode()


class Methods:
    """All methods of one gateway. Whoever may not operate gets BadUserAccessDenied for those that move the station."""

    def __init__(self, link: Link, kept: KeptResults) -> None:
        self._link = link
        self._kept = kept

    def table(self) -> tuple[Method, ...]:
        """Every method, for the address space."""
        recipe = (("Recipe", Type.String, "its name"),)
        trigger = (
            ("TriggerId", Type.UInt32, "not 0"),
            ("PartId", Type.String, "up to 64 printable ASCII; may be empty"),
            ("TimeoutMs", Type.UInt32, "no frame in this time: unknown, NO_FRAME"),
        )
        return (
            Method("StartContinuous", "Automatic", self._plain("start", mode="continuous")),
            Method("StartSingleJob", "Automatic", self.start_single_job, trigger),
            Method("Trigger", "Automatic", self.trigger, trigger),
            Method("Stop", "Automatic", self._plain("stop")),
            Method("Abort", "Automatic", self._plain("abort")),
            Method("Halt", "Mode", self._plain("halt")),
            Method("Reset", "Mode", self._plain("reset")),
            Method("PrepareRecipe", "Recipes", self.prepare_recipe, recipe),
            Method("UnprepareRecipe", "Recipes", self.unprepare_recipe, recipe),
            Method(
                "GetResultById",
                "Results",
                self.get_result,
                (("ResultId", Type.UInt64, "one of the last results_kept"),),
                (("Error", Type.Int32, "0 found, 1 not kept here"), ("Result", Type.String, "JSON as in wire.md")),
            ),
            Method(
                "GetResultIds",
                "Results",
                self.get_result_ids,
                (("FirstId", Type.UInt64, "from this on"), ("Most", Type.UInt32, "at most so many; 0: all")),
                (("ResultIds", Type.UInt64, "ascending"),),
            ),
        )

    def _plain(self, op: str, **fields: Any) -> Callable[..., Answer]:
        async def call(parent: ua.NodeId) -> ua.CallMethodResult:
            return await self._ask(op, **fields)

        return call

    async def prepare_recipe(self, parent: ua.NodeId, recipe: ua.Variant) -> ua.CallMethodResult:
        """Verify, open and warm a recipe."""
        return await self._ask("prepare_recipe", recipe=recipe.Value)

    async def unprepare_recipe(self, parent: ua.NodeId, recipe: ua.Variant) -> ua.CallMethodResult:
        """Put a recipe away; an empty name: the one in force."""
        return await self._ask("unprepare_recipe", **({"recipe": recipe.Value} if recipe.Value else {}))

    async def trigger(
        self, parent: ua.NodeId, trigger_id: ua.Variant, part_id: ua.Variant, timeout_ms: ua.Variant
    ) -> ua.CallMethodResult:
        """Expose now, or where a wire fires the camera: this part comes. Exactly one result follows."""
        return await self._trigger(trigger_id, part_id, timeout_ms)

    async def start_single_job(
        self, parent: ua.NodeId, trigger_id: ua.Variant, part_id: ua.Variant, timeout_ms: ua.Variant
    ) -> ua.CallMethodResult:
        """From Ready judge the frame of one trigger, then Ready again. A trigger that is refused leads back at once."""
        answer = await self._ask("start", mode="single")
        if not _done(answer):
            return answer
        answer = await self._trigger(trigger_id, part_id, timeout_ms)
        if not _done(answer):
            await self._ask("stop")
        return answer

    async def get_result(self, parent: ua.NodeId, result_id: ua.Variant) -> ua.CallMethodResult:
        """A kept result; its ``accept`` is what may pass now."""
        item = self._kept.get(result_id.Value)
        text = "" if item is None else result_json(item, self._link.may_pass(item))
        return _outputs(ua.Variant(REFUSED if item is None else 0, Type.Int32), ua.Variant(text, Type.String))

    async def get_result_ids(self, parent: ua.NodeId, first_id: ua.Variant, most: ua.Variant) -> ua.CallMethodResult:
        """Which results are kept."""
        ids = self._kept.ids(first_id.Value)
        return _outputs(ua.Variant(ids[: most.Value] if most.Value else ids, Type.UInt64, is_array=True))

    async def _trigger(
        self, trigger_id: ua.Variant, part_id: ua.Variant, timeout_ms: ua.Variant
    ) -> ua.CallMethodResult:
        state = self._link.view().state
        op = "expect" if state is not None and state.triggers == "hard_wired" else "trigger"
        fields = {"trigger_id": trigger_id.Value, "part_id": part_id.Value or "", "timeout_ms": timeout_ms.Value}
        return await self._ask(op, **fields)

    async def _ask(self, op: str, **fields: Any) -> ua.CallMethodResult:
        caller = CALLER.get()
        if caller is None or not caller.may_operate:
            return ua.CallMethodResult(StatusCode=ua.StatusCode(ua.UInt32(ua.StatusCodes.BadUserAccessDenied)))
        try:
            reply = await asyncio.wrap_future(self._link.ask(op, actor=_actor(caller), **fields))
        except StationError as error:
            return _answer(NO_ANSWER, "", str(error))
        except WireError as error:
            return _answer(BAD_REQUEST, "BAD_REQUEST", str(error))
        return _answer(0 if reply.ok else REFUSED, reply.code, reply.text)


def _actor(caller: Client) -> str:
    """On whose behalf a request is made; a name may hold anything."""
    name = "".join(letter if " " <= letter <= "~" else "?" for letter in caller.name or "")
    return f"opcua {name}".strip()[:ACTOR_MAX]


def _answer(error: int, code: str, text: str) -> ua.CallMethodResult:
    return _outputs(ua.Variant(error, Type.Int32), ua.Variant(code, Type.String), ua.Variant(text, Type.String))


def _outputs(*values: ua.Variant) -> ua.CallMethodResult:
    return ua.CallMethodResult(OutputArguments=list(values))


def _done(answer: ua.CallMethodResult) -> bool:
    return answer.StatusCode.is_good() and bool(answer.OutputArguments) and answer.OutputArguments[0].Value == 0
