"""What runs on the box: frames in, one verdict each out. No torch, no training code, no pickle."""

import os

__version__ = "0.1.0"

# ONNX Runtime reports on its user to its vendor unless it finds this when it is loaded, and every value but "1" may mean
# no: so it is set here, before any module of ours can load it, whatever the user's environment says. Processes that we
# start inherit it (docs/decisions/no-telemetry.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
