"""``asperity gateway modbus``."""
