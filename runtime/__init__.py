"""What runs on the inspection computer: frames in, one verdict out per frame. No torch, no training code, no pickle."""

import os

__version__ = "0.2.0"

# ONNX Runtime (1.29 and newer) calls its vendor unless it finds this when it is loaded. Set here, before any module of
# ours can load it, and over what the user has set, since "0" or "" would let it call. Processes that we start inherit
# it (docs/decisions/no-telemetry.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
