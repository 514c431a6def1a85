"""What each process of ours does before anything else."""

from __future__ import annotations

import os
import resource
import sys

from asperity.runtime.process import early_signals, standard_streams


def begin(nice: int = 0) -> None:
    """For the main thread, before anything slow is imported. Every entry point calls it first.

    ``nice``: give way to other processes by so much.
    """
    standard_streams.begin()
    # Told to end while starting, a process closes what it has opened and ends.
    early_signals.install()
    # Whatever others may not do: a process that cannot read its own files cannot work.
    os.umask(os.umask(0o077) & 0o077)
    os.nice(nice)
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        # Python stores a compiled module cut off at the limit, and then no program can import it any more.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
