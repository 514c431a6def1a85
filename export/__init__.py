"""Numbers to something the runtime can open: ONNX graphs, bundles, the parity gate."""

import calibration  # noqa: F401 - first: it and runtime say what other libraries may send and write
