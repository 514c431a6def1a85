"""One side of a paired comparison: scores a frame per line of standard input, with a given checkout's code.

Run by path, never imported: ``python paired_side.py CHECKOUT BUNDLE FRAMES COUNT THREADS``. It must run on any earlier
checkout, so it uses only what every one of them has.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(checkout: str, bundle: str, frames: str, count: str, threads: str) -> None:
    """Answer each line ``N`` with ``{"ms": ..., "cpu_ms": ..., "stage_us": ...}`` of frame N modulo ``count``."""
    sys.path.insert(0, checkout)
    from asperity.runtime.bundle.reader import open_bundle
    from asperity.runtime.cameras.files.folders import list_samples
    from asperity.runtime.cameras.files.samples import read_sample
    from asperity.runtime.engines.cpu import CpuEngine
    from asperity.runtime.security.signing_keys import TrustStore

    engine = CpuEngine.open(open_bundle(Path(bundle), TrustStore()), int(threads))
    read = [read_sample(sample) for sample in list_samples(Path(frames))[: int(count)]]

    def silent(stage: str) -> None:
        """No one listens."""

    for line in sys.stdin:
        frame = read[int(line) % len(read)]
        cpu_ns, since_ns = time.process_time_ns(), time.perf_counter_ns()
        scores = engine.score(frame, silent)
        said = {
            "ms": (time.perf_counter_ns() - since_ns) / 1e6,
            "cpu_ms": (time.process_time_ns() - cpu_ns) / 1e6,
            "stage_us": scores.stage_us,
            "rgb": scores.modalities["rgb"].image_distance,
            "points": scores.modalities["points"].image_distance,
        }
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
