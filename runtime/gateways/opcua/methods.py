"""The methods of the OPC UA gateway: each sends a request to the station and returns its answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

import msgspec
from asyncua import ua

from asperity.runtime.errors import StationError, WireError
from asperity.runtime.gateways.link import Delivered, Link
from asperity.runtime.gateways.opcua.session import CALLER, Client
from asperity.runtime.gateways.parts import Parts
from asperity.runtime.gateways.plc_clock import PlcClock
from asperity.runtime.text.part_identity import Batch
from asperity.runtime.wire import encode_result_body

Type = ua.VariantType
Answer = Coroutine[Any, Any, "ua.CallMethodResult"]

REFUSED, NO_ANSWER, BAD_REQUEST, TOO_OLD = 1, 2, 3, 4
"""``Error`` of an answer; 0: done or begun. The code and the text say more."""
ACTOR_LENGTH = 64
OUTPUTS = (
    (
        "Error",
        Type.Int32,
        "0 done or started, 1 refused, 2 no answer from the station, 3 bad request, 4 too old: not executed, call "
        "again",
    ),
    ("Code", Type.String, "the station's code (wire.md)"),
    ("Text", Type.String, "the reason, as text"),
)
_RECIPE = re.compile(r"[a-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class Method:
    """One method: where it hangs, its inputs and outputs as ``(name, type, meaning)``."""

    name: str
    parent: str
    call: Callable[..., Answer]
    inputs: tuple[tuple[str, ua.VariantType, str], ...] = ()
    outputs: tuple[tuple[str, ua.VariantType, str], ...] = OUTPUTS


class Said(NamedTuple):
    """Outcome of a request."""

    error: int
    code: str
    text: str
    number: int = 0
    """Of the change of recipe that was begun."""


DENIED = Said(-1, "", "")
"""The caller may not."""


def result_json(item: Delivered, accept: bool) -> str:
    """The result as on the wire, with ``accept`` as it is now."""
    fields = msgspec.json.decode(encode_result_body(item.result))
    return msgspec.json.encode({**fields, "accept": accept}).decode()


class Methods:
    """All methods of one gateway. Users without the role operate get BadUserAccessDenied for those that move the
    station."""

    def __init__(
        self, link: Link, parts: Parts, passes_on: bool, answered: Callable[[], None], plc: PlcClock
    ) -> None:
        """``passes_on``: requests reach the station. ``answered`` is called after each."""
        self._plc = plc
        self._link = link
        self._parts = parts
        self._passes_on = passes_on
        self._answered = answered

    def table(self) -> tuple[Method, ...]:
        """Every method, for the address space."""
        recipe = (("Recipe", Type.String, "its name"),)
        change = (*OUTPUTS, ("Number", Type.UInt64, "of the change: its outcome is in RecipeChangeStatus; 0: none"))
        trigger = (
            ("TriggerId", Type.UInt32, "not 0"),
            ("PartId", Type.String, "up to 256 bytes of UTF-8, with the group separator of GS1; may be empty"),
            ("TimeoutMs", Type.UInt32, "no frame within this time: unknown, NO_FRAME"),
        )
        batch = tuple((name.capitalize(), Type.String, "up to 64 bytes of UTF-8") for name in Batch._fields)
        position = (
            ("PositionGiven", Type.Boolean, "the next argument counts"),
            ("Position", Type.Int64, "encoder counts at this trigger; the result carries it on"),
        )
        return (
            Method("StartContinuous", "Automatic", self._plain("start", mode="continuous")),
            Method("StartSingleJob", "Automatic", self.start_single_job, trigger),
            Method("Trigger", "Automatic", self.trigger, trigger),
            Method("TriggerPart", "Automatic", self.trigger_part, (*trigger, *batch, *position)),
            Method("SetBatch", "Automatic", self.set_batch, batch),
            Method("ResetCounters", "Automatic", self._plain("reset_counters")),
            Method("Stop", "Automatic", self._plain("stop")),
            Method("Abort", "Automatic", self._plain("abort")),
            Method("SetPlcTime", "Automatic", self.set_plc_time, (("Time", Type.DateTime, "UTC, by the PLC's clock"),)),
            Method("Halt", "Mode", self._plain("halt")),
            Method("Reset", "Mode", self._plain("reset")),
            Method("PrepareRecipe", "Recipes", self.prepare_recipe, recipe, change),
            Method("UnprepareRecipe", "Recipes", self.unprepare_recipe, recipe, change),
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
                (("FirstId", Type.UInt64, "from this on"), ("Most", Type.UInt32, "at most this many; 0: all")),
                (("ResultIds", Type.UInt64, "ascending"),),
            ),
        )

    def _plain(self, op: str, **fields: Any) -> Callable[..., Answer]:
        async def call(parent: ua.NodeId) -> ua.CallMethodResult:
            return _answer(*await self._ask(op, **fields))

        return call

    async def prepare_recipe(self, parent: ua.NodeId, recipe: ua.Variant) -> ua.CallMethodResult:
        """Verify, open and warm a recipe. From now on only its results pass, also if that fails."""
        name = recipe.Value or ""
        if _may_operate() and self._passes_on and _RECIPE.fullmatch(name):
            self._parts.asked_for(name)
        return await self._change("prepare_recipe", recipe=name)

    async def unprepare_recipe(self, parent: ua.NodeId, recipe: ua.Variant) -> ua.CallMethodResult:
        """Close a recipe; an empty name: the active one."""
        return await self._change("unprepare_recipe", **({"recipe": recipe.Value} if recipe.Value else {}))

    async def trigger(
        self, parent: ua.NodeId, trigger_id: ua.Variant, part_id: ua.Variant, timeout_ms: ua.Variant
    ) -> ua.CallMethodResult:
        """Expose now, or, where a sensor fires the camera, announce the part; exactly one result follows."""
        return await self._trigger(trigger_id, part_id, timeout_ms)

    async def trigger_part(
        self, parent: ua.NodeId, trigger_id: ua.Variant, part_id: ua.Variant, timeout_ms: ua.Variant, lot: ua.Variant,
        order: ua.Variant, shift: ua.Variant, position_given: ua.Variant, position: ua.Variant,
    ) -> ua.CallMethodResult:  # fmt: skip
        """As ``trigger``; what is empty is as it was set for the station."""
        said = {"lot": lot.Value or None, "order": order.Value or None, "shift": shift.Value or None}
        where = position.Value if position_given.Value else None
        return await self._trigger(trigger_id, part_id, timeout_ms, **said, position=where)

    async def set_batch(
        self, parent: ua.NodeId, lot: ua.Variant, order: ua.Variant, shift: ua.Variant
    ) -> ua.CallMethodResult:
        """For all parts from now on; an empty one is removed."""
        texts = {"lot": lot.Value or "", "order": order.Value or "", "shift": shift.Value or ""}
        return _answer(*await self._ask("set_batch", **texts))

    async def set_plc_time(self, parent: ua.NodeId, time: ua.Variant) -> ua.CallMethodResult:
        """The PLC says what time it has: PlcClock and PlcOffsetMs show it. Nothing is asked of the station."""
        caller = CALLER.get()
        if caller is None or not caller.may_operate:
            return _answer(*DENIED)
        given = time.Value
        if not isinstance(given, datetime):
            return _answer(BAD_REQUEST, "BAD_REQUEST", "Time is not a time")
        utc = given if given.tzinfo is not None else given.replace(tzinfo=timezone.utc)
        self._plc.says(round(utc.timestamp() * 1_000_000), actor(caller))
        self._answered()
        return _answer(0, "OK", "")

    async def _trigger(
        self, trigger_id: ua.Variant, part_id: ua.Variant, timeout_ms: ua.Variant, **said: Any
    ) -> ua.CallMethodResult:
        state = self._link.view().state
        op = "expect" if state is not None and state.triggers == "hard_wired" else "trigger"
        number, part = trigger_id.Value, part_id.Value or ""
        return _answer(*await self._ask(op, trigger_id=number, part_id=part, timeout_ms=timeout_ms.Value, **said))

    async def start_single_job(
        self, parent: ua.NodeId, trigger_id: ua.Variant, part_id: ua.Variant, timeout_ms: ua.Variant
    ) -> ua.CallMethodResult:
        """From Ready judge the frame of one trigger, then Ready again. A trigger that is refused leads back at once."""
        if _may_operate():
            self._parts.given_again(trigger_id.Value)
        started = await self._ask("start", mode="single")
        if started.error:
            return _answer(*started)
        answer = await self.trigger(parent, trigger_id, part_id, timeout_ms)
        if not _done(answer):
            await self._ask("stop")
        return answer

    async def get_result(self, parent: ua.NodeId, result_id: ua.Variant) -> ua.CallMethodResult:
        """A kept result; its ``accept`` is what may pass now."""
        item = self._parts.get(result_id.Value)
        text = "" if item is None else result_json(item, self._link.may_pass(item))
        return _outputs(ua.Variant(REFUSED if item is None else 0, Type.Int32), ua.Variant(text, Type.String))

    async def get_result_ids(self, parent: ua.NodeId, first_id: ua.Variant, most: ua.Variant) -> ua.CallMethodResult:
        """Which results are kept."""
        ids = self._parts.ids(first_id.Value)
        return _outputs(ua.Variant(ids[: most.Value] if most.Value else ids, Type.UInt64, is_array=True))

    async def _change(self, op: str, **fields: Any) -> ua.CallMethodResult:
        said = await self._ask(op, **fields)
        answer = _answer(*said)
        if answer.OutputArguments:
            answer.OutputArguments.append(ua.Variant(said.number, Type.UInt64))
        return answer

    async def _ask(self, op: str, **fields: Any) -> Said:
        caller = CALLER.get()
        if caller is None or not caller.may_operate:
            return DENIED
        future = self._link.ask(op, actor=actor(caller), **fields)
        if fields.get("trigger_id"):
            self._parts.triggered(fields["trigger_id"], future)
        try:
            reply = await asyncio.wrap_future(future)
        except StationError as error:
            return Said(NO_ANSWER, "", str(error))
        except WireError as error:
            return Said(BAD_REQUEST, "BAD_REQUEST", str(error))
        finally:
            self._answered()
        failed = TOO_OLD if reply.code == "TOO_OLD" else REFUSED
        return Said(0 if reply.ok else failed, reply.code, reply.text, reply.recipe_change or 0)


def actor(caller: Client) -> str:
    """On whose behalf a request is made: printable ASCII. Only a name whose password was checked is one."""
    name = "anonymous" if caller.name is None else caller.name.encode("unicode_escape").decode("ascii")
    return f"opcua {name}"[:ACTOR_LENGTH]


def _may_operate() -> bool:
    caller = CALLER.get()
    return caller is not None and caller.may_operate


def _answer(error: int, code: str, text: str, number: int = 0) -> ua.CallMethodResult:
    if error == DENIED.error:
        return ua.CallMethodResult(StatusCode=ua.StatusCode(ua.UInt32(ua.StatusCodes.BadUserAccessDenied)))
    return _outputs(ua.Variant(error, Type.Int32), ua.Variant(code, Type.String), ua.Variant(text, Type.String))


def _outputs(*values: ua.Variant) -> ua.CallMethodResult:
    return ua.CallMethodResult(OutputArguments=list(values))


def _done(answer: ua.CallMethodResult) -> bool:
    return bool(answer.OutputArguments) and answer.OutputArguments[0].Value == 0
