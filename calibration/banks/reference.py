"""The torch reference: banks of the fit frames, and scores of any normal frame against them.

Everything after the networks is the runtime's own code; here it is only fed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asperity.calibration.banks.coreset import bank_rows, coreset, projected
from asperity.calibration.banks.row_statistics import Tally
from asperity.calibration.features.embedding import frame_of
from asperity.calibration.features.patches import PatchSet, child_counts
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.calibration.profiles import Profile
from asperity.calibration.record import Fusion
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import BoolArray, FloatArray, ModalityScores, Prepared
from asperity.runtime.manifest import Decision, Modality, Network
from asperity.runtime.vision.distances import REWEIGHTING_ROWS, ModalityBank, RowStatistics, measure
from asperity.runtime.vision.features import adapted_patches, frozen_patches
from asperity.runtime.vision.nearest import MemoryBank

Progress = Callable[[int, int], None]

RGB_PUBLISHED_SCALE = 0.1
"""The release feeds its one-class SVM with [s_xyz, 0.1 s_rgb] (lsfa 7.5)."""
LEAST_STD = 1e-6
"""Tuning frames whose distances differ less, relative to their mean, are copies of each other."""


@dataclass(frozen=True, slots=True)
class OwnedBank:
    """A modality's bank, and which frame (its index in the patch set) each row came from."""

    bank: ModalityBank
    owners: NDArray[np.int64]
    tally: Tally | None = None
    """With local distances: what each frame said of the rows."""

    def without(self, frame: int) -> ModalityBank:
        """The bank without one frame's rows. Raises CalibrationError when too few are left."""
        kept = self.owners != frame
        if kept.all():
            return self.bank
        if int(kept.sum()) < REWEIGHTING_ROWS:
            raise CalibrationError("without one frame's rows the memory bank is empty; calibrate from more frames")
        bank, usual = self.bank, None
        if self.tally is not None:
            whole = self.tally.usual(leave_out=frame)
            usual = RowStatistics(whole.mean[kept], whole.std[kept])
        return ModalityBank(MemoryBank(bank.memory.rows[kept]), bank.feature_mean, bank.feature_std, usual)


@dataclass(frozen=True, slots=True)
class FrameDistances:
    """The banks' answer to one frame, before any fusion."""

    rgb: ModalityScores
    points: ModalityScores
    scored: BoolArray


def make_bank(
    name: str, patches: FloatArray, owners: NDArray[np.int64], wanted: int, chosen: Profile, *,
    projection_seed: int | None = None, device: str = "cpu", progress: Progress = lambda done, total: None,
) -> OwnedBank:  # fmt: skip
    """A memory bank of ``wanted`` rows out of patches (n, D) of the frames ``owners`` (n,).

    Patches are standardised by their own mean and std (lsfa 11 row 16); rows are a greedy k-centre coreset (7.1).
    Raises CalibrationError when the patches are all equal.
    """
    mean, std = float(patches.mean(dtype=np.float64)), float(patches.std(dtype=np.float64))
    if not std > 0:
        raise CalibrationError(f"all {name} features are equal; check the weights and the frames")
    standard = (patches - np.float32(mean)) * np.float32(1.0 / std)
    compared = standard if projection_seed is None else projected(standard, projection_seed)
    index = coreset(compared, wanted, device=device, progress=progress)
    rows, own = standard[index], owners[index]
    tally = Tally(rows, own, standard, owners) if chosen.distances == "local" else None
    return OwnedBank(ModalityBank(MemoryBank(rows), mean, std, tally.usual() if tally else None), own, tally)


