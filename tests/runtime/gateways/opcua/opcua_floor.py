"""What the tests of the OPC UA gateway stand on: a gateway in a loop, on a link that says what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from asyncua import Client, Node, ua

from asperity.runtime.gateways.config import Gateway, GatewayConfig, GatewayStation, Opcua, Users
from asperity.runtime.gateways.opcua.connection import Connection
from asperity.runtime.gateways.opcua.gateway import OpcuaGateway
from asperity.testing import PATIENCE_S, STATION
from tests.runtime.gateways.floor import FakeLink, Loop


class Served:
    """A gateway that serves in its own loop, and a link to play with."""

    def __init__(
        self, loop: Loop, folder: Path, commands: bool = True, link: Any = None, accounts: Users | None = None,
        **own: Any,
    ) -> None:  # fmt: skip
        """``link``: a Link instead."""
        opcua = Opcua(port=0, certificate_folder=str(folder), recipes="bracket lid", **own)
        self.link: FakeLink = link or FakeLink()
        self.loop = loop
        config = GatewayConfig(
            station=GatewayStation(name=STATION), gateway=Gateway(commands=commands), opcua=opcua,
            users=accounts or Users(),
        )  # fmt: skip
        self.gateway = OpcuaGateway(config, self.link)  # type: ignore[arg-type]
        self.url = loop.run(self.gateway.open())

    def refresh(self) -> None:
        self.loop.call(self.gateway.refresh)

    def close(self) -> None:
        self.loop.run(self.gateway.close())


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    async with Client(url, timeout=PATIENCE_S) as client:
        yield client


async def node(client: Client, *path: str) -> Node:
    return await client.nodes.objects.get_child(list(path))


async def read(client: Client, *names: str) -> list[ua.DataValue]:
    """Several tags in one request."""
    index = await client.get_namespace_index("urn:asperity:vision")
    nodes = [client.get_node(ua.NodeId(f"Tags.{name}", index)) for name in names]
    params = ua.ReadParameters(NodesToRead=[ua.ReadValueId(n.nodeid, ua.AttributeIds.Value) for n in nodes])
    return await client.uaclient.read(params)


async def until_shown(client: Client, result_id: int, refresh: Callable[[], None] = lambda: None) -> None:
    """``refresh``: what a gateway's process does each turn."""

    async def shown() -> None:
        while (await read(client, "ResultIdCopy"))[0].Value.Value != result_id:
            await asyncio.to_thread(refresh)
            await asyncio.sleep(0.005)

    await asyncio.wait_for(shown(), PATIENCE_S)


async def accepts(client: Client) -> bool:
    return (await read(client, "Accept"))[0].Value.Value is True


async def values(client: Client, *names: str) -> list[Any]:
    return [value.Value.Value for value in await read(client, *names)]


async def call(client: Client, name: str, *arguments: Any) -> list[Any]:
    """A method by its name, of VisionSystem; numbers are UInt32."""
    parents = {"PrepareRecipe": ["3:RecipeManagement"], "GetResultById": ["3:ResultManagement"]}
    path = parents.get(name, ["3:VisionStateMachine", "3:AutomaticModeStateMachine"])
    parent = await node(client, "3:VisionSystem", *path)
    given = [ua.Variant(each, ua.VariantType.UInt32) if isinstance(each, int) else each for each in arguments]
    answer: list[Any] = await parent.call_method(f"3:{name}", *given)
    return answer


class Told:
    """Notifications in the order in which they came."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, Any, bool]] = []
        self.events: list[Any] = []
        self.names: dict[ua.NodeId, str] = {}

    def datachange_notification(self, node: Node, value: Any, data: Any) -> None:
        told = data.monitored_item.Value
        self.changes.append((self.names[node.nodeid], told.Value.Value, told.StatusCode.is_good()))

    def event_notification(self, event: Any) -> None:
        self.events.append(event)


async def soon(condition: Any) -> None:
    """Waits for what the client's own thread of notifications brings."""

    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), PATIENCE_S)


def connections(served: Served) -> list[Connection]:
    server = served.gateway._server.bserver
    assert server is not None
    return served.loop.call(lambda: list(server.clients))  # type: ignore[arg-type]


def refused(served: Served) -> int:
    return served.gateway._server.iserver.refused
