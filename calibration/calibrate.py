"""From normal frames to numbers: the whole flow, top to bottom.

read -> geometry -> prepare -> split -> frozen patches -> adapt -> banks -> fusion -> threshold and shape -> folder
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import torch

from asperity.calibration.adaptation.settings import AdaptationConfig, default_config
from asperity.calibration.adaptation.trainer import Adaptation, adapt
from asperity.calibration.banks.choice import narrowed, without_others
from asperity.calibration.banks.reference import FrameDistances, Reference
from asperity.calibration.features.embedding import embed, fit_station_statistics
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.features.surfaces import only
from asperity.calibration.features.views import VIEWS
from asperity.calibration.frames.prepare_normals import (
    Frames,
    Normals,
    Progress,
    fit_first,
    prepare_normals,
    split_normals,
    with_available,
    with_modalities,
)
from asperity.calibration.frames.prepare_normals import narrowed as narrowed_normals
from asperity.calibration.frames.silhouette import Shape, learn_shape
from asperity.calibration.frames.split import Split
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.options import AUTO, CalibrateOptions, Method
from asperity.calibration.outcome.folder import write_folder
from asperity.calibration.outcome.kept_frames import write_kept
from asperity.calibration.outcome.result import Outcome
from asperity.calibration.outcome.resumable import Resumable, job_digest, working
from asperity.calibration.outcome.threshold import Rate, choose_rate, promise, threshold, with_excluded
from asperity.calibration.profiles import Profile, profile, tiled
from asperity.calibration.record import CalibrationFolder, Refit
from asperity.calibration.report.write import write_report
from asperity.calibration.tuning.fuse import fuse, views_of
from asperity.calibration.tuning.modality_cost import frame_ms
from asperity.calibration.tuning.smallest_defect import smallest_defects
from asperity.runtime.errors import UsageError
from asperity.runtime.frame import ModalityName
from asperity.runtime.manifest import Decision, Network, SmallestDefect
from asperity.runtime.vision.features import KNOWN, points_slots
from asperity.runtime.vision.scoring import fused_score

FOLDER = "calibration"


def no_progress(stage: str, done: int, total: int) -> None:
    """Says nothing."""


class Stages:
    """Wall time of each stage, seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - begin, 2)


def calibrate(
    source: Path,
    out_dir: Path,
    options: CalibrateOptions | None = None,
    progress: Progress = no_progress,
    *,
    adaptation: AdaptationConfig | None = None,
    force: bool = False,
) -> CalibrationFolder:
    """Calibrate from the normal frames below ``source`` and write ``out_dir/calibration``, report included.

    What a killed or interrupted call leaves in ``out_dir/calibration.work`` the next one like it resumes from; the
    result is the same (``calibration.work``).
    ``adaptation``: how the adaptors are trained, when not by the profile's default. ``force`` replaces an earlier
    calibration. Raises UsageError (options, or a target that exists), DataError (source, weights, disk),
    CalibrationError (too few frames, a rate not attainable, features without spread), FrameRefused (unit not known).
    """
    options = options or CalibrateOptions()
    _check(options)
    target = Path(out_dir) / FOLDER
    with working(target, force) as work:
        outcome = learn(Path(source), options, work, progress, adaptation)
        record = write_folder(outcome, Path(source), work.draft)
        write_report(outcome, record, work.draft / "report")
        if options.keep_frames:
            write_kept(outcome, work)
    return CalibrationFolder(target, record)


def learn(
    source: Path,
    options: CalibrateOptions,
    work: Resumable,
    progress: Progress = no_progress,
    adaptation: AdaptationConfig | None = None,
) -> Outcome:
    """Everything but writing the calibration folder. Raises as ``calibrate``."""
    chosen = chosen_profile(options)
    stages = Stages()
    with stages("read and prepare"):
        normals = prepare_normals(source, options, chosen, progress)
        split = split_normals(normals, options.held_out, options.seed)
        normals, split = fit_first(normals, split)
        asked, unavailable = asked_modalities(options, chosen), dict[ModalityName, str]()
        if options.modalities == AUTO:
            normals, unavailable = with_available(normals, asked, len(split.fit), progress)
        else:
            normals = with_modalities(normals, asked, len(split.fit), progress)
        shapes = [one.silhouette for one in normals.prepared]
        shape = learn_shape(
            [shapes[i] for i in (*split.fit, *split.tune)], [shapes[i] for i in split.calibrate], normals.geometry
        )
        rate = choose_rate(len(split.calibrate), options.alpha, shape.widened, split.calibrate_parts)

    config: AdaptationConfig | None = None
    if options.method == "lsfa":
        config = msgspec.structs.replace(adaptation or default_config(chosen), seed=options.seed)
    with stages("networks"):
        progress("networks", 0, 1)
        networks, network = _networks(options, chosen, normals, split)
        progress("networks", 1, 1)
    with stages("frozen patches"):
        work.begin(job_digest(options, config, normals.prepared, network, networks.origins))
        kept = work.patches(len(normals.prepared), network)
        if there := kept.count():
            progress(f"resuming from {there} frames' patches of an earlier run", 1, 1)
        frozen = embed(normals.prepared, network, networks, lambda a, b: progress("patches", a, b), kept)
    adapted: Adaptation | None = None
    if config is not None:
        with stages("adaptation"):
            adapted, network = _adapt(frozen, split, chosen, normals, networks, config, progress, work.checkpoint)
    reference = Reference(network, networks, frozen, normals.prepared, normals.parts.of_frames)
    outcome = conclude(options, normals, split, shape, rate, reference, adapted, stages, progress)
    if outcome.choice is not None:
        outcome = replace(outcome, choice=msgspec.structs.replace(outcome.choice, unavailable=unavailable))
    if not options.smallest_defect:
        return outcome
    with stages("smallest defect"):
        found = _smallest_defects(outcome, work.smallest_defect, progress)
    return replace(outcome, smallest_defects=found, stage_s=stages.seconds)


