"""Frames as files in the layout of MVTec 3D-AD (lsfa 1.1): ``rgb/NNN.png``, ``xyz/NNN.tiff``, for tests ``gt/NNN.png``.

The layout gives neither unit nor part: published data are in metres, and everything here is passed on as stored. The
physical part that each frame shows can be given in ``parts.csv`` next to it (columns ``name`` and ``part_id``).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from asperity.runtime.errors import DataError
from asperity.runtime.files import read_file
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Frame, MissingPoint, Unit, frame_size_fault
from asperity.runtime.vision.missing_points import without_missing
from asperity.runtime.vision.picture_files import MAX_FILE_NBYTES, decode_tiff, open_png

SPLITS = ("train", "validation", "test")
GOOD = "good"
PARTS_FILE = "parts.csv"
MAX_PARTS_NBYTES = 64 * 2**20
NAMES_SHOWN = 5
"""At most this many names are listed in an error."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame on disk, not yet read."""

    name: str
    """Path below the listed folder, without ``rgb`` and suffix: ``test/bump/003``, or ``003`` in a bare folder."""
    split: str
    """train, validation or test; empty where the folder does not say."""
    defect: str
    """``good``, a defect's folder name, or empty where the folder does not say."""
    rgb: Path
    xyz: Path
    gt: Path | None


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``10`` follows ``9`` and ``part10`` follows ``part9``."""
    return tuple((0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in re.findall(r"\d+|\D+", text))


def read_rgb(path: Path) -> ByteArray:
    """The picture as H x W x 3 u8, values as stored (``open_png``).

    Grey and palette pictures and an opaque alpha channel are converted without loss.

    Raises DataError for a missing or unreadable file, more than 8 bits, or transparency.
    """
    try:
        with open_png(read_file(path, MAX_FILE_NBYTES, follow=True)) as picture:
            if picture.palette is not None and np.asarray(picture).max() >= len(picture.palette.palette) // 3:
                raise DataError("has pixels of colours that its palette does not have")
            rgba = np.asarray(picture.convert("RGBA"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, DataError) as error:
        raise DataError(f"{path} {_words(error)}; write it again as an 8-bit RGB PNG") from error
    if (rgba[..., 3] != 255).any():
        raise DataError(f"{path} has transparent pixels; save it as an RGB PNG without alpha channel")
    return np.ascontiguousarray(rgba[..., :3])


def read_xyz(path: Path) -> FloatArray:
    """The organised cloud as H x W x 3 f4, values as stored.

    Raises DataError for a missing or unreadable file, another dtype or another shape.
    """
    try:
        xyz = decode_tiff(read_file(path, MAX_FILE_NBYTES, follow=True))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, DataError) as error:
        raise DataError(f"{path} {_words(error)}; write it again") from error
    if xyz.dtype != np.float32:
        raise DataError(f"{path} holds {xyz.dtype} values; the point cloud must be float32 x, y, z for each pixel")
    if xyz.ndim != 3 or xyz.shape[2] != 3 or 0 in xyz.shape:
        raise DataError(f"{path} has shape {xyz.shape}; the point cloud must be height x width x 3")
    return np.ascontiguousarray(xyz)


def _words(error: OSError | DataError) -> str:
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)


def read_mask(path: Path) -> BoolArray:
    """The ground-truth mask as H x W bool: any non-zero pixel is defective. Raises DataError as ``read_rgb``."""
    mask: BoolArray = (read_rgb(path) > 0).max(axis=2)
    return mask


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


def list_samples(folder: Path) -> list[Sample]:
    """All frames below a folder in natural order: train, validation, test; within them ``good`` first.

    Accepted: a product's folder (``train/good validation/good test/<defect>``), one of its splits, or a bare folder
    with ``rgb/`` and ``xyz/``. Raises DataError for anything else, for an empty folder and for half pairs.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one in the MVTec 3D-AD layout")
    splits = [split for split in SPLITS if (folder / split).is_dir()]
    if (folder / "rgb").is_dir() or (folder / "xyz").is_dir():
        samples = _pairs(folder, *_where(folder), prefix="")
    elif splits:
        samples = [s for split in splits for s in _split(folder / split, split, prefix=f"{split}/")]
    else:
        samples = list(_split(folder, folder.name if folder.name in SPLITS else "", prefix=""))
    if not samples:
        products = sorted(p.name for p in folder.iterdir() if any((p / split).is_dir() for split in SPLITS))
        if products:
            raise DataError(f"{folder} holds several products ({_some(products)}); give the folder of one of them")
        raise DataError(f"{folder} holds no frames: neither rgb/*.png with xyz/*.tiff nor train/good, test/<defect>")
    return samples


def read_parts(folder: Path, samples: Iterable[Sample]) -> dict[str, str]:
    """Part ids by the samples' names, from ``parts.csv`` in the folder or up to two levels above; empty without one.

    The file names frames by their path below itself (``train/good/003``). Raises DataError for a file that is not such
    a table or does not name every sample's part.
    """
    here = folder.resolve()
    home = next((place for place in (here, *here.parents[:2]) if (place / PARTS_FILE).is_file()), None)
    if home is None:
        return {}
    path = home / PARTS_FILE
    try:
        table = StringIO(read_file(path, MAX_PARTS_NBYTES, follow=True).decode(), newline="")
        known = {row["name"]: row["part_id"] for row in csv.DictReader(table)}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table with columns name and part_id ({error})") from error
    parts: dict[str, str] = {}
    for sample in samples:
        below = here.relative_to(home) / sample.rgb.parent.parent.relative_to(folder) / sample.rgb.stem
        parts[sample.name] = known.get(below.as_posix()) or ""
    missing = [name for name, part in parts.items() if not part]
    if missing:
        raise DataError(f"{path} names no part for {_some(missing)}; complete it or remove it")
    return parts


def _where(folder: Path) -> tuple[str, str]:
    """Split and defect of a leaf folder, read from its path as far as the layout says so."""
    if folder.parent.name in SPLITS:
        return folder.parent.name, folder.name
    return "", ""


def _split(folder: Path, split: str, prefix: str) -> Iterable[Sample]:
    leaves = [p for p in folder.iterdir() if (p / "rgb").is_dir() or (p / "xyz").is_dir()]
    for leaf in sorted(leaves, key=lambda p: (p.name != GOOD, natural_key(p.name))):
        yield from _pairs(leaf, split, leaf.name, prefix=f"{prefix}{leaf.name}/")


def _pairs(folder: Path, split: str, defect: str, prefix: str) -> list[Sample]:
    pictures = _stems(folder / "rgb", (".png",))
    clouds = _stems(folder / "xyz", (".tiff", ".tif"))
    for present, absent, what in ((pictures, clouds, "xyz/*.tiff"), (clouds, pictures, "rgb/*.png")):
        half = sorted(set(present) - set(absent), key=natural_key)
        if half:
            raise DataError(f"{folder}: {len(half)} frame(s) lack their {what}: {_some(half)}; complete or remove them")
    masks = _stems(folder / "gt", (".png",))
    return [
        Sample(prefix + stem, split, defect, pictures[stem], clouds[stem], masks.get(stem))
        for stem in sorted(pictures, key=natural_key)
    ]


def _stems(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {p.stem: p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".")}


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
