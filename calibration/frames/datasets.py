"""Frames on disk with what is known of them: the source of a calibration or an evaluation.

Layouts: MVTec 3D-AD with its official splits (lsfa 1.1), a class of Eyecandies (1.4), and folders of recorded frames of
any format (``cameras.files``), which all count as normal. Frames are read one by one, when asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asperity.calibration.frames import eyecandies
from asperity.runtime.cameras.files.folders import GOOD, list_samples
from asperity.runtime.cameras.files.parts import read_parts
from asperity.runtime.cameras.files.pictures import read_mask
from asperity.runtime.cameras.files.samples import Sample, read_sample
from asperity.runtime.errors import DataError, UsageError
from asperity.runtime.frame import BoolArray, Frame, MissingPoint, Unit
from asperity.runtime.vision.missing_points import without_missing


@dataclass(frozen=True, slots=True)
class Item:
    """One frame of a data set, not yet read."""

    sample: Sample
    part_id: str
    """The physical part it shows; empty where nothing says so."""
    unit: Unit | None
    invalid: Sequence[MissingPoint] = ()
    """What is stored for a missing point."""

    @property
    def name(self) -> str:
        """What ``--exclude`` calls it: ``train/good/003``."""
        return self.sample.name

    @property
    def defect(self) -> str:
        """``good``, or the defect's name."""
        return self.sample.defect or GOOD

    @property
    def is_normal(self) -> bool:
        """Whether the data set calls it good."""
        return self.defect == GOOD

    def frame(self, seq: int = 0) -> Frame:
        """Read it. Raises DataError for unreadable files."""
        if self.sample.xyz.name == self.sample.rgb.name.removesuffix(eyecandies.IMAGE) + eyecandies.DEPTH:
            return without_missing(eyecandies.read_frame(self.sample, seq=seq), self.invalid)
        return read_sample(
            self.sample, camera="dataset", seq=seq, part_id=self.part_id, unit=self.unit,
            invalid=self.invalid,
        )  # fmt: skip

    def mask(self, shape_px: tuple[int, int]) -> BoolArray | None:
        """The true mask (H x W), None where there is none. Raises DataError when its size is not ``shape_px``."""
        if self.sample.gt is None:
            return None
        mask = read_mask(self.sample.gt)
        if mask.shape != shape_px:
            raise DataError(f"{self.sample.gt} has {mask.shape} pixels but its frame {shape_px}; they must agree")
        return mask


@dataclass(frozen=True, slots=True)
class Dataset:
    """A source's frames in natural order of their names, which is taken for the order of time."""

    source: Path
    items: tuple[Item, ...]

    def normal(self) -> tuple[Item, ...]:
        """Frames to calibrate from: ``train/good``, then ``validation/good``, or all of a recorded folder.

        Raises DataError when there are none, and when train or validation holds anything but ``good``.
        """
        chosen = [item for item in self.items if item.sample.split != "test"]
        other = sorted({f"{item.sample.split}/{item.defect}" for item in chosen if not item.is_normal})
        if other:
            raise DataError(f"{self.source} holds {', '.join(other)}: only good frames may be calibrated from")
        if not chosen:
            raise DataError(f"{self.source} holds no normal frames (train/good); give the product's folder")
        return tuple(chosen)

    def validation(self) -> tuple[bool, ...]:
        """For each frame of ``normal``: does it come from ``validation/good``?"""
        return tuple(item.sample.split == "validation" for item in self.normal())

    def test(self) -> tuple[Item, ...]:
        """Frames to evaluate on, good and bad. Raises DataError when there are none."""
        chosen = tuple(item for item in self.items if item.sample.split == "test")
        if not chosen:
            raise DataError(f"{self.source} holds no test frames (test/<defect>); give the product's folder")
        return chosen


def open_dataset(
    source: Path, *, unit: Unit | None = None, exclude: Iterable[str] = (), invalid: Sequence[MissingPoint] = ()
) -> Dataset:
    """List a source. ``unit``: of its points, None if not known. ``exclude``: names of frames to leave out, whole
    (``train/good/003``) or, where only one normal frame is called so, in short (``003``). ``invalid``: what is stored
    for a missing point.

    Raises DataError for a source that is not a data set, a wrong ``parts.csv``, or an excluded name that is not there.
    """
    if eyecandies.is_class(source):
        samples, parts = eyecandies.list_samples(source), dict[str, str]()
        unit = eyecandies.UNIT
    else:
        samples = list_samples(source)
        parts = read_parts(source, samples)
    items = [Item(sample, parts.get(sample.name, ""), unit, invalid) for sample in samples]
    left_out = {_excluded(name, items, source) for name in exclude}
    return Dataset(source, tuple(item for item in items if item.name not in left_out))


def check_exclude(exclude: Sequence[str], products: int, remedy: str) -> None:
    """Raises UsageError where names of frames are given for several products, which have frames of the same names."""
    if exclude and products > 1:
        raise UsageError(f"--exclude names frames of one product and there are {products}; {remedy}")


def _excluded(name: str, items: list[Item], source: Path) -> str:
    normal = [item.name for item in items if item.sample.split != "test"]
    if name in normal:
        return name
    named = [one for one in normal if one.endswith(f"/{name}")]
    if not named:
        like = f"names look like {normal[0]}" if normal else "it holds no normal frame at all"
        raise DataError(f"--exclude {name}: {source} holds no such normal frame; {like}")
    if len(named) > 1:
        raise DataError(f"--exclude {name} is ambiguous: it may mean {' or '.join(named)}; give the whole name")
    return named[0]
