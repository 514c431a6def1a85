"""The same networks through Torch-TensorRT: an extra, in a separate environment, judged by the same gate.

Torch-TensorRT compiles torch modules, so it needs the calibration folder and a CUDA build of torch; it does not load
next to a CPU build. Everything but the networks is the CPU engine's, so that the bundle's golden frames and calibration
scores judge it as they judge every engine. Not run yet: there was no GPU (docs/engines.md).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from asperity.calibration.networks import TorchNetworks
from asperity.calibration.record import load_folder
from asperity.export.bundle import stored_networks
from asperity.export.onnx import graph_modules
from asperity.runtime.bundle.checks import graph_signature
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.engines.cpu import CpuEngine, OnnxNetworks
from asperity.runtime.engines.parity_gate import no_progress, prove
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import EngineInfo, FloatArray
from asperity.runtime.manifest import Decision, Network
from asperity.runtime.vision.preprocess import Masks

NAME = "torch-tensorrt"
REMEDY = (
    "create a separate environment with a CUDA build of torch: in a checkout, pip install "
    "'.[torch-tensorrt,calibrate]' from the index of pytorch.org's CUDA wheels"
)
Precision = Literal["fp32", "fp16"]


def load_torch_tensorrt() -> Any:
    """The module, once it can load. Raises EngineError naming what is in the way and the remedy."""
    if torch.version.cuda is None:
        raise EngineError(f"torch {torch.__version__} is a CPU build, with which {NAME} does not load; {REMEDY}")
    try:
        module = importlib.import_module("torch_tensorrt")
    except ModuleNotFoundError as error:
        raise EngineError(f"{NAME} is not installed ({error}); {REMEDY}") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"{NAME} does not load ({error}); {REMEDY}") from error
    ours, theirs = (".".join(version.split(".")[:2]) for version in (torch.__version__, module.__version__))
    if ours != theirs:
        raise EngineError(f"{NAME} {module.__version__} is made for torch {theirs}, and this is {ours}; {REMEDY}")
    if not torch.cuda.is_available():
        raise EngineError(f"{NAME} needs a GPU, and torch finds none; check the output of nvidia-smi")
    return module


def compile_modules(
    torch_tensorrt: Any, modules: dict[str, nn.Module], network: Network, precision: Precision, device: torch.device
) -> dict[str, nn.Module]:
    """Each graph's module compiled whole, float32 in and out. Raises EngineError naming the one that fails."""
    compiled = {}
    for name, module in modules.items():
        inputs = [torch.zeros(shape, device=device) for shape in graph_signature(name, network)[0].values()]
        try:
            program = torch.export.export(module.to(device).eval(), tuple(inputs))
            compiled[name] = torch_tensorrt.dynamo.compile(program, inputs=inputs, **settings(precision))
        except (RuntimeError, ValueError, TypeError) as error:
            raise EngineError(f"{NAME} does not compile {name} ({str(error).splitlines()[0][:300]})") from error
    return compiled


def settings(precision: Precision) -> dict[str, Any]:
    """How to compile: no part may fall back to plain torch unseen, and float32 means float32."""
    chosen: dict[str, Any] = {
        "require_full_compilation": True, "pass_through_build_failures": True, "disable_tf32": True,
        "cache_built_engines": False, "reuse_cached_engines": False, "min_block_size": 1,
    }  # fmt: skip
    if precision == "fp16":
        aten = torch.ops.aten
        kept = {aten.native_layer_norm.default, aten.layer_norm.default, aten.sum.dim_IntList, aten.mean.dim}
        chosen |= {
            "enable_autocast": True, "autocast_low_precision_type": torch.float16, "autocast_excluded_ops": kept,
        }  # fmt: skip
    return chosen


class CompiledNetworks(OnnxNetworks):
    """Compiled modules behind the CPU engine's seam: numpy in, numpy out."""

    def __init__(self, modules: dict[str, nn.Module], network: Network, device: torch.device) -> None:
        super().__init__({}, network, 1)
        self._modules, self._device = modules, device
        # What ``OnnxNetworks`` asks to know which graphs there are.
        self._sessions = dict.fromkeys(modules)

    def close(self) -> None:
        """Drops the modules."""
        super().close()
        self._modules.clear()

    @torch.no_grad()
    def _run(self, name: str, **inputs: FloatArray) -> FloatArray:
        module = self._modules.get(name)
        if module is None:
            raise EngineError(f"the engine is closed, or there is no compiled {name}")
        given = [torch.from_numpy(np.ascontiguousarray(array)).to(self._device) for array in inputs.values()]
        try:
            output: Tensor = module(*given)
            result: FloatArray = output.float().cpu().numpy()
        except RuntimeError as error:
            raise EngineError(f"{name} failed in {NAME} ({str(error).splitlines()[0][:300]})") from error
        return result


class TorchTensorRtEngine(CpuEngine):
    """The CPU engine with compiled networks."""

    def __init__(self, bundle: Bundle, networks: CompiledNetworks, told: EngineInfo) -> None:
        manifest = bundle.manifest
        masks = Masks(bundle.inspect_mask(), bundle.ignore_mask())
        super().__init__(manifest.geometry, manifest.network, {}, bundle.banks(), masks, 1)
        self._networks, self._told = networks, told

    def describe(self) -> EngineInfo:
        """Torch-TensorRT, the GPU, the precision."""
        return self._told


def prove_torch_tensorrt(calibration: Path, bundle: Bundle, precision: Precision, index: int = 0) -> Decision:
    """Compile the calibration's networks and have the bundle's gate judge them; the decision by which they may judge.

    Raises EngineError (not installed, no GPU, does not compile), ParityError (must not judge), DataError.
    """
    torch_tensorrt = load_torch_tensorrt()
    device = torch.device("cuda", index)
    networks: TorchNetworks = stored_networks(load_folder(calibration))
    network = bundle.manifest.network
    modules = compile_modules(torch_tensorrt, graph_modules(networks, network), network, precision, device)
    told = EngineInfo(NAME, torch.cuda.get_device_name(device), precision)
    engine = TorchTensorRtEngine(bundle, CompiledNetworks(modules, network, device), told)
    try:
        return prove(bundle, engine, no_progress)
    finally:
        engine.close()
