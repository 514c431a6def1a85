"""Normal frames, from disk to model inputs: geometry fitted, every frame prepared or refused by name and reason."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import msgspec
import numpy as np
from PIL import Image

from asperity.calibration.features.surfaces import SURFACE_FRAMES, fit_surface
from asperity.calibration.frames.datasets import Item, open_dataset
from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.frames.missing_points import refuse_undeclared
from asperity.calibration.frames.parts import Parts, tell_parts
from asperity.calibration.frames.silhouette import refuse_implausible
from asperity.calibration.frames.split import Split, split_frames
from asperity.calibration.options import CalibrateOptions, HeldOut
from asperity.calibration.profiles import Profile, network_for
from asperity.calibration.record import RefusedFrame
from asperity.runtime.bundle.sizes import fewest_window_px, geometry_fault
from asperity.runtime.cameras.files.pictures import read_mask
from asperity.runtime.errors import CalibrationError, DataError, FrameRefused
from asperity.runtime.frame import BoolArray, Frame, ModalityName, Prepared
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.digest import frame_digest
from asperity.runtime.vision.height_residual import HeightModel
from asperity.runtime.vision.preprocess import Masks, prepare

LOG = logging.getLogger(__name__)

MASK_FILES = {"inspect": "masks/inspect.png", "ignore": "masks/ignore.png"}
REFUSED_MOST = 0.2
"""With a larger share of normal frames refused, something is wrong with the station, not with single frames."""

FLAT = 2.0
"""A picture of no more contrast (of 255) may come from a sensor that takes none: equal ones say nothing."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""

Digest = tuple[int, int]
"""CRC-32 of the whole frame, and of its colour picture."""


@dataclass(frozen=True, slots=True)
class Usable:
    """The frames that preprocessing took, by their place in what was given, and those it refused."""

    kept: tuple[int, ...]
    prepared: tuple[Prepared, ...]
    digests: tuple[Digest, ...]
    refused: tuple[RefusedFrame, ...]


@dataclass(frozen=True, slots=True)
class Normals:
    """The usable normal frames, in order of time."""

    geometry: Geometry
    network: Network
    """Frozen, with what its modalities need."""
    masks: Masks
    items: tuple[Item, ...]
    prepared: tuple[Prepared, ...]
    validation: tuple[bool, ...]
    refused: tuple[RefusedFrame, ...]
    parts: Parts
    digests: tuple[Digest, ...]
    heights: HeightModel | None = None
    """The mean part, where heights are a modality."""

    @property
    def names(self) -> tuple[str, ...]:
        """What ``--exclude`` calls each frame."""
        return tuple(item.name for item in self.items)