def conclude(
    options: CalibrateOptions, normals: Normals, split: Split, shape: Shape, rate: Rate, reference: Reference,
    adapted: Adaptation | None, stages: Stages, progress: Progress, refit: Refit | None = None,
    earlier: Decision | None = None,
) -> Outcome:  # fmt: skip
    """From frozen patches on: banks, scores, threshold, promise. Raises CalibrationError.

    ``earlier``: a decision whose modalities count as they did; None: pseudo-defects say which do.
    """
    chosen = chosen_profile(options)
    with stages("memory banks"):
        reference.fit_banks(
            split.fit, chosen, seed=options.seed, projection=options.bank_projection, device=options.device,
            progress=progress, views=views_of(normals, reference.network, options),
        )  # fmt: skip
    with stages("scores"):
        distances = _measure(reference, split, options, progress)

    with stages("folds"):
        decision, left_out, choice = fuse(
            reference, normals, split, distances, options, chosen, progress, earlier
        )  # fmt: skip
    if choice is not None:
        with stages("cost of each modality"):
            choice = msgspec.structs.replace(choice, frame_ms=frame_ms(normals, reference))
        names = choice.chosen.modalities
        normals = narrowed_normals(normals, only(reference.network, names))
        reference = narrowed(reference, names, normals.prepared)
        distances = {index: without_others(one, names) for index, one in distances.items()}
    judged = [fused_score(distances[i].modalities, decision) for i in split.calibrate]
    limit = threshold(judged, rate, [normals.parts.of_frames[i] for i in split.calibrate])
    widened_for = tuple(normals.names[split.calibrate[i]] for i in shape.widened_for)
    learnt = () if options.held_out == "leave_one_out" else (*split.fit, *split.tune)
    rejects = promise(
        rate, options.alpha, options.held_out, len(split.calibrate), widened_for, normals.parts.suspected,
        normals.parts.unseen, normals.parts.shown_apart(split.calibrate, learnt),
    )  # fmt: skip
    decision = msgspec.structs.replace(
        decision, threshold=limit, alpha=rate.alpha, alpha_total=rejects.alpha_total,
        calibration_scores=tuple(sorted(judged)), alpha_asked=options.alpha,
    )  # fmt: skip
    calibrated = refit.excluded_calibrate if refit is not None else ()
    rejects = with_excluded(rejects, len(normals.items), len(options.exclude), calibrated)
    return Outcome(
        options, normals, split, reference, decision, rejects, shape, distances, adapted, left_out, stages.seconds,
        refit, choice,
    )  # fmt: skip


def _smallest_defects(outcome: Outcome, kept: Path, progress: Progress) -> tuple[SmallestDefect, ...]:
    """On the calibration frames that are accepted; with leave-one-out the banks hold them, so they show nothing."""
    if outcome.options.held_out == "leave_one_out":
        return ()
    normals = outcome.normals
    accepted = [i for i in outcome.split.calibrate if outcome.score(i) <= outcome.decision.threshold]
    frames = Frames([normals.items[i] for i in accepted])
    return smallest_defects(
        frames, normals.geometry, outcome.rejects, outcome.options.seed,
        lambda done, total: progress("smallest defect", done, total), kept,
    )  # fmt: skip


def chosen_profile(options: CalibrateOptions) -> Profile:
    """The profile with what the options change of it. Raises UsageError."""
    chosen = tiled(profile(options.profile), options.tiles)
    return chosen if options.whitening else replace(chosen, whitening=None)


