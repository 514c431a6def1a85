"""Where things lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout: the working folder and the import path of processes that tests start."""
EXAMPLES = ROOT / "examples"
DOCS = ROOT / "docs"
