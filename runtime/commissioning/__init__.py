"""The acceptance of a station and its gateway as a check list that a program walks through (docs/plc.md)."""
