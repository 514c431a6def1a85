"""Makes tables of the docs and constants for other languages; no process imports it."""
