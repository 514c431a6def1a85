"""``asperity gateway ethernetip``."""
