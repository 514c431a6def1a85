"""Frames that came later, added to a calibration. Networks, geometry, options and adaptors stay; the rest is new.

    earlier frames (kept) + later frames -> roles -> banks -> tuning -> threshold and shape -> a new folder

The promise is about good parts as they come. It needs later frames that nobody chose by their verdict: with accepted
frames alone the new threshold would lie below the earlier one, and again after every further refit. Whether frames were
left out cannot be seen, so it is asked for; what chance says of how many lie above the earlier threshold is reported.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from scipy.stats import betabinom

from asperity.calibration.banks.reference import Reference
from asperity.calibration.calibrate import FOLDER, Stages, conclude, no_progress
from asperity.calibration.features.embedding import embed, frame_of
from asperity.calibration.features.kept_patches import KeptPatches
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.frames.datasets import Item, open_dataset
from asperity.calibration.frames.missing_points import refuse_undeclared
from asperity.calibration.frames.parts import tell_parts
from asperity.calibration.frames.prepare_normals import Normals, Progress, prepare_usable
from asperity.calibration.frames.silhouette import learn_shape
from asperity.calibration.frames.split import Split, split_further
from asperity.calibration.networks.torch_networks import TorchNetworks, restore
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.outcome.folder import write_folder
from asperity.calibration.outcome.kept_frames import Kept, KeptFrame, read_kept, write_kept
from asperity.calibration.outcome.resumable import job_digest, working
from asperity.calibration.outcome.threshold import choose_rate, worst_scores
from asperity.calibration.profiles import profile
from asperity.calibration.record import RECORD, CalibrationFolder, Refit, RefusedFrame, SplitName, load_folder
from asperity.calibration.report.write import write_report
from asperity.runtime.cameras.files.folders import GOOD
from asperity.runtime.cameras.files.pictures import read_mask
from asperity.runtime.cameras.files.samples import Sample
from asperity.runtime.errors import CalibrationError, DataError, UsageError
from asperity.runtime.frame import MM_PER_UNIT, Prepared
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.distances import measure
from asperity.runtime.vision.features import Patches, adapted_patches, frozen_patches
from asperity.runtime.vision.preprocess import Masks
from asperity.runtime.vision.scoring import fused_score
from asperity.runtime.vision.units import PLAUSIBLE_DEPTH_MM, median_depth

CHECKED_FRAMES = 2
"""Earlier frames whose kept patches are computed again and compared."""
PATCHES_DIFFER = 1e-3
"""Largest difference in units of the patches' spread: another version of torch rounds otherwise."""
OTHER_UNIT = 30.0
"""Depths that many times those of the earlier frames are of another unit: units are 1000 apart."""


@dataclass(frozen=True, slots=True)
class _Together:
    """Earlier and later frames in the order fit, tune, calibrate."""

    normals: Normals
    split: Split
    places: tuple[int, ...]
    """Of each frame: its index among the kept ones, or -1 of a later frame."""
    excluded: tuple[str, ...]
    """Earlier frames that were left out now."""
    excluded_calibrate: tuple[str, ...]


