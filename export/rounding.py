"""A graph with half tensors as a float32 graph that rounds where they round: so that a CPU can evaluate it.

ONNX Runtime has few half kernels for CPUs. It runs such a graph in float32 and drops the casts it put in itself,
so activations are never rounded to half and the graph looks better than it is. Here every half result is cast to half
and back by nodes of the graph, which no optimisation may drop; sums are float32 inside a product, as in tensor cores.
An engine that fuses several operators rounds less often.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from asperity.export.graphs import constants, element_types, load, save, set_constants

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
EXACT, ROUNDED = "__exact", "__rounded"


def rounded_graph(model: bytes, name: str) -> bytes:
    """The float32 graph that gives, up to the order of sums, what ``model`` gives when every half result is rounded."""
    made = load(model, name)
    types = element_types(made)
    values = {
        key: value.astype(np.float32) if value.dtype == np.float16 else value for key, value in constants(made).items()
    }
    nodes = []
    for node in made.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == HALF:
                attribute.i = FLOAT
        nodes.append(node)
        for place, output in enumerate(node.output):
            if types.get(output) == HALF:
                node.output[place] = output + EXACT
                nodes.append(helper.make_node("Cast", [output + EXACT], [output + ROUNDED], to=HALF))
                nodes.append(helper.make_node("Cast", [output + ROUNDED], [output], to=FLOAT))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    set_constants(made, values)
    return save(made, name)
