"""Frames in the layout of Eyecandies, as points in M3DM's form (lsfa 1.4).

    <Class>/train/data/000_image_4.png 000_depth.png 000_info_depth.yaml 000_pose.txt
    <Class>/val/data/...               the same
    <Class>/test_public/data/00_...    and 00_mask.png, 00_bumps_mask.png, 00_colors_mask.png, ...

A sample has 17 files; these are the ones read. ``test_private`` has no truth and is not looked at. Points are those of
M3DM's conversion: the depth seen from the published pose, the ground and what lies far off taken away, a tenth of the
published size. Format: https://eyecan-ai.github.io/eyecandies/download.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.files.folders import GOOD, check_names
from asperity.runtime.cameras.files.pictures import read_mask, read_rgb
from asperity.runtime.cameras.files.samples import Sample
from asperity.runtime.errors import DataError
from asperity.runtime.files import read_file
from asperity.runtime.frame import FloatArray, Frame, Unit
from asperity.runtime.text.encoding import TextRefused, decode
from asperity.runtime.text.names import natural_key
from asperity.runtime.vision.picture_files import MAX_FILE_NBYTES, open_png

SPLITS = {"train": "train", "val": "validation", "test_public": "test"}
"""Official folders, and what the splits are called here."""
IMAGE, DEPTH = "_image_4.png", "_depth.png"
"""M3DM takes the picture lit from the left."""
KINDS = ("bumps", "dents", "colors", "normals")
SEVERAL = "combined"
UNIT: Unit = "m"
MAX_TEXT_NBYTES = 64 * 1024
"""Of the small texts next to a picture."""
SIDE_PX, FOCAL_PX = 512, 711.11
"""One camera took all pictures, which are square; its axis goes through the middle."""
GROUND, FAR, ASIDE = -0.02, 1.8, 1.0
"""Levelled points lower than the first, farther than the second or more to a side than the third are taken away."""
SCALE = (0.1, -0.1, 0.1)
_LEVEL_AT = 256
"""The ground is level when the points of this rank, from the front and from the back, are."""
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def is_class(folder: Path) -> bool:
    """Whether a folder is one class of Eyecandies."""
    return any((folder / split / "data").is_dir() for split in SPLITS)


def list_samples(folder: Path) -> list[Sample]:
    """All frames of a class in natural order: train, val, test_public.

    A test frame's defect is the kind whose mask is not empty, ``combined`` for several, ``good`` where its mask is
    empty. Raises DataError for half samples, test frames without masks and names that no report can hold.
    """
    samples = []
    for name, split in SPLITS.items():
        data = folder / name / "data"
        pictures = sorted(data.glob(f"*{IMAGE}"), key=lambda path: natural_key(path.name)) if data.is_dir() else []
        check_names(data, [picture.name.removesuffix(IMAGE) for picture in pictures])
        for picture in pictures:
            stem = picture.name.removesuffix(IMAGE)
            beside = [data / f"{stem}{end}" for end in (DEPTH, "_info_depth.yaml", "_pose.txt")]
            missing = [path.name for path in beside if not path.is_file()]
            if missing:
                raise DataError(f"{data}: frame {stem} lacks {', '.join(missing)}; complete the download")
            mask = data / f"{stem}_mask.png" if split == "test" else None
            defect = GOOD if mask is None else _defect(mask, stem)
            samples.append(Sample(f"{name}/data/{stem}", split, defect, picture, beside[0], mask))
    if not samples:
        raise DataError(f"{folder} holds no frames of Eyecandies: neither train/data/*{IMAGE} nor test_public/data/*")
    return samples


def read_frame(sample: Sample, *, seq: int = 0) -> Frame:
    """Picture and points of a sample, in metres. Raises DataError for files that are not of this format."""
    rgb, xyz = read_rgb(sample.rgb), read_xyz(sample.xyz)
    if rgb.shape != xyz.shape:
        raise DataError(f"{sample.rgb} is {rgb.shape[:2]} pixels but {sample.xyz} is {xyz.shape[:2]}; both must agree")
    return Frame(camera="dataset", camera_session="", seq=seq, rgb=rgb, xyz=xyz, unit=UNIT)


def read_xyz(depth: Path) -> FloatArray:
    """Points (H x W x 3, f4) of a depth picture with its bounds and pose beside it; (0, 0, 0) where taken away.

    Raises DataError for missing or damaged files.
    """
    stem = depth.name.removesuffix(DEPTH)
    metres = _depth(depth, depth.with_name(f"{stem}_info_depth.yaml"))
    if metres.shape != (SIDE_PX, SIDE_PX):
        raise DataError(
            f"{depth} is {metres.shape[0]} x {metres.shape[1]} pixels; the data set's camera, whose focal length gives "
            f"the points, has {SIDE_PX} x {SIDE_PX}: download it again"
        )
    points = _levelled(_in_world(metres, _pose(depth.with_name(f"{stem}_pose.txt"))))
    return (points[:, [0, 2, 1]] * SCALE).reshape(*metres.shape, 3).astype(np.float32)


def _in_world(depth: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (H W, 3) of the pixels, row by row, in the pose's frame: pixels are whole numbers, as published."""
    rows, columns = depth.shape
    v, u = np.mgrid[:rows, :columns].reshape(2, -1)
    flat = depth.ravel()
    seen = np.stack([(u - columns / 2) * flat / FOCAL_PX, (v - rows / 2) * flat / FOCAL_PX, flat, np.ones_like(flat)])
    return np.asarray((np.linalg.inv(pose) @ seen)[:3].T)


