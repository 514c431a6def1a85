"""Torch-TensorRT as far as it can be shown without a GPU: what is in the way is named, and what would be compiled."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from asperity.calibration.networks import TorchNetworks
from asperity.export import torch_tensorrt as ours
from asperity.export.onnx import graph_modules
from asperity.runtime.errors import EngineError
from asperity.runtime.manifest import Network
from tests.export.exported import inputs_of

CPU = torch.device("cpu")
HOST = "torch.version.cuda"


class Compiler:
    """Stands for the module: keeps what it is given and hands the exported program back as it is."""

    __version__ = torch.__version__.split("+")[0]

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[dict[str, Any]] = []
        self.dynamo = SimpleNamespace(compile=self.compile)
        self.fails = fails

    def compile(
        self, program: torch.export.ExportedProgram, *, inputs: list[torch.Tensor], **settings: Any
    ) -> nn.Module:
        self.calls.append({"shapes": [tuple(value.shape) for value in inputs], **settings})
        if self.fails:
            raise RuntimeError("[TRT] no implementation\nmore lines")
        return program.module()


def test_beside_a_cpu_torch_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HOST, None)
    with pytest.raises(EngineError, match=r"CPU build, with which torch-tensorrt does not load; .*\.\[torch"):
        ours.load_torch_tensorrt()


def test_every_other_obstacle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HOST, "13.0")
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(EngineError, match="is not installed"):
        ours.load_torch_tensorrt()
    monkeypatch.setitem(sys.modules, "torch_tensorrt", SimpleNamespace(__version__="2.9.0"))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"torch-tensorrt 2\.9\.0 is made for torch 2\.9, and this is 2\."):
        ours.load_torch_tensorrt()
    monkeypatch.setitem(sys.modules, "torch_tensorrt", Compiler())  # type: ignore[arg-type]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EngineError, match="needs a GPU"):
        ours.load_torch_tensorrt()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert ours.load_torch_tensorrt().__version__ == Compiler.__version__


def test_networks_are_compiled_whole_and_serve_the_engines_seam(
    lite: tuple[TorchNetworks, Network, list[Any]],
) -> None:
    networks, network, _ = lite
    compiler = Compiler()
    modules = graph_modules(networks, network)
    compiled = ours.compile_modules(compiler, modules, network, "fp16", CPU)
    served = ours.CompiledNetworks(compiled, network, CPU)
    assert [call["shapes"] for call in compiler.calls][:2] == [[(1, 3, 224, 224)], [(256, 32, 3), (256, 3)]]
    for call in compiler.calls:
        assert call["require_full_compilation"] and call["disable_tf32"]
        assert call["autocast_low_precision_type"] is torch.float16
    given = inputs_of(network)
    for seen, expected in (
        (served.rgb(**given["rgb"]), networks.rgb(**given["rgb"])),
        (served.points(**given["points"]), networks.points(**given["points"])),
        (served.adapt_rgb(**given["adaptor_rgb"]), networks.adapt_rgb(**given["adaptor_rgb"])),
        (served.adapt_points(**given["adaptor_points"]), networks.adapt_points(**given["adaptor_points"])),
        (served.adapt_points(**given["adaptor_points_full"]), networks.adapt_points(**given["adaptor_points_full"])),
    ):
        assert seen.dtype == np.float32
        np.testing.assert_allclose(seen, expected, atol=2e-5 * np.abs(expected).max())
    served.close()
    with pytest.raises(EngineError, match="closed"):
        served.rgb(**given["rgb"])


def test_float32_is_float32_and_a_failure_is_named(lite: tuple[TorchNetworks, Network, list[Any]]) -> None:
    networks, network, _ = lite
    assert "enable_autocast" not in ours.settings("fp32") and ours.settings("fp32")["disable_tf32"]
    modules = {"adaptor_rgb": graph_modules(networks, network)["adaptor_rgb"]}
    with pytest.raises(EngineError, match=r"does not compile adaptor_rgb \(\[TRT\] no implementation\)"):
        ours.compile_modules(Compiler(fails=True), modules, network, "fp32", CPU)
