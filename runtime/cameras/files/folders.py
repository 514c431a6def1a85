"""Folders of recorded frames: the layout of MVTec 3D-AD (lsfa 1.1), and what cameras' programs write.

A product's folder has ``train/good validation/good test/<defect>``; a folder of frames has ``rgb/NNN.png`` and
``xyz/NNN.tiff``, for tests ``gt/NNN.png``, or files of the other formats (``files.grouping``). The layout gives neither
unit nor part: published data are in metres, and values are passed on as stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from asperity.runtime.cameras.files.grouping import find_pattern, group_files, is_word, parse_name
from asperity.runtime.cameras.files.intrinsics import NAMES as INTRINSICS
from asperity.runtime.cameras.files.parts import some
from asperity.runtime.cameras.files.read import POINTS_SUFFIXES
from asperity.runtime.cameras.files.samples import CLOUDS, Sample
from asperity.runtime.errors import DataError
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.names import check_apart, check_name, has_stray_bytes, natural_key

SPLITS = ("train", "validation", "test")
GOOD = "good"
LAYOUT = (*SPLITS, GOOD, "rgb", "xyz", "gt")
PICTURES = (".png",)


def list_samples(folder: Path) -> list[Sample]:
    """All frames below a folder in natural order: train, validation, test; within them ``good`` first.

    Accepted: a product's folder (``train/good validation/good test/<defect>``), one of its splits, or a bare folder
    with ``rgb/`` and ``xyz/`` or with files of another format. Raises DataError for anything else, for an empty folder
    and for half pairs, and for names that a report or another computer could not keep apart.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one that holds frames")
    if has_stray_bytes(str(folder.absolute())):
        raise DataError(f"the path {folder.absolute()} is not UTF-8, so no report could name it; rename the folder")
    _check_layout(folder)
    splits = [split for split in SPLITS if (folder / split).is_dir()]
    if _is_pairs(folder):
        samples = _pairs(folder, *_where(folder), prefix="")
    elif splits:
        samples = [s for split in splits for s in _split(folder / split, folder, split, prefix=f"{split}/")]
    elif _is_leaf(folder):
        samples = _exposures(folder, folder, *_where(folder), prefix="")
    else:
        samples = list(_split(folder, folder, folder.name if folder.name in SPLITS else "", prefix=""))
    if not samples:
        products = sorted(p.name for p in folder.iterdir() if any((p / split).is_dir() for split in SPLITS))
        if products:
            raise DataError(f"{folder} holds several products ({some(products)}); give the folder of one of them")
        raise DataError(
            f"{folder} holds no frames: neither rgb/*.png with xyz/*.tiff, other files of points or depth "
            f"({', '.join(POINTS_SUFFIXES)}), nor train/good, test/<defect>"
        )
    return samples


def one_sample(file: Path) -> Sample:
    """The frame that ``rgb/NAME.png``, ``xyz/NAME.tiff`` or a file of another format is, or is half of.

    Raises DataError.
    """
    folder, kind = file.parent.parent, file.parent.name
    if not (kind in ("rgb", "xyz") and _is_pairs(folder)):
        return _one_exposure(file)
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


def _one_exposure(file: Path) -> Sample:
    folder = file.parent.parent if is_word(file.parent.name) else file.parent
    named = parse_name(file.relative_to(folder).as_posix())
    if named is None:
        raise DataError(f"{file} is not of a format that is read: {', '.join(POINTS_SUFFIXES)}")
    names = [name for name in _names(folder) if (one := parse_name(name)) is not None and one.stem == named.stem]
    for sample in _matched(folder, folder, names, "", "", ""):
        if file in (sample.rgb, sample.xyz):
            return sample
    raise DataError(
        f"{file} is half of a frame, and its points or depth cannot be found: no file of its name is in rgb/ or xyz/ "
        "next to it, nor in its own folder (docs/cameras/files.md)"
    )


def _where(folder: Path) -> tuple[str, str]:
    """Split and defect of a leaf folder, read from its path as far as the layout says so."""
    if folder.parent.name in SPLITS:
        return folder.parent.name, folder.name
    return "", ""