def refit(
    earlier: Path, source: Path, out_dir: Path, progress: Progress = no_progress, *, unselected: bool,
    alpha: float | None = None, exclude: Sequence[str] = (), exclude_earlier: Sequence[str] = (), force: bool = False,
) -> CalibrationFolder:  # fmt: skip
    """Write ``out_dir/calibration`` from the calibration folder ``earlier`` and the frames below ``source``.

    ``unselected``: the caller says that the later frames are all of their time, whatever the verdict on them was, but
    for those in ``exclude``, which show bad parts. ``exclude_earlier``: frames of the earlier calibration that show bad
    parts. ``alpha``: another rate; None: as it was asked for then.
    Raises UsageError without ``unselected`` and where the target is ``earlier``, DataError, CalibrationError (frames of
    another camera, size or unit, the same frames again).
    """
    if not unselected:
        raise UsageError(
            "the promise needs all parts of a time, not only those that were accepted: say with --unselected that "
            "frames of the later parts were kept whatever their verdict, and name those of bad parts with --exclude"
        )
    target = Path(out_dir) / FOLDER
    if target.absolute().resolve() == earlier.absolute().resolve():
        raise UsageError(f"{target} is the earlier calibration, which stays as it is; name another folder with -o")
    calibration = load_folder(earlier)
    if calibration.record.options.views:
        raise UsageError(
            f"{earlier} was calibrated with --views, which are made of whole source frames, and these are not kept; "
            "calibrate again from all frames"
        )
    kept = read_kept(calibration)
    stages = Stages()
    with working(target, force) as work:
        asked = calibration.record.options.alpha if alpha is None else alpha
        # Defects are put into source frames, and of the earlier frames these are not kept.
        options = msgspec.structs.replace(calibration.record.options, alpha=asked, smallest_defect=False)
        with stages("read and prepare"):
            later = _Later.read(source, calibration, options, exclude, [one.name for one in kept.record.frames])
            together = _together(kept, calibration, later, exclude_earlier, options, progress)
        options = msgspec.structs.replace(options, exclude=(*options.exclude, *later.excluded, *together.excluded))
        normals, split = together.normals, together.split
        shapes = [one.silhouette for one in normals.prepared]
        shape = learn_shape(
            [shapes[i] for i in (*split.fit, *split.tune)], [shapes[i] for i in split.calibrate], normals.geometry
        )
        rate = choose_rate(len(split.calibrate), options.alpha, shape.widened, split.calibrate_parts)
        record = calibration.record
        with stages("networks"):
            networks = restore(
                profile(options.profile), calibration.networks_path, record.weights, device=options.device
            )
        with stages("frozen patches"):
            work.begin(job_digest(options, None, normals.prepared, record.network, networks.origins))
            files = work.patches(len(normals.prepared), record.network)
            reused = _reuse(kept, together, files, record.network, networks)
            frozen = embed(normals.prepared, record.network, networks, lambda a, b: progress("patches", a, b), files)
        with stages("earlier threshold"):
            found = _against_earlier(calibration, together, frozen, networks, reused)
        reference = Reference(record.network, networks, frozen, normals.prepared, normals.parts.of_frames)
        outcome = conclude(
            options, normals, split, shape, rate, reference, None, stages, progress, found, record.decision
        )
        outcome = replace(outcome, choice=record.choice)
        written = write_folder(outcome, Path(record.source), work.draft)
        write_report(outcome, written, work.draft / "report")
        write_kept(outcome, work)
    return CalibrationFolder(target, written)


@dataclass(frozen=True, slots=True)
class _Later:
    """The frames that came later, as files."""

    items: tuple[Item, ...]
    excluded: tuple[str, ...]
    """Names of those that were left out."""

    @classmethod
    def read(
        cls, source: Path, calibration: CalibrationFolder, options: CalibrateOptions, exclude: Sequence[str],
        earlier: Sequence[str],
    ) -> _Later:  # fmt: skip
        """List them, named after their folder, so that no name is that of an earlier frame. Raises DataError."""
        name = source.absolute().name
        tried = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        prefix = next(one for one in tried if not any(other.startswith(f"{one}/") for other in earlier))
        left_out = [one.removeprefix(f"{prefix}/") for one in exclude]
        dataset = open_dataset(source, unit=options.unit, exclude=left_out, invalid=options.invalid or ())
        items = tuple(
            replace(item, sample=replace(item.sample, name=f"{prefix}/{item.name}")) for item in dataset.normal()
        )
        return cls(items, tuple(f"{prefix}/{one}" for one in left_out))


