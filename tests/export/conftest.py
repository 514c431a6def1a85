"""Exported graphs, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asperity.calibration.networks import TorchNetworks
from asperity.calibration.record import load_folder
from asperity.export.bundle import stored_networks
from asperity.runtime.bundle.checks import graph_names
from asperity.runtime.manifest import Network
from tests.conftest import LiteBundle
from tests.export.exported import contents, graph_files, reduced_edge, reduced_paper
from tests.quick_exports import quick_exports


@pytest.fixture(scope="session", autouse=True)
def _quick_exports() -> None:
    quick_exports()


@pytest.fixture(scope="session")
def lite(lite_bundle: LiteBundle) -> tuple[TorchNetworks, Network, list[Path]]:
    """Networks, constants and graph files, in the order of their export, of the shared bundle."""
    folder = load_folder(lite_bundle.calibration)
    given = folder.record.network
    torch.set_num_threads(1)
    return stored_networks(folder), given, [lite_bundle.path / f"{name}.onnx" for name in graph_names(given)]


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
