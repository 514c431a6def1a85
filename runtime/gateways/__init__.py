"""Gateways: one process per protocol, each on ``runtime.client.station_client`` through ``runtime.gateways.link``."""