def _together(
    kept: Kept, calibration: CalibrationFolder, later: _Later, exclude_earlier: Sequence[str],
    options: CalibrateOptions, progress: Progress,
) -> _Together:  # fmt: skip
    """Prepare the later frames as the earlier ones were, find out which parts they show and what they serve for."""
    frames, geometry = kept.record.frames, calibration.record.geometry
    excluded = {_earlier_name(name, [one.name for one in frames]) for name in exclude_earlier}
    stay = [index for index, one in enumerate(frames) if one.name not in excluded]
    masks = _masks(calibration)
    if options.invalid != ():
        refuse_undeclared(later.items, options.unit, progress, "calibrate again, from all frames and with")
    _refuse_other_camera(later.items[0], geometry, kept.prepared)
    seen = {digest: one.name for one in frames for digest in one.digests}
    usable = prepare_usable(
        later.items, geometry, calibration.record.network, masks, progress, seen, calibration.heights()
    )
    if not usable.kept:
        raise CalibrationError("no usable frame is left to add; see why they were refused, and record more")

    items = (*(_kept_item(frames[i], calibration) for i in stay), *(later.items[i] for i in usable.kept))
    prepared = (*(kept.prepared[i] for i in stay), *usable.prepared)
    digests = (*(frames[i].digests for i in stay), *usable.digests)
    parts = tell_parts([item.name for item in items], [item.part_id for item in items], prepared, geometry)
    # Earlier frames keep part and role: a later frame of their part joins them, unless they serve in two sets already.
    homes: dict[str, dict[SplitName, str]] = {}
    for label, place in zip(parts.of_frames, stay, strict=False):
        homes.setdefault(label, {}).setdefault(frames[place].split, frames[place].part)
    torn = [i for i in range(len(stay), len(items)) if len(homes.get(parts.of_frames[i], {})) > 1]
    members = [i for i in range(len(items)) if i not in torn]
    own = [frames[stay[i]] if i < len(stay) else None for i in members]
    labels = [
        one.part if one else next(iter(homes.get(parts.of_frames[i], {}).values()), parts.of_frames[i])
        for i, one in zip(members, own, strict=True)
    ]
    served = [one.split if one else None for one in own]
    roles = split_further(labels, served, seed=options.seed, by_time=not parts.named)
    if alone := options.held_out == "leave_one_out":
        roles = tuple("fit" if role == "calibrate" else role for role in roles)
    order = sorted(range(len(members)), key=lambda position: ("fit", "tune", "calibrate").index(roles[position]))
    of_frames = tuple(labels[position] for position in order)
    ends = roles.count("fit"), roles.count("fit") + roles.count("tune")
    fit, tune = tuple(range(ends[0])), tuple(range(*ends))
    calibrate = fit if alone else tuple(range(ends[1], len(order)))
    told = parts.named or len(set(labels)) < len(labels)
    how = f"as before; the {len(usable.kept)} later ones {'by part' if parts.named else 'by contiguous blocks of time'}"
    repeated = [RefusedFrame(items[i].name, Reason.FROZEN_IMAGE.name, "its part serves in two sets") for i in torn]
    chosen = [members[position] for position in order]
    return _Together(
        Normals(
            geometry, calibration.record.network, masks, tuple(items[i] for i in chosen),
            tuple(prepared[i] for i in chosen),
            (False,) * len(chosen), (*usable.refused, *repeated), replace(parts.in_order(chosen), of_frames=of_frames),
            tuple(digests[i] for i in chosen), calibration.heights(),
        ),
        Split(fit, tune, calibrate, how, len({of_frames[i] for i in calibrate}) if told else 0),
        tuple(stay[i] if i < len(stay) else -1 for i in chosen),
        tuple(sorted(excluded)),
        tuple(one.name for one in frames if one.name in excluded and one.split == "calibrate"),
    )  # fmt: skip


def _earlier_name(name: str, names: Sequence[str]) -> str:
    found = [one for one in names if one == name] or [one for one in names if one.endswith(f"/{name}")]
    if len(found) != 1:
        what = f"it may mean {' or '.join(found)}" if found else f"names look like {names[0]}"
        raise DataError(f"--exclude-earlier {name} names no one frame of the earlier calibration: {what}")
    return found[0]


def _kept_item(one: KeptFrame, calibration: CalibrationFolder) -> Item:
    """An earlier frame; its source is at hand where it became a golden one."""
    golden = next((each.name for each in calibration.record.golden if each.source_name == one.name), "")
    rgb, xyz = calibration.golden_paths(golden or "not kept")
    return Item(Sample(one.name, "", GOOD, rgb, xyz, None), one.part_id, calibration.record.geometry.unit)


def _masks(calibration: CalibrationFolder) -> Masks:
    geometry, paths = calibration.record.geometry, calibration.mask_paths()
    read = {name: read_mask(path) for name, path in paths.items()}
    return Masks(inspect=read.get(geometry.inspect_mask or ""), ignore=read.get(geometry.ignore_mask or ""))


