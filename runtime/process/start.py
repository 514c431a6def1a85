"""What each process of ours does before anything else."""

from __future__ import annotations

import os

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
