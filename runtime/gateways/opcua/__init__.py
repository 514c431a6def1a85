"""``asperity gateway opcua``."""
