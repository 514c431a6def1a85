"""Access to a station, and its incoming messages."""
