"""One method on one product from one seed: adapt, fill the banks, score every test frame, and count.

The seed sets which normal frames are fitted on and which are held out, and everything random in the adaptation. No
choice depends on a test frame.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.benchmarks.accuracy.material import Material, Pseudo, Shots
from asperity.benchmarks.accuracy.methods import Method
from asperity.benchmarks.accuracy.metrics import (
    PixelFigures,
    auroc_standard_error,
    average_precision,
    detection_rate,
    pixel_figures,
)
from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.adaptation.trainer import adapt, adapt_patches
from asperity.calibration.auroc import auroc
from asperity.calibration.banks.choice import choose, without_others
from asperity.calibration.banks.coreset import bank_rows
from asperity.calibration.banks.folds import judge_folds
from asperity.calibration.banks.left_out import SpoiledDistances, leave_out
from asperity.calibration.banks.reference import (
    FrameDistances,
    OwnedBanks,
    fit_decision,
    make_bank,
    scored_tokens,
)
from asperity.calibration.features.embedding import frame_of
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.frames.split import split_frames
from asperity.calibration.networks.adaptor import new_adaptors
from asperity.calibration.options import Fusion
from asperity.calibration.outcome.threshold import choose_rate, threshold
from asperity.calibration.profiles import Profile
from asperity.runtime.bundle.banks import Banks as ModalityBanks
from asperity.runtime.cameras.files.folders import GOOD
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import BoolArray, FloatArray, ModalityName
from asperity.runtime.manifest import Decision
from asperity.runtime.vision.distances import measure
from asperity.runtime.vision.maps import pixel_map, source_map
from asperity.runtime.vision.scoring import fused_map, fused_score

Progress = Callable[[str, int, int], None]

MIN_TUNE = 3
"""With fewer held-out frames the standard deviation is not meaningful."""


class DefectFigures(msgspec.Struct, frozen=True):
    """Figures of one type of defect, against all good test frames."""

    frames: int
    i_auroc_fg: float
    detected: float
    """Share above the calibrated threshold."""


class Detection(msgspec.Struct, frozen=True):
    """Rates at the calibrated threshold."""

    stated: float
    """Rate of false rejects the threshold promises: k / (n + 1) of the held-out normal frames, or of their parts."""
    observed: float
    """Share of the good test frames above it."""
    detected: float
    """Share of the defective test frames above it."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one product. ``_fg``: restricted to the part's foreground; None where one cannot be computed.

    Image level: ``i_auroc`` takes the maximum of the whole fused map (None without maps), ``i_auroc_fg`` the runtime's
    own image score, which uses foreground patches only.
    """

    i_auroc: float | None
    i_auroc_fg: float
    p_auroc: float | None
    p_auroc_fg: float | None
    aupro30: float | None
    aupro30_fg: float | None
    aupro05: float | None
    aupro05_fg: float | None
    ap: float
    """Average precision of the image score."""
    i_auroc_rgb: float
    i_auroc_points: float | None = None
    i_auroc_geometry: float | None = None
    i_auroc_height: float | None = None
    i_auroc_descriptor: float | None = None
    """Image score of one modality alone; None: it has not that modality."""
    detected_at_5: float
    """Share of defective frames above the threshold that would reject at most 5 % of the good TEST frames: for
    comparing methods; a station's own threshold is ``detection``."""
    detection: Detection
    shuffled: float
    """``i_auroc_fg`` with the labels shuffled: the control that must lie near 0.5."""
    shuffled_se: float
    per_defect: dict[str, DefectFigures]
    fit_frames: int
    held_out_frames: int
    held_out_auroc: float | None = None
    """Of good test frames against held-out normal ones: near .5 where they are alike, as the stated rate supposes."""
    good: int
    defective: int
    refused: int
    judged_by: list[str] = []
    """The modalities that count."""
    regions: int
    regions_fg: int
    seconds: float
    scores: list[float]
    """Image score of every test frame, in the order of the report's ``frames``; in the ablation's files their ranks."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The scored test frames of one trial, for drawing them."""

    figures: Figures
    maps: list[FloatArray]  # H x W each
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of a trial besides its method."""

    shots: int | None = None
    """Fit on this many normal frames and use no others (few-shot); None: split as in a calibration."""
    alpha: float = 0.05
    """Rate of false rejects of the calibrated threshold, or the lowest attainable one."""
    thresholds: int | None = None
    """Thresholds of the AUPRO; None: all."""
    pixels: bool = True
    """False: image figures only; no maps are computed."""
    whole: bool = True
    """False: pixel figures of the part's foreground alone."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One method's distances of one product, before any fusion: any set of its modalities can be judged by them."""

    material: Material
    seed: int
    banks: OwnedBanks
    fusion: Fusion
    fit_frames: int
    constants: list[FrameDistances]
    """Of held-out frames, for the standardisation."""
    folds: dict[int, FrameDistances]
    spoiled: list[SpoiledDistances]
    """Of fit frames by banks without their parts, and of these frames spoiled; fusion ``squares`` alone has them."""
    calm: list[FrameDistances]
    calm_parts: list[str]
    """Of the frames that set the threshold, and their parts."""
    tested: list[FrameDistances]
    begin_s: float


def run_trial(
    material: Material, method: Method, config: AdaptationConfig | None, chosen: Profile, seed: int, settings: Settings,
    progress: Progress, kept: Path | None = None, auto: bool = False,
) -> Judged:  # fmt: skip
    """``kept``: folder of adaptations, which are resumed or reused. ``auto``: pseudo-defects choose the modalities.

    Raises CalibrationError when there are too few frames, or when features collapse.
    """
    measured = measure_trial(material, method, config, chosen, seed, settings, progress, kept)
    return judge_by(chosen_by(measured) if auto else tuple(measured.banks), measured, settings)


def measure_trial(
    material: Material, method: Method, config: AdaptationConfig | None, chosen: Profile, seed: int, settings: Settings,
    progress: Progress, kept: Path | None = None,
) -> Measured:  # fmt: skip
    """Everything up to the distances. Raises as ``run_trial``."""
    begin = time.monotonic()
    normal, test, pseudo = material.normal, material.test, material.pseudo
    fit, tune, held_out = _split(normal, seed, settings)
    checkpoint = None
    if kept is not None and config is not None:
        kept.mkdir(parents=True, exist_ok=True)
        said = f"{material.key} {fit} {msgspec.json.encode(config).decode()}"
        checkpoint = kept / f"{material.name}-{hashlib.sha256(said.encode()).hexdigest()[:16]}.safetensors"
    transform = _adapted(normal.patches.subset(fit), config, chosen, progress, checkpoint)

    def against(shots: Shots | Pseudo, index: int, own: ModalityBanks) -> FrameDistances:
        one = transform(shots.patches.subset([index]))
        return FrameDistances(*measure(frame_of(one, 0), shots.inspect[index], own))

    def fill(frames: list[int]) -> OwnedBanks:
        return _fill(transform(normal.patches.subset(frames)), normal.inspect[frames], frames, method, chosen, progress)

    banks = fill(fit)

    def distances(shots: Shots, indices: Sequence[int], leave_out: bool, what: str) -> list[FrameDistances]:
        found = []
        for done, index in enumerate(indices, start=1):
            own = {name: bank.without(index) if leave_out else bank.bank for name, bank in banks.items()}
            found.append(against(shots, index, own))
            progress(what, done, len(indices))
        return found

    few = settings.shots is not None
    tuned = distances(normal, tune, few, "held-out frames")
    fusion = method.fusion or chosen.fusion
    folds: dict[int, FrameDistances] = {}
    spoiled: list[SpoiledDistances] = []
    if fusion == "squares":

        def judge(index: int, owned: OwnedBanks) -> FrameDistances:
            own = {name: bank.bank for name, bank in owned.items()}
            for row in np.flatnonzero(pseudo.frames == index):
                spoiled.append(SpoiledDistances(index, pseudo.kinds[row], against(pseudo, int(row), own)))
            return against(normal, index, own)

        folds = judge_folds(fit, [normal.parts[i] or normal.names[i] for i in fit], fill, judge)
    return Measured(
        material, seed, banks, fusion, len(fit),
        constants=[] if few and fusion == "squares" else tuned,  # few-shot: the folds hold the same frames
        folds=folds, spoiled=spoiled,
        calm=tuned if few else distances(normal, held_out, False, "held-out frames"),
        calm_parts=[normal.parts[i] or normal.names[i] for i in (tune if few else held_out)],
        tested=distances(test, range(len(test)), False, "test frames"), begin_s=begin,
    )  # fmt: skip


def chosen_by(measured: Measured) -> tuple[ModalityName, ...]:
    """The modalities that pseudo-defects on fit frames choose, as in a calibration. Raises CalibrationError."""
    constants = [*measured.folds.values(), *measured.constants]
    return choose(fit_decision(constants, measured.banks, measured.fusion), measured.folds, measured.spoiled)[0]


def judge_by(names: tuple[ModalityName, ...], measured: Measured, settings: Settings) -> Judged:
    """The figures by these modalities."""
    material, folds, spoiled = measured.material, measured.folds, measured.spoiled
    constants = [*folds.values(), *measured.constants]

    def narrow(frames: Sequence[FrameDistances]) -> list[FrameDistances]:
        return [without_others(one, names) for one in frames]

    banks = {name: measured.banks[name] for name in names}
    decision = fit_decision(narrow(constants), banks, measured.fusion)
    if measured.fusion == "squares":  # weights of 0 or 1
        alone = [replace(one, distances=without_others(one.distances, names)) for one in spoiled]
        decision = leave_out(decision, dict(zip(folds, narrow(list(folds.values())), strict=True)), alone)[0]
    tested = narrow(measured.tested)
    calm = [fused_score(one.modalities, decision) for one in narrow(measured.calm)]
    maps = _maps(tested, material.test, decision) if settings.pixels else []
    figures = _figures(material, tested, decision, (calm, measured.calm_parts), maps, settings, measured.seed)
    figures = msgspec.structs.replace(
        figures, fit_frames=measured.fit_frames, held_out_frames=len(calm),
        seconds=round(time.monotonic() - measured.begin_s, 1),
    )  # fmt: skip
    return Judged(figures, maps, np.array(figures.scores))


def _split(normal: Shots, seed: int, settings: Settings) -> tuple[list[int], list[int], list[int]]:
    """(fit, tune, held out) frames. Few-shot: the same frames for all, each measured without its own rows."""
    if settings.shots is not None:
        if settings.shots < MIN_TUNE or settings.shots > len(normal):
            raise CalibrationError(
                f"--shots {settings.shots}: there are {len(normal)} normal frames; give {MIN_TUNE} to {len(normal)}"
            )
        chosen = sorted(int(i) for i in np.random.default_rng(seed).permutation(len(normal))[: settings.shots])
        return chosen, chosen, chosen
    # Frames that name no part are taken for parts of their own: they are then drawn by seed, not cut by time.
    parts = normal.parts if all(normal.parts) else normal.names
    split = split_frames(parts, seed=seed)
    return list(split.fit), list(split.tune), list(split.calibrate)


def _adapted(
    fit: PatchSet, config: AdaptationConfig | None, chosen: Profile, progress: Progress, checkpoint: Path | None
) -> Callable[[PatchSet], PatchSet]:
    """Frozen patches -> the method's patches."""
    if config is None:
        return lambda patches: patches
    adaptation = adapt(fit, chosen, config, lambda done, steps: progress("adapt", done, steps), checkpoint)
    rgb, points = new_adaptors(chosen)
    rgb.load_state_dict(adaptation.rgb_state)
    points.load_state_dict(adaptation.points_state)
    return lambda patches: adapt_patches(patches, rgb, points)


