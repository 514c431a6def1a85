"""The published form on the same libraries as ours: its networks in ONNX Runtime, its distances by numpy's BLAS.

Torch's own matrix products are slow on some processors (MKL on an AMD EPYC: under half of OpenBLAS's rate, measured).
A rival that ran on them would lose because of its library. This one differs from ours only in the reductions: the same
runtime, the same threads, every network in the published form at its full size.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from asperity.benchmarks.published_form.torch_form import PublishedBank, PublishedPipeline, encode
from asperity.runtime.manifest import Network


class OnnxModule(nn.Module):
    """A torch module's function, run by ONNX Runtime: tensors in, one tensor out. Exported on its first call."""

    def __init__(self, module: nn.Module, threads: int, spent_ms: dict[str, float]) -> None:
        """``spent_ms``: its ``networks`` grows by each run's time."""
        super().__init__()
        self.module = module.eval()
        self._threads, self._spent_ms = threads, spent_ms
        self._session: ort.InferenceSession | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        if self._session is None:
            self._session = _session(self.module, inputs, self._threads)
        since_ns = time.perf_counter_ns()
        names = [one.name for one in self._session.get_inputs()]
        feeds = {name: np.ascontiguousarray(given.numpy()) for name, given in zip(names, inputs, strict=True)}
        output = torch.from_numpy(self._session.run(None, feeds)[0])
        self._spent_ms["networks"] += (time.perf_counter_ns() - since_ns) / 1e6
        return output


class _PlainPoints(nn.Module):
    """The point encoder with its concatenation written out."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, groups: Tensor, centres: Tensor) -> Tensor:
        return encode(self.encoder, groups, centres)


def blas_nearest(queries: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the nearest row and its index: |q|^2 + |r|^2 - 2 q r as one float32 product over all rows."""
    q, r = queries.numpy(), rows.numpy()
    squared = q @ r.T
    squared *= -2.0
    squared += np.einsum("nd,nd->n", r, r)
    index = squared.argmin(axis=1)
    smallest = squared[np.arange(len(q)), index] + np.einsum("md,md->m", q, q)
    return torch.from_numpy(np.sqrt(np.maximum(smallest, 0.0))), torch.from_numpy(index)


class Rival(PublishedPipeline):
    """``PublishedPipeline`` on ONNX Runtime and BLAS. ``spent_ms``: time in its ``networks`` and in its ``search``."""

    def __init__(
        self,
        network: Network,
        modules: Mapping[str, nn.Module],
        rgb: PublishedBank,
        points: PublishedBank,
        threads: int,
    ) -> None:
        """``modules`` as ``PublishedPipeline``; each is exported on its first run, for this many threads."""
        self.spent_ms = {"networks": 0.0, "search": 0.0}
        onnx = {
            name: OnnxModule(_PlainPoints(module) if name == "points" else module, threads, self.spent_ms)
            for name, module in modules.items()
        }
        super().__init__(network, onnx, rgb, points)

    def nearest(self, queries: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """As ``blas_nearest``."""
        since_ns = time.perf_counter_ns()
        found = blas_nearest(queries, rows)
        self.spent_ms["search"] += (time.perf_counter_ns() - since_ns) / 1e6
        return found


def _graph(module: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    with _quiet():
        program = torch.onnx.export(module, inputs, opset_version=18, external_data=False, dynamo=True, verbose=False)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _session(module: nn.Module, inputs: tuple[Tensor, ...], threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(_graph(module, inputs), options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's messages from the user."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