class Reference:
    """Networks, banks and the frames' cached frozen patches, of one calibration."""

    def __init__(
        self, network: Network, networks: TorchNetworks, frozen: PatchSet, prepared: Sequence[Prepared]
    ) -> None:
        self.network = network
        self.networks = networks
        self.frozen = frozen
        self.prepared = prepared
        self.rgb: OwnedBank
        self.points: OwnedBank

    def fit_banks(
        self, fit: Sequence[int], chosen: Profile, *, seed: int, projection: bool, device: str,
        progress: Callable[[str, int, int], None],
    ) -> None:  # fmt: skip
        """Adapt the fit frames, standardise each modality by its own mean and std, choose the banks' rows.

        Only patches that are scored are banked: non-empty and left by the masks. Raises CalibrationError.
        """
        rgb_rows, points_rows, rgb_owners, points_owners = self._scored_rows(fit, progress)
        rgb_wanted, points_wanted = bank_rows(chosen, len(fit))

        def choose(name: str, rows: FloatArray, owners: NDArray[np.int64], wanted: int) -> OwnedBank:
            return make_bank(
                name, rows, owners, wanted, chosen, projection_seed=seed if projection else None, device=device,
                progress=lambda a, b: progress(f"{name} bank", a, b),
            )  # fmt: skip

        self.rgb = choose("rgb", rgb_rows, rgb_owners, rgb_wanted)
        del rgb_rows
        self.points = choose("points", points_rows, points_owners, points_wanted)

    def _scored_rows(
        self, fit: Sequence[int], progress: Callable[[str, int, int], None]
    ) -> tuple[FloatArray, FloatArray, NDArray[np.int64], NDArray[np.int64]]:
        inspect = np.stack([self.prepared[i].inspect for i in fit])
        scored = self.frozen.nonempty[list(fit)] & inspect
        tokens = child_counts(scored, self.frozen.rgb_grid) > 0
        if not scored.any():
            raise CalibrationError("the masks and the foreground leave no patch to learn from; check the masks")
        rgb = np.empty((int(tokens.sum()), self.network.rgb_channels), np.float32)
        points = np.empty((int(scored.sum()), self.network.points_channels), np.float32)
        rgb_at = points_at = 0
        for position, index in enumerate(fit):
            adapted = adapted_patches(frame_of(self.frozen, index), self.network, self.networks)
            for_rgb, for_points = adapted.rgb[tokens[position]], adapted.points[scored[position].ravel()]
            rgb[rgb_at : rgb_at + len(for_rgb)] = for_rgb
            points[points_at : points_at + len(for_points)] = for_points
            rgb_at, points_at = rgb_at + len(for_rgb), points_at + len(for_points)
            progress("features", position + 1, len(fit))
        frames = np.asarray(fit, dtype=np.int64)
        return (
            rgb,
            points,
            np.repeat(frames, tokens.sum(axis=1)),
            np.repeat(frames, scored.reshape(len(fit), -1).sum(axis=1)),
        )

    def measured(self, prepared: Prepared) -> FrameDistances:
        """A frame that took no part in anything, against the banks."""
        patches = adapted_patches(frozen_patches(prepared, self.network, self.networks), self.network, self.networks)
        return FrameDistances(*measure(patches, prepared.inspect, self.rgb.bank, self.points.bank))

    def distances(self, index: int, *, leave_out: bool) -> FrameDistances:
        """One frame against the banks; ``leave_out``: without the rows that came from it."""
        patches = adapted_patches(frame_of(self.frozen, index), self.network, self.networks)
        rgb = self.rgb.without(index) if leave_out else self.rgb.bank
        points = self.points.without(index) if leave_out else self.points.bank
        scored_rgb, scored_points, scored = measure(patches, self.prepared[index].inspect, rgb, points)
        return FrameDistances(scored_rgb, scored_points, scored)


def fit_decision(tune: Sequence[FrameDistances], rgb: OwnedBank, points: OwnedBank, fusion: Fusion) -> Decision:
    """Standardisation and fusion from the tuning frames; threshold and scores are still open.

    ``average``: each modality by its own mean and std of the tuning frames' distances, weights 0.5 (lsfa 11 row 14).
    ``ocsvm``: weights of a linear one-class SVM on the raw distances, published settings. Raises CalibrationError.
    """
    modalities = []
    for name, bank in (("rgb", rgb), ("points", points)):
        image = np.array([getattr(one, name).image_distance for one in tune])
        patch = np.concatenate([getattr(one, name).distance_map[one.scored] for one in tune])
        modalities.append(_standardised(name, image, patch, bank))
    if fusion == "ocsvm":
        weights = one_class_weights(
            np.array([one.points.image_distance for one in tune]), np.array([one.rgb.image_distance for one in tune])
        )
        modalities = [_raw(modality, weight) for modality, weight in zip(modalities, weights, strict=True)]
    return Decision(
        engine="torch", precision="fp32", rgb=modalities[0], points=modalities[1], fusion=fusion, threshold=0.0,
        alpha=0.0, alpha_total=0.0, calibration_scores=(),
    )  # fmt: skip


def one_class_weights(points: NDArray[np.float64], rgb: NDArray[np.float64]) -> tuple[float, float]:
    """(rgb, points) weights of the release's linear one-class SVM (lsfa 7.5) on raw image distances (n,) each.

    Larger must mean stranger in both, so a weight <= 0 raises CalibrationError instead of falling back.
    """
    from sklearn.linear_model import SGDOneClassSVM

    features = np.stack([points, RGB_PUBLISHED_SCALE * rgb], axis=1)
    svm = SGDOneClassSVM(random_state=42, nu=0.5, max_iter=1000).fit(features)
    for_points, for_rgb = float(svm.coef_[0]), RGB_PUBLISHED_SCALE * float(svm.coef_[1])
    for name, weight in (("rgb", for_rgb), ("points", for_points)):
        if not weight > 0:
            raise CalibrationError(
                f"the one-class SVM gave {name} a weight of {weight:.3g}; it must be above 0. Calibrate with "
                "--fusion average, or from more frames"
            )
    return for_rgb, for_points


def _standardised(name: str, image: NDArray[np.float64], patch: NDArray[np.floating], bank: OwnedBank) -> Modality:
    std, patch_std = float(image.std(ddof=1)), float(patch.std(dtype=np.float64))
    if not std > LEAST_STD * abs(float(image.mean())) or not patch_std > 0:
        raise CalibrationError(
            f"the {len(image)} tuning frames all have the same {name} distance; are they copies of one frame?"
        )
    return Modality(
        feature_mean=bank.bank.feature_mean, feature_std=bank.bank.feature_std, image_mean=float(image.mean()),
        image_std=std, patch_mean=float(patch.mean(dtype=np.float64)), patch_std=patch_std, weight=0.5,
        bank_rows=len(bank.bank.memory),
    )  # fmt: skip


def _raw(modality: Modality, weight: float) -> Modality:
    return Modality(
        feature_mean=modality.feature_mean, feature_std=modality.feature_std, image_mean=0.0, image_std=1.0,
        patch_mean=0.0, patch_std=1.0, weight=weight, bank_rows=modality.bank_rows,
    )  # fmt: skip
