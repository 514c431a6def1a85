"""Turns numbers into something the runtime can open: ONNX graphs, bundles, the parity gate."""

import contextlib

from asperity import runtime  # noqa: F401 - first: it turns off what a library would send, before that library is loaded

with contextlib.suppress(ModuleNotFoundError):  # a machine that only builds engines has none of what it is about
    from asperity import calibration  # noqa: F401 - says where the caches of other libraries lie
