"""``asperity gateway mqtt``."""
