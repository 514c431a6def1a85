"""Frames as files in the layout of MVTec 3D-AD (lsfa 1.1): ``rgb/NNN.png``, ``xyz/NNN.tiff``, for tests ``gt/NNN.png``.

The layout gives neither unit nor part: published data are in metres, and everything here is passed on as stored. The
physical part that each frame shows can be given in ``parts.csv`` next to it (columns ``name`` and ``part_id``).
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from asperity.runtime.errors import DataError
from asperity.runtime.files import read_file
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Frame, MissingPoint, Unit, frame_size_fault
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.names import check_apart, check_name, has_stray_bytes, natural_key
from asperity.runtime.text.tables import decode_table
from asperity.runtime.vision.missing_points import without_missing
from asperity.runtime.vision.picture_files import MAX_FILE_NBYTES, decode_tiff, open_png

SPLITS = ("train", "validation", "test")
GOOD = "good"
LAYOUT = (*SPLITS, GOOD, "rgb", "xyz", "gt")
PICTURES = (".png",)
CLOUDS = (".tiff", ".tif")
PARTS_FILE = "parts.csv"
MISNAMED_PARTS = ("Parts.csv", "PARTS.CSV", "PARTS.csv", "parts.CSV", "parts.csv.txt", "Parts.csv.txt")
MAX_PARTS_NBYTES = 64 * 2**20
PART_ID = re.compile(r"[\x20-\x7e]{1,64}")
"""As in a frame's header (docs/wire.md)."""
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
    with ``rgb/`` and ``xyz/``. Raises DataError for anything else, for an empty folder and for half pairs, and for
    names that a report or another computer could not keep apart.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one in the MVTec 3D-AD layout")
    if has_stray_bytes(str(folder.absolute())):
        raise DataError(f"the path {folder.absolute()} is not UTF-8, so no report could name it; rename the folder")
    _check_layout(folder)
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

    The file names frames by their path below itself (``train/good/003``; also ``train\\good\\003.png``). Rows of frames
    that are not there have no effect. Raises DataError for a file that is not such a table, names a frame twice or does
    not name every sample's part.
    """
    here = folder.resolve()
    places = (here, *here.parents[:2])
    if misnamed := [place / name for place in places for name in MISNAMED_PARTS if os.path.lexists(place / name)]:
        raise DataError(f"{misnamed[0]} is not called {PARTS_FILE}; rename or remove it")
    home = next((place for place in places if os.path.lexists(place / PARTS_FILE)), None)
    if home is None:
        return {}
    path = home / PARTS_FILE
    known = _known_parts(path)
    parts, missing, named = dict[str, str](), [], set()
    for sample in samples:
        below = here.relative_to(home) / sample.rgb.parent.parent.relative_to(folder) / sample.rgb.stem
        name = _frame_name(below.as_posix())
        named.add(name)
        if name in known:
            parts[sample.name] = known[name]
        else:
            missing.append(sample.name)
    if missing:
        other = sorted(set(known) - named, key=natural_key)
        hint = f" (no frame found for its rows {_some(other)})" if other else ""
        raise DataError(f"{path} names no part for {_some(missing)}{hint}; complete it or remove it")
    return parts


def one_sample(file: Path) -> Sample:
    """The frame that ``rgb/NAME.png`` or ``xyz/NAME.tiff`` is half of. Raises DataError."""
    folder, kind = file.parent.parent, file.parent.name
    if kind not in ("rgb", "xyz"):
        raise DataError(f"{file} is not in a folder rgb/ or xyz/, so the other half of the frame cannot be found")
    pictures, clouds = _stems(folder / "rgb", PICTURES), _stems(folder / "xyz", CLOUDS)
    if file not in (pictures.get(file.stem), clouds.get(file.stem)):
        raise DataError(f"{file} is not a picture rgb/NAME.png or points xyz/NAME.tiff; give one of these")
    for half, there in (("rgb", pictures), ("xyz", clouds)):
        if file.stem not in there:
            lacking = folder / half / f"{file.stem}{(PICTURES if half == 'rgb' else CLOUDS)[0]}"
            raise DataError(
                f"{file}: the other half of the frame, {lacking}, is missing; add it or leave this frame out"
            )
    return Sample(file.stem, "", "", pictures[file.stem], clouds[file.stem], None)


def _known_parts(path: Path) -> dict[str, str]:
    """Part ids by the frames' names in ``parts.csv``. Raises DataError."""
    try:
        rows = decode_table(read_file(path, MAX_PARTS_NBYTES, follow=True), ("name", "part_id"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    except TextRefused as error:
        raise DataError(f"{path} {error}") from error
    known, lines = dict[str, str](), dict[str, int]()
    for line, row in rows:
        name, part = _frame_name(row["name"]), row["part_id"]
        if name in known:
            raise DataError(f"{path} names {name} twice, in lines {lines[name]} and {line}; remove one of them")
        if not PART_ID.fullmatch(part):
            raise DataError(
                f"{path}, line {line}: part_id is {part!r}; use 1 to 64 letters, digits and signs of ASCII"
            )
        known[name], lines[name] = part, line
    return known


def _frame_name(text: str) -> str:
    """How ``parts.csv`` and a frame's path are compared: without ``./``, ``rgb/`` and suffix, ``/`` between folders."""
    pieces = [piece for piece in unicodedata.normalize("NFC", text).replace("\\", "/").split("/") if piece != "."]
    stem, dot, suffix = pieces[-1].rpartition(".")
    if stem and dot + suffix.lower() in (*PICTURES, *CLOUDS):
        pieces[-1] = stem
    return "/".join(piece for at, piece in enumerate(pieces) if at != len(pieces) - 2 or piece not in ("rgb", "xyz"))


def _where(folder: Path) -> tuple[str, str]:
    """Split and defect of a leaf folder, read from its path as far as the layout says so."""
    if folder.parent.name in SPLITS:
        return folder.parent.name, folder.name
    return "", ""


def _split(folder: Path, split: str, prefix: str) -> Iterable[Sample]:
    _check_layout(folder)
    for path in folder.iterdir():
        if path.is_dir():
            _check_layout(path)
    leaves = [p for p in folder.iterdir() if (p / "rgb").is_dir() or (p / "xyz").is_dir()]
    check_names(folder, [leaf.name for leaf in leaves])
    for leaf in sorted(leaves, key=lambda p: (p.name != GOOD, natural_key(p.name))):
        yield from _pairs(leaf, split, leaf.name, prefix=f"{prefix}{leaf.name}/")


def _pairs(folder: Path, split: str, defect: str, prefix: str) -> list[Sample]:
    pictures, clouds = _stems(folder / "rgb", PICTURES), _stems(folder / "xyz", CLOUDS)
    for present, absent, what in ((pictures, clouds, "xyz/*.tiff"), (clouds, pictures, "rgb/*.png")):
        half = sorted(set(present) - set(absent), key=natural_key)
        if half:
            check_names(folder, [*pictures, *clouds])
            raise DataError(f"{folder}: {len(half)} frame(s) lack their {what}: {_some(half)}; complete or remove them")
    masks = _stems(folder / "gt", PICTURES)
    return [
        Sample(prefix + stem, split, defect, pictures[stem], clouds[stem], masks.get(stem))
        for stem in sorted(pictures, key=natural_key)
    ]


def _stems(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    found = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".")]
    stems = {path.stem: path for path in found}
    check_names(folder, stems)
    for path in found:
        if stems[path.stem] != path:
            first, second = sorted((path.name, stems[path.stem].name))
            raise DataError(f"{folder} holds both {first} and {second}; remove one of them")
    return stems


def _check_layout(folder: Path) -> None:
    """Raises DataError for a folder whose name is meant as one of the layout's and is spelt in another way."""
    for path in folder.iterdir():
        meant = path.name.strip().casefold()
        if meant in LAYOUT and path.name != meant and path.is_dir():
            raise DataError(f"{folder} holds a folder {path.name!r}; in this layout it is called {meant}; rename it")


def check_names(folder: Path, names: Iterable[str]) -> None:
    """Raises DataError for a name that a report could not hold, and for two that only look different to a computer."""
    names = list(names)
    for name in names:
        try:
            check_name(name)
        except TextRefused as error:
            raise DataError(f"{folder}: the name {name!r} {error}") from None
    try:
        check_apart(names)
    except TextRefused as error:
        raise DataError(f"{folder}: {error}") from None


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
