"""How a process of Asperity ends."""

from __future__ import annotations

import os
import sys

OS_ERROR_EXIT_CODE = 14
MISSING_EXTRA_EXIT_CODE = 15


def end_at_once(exit_code: int) -> None:
    """End without what Python and the libraries would still tidy up: on a device that failed for good that may hang."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(exit_code)
