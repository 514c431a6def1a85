"""A bundle's graphs in the precision that an engine is to have, derived on the machine that will run it.

The bundle carries the signed float32 graphs and nothing else; what is derived from them is a function of the bundle
alone, needs no torch, and is proven by the bundle's gate like every engine (docs/decisions/derived-precision.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from asperity.export.graph_inputs import Given, graph_inputs
from asperity.export.half import half_graph
from asperity.export.quantize import activation_ranges, int8_graph
from asperity.runtime.bundle.checks import FULL_GRAPH
from asperity.runtime.bundle.reader import Bundle
from asperity.runtime.engines.tensorrt.plan_cache import Precision, Softmax
from asperity.runtime.errors import UsageError

CALIBRATION_FRAMES = 8
"""Of the bundle's calibration frames, those that int8's ranges are taken from."""


TWINS = {"adaptor_points": FULL_GRAPH, FULL_GRAPH: "adaptor_points"}
"""One adaptor in two sizes, with the same tensors: frames that reach one of them tell the ranges of both."""

Ranges = Mapping[str, float]
"""Largest |value| to represent, by tensor (``export.quantize.activation_ranges``)."""


def derived_graph(
    model: bytes, name: str, precision: Precision, softmax: Softmax, ranges: Ranges | None = None
) -> bytes:
    """A float32 graph in another precision; fp32 is the graph itself, untouched. ``ranges``: for int8.

    Raises UsageError, EngineError, BundleError.
    """
    if precision == "fp32":
        return model
    if precision == "fp16":
        return half_graph(model, name, softmax)
    if precision == "int8":
        return int8_graph(model, name, ranges or {}, softmax)
    raise UsageError(f"precision {precision!r} is not known; choose fp32, fp16 or int8")


def bundle_ranges(bundle: Bundle, given: Given, threads: int = 1) -> dict[str, Ranges]:
    """Ranges of every graph of a bundle on the inputs that frames gave it. Raises EngineError where there are none."""
    return {
        name: activation_ranges(bundle.graph(reached), reached, given.get(reached, ()), threads)
        for name in bundle.graph_names()
        for reached in [name if given.get(name) else TWINS.get(name, name)]
    }


def derived_graphs(
    bundle: Bundle, precision: Precision, softmax: Softmax, threads: int = 1
) -> Iterator[tuple[str, bytes]]:
    """Every graph of a bundle by name, one after the other (they may be large). Raises as ``derived_graph``."""
    ranges: dict[str, Ranges] = {}
    if precision == "int8":
        ranges = bundle_ranges(bundle, graph_inputs(bundle, CALIBRATION_FRAMES, threads), threads)
    for name in bundle.graph_names():
        yield name, derived_graph(bundle.graph(name), name, precision, softmax, ranges.get(name))
