"""Rewrite every file that is made from the sources: ``make documents``."""

from __future__ import annotations

import sys
from pathlib import Path

from asperity.runtime.documents.everything import write_all

# The real path: a checkout's asperity.runtime is a link to its runtime/.
CHECKOUT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    if not (CHECKOUT / "docs").is_dir():
        sys.exit(f"{CHECKOUT} is not a checkout of Asperity: documents are made where the sources are")
    for file in write_all(CHECKOUT):
        print(file)
