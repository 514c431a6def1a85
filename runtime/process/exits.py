"""How a process of Asperity ends."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from asperity.runtime.process import standard_streams

OS_ERROR_EXIT_CODE = 14
MISSING_EXTRA_EXIT_CODE = 15


def end_at_once(exit_code: int) -> None:
    """Exit without the cleanup of Python and the libraries: on a device that failed permanently it may hang."""
    with suppress(OSError):
        standard_streams.flush()
    sys.stderr.flush()
    os._exit(exit_code)
