"""Gateways: one process a protocol, each on ``runtime.client`` through ``runtime.gateways.link``."""
