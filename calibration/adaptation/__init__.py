"""LSFA: training the adaptors (lsfa 3 to 6)."""