def _refuse_other_camera(item: Item, geometry: Geometry, earlier: Sequence[Prepared]) -> None:
    """By the first frame, with a name for what differs: what ``prepare`` says of each frame would come later.

    Raises CalibrationError for another size or unit.
    """
    frame = item.frame()
    height_px, width_px = frame.shape_px
    if (height_px, width_px) != (geometry.height_px, geometry.width_px):
        raise CalibrationError(
            f"{item.name} is {width_px} x {height_px} pixels and the earlier frames are {geometry.width_px} x "
            f"{geometry.height_px}: set the camera as it was, or calibrate again"
        )
    if frame.unit not in (None, geometry.unit):
        raise CalibrationError(
            f"{item.name} is in {frame.unit} and the earlier frames are in {geometry.unit}: record them in one unit, "
            "or calibrate again"
        )
    depths = np.concatenate([one.cloud[..., 2][one.cloud.any(axis=2)] for one in earlier[:CHECKED_FRAMES]])
    usual_mm, depth_mm = abs(float(np.median(depths))), abs(median_depth(frame)) * MM_PER_UNIT[geometry.unit]
    if usual_mm > PLAUSIBLE_DEPTH_MM[0] and not usual_mm / OTHER_UNIT < depth_mm < usual_mm * OTHER_UNIT:
        raise CalibrationError(
            f"{item.name} lies at {depth_mm:.4g} mm if its points are in {geometry.unit}, and the earlier frames at "
            f"{usual_mm:.4g} mm: the points are in another unit; convert them, or calibrate again"
        )


def _reuse(
    kept: Kept, together: _Together, files: KeptPatches, network: Network, networks: TorchNetworks
) -> int:
    """Take the earlier frames' patches over; how many. Raises CalibrationError where they cannot be made again."""
    earlier = kept.patches(network)
    if earlier is None:
        return 0
    for place in range(min(CHECKED_FRAMES, len(kept.prepared))):
        again, was = frozen_patches(kept.prepared[place], network, networks), frame_of(earlier.patches, place)
        if earlier.holds(place) and not _same(again, was):
            raise CalibrationError(
                f"the patches kept of {kept.record.frames[place].name} cannot be made again: another version of torch "
                f"or of the networks computes others. Remove {kept.folder}'s *.f32 to have all computed, or calibrate "
                "again"
            )
    for index, place in enumerate(together.places):
        if place >= 0 and not files.holds(index):
            files.take(index, earlier, place)
    return sum(place >= 0 and files.holds(index) for index, place in enumerate(together.places))


def _same(one: Patches, other: Patches) -> bool:
    return bool((one.nonempty == other.nonempty).all()) and all(
        float(np.abs(values - other.features[name]).max()) <= PATCHES_DIFFER * float(values.std())
        for name, values in one.features.items()
    )


def _against_earlier(
    calibration: CalibrationFolder, together: _Together, frozen: PatchSet, networks: TorchNetworks, reused: int
) -> Refit:
    """What the earlier banks and threshold say of the later parts, and how likely that is if they are like the earlier
    ones: the number above the k-th highest of n is beta-binomial."""
    record, banks, parts = calibration.record, calibration.banks(), together.normals.parts.of_frames
    earlier = {parts[index] for index, place in enumerate(together.places) if place >= 0}
    added = [index for index, place in enumerate(together.places) if place < 0]
    judged = [index for index in added if parts[index] not in earlier]
    scores = []
    for index in judged:
        patches = adapted_patches(frame_of(frozen, index), record.network, networks)
        found, _ = measure(patches, together.normals.prepared[index].inspect, banks)
        scores.append(fused_score(found, record.decision))
    rejects = record.false_rejects
    worst = worst_scores(scores, [parts[index] for index in judged] if rejects.parts else ())
    above = sum(score > record.decision.threshold for score in worst)
    chance = betabinom(len(worst), rejects.allowed, rejects.witnesses + 1 - rejects.allowed)
    return Refit(
        earlier_sha256=hashlib.sha256((calibration.path / RECORD).read_bytes()).hexdigest(),
        earlier_created_us=record.created_us, earlier_threshold=record.decision.threshold, earlier=rejects,
        earlier_frames=record.normal_frames, kept=len(together.places) - len(added), added=len(added),
        patches_reused=reused, excluded_calibrate=together.excluded_calibrate, above_earlier=above,
        judged_earlier=len(worst), chance_of_fewer=float(chance.cdf(above)), chance_of_more=float(chance.sf(above - 1)),
        adaptation=record.adaptation,
    )  # fmt: skip
