"""What every file that is made here says of itself."""

from __future__ import annotations

MADE = "Made from the Python sources by `make documents`; do not edit."
