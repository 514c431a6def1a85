"""One frame in the layout of MVTec 3D-AD: ``rgb/NNN.png``, ``xyz/NNN.tiff``, for tests ``gt/NNN.png``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from asperity.runtime.cameras.files.pictures import read_rgb, read_xyz
from asperity.runtime.errors import DataError
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Frame, MissingPoint, Unit, frame_size_fault
from asperity.runtime.vision.missing_points import without_missing


def read_frame(
    rgb: Path, xyz: Path, *, camera: str = "replay", camera_session: str = "", seq: int = 0, part_id: str = "",
    unit: Unit | None = None, invalid: Sequence[MissingPoint] = (),
) -> Frame:  # fmt: skip
    """Read one pair of files; ``unit`` None leaves that question to preprocessing. Points stored as one of ``invalid``
    become (0, 0, 0), which always means missing. Raises DataError."""
    colour, cloud = read_rgb(rgb), read_xyz(xyz)
    if colour.shape != cloud.shape:
        raise DataError(
            f"{rgb} is {colour.shape[0]} x {colour.shape[1]} pixels but {xyz} is {cloud.shape[0]} x {cloud.shape[1]}; "
            "colour and points must be pixel-aligned"
        )
    frame = Frame(
        camera=camera, camera_session=camera_session, seq=seq, rgb=colour, xyz=cloud, unit=unit, part_id=part_id
    )
    return without_missing(frame, invalid)


def write_frame(folder: Path, name: str, rgb: ByteArray, xyz: FloatArray, mask: BoolArray | None = None) -> None:
    """Write ``rgb/NAME.png`` (H x W x 3 u8), ``xyz/NAME.tiff`` (f4, as given) and, given a mask, ``gt/NAME.png``.

    Raises DataError for arrays that do not belong together and when the disk does not take the files.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise DataError(f"frame {name}: rgb is {rgb.dtype} {rgb.shape}; it must be uint8 height x width x 3")
    if xyz.dtype != np.float32 or xyz.shape != rgb.shape:
        raise DataError(f"frame {name}: xyz is {xyz.dtype} {xyz.shape}; it must be float32 {rgb.shape}, as rgb")
    if fault := frame_size_fault(*rgb.shape[:2]):
        raise DataError(f"frame {name} is {fault}")
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != rgb.shape[:2]):
        raise DataError(f"frame {name}: mask is {mask.dtype} {mask.shape}; it must be bool {rgb.shape[:2]}")
    try:
        for kind in ("rgb", "xyz") if mask is None else ("rgb", "xyz", "gt"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(folder / "rgb" / f"{name}.png", compress_level=3)
        tifffile.imwrite(folder / "xyz" / f"{name}.tiff", xyz, photometric="rgb")
        if mask is not None:
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "gt" / f"{name}.png")
    except OSError as error:
        raise DataError(
            f"frame {name} cannot be written under {folder}: {error.strerror or error}; free some space or choose "
            "a folder you may write to"
        ) from error
