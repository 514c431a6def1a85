"""``python -m asperity.benchmarks.line.sampled FILE run ...``: an ``asperity`` process that counts its Python objects.

Counting the collector's objects walks all of them under the interpreter's lock for many milliseconds, which would be
seen in the latencies. The allocator knows how many blocks are in use without visiting them, so blocks are counted:
every small Python object is one.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from asperity.runtime.process.child import end_with_parent

INTERVAL_S = 1.0


def main() -> None:
    """Count while the command runs, until it ends."""
    file = Path(sys.argv[1])
    sys.argv = ["asperity", *sys.argv[2:]]
    end_with_parent()
    threading.Thread(target=_count, args=(file,), name="sampler", daemon=True).start()
    from asperity.runtime.cli import main as command

    command()


def _count(file: Path) -> None:
    """Append a line ``monotonic ns, blocks, ns that counting took`` at a time."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    while True:
        began_ns = time.monotonic_ns()
        blocks = sys.getallocatedblocks()
        os.write(handle, b"%d %d %d\n" % (began_ns, blocks, time.monotonic_ns() - began_ns))
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
