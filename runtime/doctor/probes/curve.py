"""libzmq with CURVE."""

from __future__ import annotations

import zmq

if not zmq.has("curve"):
    raise ImportError(f"libzmq {zmq.zmq_version()} was built without libsodium")

__version__ = zmq.zmq_version()