def _levelled(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn about x until the ground is level, take away what is not the object, turn back."""
    front, back = points[_LEVEL_AT], points[-_LEVEL_AT]
    origin = np.array([0.0, back[1], back[2]])
    rise, run = front[1] - back[1], front[2] - back[2]
    length = float(np.hypot(rise, run))
    if not length > 0:
        raise DataError("the depth picture shows no ground to level by; is it of this data set?")
    sine, cosine = rise / length, run / length
    turn = np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])
    level = (points - origin) @ turn.T
    away = (level[:, 1] > GROUND) | (level[:, 2] > FAR) | (np.abs(level[:, 0]) > ASIDE)
    kept: NDArray[np.float64] = level @ turn + origin
    kept[away] = 0.0
    return kept


def _depth(path: Path, info: Path) -> NDArray[np.float64]:
    try:
        with open_png(read_file(path, MAX_FILE_NBYTES, follow=True), bits=(16,)) as picture:
            values = np.asarray(picture)
    except (OSError, DataError) as error:
        raise DataError(f"{path} is not a depth picture ({error}); download it again") from error
    if values.ndim != 2 or values.dtype not in (np.dtype(np.uint16), np.dtype(np.int32)):
        raise DataError(f"{path} holds {values.dtype} {values.shape}; the depth must be grey with 16 bits")
    try:
        text = decode(read_file(info, MAX_TEXT_NBYTES, follow=True))
    except (OSError, TextRefused) as error:
        raise DataError(f"{info} cannot be read ({error})") from error
    low, high = (_bound(text, name, info) for name in ("min", "max"))
    if not 0 < low < high < np.inf:
        raise DataError(f"{info}: normalization from {low} to {high} is not a depth range; download it again")
    return values / 65535.0 * (high - low) + low


def _bound(text: str, name: str, path: Path) -> float:
    """One of the two numbers below ``normalization`` in a file that holds nothing else."""
    found = re.search(rf"^normalization:.*?\b{name}:\s*({_NUMBER})\s*[,}}]?\s*$", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise DataError(f"{path} names no normalization.{name}; download it again")
    return float(found.group(1))


def _pose(path: Path) -> NDArray[np.float64]:
    try:
        pose = np.loadtxt(BytesIO(read_file(path, MAX_TEXT_NBYTES, follow=True)))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table of numbers ({error})") from error
    if pose.shape != (4, 4) or not np.isfinite(pose).all() or abs(float(np.linalg.det(pose))) < 1e-9:
        raise DataError(f"{path} holds no 4 x 4 pose that can be inverted; download it again")
    return np.asarray(pose, dtype=np.float64)


def _defect(mask: Path, stem: str) -> str:
    if not mask.is_file():
        raise DataError(f"{mask} is missing: a test frame needs its mask; complete the download")
    if not read_mask(mask).any():
        return GOOD
    kinds = [kind for kind in KINDS if _shows(mask.with_name(f"{stem}_{kind}_mask.png"))]
    return kinds[0] if len(kinds) == 1 else SEVERAL if kinds else "bad"


def _shows(mask: Path) -> bool:
    return mask.is_file() and bool(read_mask(mask).any())