def _fill(
    patches: PatchSet, inspect: BoolArray, frames: Sequence[int], method: Method, chosen: Profile, progress: Progress
) -> OwnedBanks:
    tokens = scored_tokens(patches, patches.nonempty & inspect)
    rows = bank_rows(chosen, len(patches))
    if method.bank_share is not None:
        rows = {name: max(3, round(method.bank_share * int(mask.sum()))) for name, mask in tokens.items()}
    if method.distances is not None:
        chosen = replace(chosen, distances=method.distances)
    if not method.whitening:
        chosen = replace(chosen, whitening=None)
    owners = np.asarray(frames, dtype=np.int64)
    return {
        name: make_bank(
            name, patches.features[name][mask], np.repeat(owners, mask.sum(axis=1)), rows[name], chosen,
            progress=partial(progress, f"{name} bank"),
        )
        for name, mask in tokens.items()
    }  # fmt: skip


def _maps(tested: Sequence[FrameDistances], test: Shots, decision: Decision) -> list[FloatArray]:
    """Fused maps on the source frames; outside the window: the map's own minimum."""
    height_px, width_px = test.truth.shape[1:]
    maps = []
    for index, one in enumerate(tested):
        pixels = pixel_map(fused_map(one.modalities, decision))
        maps.append(source_map(pixels, test.window(index), height_px, width_px, outside=float(pixels.min())))
    return maps


