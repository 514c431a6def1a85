"""The search for the adaptation's settings, on pseudo-defects."""