def _split(folder: Path, root: Path, split: str, prefix: str) -> Iterable[Sample]:
    _check_layout(folder)
    for path in folder.iterdir():
        if path.is_dir():
            _check_layout(path)
    leaves = [p for p in folder.iterdir() if p.is_dir() and (_is_pairs(p) or _is_leaf(p))]
    check_names(folder, [leaf.name for leaf in leaves])
    for leaf in sorted(leaves, key=lambda p: (p.name != GOOD, natural_key(p.name))):
        inside = f"{prefix}{leaf.name}/"
        if _is_pairs(leaf):
            yield from _pairs(leaf, split, leaf.name, prefix=inside)
        else:
            yield from _exposures(leaf, root, split, leaf.name, prefix=inside)


def _is_pairs(folder: Path) -> bool:
    """Whether a folder is meant to have ``rgb/*.png`` and ``xyz/*.tiff``."""
    if (folder / "xyz").is_dir():
        suffixes = {path.suffix.lower() for path in (folder / "xyz").iterdir()} & set(POINTS_SUFFIXES)
        return bool(suffixes & set(CLOUDS)) or suffixes <= set(PICTURES)
    return (folder / "rgb").is_dir() and not _is_leaf(folder)


def _is_leaf(folder: Path) -> bool:
    """Whether a folder has files with points or depth, itself or in a folder such as ``cloud/``."""
    files = [one for one in map(parse_name, _names(folder)) if one is not None]
    return any(one.kind == "points" or (not one.kind and one.pattern.endswith(CLOUDS)) for one in files)


def _names(folder: Path) -> list[str]:
    """Files of a folder and of those in it that are called by what they hold, by their path below it."""
    names = []
    for path in folder.iterdir():
        if path.is_dir():
            inside = path.iterdir() if is_word(path.name) else ()
            names += [f"{path.name}/{file.name}" for file in inside if file.is_file()]
        else:
            names.append(path.name)
    return names


def _exposures(folder: Path, root: Path, split: str, defect: str, prefix: str) -> list[Sample]:
    return _matched(folder, root, _names(folder), split, defect, prefix)


def _matched(folder: Path, root: Path, names: list[str], split: str, defect: str, prefix: str) -> list[Sample]:
    try:
        pattern = find_pattern(names)
        groups = group_files(names, pattern) if pattern else []
    except DataError as error:
        raise DataError(f"{folder} {error}") from None
    check_names(folder, [group.stem for group in groups])
    half = [group for group in groups if group.lacking]
    if half:
        lacking = some([group.lacking for group in half])
        raise DataError(f"{folder}: {len(half)} frame(s) lack their {lacking}; complete or remove them")
    masks = _stems(folder / "gt", PICTURES)
    lens = _intrinsics_file(folder, root)
    return [
        Sample(
            prefix + group.stem, split, defect, folder / (group.colour or group.points), folder / group.points,
            masks.get(group.stem), lens,
        )
        for group in groups
    ]  # fmt: skip


def _intrinsics_file(folder: Path, root: Path) -> Path | None:
    """The nearest one: in the folder, or above it up to two levels above the listed folder. Raises DataError."""
    here, top = folder.absolute(), root.absolute()
    places = (here, *here.parents)
    for place in places[: places.index(top) + 3]:
        found = sorted(path for pattern in INTRINSICS for path in place.glob(pattern) if path.is_file())
        if len(found) > 1:
            raise DataError(f"{place} holds {some([path.name for path in found])}; keep the depth camera's alone")
        if found:
            return found[0]
    return None


def _pairs(folder: Path, split: str, defect: str, prefix: str) -> list[Sample]:
    pictures, clouds = _stems(folder / "rgb", PICTURES), _stems(folder / "xyz", CLOUDS)
    for present, absent, what in ((pictures, clouds, "xyz/*.tiff"), (clouds, pictures, "rgb/*.png")):
        half = sorted(set(present) - set(absent), key=natural_key)
        if half:
            check_names(folder, [*pictures, *clouds])
            raise DataError(f"{folder}: {len(half)} frame(s) lack their {what}: {some(half)}; complete or remove them")
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
