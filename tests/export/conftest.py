"""Exported graphs, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from asperity.calibration.networks import TorchNetworks
from asperity.runtime.manifest import Network
from tests.export.exported import contents, graph_files, reduced_edge, reduced_paper, whole


@pytest.fixture(scope="session")
def lite() -> tuple[TorchNetworks, Network, list[Path]]:
    """Networks, constants and graph files of `lite` as shipped, with adaptors."""
    networks, given = whole("lite")
    return networks, given, graph_files("lite", networks, given)


@pytest.fixture(scope="session")
def lite_graphs(lite: tuple[TorchNetworks, Network, list[Path]]) -> dict[str, bytes]:
    """The same graphs' bytes by name."""
    return contents(lite[2])


@pytest.fixture(scope="session")
def edge_small() -> tuple[dict[str, bytes], Network]:
    """Graphs of `edge` with fewer layers and tokens, with adaptors."""
    networks, given = reduced_edge()
    return contents(graph_files("edge_small", networks, given)), given


@pytest.fixture(scope="session")
def paper_small() -> tuple[dict[str, bytes], Network]:
    """Graphs of `paper` with fewer layers and tokens, with adaptors."""
    networks, given = reduced_paper()
    return contents(graph_files("paper_small", networks, given)), given
