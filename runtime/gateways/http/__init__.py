"""``asperity gateway http``."""
