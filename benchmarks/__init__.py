"""Latency, accuracy and soak measurements; results are JSON files per machine."""

from asperity import calibration  # noqa: F401 - first: it and runtime say what other libraries may send and write
