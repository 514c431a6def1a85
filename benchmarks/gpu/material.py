"""What a GPU machine without Open3D needs besides this repository: ``python -m asperity.benchmarks.gpu.material``.

Writes packed frames and the small part of EfficientNet-Lite0's weights that `lite` runs into one folder, about 37 MB.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from asperity.benchmarks.gpu.cases import LITE_WEIGHTS, write_lite_weights
from asperity.benchmarks.gpu.day import FRAMES
from asperity.benchmarks.gpu.frames import pack
from asperity.runtime.cuda.build import BUILD
from asperity.runtime.errors import AsperityError


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m asperity.benchmarks.gpu.material", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=BUILD / "gpu-material")
    parser.add_argument("--product", default="nameplate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--normals", type=int, default=120)
    parser.add_argument("--tests", type=int, default=500)
    options = parser.parse_args(arguments)
    try:
        write_lite_weights(options.out / LITE_WEIGHTS)
        packed = pack(
            options.out / FRAMES, options.product, options.seed, options.size_px, options.normals, options.tests
        )
    except AsperityError as error:
        print(f"gpu-material: {error}", file=sys.stderr)
        return error.exit_code
    total = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"gpu-material: {packed.normals} normal and {len(packed.tests)} test frames in {options.out}, "
          f"{total / 1e6:.1f} MB")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
