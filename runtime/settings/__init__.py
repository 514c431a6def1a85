"""Configuration files as types, and the form of log lines."""
