"""Imports only where libzmq has CURVE; the doctor tries it in a process of its own."""

from __future__ import annotations

import zmq

if not zmq.has("curve"):
    raise ImportError(f"libzmq {zmq.zmq_version()} was built without libsodium")

__version__ = zmq.zmq_version()