def _check(options: CalibrateOptions) -> None:
    """Options that no data could make right. Raises UsageError."""
    asked_modalities(options, chosen_profile(options))
    if options.tiles > 1 and options.method == "lsfa":
        raise UsageError(f"--tiles {options.tiles} needs --method frozen: adaptors are trained on whole windows")
    if options.alpha is not None and not 0.0 < options.alpha < 1.0:
        raise UsageError(f"--alpha {options.alpha} cannot be a false-reject rate; give one between 0 and 1, as 0.02")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit} must be 1 or more")
    if not 0 <= options.views <= VIEWS:
        raise UsageError(f"--views {options.views} must be 0 to {VIEWS}")
    if options.strangest < 0:
        raise UsageError(f"--strangest {options.strangest} must be 0 or more")
    try:
        available = torch.device(options.device).type != "cuda" or torch.cuda.is_available()
    except RuntimeError as error:
        raise UsageError(f"--device {options.device} is unknown to torch; give cpu or cuda") from error
    if not available:
        raise UsageError(f"--device {options.device}: torch finds no GPU here; give --device cpu")


def usual_method(profile_name: str, modalities: tuple[str, ...] | None) -> Method:
    """How features are used where nobody says: adapted, where there is something to adapt."""
    return "frozen" if profile_name == "fast" or modalities == AUTO else "lsfa"


def asked_modalities(options: CalibrateOptions, chosen: Profile) -> tuple[ModalityName, ...]:
    """What frames are judged by, in order; all where pseudo-defects choose. Raises UsageError for a set that cannot
    judge."""
    if options.modalities == AUTO:
        if (options.fusion or chosen.fusion) != "squares":
            where = f"--fusion {options.fusion}" if options.fusion else f"--profile {chosen.name}"
            raise UsageError(f"--modalities auto chooses for fusion squares, not for {where}; name the modalities")
        if options.method == "lsfa":
            raise UsageError("--modalities auto: lsfa adapts rgb and points together; give --method frozen")
        return KNOWN
    asked = options.modalities or chosen.modalities
    told = ",".join(asked)
    if strange := [name for name in asked if name not in KNOWN]:
        raise UsageError(f"--modalities {told}: {strange[0]!r} is not known; choose from {', '.join(KNOWN)}")
    if twice := [name for name in KNOWN if asked.count(name) > 1]:
        raise UsageError(f"--modalities {told}: {twice[0]} is named twice")
    if "rgb" not in asked or len(asked) < 2:
        raise UsageError(f"--modalities {told}: name rgb and one or more of {', '.join(KNOWN[1:])}")
    if "points" not in asked and options.method == "lsfa":
        where = f"--modalities {told}" if options.modalities else f"--profile {chosen.name} ({told})"
        raise UsageError(f"{where}: lsfa adapts rgb and points together; add points, or --method frozen")
    return tuple(name for name in KNOWN if name in asked)


def _networks(
    options: CalibrateOptions, chosen: Profile, normals: Normals, split: Split
) -> tuple[TorchNetworks, Network]:
    networks = build(
        chosen,
        rgb_weights=Path(options.rgb_weights) if options.rgb_weights else None,
        point_weights=Path(options.points_weights) if options.points_weights else None,
        seed=options.seed,
        device=options.device,
    )
    network = normals.network
    fit_station_statistics([normals.prepared[i] for i in split.fit], network, networks, chosen)
    if "points" not in network.modalities:
        networks.drop_points()
    return networks, network


def _adapt(
    frozen: PatchSet,
    split: Split,
    chosen: Profile,
    normals: Normals,
    networks: TorchNetworks,
    config: AdaptationConfig,
    progress: Progress,
    checkpoint: Path,
) -> tuple[Adaptation, Network]:
    """Train the adaptors on the fit frames and put them in place; the network's constants with their slots."""
    if checkpoint.exists():
        progress("resuming from an earlier run's checkpoint", 1, 1)
    patches = frozen.subset(slice(0, len(split.fit)))
    adapted = adapt(
        patches, chosen, config,
        lambda done, total: progress("adaptation", done, total), checkpoint, str(networks.device),
    )  # fmt: skip
    rgb, points = networks.new_adaptors(seed=config.seed)
    rgb.load_state_dict(adapted.rgb_state)
    points.load_state_dict(adapted.points_state)
    networks.set_adaptors(rgb, points)
    most = int(frozen.nonempty.sum(axis=(1, 2)).max())
    slots = {"rgb_slots": chosen.rgb_grid**2, "points_slots": points_slots(most, chosen.grid)}
    return adapted, msgspec.structs.replace(normals.network, adaptor="lsfa", **slots)


def _measure(
    reference: Reference, split: Split, options: CalibrateOptions, progress: Progress
) -> dict[int, FrameDistances]:
    """Held-out frames against the banks; the banks' own frames without their rows, where report or rate ask for it."""
    members = split.fit if options.strangest or options.held_out == "leave_one_out" else ()
    wanted = sorted({*members, *split.tune, *split.calibrate})
    owners = set(split.fit)
    found: dict[int, FrameDistances] = {}
    for done, index in enumerate(wanted, start=1):
        found[index] = reference.distances(index, leave_out=index in owners)
        progress("scores", done, len(wanted))
    return found