class Frames(Sequence[Frame]):
    """Frames of one size, read when asked for, so that never more than one is held here.

    Raises DataError for a frame of another size than the one that was read first.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._first: tuple[str, int, int] | None = None

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | Sequence[Frame]:
        if isinstance(index, slice):
            return Frames(self._items[index])
        item = self._items[index]
        frame = item.frame(seq=int(index))
        if self._first is None:
            self._first = (item.name, *frame.shape_px)
        name, height_px, width_px = self._first
        if frame.shape_px != (height_px, width_px):
            raise DataError(
                f"normal frame {item.name} is {frame.shape_px[1]} x {frame.shape_px[0]} pixels and {name} is "
                f"{width_px} x {height_px}; a recipe needs frames of one size: leave the others out with --exclude, or "
                "record all at one size"
            )
        return frame


def prepare_normals(source: Path, options: CalibrateOptions, chosen: Profile, progress: Progress) -> Normals:
    """List, fit the geometry, prepare every frame.

    A frame that preprocessing refuses, or that repeats another one byte for byte, is left out, named and counted.
    Frames that show one part are kept and count as one (``frames.parts``).
    Raises DataError for a source or mask that cannot be read, CalibrationError when no geometry can be fitted or more
    than a fifth of the frames is refused, FrameRefused when the unit of length cannot be determined. Points that look
    like missing ones and are not declared, and figures that no part has, are CalibrationErrors too.
    """
    dataset = open_dataset(source, unit=options.unit, exclude=options.exclude, invalid=options.invalid or ())
    items, validation = dataset.normal(), dataset.validation()
    if options.limit is not None:
        items, validation = items[: options.limit], validation[: options.limit]
    masks = Masks(inspect=_mask(options.inspect_mask, "inspect"), ignore=_mask(options.ignore_mask, "ignore"))
    if options.invalid != ():
        refuse_undeclared(items, options.unit, progress)
    progress("geometry", 0, 1)
    geometry = fit_geometry(
        Frames(items),
        unit=options.unit,
        method=None if options.geometry == "auto" else options.geometry,
        z=options.z,
        names=[item.name for item in items],
        inspect_mask=MASK_FILES["inspect"] if options.inspect_mask else None,
        ignore_mask=MASK_FILES["ignore"] if options.ignore_mask else None,
    )
    # Around a small part the window is wider than it, or not every patch of the part would be judged.
    side_px = max(geometry.side_px, fewest_window_px(network_for(chosen, geometry, "none")))
    geometry = msgspec.structs.replace(geometry, invalid=options.invalid, side_px=side_px)
    progress("geometry", 1, 1)
    _check_masks(masks, geometry)
    network = network_for(chosen, geometry, "none")
    if fault := geometry_fault(geometry, network):
        raise CalibrationError(f"{fault}; change the camera's distance, crop or binning, and record the frames again")

    found = prepare_usable(items, geometry, network, masks, progress)
    usable = tuple(items[i] for i in found.kept)
    return Normals(
        geometry,
        network,
        masks,
        usable,
        found.prepared,
        tuple(validation[i] for i in found.kept),
        found.refused,
        tell_parts([item.name for item in usable], [item.part_id for item in usable], found.prepared, geometry),
        found.digests,
    )


def prepare_usable(
    items: Sequence[Item], geometry: Geometry, network: Network, masks: Masks, progress: Progress,
    earlier: Mapping[int, str] | None = None, heights: HeightModel | None = None,
) -> Usable:  # fmt: skip
    """Prepare frames; one that preprocessing refuses, or that repeats another to the last bit, is left out and named.

    ``earlier``: digests of frames that are there already, and their names; ``heights`` as in ``prepare``.
    Raises CalibrationError where more than a fifth is refused, or a figure is one that no part has; DataError for
    unreadable files.
    """
    kept: list[int] = []
    prepared: list[Prepared] = []
    digests: list[Digest] = []
    refused: list[RefusedFrame] = []
    seen = dict(earlier or {})
    for index, item in enumerate(items):
        frame = item.frame(seq=index)
        try:
            ready = prepare(frame, geometry, network, masks, heights)
            digests.append(_refuse_repeat(frame, item.name, seen))
            prepared.append(ready)
            kept.append(index)
        except FrameRefused as error:
            refused.append(RefusedFrame(item.name, error.reason.name, str(error)))
            LOG.warning("normal frame %s is refused, %s: %s", item.name, error.reason.name, error)
        progress("prepare", index + 1, len(items))
    copies = sum(one.reason == Reason.FROZEN_IMAGE.name for one in refused)
    if copies > REFUSED_MOST * len(items):
        first = next(one for one in refused if one.reason == Reason.FROZEN_IMAGE.name)
        raise CalibrationError(
            f"{copies} of {len(items)} normal frames repeat another one to the last bit ({first.name}: "
            f"{first.message}), which leaves {len(prepared)} to learn from: see that the camera takes a new picture "
            "each time and that nothing was exported twice, remove the copies, and record more parts, each once"
        )
    if len(refused) > REFUSED_MOST * len(items):
        first = refused[0]
        raise CalibrationError(
            f"{len(refused)} of {len(items)} normal frames were refused, the first {first.name} "
            f"({first.reason}: {first.message}); fix this, or leave the frames out with --exclude"
        )
    refuse_implausible([items[i].name for i in kept], [one.silhouette for one in prepared], geometry)
    return Usable(tuple(kept), tuple(prepared), tuple(digests), tuple(refused))


def split_normals(normals: Normals, held_out: HeldOut, seed: int) -> Split:
    """``split_frames`` of the parts these frames show. Raises CalibrationError that names frames which repeat parts."""
    try:
        return split_frames(
            normals.parts.of_frames, validation=normals.validation, held_out=held_out, seed=seed,
            by_time=not normals.parts.named,
        )  # fmt: skip
    except CalibrationError as error:
        raise CalibrationError(f"{error}{normals.parts.remedy()}") from None


def fit_first(normals: Normals, split: Split) -> tuple[Normals, Split]:
    """Both in the order fit, tune, calibrate, so that each set is one slice of the frames and of their patches."""
    order = [*split.fit, *split.tune, *(i for i in split.calibrate if i not in set(split.fit))]
    place = {old: new for new, old in enumerate(order)}

    def moved(indices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(place[i] for i in indices)

    return (
        replace(
            normals,
            items=tuple(normals.items[i] for i in order),
            prepared=tuple(normals.prepared[i] for i in order),
            validation=tuple(normals.validation[i] for i in order),
            parts=normals.parts.in_order(order),
            digests=tuple(normals.digests[i] for i in order),
        ),
        replace(split, fit=moved(split.fit), tune=moved(split.tune), calibrate=moved(split.calibrate)),
    )


def with_modalities(
    normals: Normals, modalities: tuple[ModalityName, ...], fit: int, progress: Progress
) -> Normals:  # fmt: skip
    """The frames prepared for these modalities, whose constants the first ``fit`` of them give.

    Raises CalibrationError where their surface gives none, DataError.
    """
    if modalities == normals.network.modalities:
        return normals
    chosen = np.unique(np.linspace(0, fit - 1, SURFACE_FRAMES).astype(int))
    network, heights = fit_surface(
        normals.network, modalities, [normals.items[i].frame(seq=int(i)) for i in chosen],
        [normals.prepared[i].window for i in chosen], normals.geometry,
    )  # fmt: skip
    prepared = []
    for index, item in enumerate(normals.items):
        prepared.append(prepare(item.frame(seq=index), normals.geometry, network, normals.masks, heights))
        progress("surfaces", index + 1, len(normals.items))
    return replace(normals, network=network, prepared=tuple(prepared), heights=heights)


def with_available(
    normals: Normals, modalities: tuple[ModalityName, ...], fit: int, progress: Progress
) -> tuple[Normals, dict[ModalityName, str]]:
    """Likewise, without heights that the parts do not give, and why. Raises CalibrationError, DataError."""
    try:
        return with_modalities(normals, modalities, fit, progress), {}
    except CalibrationError as error:
        rest = tuple(name for name in modalities if name != "height")
        return with_modalities(normals, rest, fit, progress), {"height": str(error)}


def narrowed(normals: Normals, network: Network) -> Normals:
    """The frames without what modalities take that ``network`` does not have."""
    gone: dict[str, Any] = {
        name: None for name in ("geometry", "height", "descriptor") if name not in network.modalities
    }
    prepared = tuple(replace(one, **gone) for one in normals.prepared)
    heights = normals.heights if "height" in network.modalities else None
    return replace(normals, network=network, prepared=prepared, heights=heights)


def write_masks(masks: Masks, folder: Path) -> None:
    """The masks as the geometry names them, below ``folder``. Raises OSError."""
    for name, mask in (("inspect", masks.inspect), ("ignore", masks.ignore)):
        if mask is not None:
            path = folder / MASK_FILES[name]
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def _refuse_repeat(frame: Frame, name: str, seen: dict[int, str]) -> Digest:
    """The same file again, or the same exposure exported again: no sensor takes two pictures alike to the last bit."""
    whole, picture = frame_digest(frame), zlib.crc32(np.ascontiguousarray(frame.rgb).data.cast("B"))
    if whole in seen:
        raise FrameRefused(Reason.FROZEN_IMAGE, f"the frame is identical to {seen[whole]}; it would count twice")
    if picture in seen and frame.rgb.std() > FLAT:
        raise FrameRefused(
            Reason.FROZEN_IMAGE, f"the colour picture is identical to that of {seen[picture]}; it would count twice"
        )
    seen[whole] = seen[picture] = name
    return whole, picture


def _mask(path: str | None, name: str) -> BoolArray | None:
    if path is None:
        return None
    mask = read_mask(Path(path))
    if not mask.any() and name == "inspect":
        raise DataError(f"--inspect-mask {path} has no non-zero pixel, so nothing would be inspected")
    if mask.all() and name == "ignore":
        raise DataError(f"--ignore-mask {path} has no zero pixel, so everything would be ignored")
    return mask


def _check_masks(masks: Masks, geometry: Geometry) -> None:
    for name, mask in (("inspect", masks.inspect), ("ignore", masks.ignore)):
        if mask is not None and mask.shape != (geometry.height_px, geometry.width_px):
            raise DataError(
                f"--{name}-mask is {mask.shape[1]} x {mask.shape[0]} pixels and the frames are {geometry.width_px} x "
                f"{geometry.height_px}; draw it on a source frame"
            )
