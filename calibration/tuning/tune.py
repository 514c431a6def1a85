"""Choosing lr, epochs, T, start and compactness without a real defect (lsfa 11 row 11).

What decides is the AUROC of held-out normal patches against patches of pseudo-defects made from the same frames.
Compactness cannot decide, since a constant would win, and test defects must not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.adaptation.trainer import Adaptation, adapt, adapt_patches
from asperity.calibration.auroc import auroc
from asperity.calibration.banks.coreset import bank_rows
from asperity.calibration.banks.reference import make_bank, scored_tokens
from asperity.calibration.features.embedding import embed, frame_of
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.networks.adaptor import new_adaptors
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.calibration.profiles import Profile
from asperity.calibration.tuning.pseudo_defects import KINDS, Kind, make_pseudo_defect
from asperity.runtime.bundle.banks import Banks
from asperity.runtime.errors import CalibrationError, DataError
from asperity.runtime.files import write_whole
from asperity.runtime.frame import BoolArray, FloatArray, MissingPoint, Prepared
from asperity.runtime.manifest import Network, WeightsOrigin
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json
from asperity.runtime.vision.distances import measure

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""

BANK_CAP = 4096
"""Rows of either bank while tuning: the order of the settings matters here, not the last digit of their scores."""


@dataclass(frozen=True, slots=True)
class TuneSet:
    """Frozen patches of one product: frames to fit on, frames held out, and those again with a pseudo-defect each."""

    name: str
    fit: PatchSet
    held_out: PatchSet
    pseudo: dict[Kind, PatchSet]
    """Frame i is held-out frame i, spoiled."""
    defective: dict[Kind, BoolArray]
    """n x grid x grid: the spoiled patches."""


@dataclass(frozen=True, slots=True)
class Distances:
    """What both banks say of n frames."""

    rgb: FloatArray  # n x grid x grid
    points: FloatArray  # n x grid x grid
    scored: BoolArray  # n x grid x grid
    rgb_image: NDArray[np.float64]  # (n,) re-weighted image distances
    points_image: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of normal distances: what makes both modalities' distances comparable."""

    rgb: tuple[float, float]
    points: tuple[float, float]

    def fuse(self, rgb: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Average of both standardised (lsfa 11 row 14)."""
        return np.asarray(
            0.5 * ((rgb - self.rgb[0]) / self.rgb[1] + (points - self.points[0]) / self.points[1]), dtype=np.float64
        )


class Figures(msgspec.Struct, frozen=True):
    """AUROCs of one setting on one product. Patches: held-out normal ones against spoiled ones."""

    patch_auroc: float
    """Both kinds of pseudo-defect, fused distance: what chooses."""
    geometry_auroc: float
    """Displaced points, distance of the points alone."""
    colour_auroc: float
    """Pasted colours, distance of the RGB alone."""
    image_auroc: float
    """Both kinds, fused image distance."""


class Trial(msgspec.Struct, frozen=True):
    """One row of the sweep's table: a setting on a product. ``config`` None: frozen features."""

    product: str
    config: AdaptationConfig | None
    figures: Figures | None
    """None when the adaptation was stopped; ``stopped`` says why."""
    seconds: float = 0.0
    rgb_spread: float = 1.0
    points_spread: float = 1.0
    stopped: str = ""


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep's file: what it was made of, and its rows as far as they are done."""

    asperity: str
    profile: str
    weights: tuple[WeightsOrigin, ...]
    """The frozen networks that the rows belong to."""
    seed: int
    limit: int | None
    base: AdaptationConfig
    invalid: tuple[MissingPoint, ...] | None = None
    exclude: tuple[str, ...] = ()
    geometry: str = "auto"
    z: str = "auto"
    unit: str | None = None
    frames: dict[str, tuple[int, int]] = {}
    """Product: frames adapted on, frames held out and spoiled once in each way."""
    trials: tuple[Trial, ...] = ()

    def of_same(self, other: Sweep) -> bool:
        """Whether rows of both belong into one table."""
        mine, theirs = (msgspec.structs.replace(one, frames={}, trials=()) for one in (self, other))
        return mine == theirs

    def find(self, product: str, config: AdaptationConfig | None) -> Trial | None:
        """The row of a setting on a product, if it is done."""
        return next((trial for trial in self.trials if (trial.product, trial.config) == (product, config)), None)

    def with_row(self, trial: Trial, tune_set: TuneSet) -> Sweep:
        """One row more."""
        frames = {**self.frames, trial.product: (len(tune_set.fit), len(tune_set.held_out))}
        return msgspec.structs.replace(self, frames=frames, trials=(*self.trials, trial))


def continued(path: Path, sweep: Sweep) -> Sweep:
    """What an earlier run left in the file, or ``sweep`` as it is. Raises DataError when the rows do not fit."""
    if not path.exists():
        return sweep
    try:
        found = decode_json(path.read_bytes(), Sweep)
    except TextRefused as error:
        raise DataError(f"{path} holds no sweep ({error}); name another file with -o") from error
    if not found.of_same(sweep):
        raise DataError(f"{path} was made with other weights, versions, frames or defaults; name another file with -o")
    return found


def keep(path: Path, sweep: Sweep) -> None:
    """Write the file, JSON with a trial a line, whole or not at all. Raises OSError."""
    head = msgspec.json.encode(msgspec.structs.replace(sweep, trials=()))
    rows = b",\n ".join(map(msgspec.json.encode, sweep.trials))
    # The trials are the last field.
    write_whole(path, head.removesuffix(b"]}") + b"\n " + rows + b"]}\n", mode=0o644)


def cache_patches(frames: Sequence[Prepared], network: Network, networks: TorchNetworks) -> PatchSet:
    """Frozen patches of prepared frames, in memory."""
    return embed(frames, network, networks, lambda done, total: None)


def make_tune_set(
    name: str,
    fit: Sequence[Prepared],
    held_out: Sequence[Prepared],
    network: Network,
    networks: TorchNetworks,
    seed: int,
) -> TuneSet:
    """Spoil every held-out frame once in each way and cache all patches. Raises DataError (see pseudo_defects)."""
    rng = np.random.default_rng(seed)
    pseudo, defective = {}, {}
    for kind in KINDS:
        spoiled = [make_pseudo_defect(prepared, kind, rng) for prepared in held_out]
        pseudo[kind] = cache_patches([p.prepared for p in spoiled], network, networks)
        defective[kind] = np.stack([p.defective for p in spoiled])
    return TuneSet(
        name=name,
        fit=cache_patches(fit, network, networks),
        held_out=cache_patches(held_out, network, networks),
        pseudo=pseudo,
        defective=defective,
    )


def make_banks(fit: PatchSet, profile: Profile, cap: int = BANK_CAP) -> Banks:
    """Banks of adapted fit patches, standardised by each modality's own scalars (lsfa 11 rows 15, 16)."""
    rows, frames = bank_rows(profile, len(fit)), np.arange(len(fit))
    return {
        name: make_bank(
            name, fit.features[name][tokens], np.repeat(frames, tokens.sum(axis=1)), min(rows[name], cap), profile
        ).bank
        for name, tokens in scored_tokens(fit, fit.nonempty).items()
    }


def distances(patches: PatchSet, banks: Banks) -> Distances:
    """Every frame measured against both banks."""
    everywhere = np.ones(patches.nonempty.shape[1:], dtype=np.bool_)
    measured = [measure(frame_of(patches, index), everywhere, banks) for index in range(len(patches))]
    return Distances(
        rgb=np.stack([one["rgb"].distance_map for one, _ in measured]),
        points=np.stack([one["points"].distance_map for one, _ in measured]),
        scored=np.stack([scored for _, scored in measured]),
        rgb_image=np.array([one["rgb"].image_distance for one, _ in measured]),
        points_image=np.array([one["points"].image_distance for one, _ in measured]),
    )


def patch_scale(normal: Distances) -> Scale:
    """Scale of scored patches' distances."""
    rgb, points = normal.rgb[normal.scored], normal.points[normal.scored]
    return Scale((float(rgb.mean()), float(rgb.std())), (float(points.mean()), float(points.std())))


def image_scale(normal: Distances) -> Scale:
    """Scale of image distances."""
    rgb, points = normal.rgb_image, normal.points_image
    return Scale((float(rgb.mean()), float(rgb.std())), (float(points.mean()), float(points.std())))


class Judge:
    """The banks of one adapted (or frozen) product, and how it tells normal from spoiled."""

    def __init__(self, tune_set: TuneSet, profile: Profile, adaptation: Adaptation | None) -> None:
        self.adaptors = None
        if adaptation is not None:
            self.adaptors = new_adaptors(profile)
            self.adaptors[0].load_state_dict(adaptation.rgb_state)
            self.adaptors[1].load_state_dict(adaptation.points_state)
        self.banks = make_banks(self.adapted(tune_set.fit), profile)
        self.normal = self.distances(tune_set.held_out)
        self.tune_set = tune_set

    def adapted(self, patches: PatchSet) -> PatchSet:
        """Patches after the adaptors, or as they are."""
        return patches if self.adaptors is None else adapt_patches(patches, *self.adaptors)

    def distances(self, patches: PatchSet) -> Distances:
        """Frozen patches in, distances to the banks out."""
        return distances(self.adapted(patches), self.banks)

    def figures(self) -> Figures:
        """AUROCs of held-out normal against pseudo-defects."""
        normal, spoiled = self.normal, {kind: self.distances(p) for kind, p in self.tune_set.pseudo.items()}
        hit = {kind: spoiled[kind].scored & self.tune_set.defective[kind] for kind in KINDS}
        patches, images = patch_scale(normal), image_scale(normal)
        calm = normal.scored
        return Figures(
            patch_auroc=auroc(
                patches.fuse(normal.rgb[calm], normal.points[calm]),
                np.concatenate([patches.fuse(spoiled[k].rgb[hit[k]], spoiled[k].points[hit[k]]) for k in KINDS]),
            ),
            geometry_auroc=auroc(normal.points[calm], spoiled["geometry"].points[hit["geometry"]]),
            colour_auroc=auroc(normal.rgb[calm], spoiled["colour"].rgb[hit["colour"]]),
            image_auroc=auroc(
                images.fuse(normal.rgb_image, normal.points_image),
                np.concatenate([images.fuse(spoiled[k].rgb_image, spoiled[k].points_image) for k in KINDS]),
            ),
        )


def try_config(
    tune_set: TuneSet, profile: Profile, config: AdaptationConfig | None, progress: Progress = lambda *_: None
) -> tuple[Trial, Judge | None]:
    """One row of the table, and the evaluator, for measuring more. A stopped adaptation is a row too."""
    name = tune_set.name
    if config is None:
        judge = Judge(tune_set, profile, None)
        return Trial(name, None, judge.figures()), judge
    try:
        adaptation = adapt(tune_set.fit, profile, config, lambda done, steps: progress(f"adapt {name}", done, steps))
    except CalibrationError as error:
        return Trial(name, config, None, stopped=str(error)), None
    judge = Judge(tune_set, profile, adaptation)
    spread = adaptation.spread
    return Trial(name, config, judge.figures(), adaptation.seconds, spread["rgb"], spread["points"]), judge


def sweep_configs(base: AdaptationConfig) -> list[AdaptationConfig]:
    """The settings tried, one after the other around ``base``: T x start first, then compactness, lr and epochs; then
    the same lr and terms on features divided by their spread."""
    change = msgspec.structs.replace
    settings = [change(base, temperature=t, start=s) for s in ("identity", "default") for t in (1.0, 0.2, 0.07)]
    settings += [change(base, compactness=weight) for weight in (0.0, 0.3, 2.7)]
    settings += [change(base, learning_rate=rate) for rate in (1e-4, 1e-3, 2e-3)]
    settings += [change(base, epochs=2 * base.epochs)]
    divided = change(base, standardise=True)
    settings += [change(divided, learning_rate=rate) for rate in (base.learning_rate, 1e-3, 2e-3)]
    settings += [change(divided, learning_rate=2e-3, local_alignment=0.0, global_alignment=0.0)]
    settings += [change(divided, learning_rate=2e-3, epochs=factor * base.epochs) for factor in (2, 8)]
    settings += [change(divided, learning_rate=1e-3, epochs=8 * base.epochs)]
    return list({msgspec.json.encode(setting): setting for setting in settings}.values())


def mean_figure(trials: Iterable[Trial], name: str = "patch_auroc") -> float:
    """Mean of a figure over products; minus infinity when a product was stopped, so that it never wins."""
    values = [getattr(trial.figures, name) if trial.figures else -math.inf for trial in trials]
    return float(np.mean(values))


def best_config(rows: Sequence[Sequence[Trial]]) -> AdaptationConfig | None:
    """The setting with the highest mean patch AUROC over products; None: frozen features won."""
    return max(rows, key=mean_figure)[0].config


def changes(config: AdaptationConfig, base: AdaptationConfig) -> dict[str, object]:
    """Fields in which a setting differs from ``base``."""
    plain: dict[str, object] = msgspec.to_builtins(base)
    return {name: value for name, value in msgspec.to_builtins(config).items() if value != plain[name]}
