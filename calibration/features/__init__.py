"""Frozen features of the good parts' frames."""
