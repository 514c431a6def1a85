"""A client of the OPC UA gateway: the flat tags in one Read, and its methods."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from asyncua import Client, Node, ua

from asperity.runtime.commissioning.messages import outcome_of_change, shown_of
from asperity.runtime.commissioning.plc_side import U32, Counted, NoAnswer, Reading, Shown
from asperity.runtime.gateways.opcua.address_space import NAMESPACE
from asperity.runtime.text.formats import decode_json
from asperity.runtime.text.part_identity import Batch
from asperity.runtime.wire import StationState

MACHINE = "VisionStateMachine"
PARENTS = {
    "PrepareRecipe": ("RecipeManagement",), "GetResultById": ("ResultManagement",),
    "GetResultIds": ("ResultManagement",), "Halt": (MACHINE,), "Reset": (MACHINE,),
}  # fmt: skip
AUTOMATIC = (MACHINE, "AutomaticModeStateMachine")
METHODS = {
    "start": "StartContinuous", "stop": "Stop", "halt": "Halt", "reset": "Reset", "reset_counters": "ResetCounters",
}  # fmt: skip
TAGS = (
    "Accept", "ResultId", "ResultIdCopy", "State", "Beat", "Ready", "Session", "RecipeChangeStatus",
    "RecipeChangeNumber", "CountedOk", "CountedNg", "CountedUnknown", "CounterResets", "Triggers", "BeatTimeoutMs",
    "Recipe",
)  # fmt: skip
SESSION_MS = 60_000
GOODBYE_S = 0.5
CLIENT_S = 60.0
"""Of the library for one message; ``timeout_s`` ends the wait before."""
CODES = {2: "NO_ANSWER", 3: "BAD_REQUEST", 4: "TOO_OLD"}


class OpcuaSide:
    """As ``PlcSide``. The client's loop turns in a separate thread."""

    cycle_s = 0.05
    handshake = False
    users = True

    def __init__(self, host: str, port: int, timeout_s: float, user: tuple[str, str] | None) -> None:
        """``user``: name and password, of the role operate."""
        self._url, self.timeout_s, self._user = f"opc.tcp://{host}:{port}", timeout_s, user
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="opcua", daemon=True)
        self._thread.start()
        self._client: Client | None = None
        self._methods: dict[str, tuple[Node, Node]] = {}
        self._nodes: list[ua.ReadValueId] = []
        self._last: Shown | None = None
        self._since = 0

    def again(self) -> None:
        """As ``PlcSide.again``."""
        self._last = None

    def read(self) -> Reading:
        """As ``PlcSide.read``."""
        tags = self._tags()
        shown_id, new = int(tags["ResultId"] or 0), []
        ids = self._call("GetResultIds", ua.Variant(self._since, ua.VariantType.UInt64), _u32(0)) or []
        for result_id in sorted(ids):
            shown = self._result(result_id)
            if shown is not None:
                new.append(shown)
                self._last, self._since = shown, result_id + 1
        accept = tags["Accept"] is True
        if accept and (self._last is None or self._last.number != shown_id & U32):
            # A result came between the two answers: the tags are of the one before.
            tags = self._tags()
            accept = tags["Accept"] is True and self._last is not None and self._last.number == tags["ResultId"] & U32
        if self._last is not None:
            self._last = self._last._replace(accept=accept)
        return Reading(
            beat=int(tags["Beat"] or 0),
            accept=accept,
            quality=tags["Ready"] is True,
            state=int(tags["State"] or 0),
            session=str(tags["Session"] or ""),
            shown=self._last,
            new=tuple(new),
            recipe_change=str(tags["RecipeChangeStatus"] or ""),
        )

    def acknowledge(self, shown: Shown) -> None:
        """As ``PlcSide.acknowledge``; there is no such thing."""

    def trigger(self, trigger_id: int, part_id: str, timeout_ms: int) -> str:
        """As ``PlcSide.trigger``."""
        return self._code(self._call("Trigger", _u32(trigger_id), part_id, _u32(timeout_ms)))

    def repeat_trigger(self) -> str:
        """As ``PlcSide.repeat_trigger``; a method is called once."""
        return ""

    def command(self, op: str) -> str:
        """As ``PlcSide.command``."""
        return self._code(self._call(METHODS[op]))

    def set_batch(self, batch: Batch) -> str:
        """As ``PlcSide.set_batch``."""
        return self._code(self._call("SetBatch", *batch))

    def want_recipe(self, name: str) -> str:
        """As ``PlcSide.want_recipe``."""
        answer = self._call("PrepareRecipe", name)
        if answer[0]:
            return "failed"

        def look() -> tuple[int, str]:
            tags = self._tags()
            return int(tags["RecipeChangeNumber"] or 0), str(tags["RecipeChangeStatus"] or "")

        return outcome_of_change(int(answer[3]), look)

    def counters(self) -> Counted:
        """As ``PlcSide.counters``."""
        tags = self._tags()
        fields = ("CountedOk", "CountedNg", "CountedUnknown", "CounterResets")
        return Counted(*(int(tags[name] or 0) for name in fields))

    def identity(self, state: StationState) -> list[tuple[str, str, str]]:
        """As ``PlcSide.identity``."""
        tags = self._tags()
        pairs = {
            "Session": state.session, "Triggers": state.triggers, "BeatTimeoutMs": state.beat_timeout_ms,
            "Recipe": state.recipe,
        }  # fmt: skip
        return [(name, str(expected), str(tags[name])) for name, expected in pairs.items()]

    def command_without_role(self) -> str:
        """As ``PlcSide.command_without_role``."""

        async def stop() -> str:
            async with Client(self._url, timeout=CLIENT_S) as anonymous:
                parent, method = await _method(anonymous, "Stop")
                await parent.call_method(method.nodeid)
            return ""

        try:
            return str(self._run(stop()))
        except ua.UaStatusCodeError as error:
            return f"Stop without a user: {ua.status_codes.get_name_and_doc(error.code)[0]}"

    def close(self) -> None:
        """As ``PlcSide.close``."""
        self._drop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _result(self, result_id: int) -> Shown | None:
        error, text = self._call("GetResultById", ua.Variant(result_id, ua.VariantType.UInt64))
        return None if error else shown_of(decode_json(str(text).encode(), dict[str, Any]))

    def _tags(self) -> dict[str, Any]:
        async def read() -> dict[str, Any]:
            client = await self._connected()
            values = await client.uaclient.read(ua.ReadParameters(NodesToRead=self._nodes))
            return {
                name: value.Value.Value if value.Value is not None else None
                for name, value in zip(TAGS, values, strict=True)
            }

        tags: dict[str, Any] = self._answered(read())
        return tags

    def _call(self, name: str, *arguments: Any) -> Any:
        async def call() -> Any:
            client = await self._connected()
            if name not in self._methods:
                self._methods[name] = await _method(client, name)
            parent, method = self._methods[name]
            return await parent.call_method(method.nodeid, *arguments)

        return self._answered(call())

    def _code(self, answer: Any) -> str:
        error, code = int(answer[0]), str(answer[1])
        return code or CODES.get(error, "OK" if not error else "REFUSED")

    async def _connected(self) -> Client:
        if self._client is None:
            client = Client(self._url, timeout=CLIENT_S)
            if self._user is not None:
                client.set_user(self._user[0])
                client.set_password(self._user[1])
            client.session_timeout = SESSION_MS
            await client.connect()
            index = await client.get_namespace_index(NAMESPACE)
            nodes = [ua.NodeId(ua.String(f"Tags.{name}"), ua.Int16(index)) for name in TAGS]
            self._nodes = [ua.ReadValueId(node, ua.AttributeIds.Value) for node in nodes]
            self._methods, self._client = {}, client
        return self._client

    def _answered(self, asked: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self._run(asked)
        except (OSError, asyncio.TimeoutError, TimeoutError, ConnectionError, ua.UaError) as error:
            self._drop()
            raise NoAnswer(f"no answer from {self._url}: {error or type(error).__name__}") from None

    def _run(self, asked: Coroutine[Any, Any, Any], within_s: float | None = None) -> Any:
        limit_s = self.timeout_s if within_s is None else within_s
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(asked, limit_s), self._loop).result()

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                self._run(client.disconnect(), GOODBYE_S)


async def _method(client: Client, name: str) -> tuple[Node, Node]:
    """Its parent and itself, in ``VisionSystem``."""
    machine = await client.get_namespace_index("http://opcfoundation.org/UA/MachineVision")
    path = [f"{machine}:{part}" for part in ("VisionSystem", *PARENTS.get(name, AUTOMATIC))]
    parent = await client.nodes.objects.get_child(path)
    return parent, await parent.get_child([f"{machine}:{name}"])


def _u32(value: int) -> ua.Variant:
    return ua.Variant(value, ua.VariantType.UInt32)
