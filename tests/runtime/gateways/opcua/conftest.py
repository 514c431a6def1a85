"""OPC UA gateways in a loop as fixtures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua.server.address_space import AddressSpace, NodeManagementService
from asyncua.server.internal_server import InternalServer
from asyncua.server.standard_address_space.standard_address_space import fill_address_space

from asperity.runtime.gateways.watch_loop import TurnWatch
from tests.kept import kept
from tests.runtime.gateways.floor import Loop, looping
from tests.runtime.gateways.opcua.opcua_floor import Served


@pytest.fixture(scope="module", autouse=True)
def _standard_nodes() -> Iterator[None]:
    """The library's 6000 nodes from its own shelf, node by node as they are used; built anew for each server they cost
    more than everything else that a test does. Gateways in processes of their own build them.
    """
    shelf = kept("opcua_nodes", _make_shelf, of=(Path(__file__),)) / "nodes"

    async def load(server: InternalServer, shelf_file: Path | None = None) -> None:
        server.aspace.load_aspace_shelf(shelf)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InternalServer, "load_standard_address_space", load)
        yield


def _make_shelf(folder: Path) -> None:
    space = AddressSpace()
    fill_address_space(NodeManagementService(space))
    space.make_aspace_shelf(folder / "nodes")


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("opcua")


@pytest.fixture(scope="module")
def watched(loop: Loop) -> Iterator[list[str]]:
    """What the watch of a real gateway would end the process for; other processes may take the processor meanwhile."""
    said: list[str] = []
    watch = TurnWatch(lambda: 5000, said.append)
    turning = loop.call(lambda: asyncio.ensure_future(watch.keep_turning()))
    watch.start()
    yield said
    watch.close()
    loop.call(turning.cancel)


@pytest.fixture
def make(loop: Loop, folder: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(**own: Any) -> Served:
        made.append(Served(loop, folder, **own))
        return made[-1]

    yield make
    for served in made:
        served.close()


@pytest.fixture(scope="module")
def crowded(loop: Loop, folder: Path) -> Iterator[Served]:
    """One gateway for the tests that leave nothing behind."""
    served = Served(loop, folder, handshake_ms=600_000)
    yield served
    served.close()
