"""PyTorch's exporter without two detours of its libraries, which are a quarter of its time; the graphs are the same."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def quick_exports() -> None:
    """From now on, in this process.

    A rule of several outputs is tried at the nodes that can be its first one, not with a list of the whole graph at
    every node; and the library's operators are read once, not for each graph.
    """
    from onnxscript.rewriter import _basics, _matcher
    from torch.onnx._internal.exporter import _registration

    match_any = _matcher.SimplePatternMatcher.match

    def match(self: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        if not self.pattern.has_single_output_node:
            first = self.pattern.output_nodes[0].op_identifier()
            if first is not None and first != node.op_identifier():
                return _basics.MatchResult().fail("another operator")
        return match_any(self, model, graph, node, **options)

    _matcher.SimplePatternMatcher.match = match
    apis = _registration.onnxscript_apis
    apis.get_torchlib_ops = cache(apis.get_torchlib_ops)
