"""Frames of the virtual camera in one small file, for machines without Open3D: colour as JPEG, depth as 16-bit PNG.

JPEG changes the colours slightly. The calibration and every engine get the frames of this file, so nothing is compared
across that loss.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.errors import DataError
from asperity.runtime.frame import Frame, Intrinsics
from asperity.runtime.vision.units import points_mm

INDEX = "index.json"
DEPTH_STEP_MM = 0.02
"""The virtual sensor's noise is larger."""
JPEG_QUALITY = 90
CAMERA = "virtual"


@dataclass(frozen=True, slots=True)
class PackedFrames:
    """A file of frames: ``normals`` to calibrate on, then ``tests``, each with what is wrong with it."""

    path: Path
    product: str
    intrinsics: Intrinsics
    normals: int
    tests: tuple[str, ...]
    """``good`` or the defect's name."""
    told: dict[str, Any]
    """How the file was made."""

    def normal_frames(self) -> Iterator[Frame]:
        """Frames to calibrate on, in order."""
        return self._frames("normal", self.normals)

    def test_frames(self, most: int | None = None) -> Iterator[Frame]:
        """Frames to judge, in order."""
        return self._frames("test", len(self.tests) if most is None else min(most, len(self.tests)))

    def write_normals(self, folder: Path) -> None:
        """``folder/train/good`` in the MVTec 3D-AD layout, points in mm."""
        for index, frame in enumerate(self.normal_frames()):
            points, valid = points_mm(frame, "mm")
            points[~valid] = 0.0
            write_frame(folder / "train" / "good", f"{index:03d}", frame.rgb, points)

    def _frames(self, kind: str, count: int) -> Iterator[Frame]:
        with zipfile.ZipFile(self.path) as file:
            for index in range(count):
                name = f"{kind}/{index:04d}"
                rgb = np.asarray(Image.open(BytesIO(file.read(f"{name}.jpg"))).convert("RGB"))
                depth = np.asarray(Image.open(BytesIO(file.read(f"{name}.png")))).astype(np.uint16)
                yield Frame(
                    camera=CAMERA, camera_session="packed", seq=index, rgb=rgb, depth=depth, unit="mm",
                    intrinsics=self.intrinsics, scale=DEPTH_STEP_MM, invalid=0.0, sensor=f"virtual {self.product}",
                )  # fmt: skip


def open_packed(path: Path) -> PackedFrames:
    """A file that ``pack`` wrote. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as file:
            told = json.loads(file.read(INDEX))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is not a file of packed frames ({error}); make one: python -m asperity.benchmarks.gpu.material"
        ) from (error)
    lens = told["intrinsics"]
    intrinsics = Intrinsics(lens["fx"], lens["fy"], lens["cx"], lens["cy"])
    return PackedFrames(path, told["product"], intrinsics, told["normals"], tuple(told["tests"]), told)


def pack(path: Path, product: str, seed: int, size_px: int, normals: int, tests: int) -> PackedFrames:
    """Render and pack. Normals come from ``seed``, tests from ``seed + 1``: every second is good, the others have each
    defect in turn. Raises CameraError if Open3D does not load."""
    from asperity.runtime.cameras.virtual.camera import GOOD, VirtualCamera
    from asperity.runtime.cameras.virtual.defects import DEFECTS

    kinds = [GOOD if index % 2 == 0 else list(DEFECTS)[index // 2 % len(DEFECTS)] for index in range(tests)]
    cameras = {"normal": VirtualCamera(product, seed, size_px, unit="mm"),
               "test": VirtualCamera(product, seed + 1, size_px, unit="mm")}  # fmt: skip
    shots = [("normal", index, GOOD) for index in range(normals)] + [
        ("test", index, kind) for index, kind in enumerate(kinds)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    lens = cameras["test"].intrinsics
    told = {
        "product": product, "seed": seed, "size_px": size_px, "normals": normals, "tests": kinds,
        "depth_step_mm": DEPTH_STEP_MM, "jpeg_quality": JPEG_QUALITY,
        "intrinsics": {"fx": lens.fx, "fy": lens.fy, "cx": lens.cx, "cy": lens.cy},
    }  # fmt: skip
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr(INDEX, json.dumps(told))
        for camera, index, kind in shots:
            frame = cameras[camera].frame(index, None if kind == GOOD else kind).frame
            assert frame.xyz is not None
            depth = np.round(np.nan_to_num(frame.xyz[:, :, 2]) / DEPTH_STEP_MM).astype(np.uint16)
            colour, measured = BytesIO(), BytesIO()
            Image.fromarray(frame.rgb).save(colour, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            Image.fromarray(depth).save(measured, "PNG", optimize=True)
            file.writestr(f"{camera}/{index:04d}.jpg", colour.getvalue())
            file.writestr(f"{camera}/{index:04d}.png", measured.getvalue())
    return open_packed(path)
