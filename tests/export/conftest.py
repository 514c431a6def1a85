"""Exported graphs, made once a run for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from asperity.calibration.networks import TorchNetworks
from asperity.export.onnx import export_graphs
from asperity.runtime.manifest import Network
from tests.export.exported import exported, reduced_edge, reduced_paper, whole


@pytest.fixture(scope="session")
def lite(tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchNetworks, Network, list[Path]]:
    """Networks, constants and graph files of `lite` as shipped, with adaptors."""
    networks, given = whole("lite")
    return networks, given, export_graphs(networks, given, tmp_path_factory.mktemp("lite_graphs"))


@pytest.fixture(scope="session")
def lite_graphs(lite: tuple[TorchNetworks, Network, list[Path]]) -> dict[str, bytes]:
    """The same graphs' bytes by name."""
    return {path.stem: path.read_bytes() for path in lite[2]}


@pytest.fixture(scope="session")
def edge_small(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Network]:
    """Graphs of `edge` with fewer layers and tokens, with adaptors."""
    networks, given = reduced_edge()
    return exported(networks, given, tmp_path_factory.mktemp("edge_small")), given


@pytest.fixture(scope="session")
def paper_small(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Network]:
    """Graphs of `paper` with fewer layers and tokens, with adaptors."""
    networks, given = reduced_paper()
    return exported(networks, given, tmp_path_factory.mktemp("paper_small")), given
