"""What the system lacks that would end a process in the middle of its work: native libraries abort there."""

from __future__ import annotations

import _thread
import resource
import threading
from pathlib import Path

FILES = 256
"""Descriptors that a process needs: sockets, connections, journals, libraries."""
FILES_USUAL = 1024
THREADS = 16
ADDRESS_SPACE_BYTES = 2 << 30
"""PyTorch needs more; where it has less than it wants, the command says that it is out of memory."""


def shortage() -> str:
    """What is missing or too low, and what to set; empty: nothing. Raises the soft limit of open files."""
    try:
        Path.cwd()
    except OSError:
        # Relative paths lead nowhere, and MKL ends the process with 2, which stands for wrong arguments.
        return "the working folder no longer exists; change to another folder"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FILES_USUAL:
        soft = FILES_USUAL if hard == resource.RLIM_INFINITY else min(FILES_USUAL, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if 0 <= soft < FILES:
        return f"only {soft} files may be open, {FILES} are needed; run `ulimit -n {FILES_USUAL}`, or set LimitNOFILE="
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= space < ADDRESS_SPACE_BYTES:
        return (
            f"the address space is limited to {space >> 20} MiB, {ADDRESS_SPACE_BYTES >> 20} are needed; run "
            "`ulimit -v unlimited`, and limit memory by MemoryMax= or the container"
        )
    return "" if _threads_start() else (
        f"{THREADS} threads cannot be started; raise the limit of processes (`ulimit -u`), TasksMax= of the service, "
        "or the container's limit of process IDs"
    )  # fmt: skip


def _threads_start() -> bool:
    go_on = threading.Event()
    try:
        for _ in range(THREADS):
            _thread.start_new_thread(go_on.wait, ())
    except RuntimeError:
        return False
    finally:
        go_on.set()
    return True
