"""Sparkplug B: a station as an edge node."""
