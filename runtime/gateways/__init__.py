"""Gateways: one process a protocol, each on ``runtime.client.station_client`` through ``runtime.gateways.link``."""
