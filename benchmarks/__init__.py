"""Latency, accuracy and soak measurements; results are JSON files per machine."""