def _figures(
    material: Material, tested: Sequence[FrameDistances], decision: Decision,
    calm: tuple[Sequence[float], Sequence[str]], maps: list[FloatArray], settings: Settings, seed: int,
) -> Figures:  # fmt: skip
    test = material.test
    scores = np.array([fused_score(one.modalities, decision) for one in tested])
    peaks = np.array([float(one.max()) for one in maps])
    defects = np.array(test.defects)
    good = defects == GOOD
    held_out, parts = calm
    lowest = 1 / (len(set(parts)) + 1)
    rate = choose_rate(len(held_out), max(settings.alpha, lowest), parts=len(set(parts)))
    limit = threshold(held_out, rate, parts)
    whole = inside = PixelFigures(None, None, None, 0)
    if maps:
        truths, foregrounds = list(test.truth), list(test.foreground)
        if settings.whole:
            whole = pixel_figures(maps, truths, None, settings.thresholds)
        inside = pixel_figures(maps, truths, foregrounds, settings.thresholds)
    shuffled = np.random.default_rng(seed).permutation(good)

    def alone(name: ModalityName) -> float:
        one = np.array([frame.modalities[name].image_distance for frame in tested])
        return auroc(one[good], one[~good])

    return Figures(
        i_auroc=auroc(peaks[good], peaks[~good]) if maps else None,
        i_auroc_fg=auroc(scores[good], scores[~good]),
        p_auroc=whole.p_auroc, p_auroc_fg=inside.p_auroc, aupro30=whole.aupro30, aupro30_fg=inside.aupro30,
        aupro05=whole.aupro05, aupro05_fg=inside.aupro05,
        ap=average_precision(scores[good], scores[~good]),
        **{f"i_auroc_{name}": alone(name) for name in decision.modalities()},
        detected_at_5=detection_rate(scores[good], scores[~good], 0.05),
        detection=Detection(
            stated=rate.alpha,
            observed=float((scores[good] > limit).mean()),
            detected=float((scores[~good] > limit).mean()),
        ),
        shuffled=auroc(scores[shuffled], scores[~shuffled]),
        shuffled_se=auroc_standard_error(int(good.sum()), int((~good).sum())),
        per_defect={
            str(kind): DefectFigures(
                frames=int((defects == kind).sum()),
                i_auroc_fg=auroc(scores[good], scores[defects == kind]),
                detected=float((scores[defects == kind] > limit).mean()),
            )
            for kind in sorted(set(test.defects) - {GOOD})
        },
        fit_frames=0, held_out_frames=0, held_out_auroc=auroc(np.array(held_out), scores[good]),
        good=int(good.sum()), defective=int((~good).sum()), refused=len(material.refused),
        judged_by=[name for name, one in decision.modalities().items() if one.weight > 0],
        regions=whole.regions, regions_fg=inside.regions, seconds=0.0,
        scores=[round(float(score), 5) for score in scores],
    )  # fmt: skip
