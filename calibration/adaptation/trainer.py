"""LSFA: fine-tuning one pair of adaptors on one product's normal frames (lsfa 3 to 6, decisions of 11).

    L = L_LA + 0.2 L_GA + 0.9 (L_LC + 0.4 L_GC)

The backbones are frozen and their patches cached, so only the adaptors and two projection heads exist here.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from asperity.calibration.adaptation.batches import Batch, feature_scales, make_batch, scaled, unscaled
from asperity.calibration.adaptation.feature_queue import FeatureQueue
from asperity.calibration.adaptation.losses import (
    compactness,
    global_alignment,
    local_alignment,
    mean_pairwise_distance,
)
from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.networks.adaptor import Adaptor, new_adaptors
from asperity.calibration.profiles import Profile
from asperity.runtime.errors import CalibrationError, DataError
from asperity.runtime.files import write_whole

Progress = Callable[[int, int], None]
"""Called after every step with (steps done, steps in all)."""

TERMS = ("local_alignment", "global_alignment", "local_compactness", "global_compactness")
CHECKPOINT_S = 300.0
"""At most so much work is lost by a kill, and one step: an epoch of `paper` takes many minutes on a CPU."""
GUARD_ROWS = 256
"""Rows of the mini-batch whose pairwise distances the collapse guard looks at."""


@dataclass(frozen=True, slots=True)
class Curves:
    """One entry per step. Terms that did not act in a step (switched off, queue not full) are nan there."""

    loss: list[float] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TERMS})
    rgb_spread: list[float] = field(default_factory=list)
    """Mean pairwise distance of adapted features / that of the same frozen ones."""
    points_spread: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, list[float]]:
        """All curves by name, for JSON."""
        return {"loss": self.loss, **self.terms, "rgb_spread": self.rgb_spread, "points_spread": self.points_spread}


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What adaptation leaves: the heads and queues are dropped (lsfa 3)."""

    rgb_state: dict[str, Tensor]
    points_state: dict[str, Tensor]
    curves: Curves
    spread: dict[str, float]
    """``rgb`` and ``points``: the last mean pairwise distance as a share of the frozen features' own."""
    seconds: float


class Trainer:
    """The state of one adaptation between steps. ``adapt`` runs it; tests look inside."""

    def __init__(self, patches: PatchSet, profile: Profile, config: AdaptationConfig, device: str = "cpu") -> None:
        """Raises DataError when there are fewer images than a batch, or an image without a single patch."""
        if len(patches) < config.batch:
            raise DataError(f"{len(patches)} normal frames cannot fill a batch of {config.batch}; give more frames")
        empty = np.flatnonzero(~patches.nonempty.any(axis=(1, 2)))
        if len(empty):
            raise DataError(f"normal frame {empty[0]} has no patch with 3D points; remove it from the normal frames")
        self.patches, self.config, self.device = patches, config, device
        self.scales = feature_scales(patches) if config.standardise else (1.0, 1.0)
        self.steps_per_epoch = len(patches) // config.batch
        self.steps = self.steps_per_epoch * config.epochs
        width = min(config.head_channels, profile.rgb_channels, profile.points_channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.rgb, self.points = new_adaptors(profile, identity_start=config.start == "identity")
            self.rgb_head = nn.Linear(profile.rgb_channels, width)
            self.points_head = nn.Linear(profile.points_channels, width)
        self.trained = nn.ModuleDict(
            {"rgb": self.rgb, "points": self.points, "rgb_head": self.rgb_head, "points_head": self.points_head}
        ).to(device)
        self.optimiser = torch.optim.AdamW(
            self.trained.parameters(),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
        )
        rows, global_rows = config.queue_rows, config.global_queue_rows
        self.queues = {
            "rgb_local": FeatureQueue(rows, profile.rgb_channels, device),
            "points_local": FeatureQueue(rows, profile.points_channels, device),
            "rgb_global": FeatureQueue(global_rows, profile.rgb_channels, device),
            "points_global": FeatureQueue(global_rows, profile.points_channels, device),
        }
        self.curves = Curves()
        self.step = 0

    def indices(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Images of the present step: each epoch is a permutation drawn from (seed, epoch) alone, so that a resumed
        run needs no random state. What does not fill a batch waits for the next epoch's order."""
        epoch, position = divmod(self.step, self.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, 0, epoch]).permutation(len(self.patches))
        return order[position * self.config.batch : (position + 1) * self.config.batch]

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine down to 0 (lsfa 6)."""
        warmup = round(self.config.warmup_share * self.steps)
        if self.step < warmup:
            return self.config.learning_rate * (self.step + 1) / (warmup + 1)
        along = (self.step - warmup) / max(1, self.steps - warmup)
        return self.config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * along))

    def selected(self, batch: Batch) -> Tensor:
        """Which non-empty patches L_LC pulls and the queues take in: (n,) bool, at most ``query_patches`` an image."""
        n = len(batch.images)
        if self.config.query_patches is None:
            return torch.ones(n, dtype=torch.bool, device=self.device)
        rng = np.random.default_rng([self.config.seed, 1, self.step])
        images = batch.images.cpu().numpy()
        shuffled = np.lexsort((rng.random(n), images))
        first = np.searchsorted(images, images)
        chosen = np.zeros(n, bool)
        chosen[shuffled[np.arange(n) - first < self.config.query_patches]] = True
        return torch.from_numpy(chosen).to(self.device)

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
        """(L, its terms that acted, spreads), and the queues fed with the batch's features after their use."""
        config = self.config
        rgb_all = self.rgb(batch.rgb)
        rgb = rgb_all.reshape(-1, rgb_all.shape[2])
        points = self.points(batch.points, batch.counts)[batch.filled]
        weights = torch.bincount(batch.parents, minlength=len(rgb)).to(rgb.dtype)
        covered = weights > 0
        rgb_row = covered.cumsum(0) - 1

        images = len(batch.rgb)
        per_image = torch.bincount(batch.images, minlength=images).to(rgb.dtype)[:, None]
        rgb_global = torch.einsum("bj,bjc->bc", weights.reshape(images, -1), rgb_all) / per_image
        points_global = torch.zeros_like(points[:1]).repeat(images, 1).index_add(0, batch.images, points) / per_image

        terms: dict[str, Tensor] = {}
        if config.local_alignment:
            terms["local_alignment"] = local_alignment(
                self.rgb_head(rgb[covered]),
                weights[covered],
                self.points_head(points),
                rgb_row[batch.parents],
                config.temperature,
            )
        if config.global_alignment:
            terms["global_alignment"] = global_alignment(
                self.rgb_head(rgb_global), self.points_head(points_global), config.temperature
            )
        chosen = self.selected(batch)
        chosen_weights = torch.bincount(batch.parents[chosen], minlength=len(rgb)).to(rgb.dtype)
        chosen_rgb = chosen_weights > 0
        local = {
            "rgb_local": (rgb[chosen_rgb], chosen_weights[chosen_rgb]),
            "points_local": (points[chosen], torch.ones_like(points[chosen][:, 0])),
        }
        ones = torch.ones_like(per_image[:, 0])
        whole = {"rgb_global": (rgb_global, ones), "points_global": (points_global, ones)}
        if config.compactness and self.queues["rgb_local"].full and self.queues["points_local"].full:
            if config.local_compactness:
                terms["local_compactness"] = sum_of(compactness(*local[q], self.queues[q].rows) for q in local)
            if config.global_compactness:
                terms["global_compactness"] = sum_of(compactness(*whole[q], self.queues[q].rows) for q in whole)
        for name, (rows, row_weights) in (local | whole).items():
            self.queues[name].push(rows, row_weights)

        loss = sum_of(self.term_weight(name) * value for name, value in terms.items())
        frozen_rgb = batch.rgb.reshape(rgb.shape)[covered]
        spread = {
            "rgb": spread_share(rgb[covered].detach(), frozen_rgb),
            "points": spread_share(points.detach(), batch.points[batch.filled]),
        }
        return loss, terms, spread

    def term_weight(self, name: str) -> float:
        """Weight of a term in L."""
        weight: float = getattr(self.config, name)
        return self.config.compactness * weight if name.endswith("compactness") else weight

    def advance(self) -> None:
        """One optimiser step. Raises CalibrationError on a loss that is not finite and on collapsed features."""
        batch = scaled(make_batch(self.patches, self.indices(), self.device), *self.scales)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        loss, terms, spread = self.losses(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CalibrationError(
                f"adaptation step {self.step}: the loss is {value}; lower learning_rate "
                f"({self.config.learning_rate}) or set clip_norm"
            )
        if loss.requires_grad:
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.config.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.trained.parameters(), self.config.clip_norm)
            self.optimiser.step()
        self.curves.loss.append(value)
        for name in TERMS:
            self.curves.terms[name].append(float(terms[name].detach()) if name in terms else math.nan)
        self.curves.rgb_spread.append(spread["rgb"])
        self.curves.points_spread.append(spread["points"])
        for modality, share in spread.items():
            if share < self.config.collapse_share:
                raise CalibrationError(
                    f"adaptation step {self.step}: {modality} features have collapsed to {share:.3f} of their frozen "
                    f"spread (the guard stops at {self.config.collapse_share}); lower compactness "
                    f"({self.config.compactness}) or learning_rate ({self.config.learning_rate}), or keep an alignment"
                )
        self.step += 1

    @cached_property
    def digest(self) -> str:
        """Of the patches trained on: a checkpoint of other frames must not be continued."""
        rgb, points = self.patches.features["rgb"], self.patches.features["points"]
        sha256 = hashlib.sha256(repr((rgb.shape, points.shape)).encode())
        for values in (rgb, points, self.patches.nonempty):
            sha256.update(np.ascontiguousarray(values).data)
        return sha256.hexdigest()

    def save(self, path: Path) -> None:
        """Write everything a resumed run needs to one safetensors file, atomically."""
        tensors = {f"trained.{name}": value for name, value in self.trained.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        for name, queue in self.queues.items():
            tensors[f"queue.{name}.rows"], tensors[f"queue.{name}.weights"] = queue.rows, queue.weights
        header = {"step": str(self.step), "config": msgspec.json.encode(self.config).decode(), "patches": self.digest}
        header["curves"] = json.dumps(self.curves.as_dict())
        data = safetensors_bytes({name: value.contiguous() for name, value in tensors.items()}, metadata=header)
        write_whole(path, data, mode=0o644)

    def load(self, path: Path) -> None:
        """Continue from ``save``. Raises DataError if the file belongs to another configuration."""
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
        except SafetensorError as error:
            raise DataError(
                f"{path} is not a checkpoint of an adaptation ({error}); remove it to start again"
            ) from error
        if header.get("config") != msgspec.json.encode(self.config).decode():
            raise DataError(f"{path} was written with another adaptation configuration; remove it to start again")
        if header.get("patches") != self.digest:
            raise DataError(f"{path} was written for other frames or other weights; remove it to start again")
        tensors = load_file(path, device=self.device)
        self.trained.load_state_dict(_under(tensors, "trained."))
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optimiser.").items():
            index, _, key = name.partition(".")
            states.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict(
            {"state": states, "param_groups": self.optimiser.state_dict()["param_groups"]},
        )
        for name, queue in self.queues.items():
            queue.rows, queue.weights = tensors[f"queue.{name}.rows"], tensors[f"queue.{name}.weights"]
        curves = json.loads(header["curves"])
        terms = {name: curves[name] for name in TERMS}
        self.curves = Curves(curves["loss"], terms, curves["rgb_spread"], curves["points_spread"])
        self.step = int(header["step"])


def sum_of(values: Iterable[Tensor]) -> Tensor:
    """Sum of tensors; a zero without gradient for none."""
    return sum(values, start=torch.zeros(()))


def spread_share(adapted: Tensor, frozen: Tensor) -> float:
    """Mean pairwise distance of at most GUARD_ROWS adapted rows, as a share of that of the same frozen rows."""
    stride = max(1, -(-len(adapted) // GUARD_ROWS))
    return mean_pairwise_distance(adapted[::stride]) / max(mean_pairwise_distance(frozen[::stride]), 1e-12)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def adapt(
    patches: PatchSet,
    profile: Profile,
    config: AdaptationConfig,
    progress: Progress = lambda done, steps: None,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> Adaptation:
    """Train one adaptor pair on the cached frozen patches of one product's normal frames.

    With ``checkpoint`` the state is written there after every epoch and every CHECKPOINT_S, and a file found there is
    continued: the result equals that of an uninterrupted run. Equal seeds give equal results on one machine with the
    same thread count.
    Raises DataError (too few frames, a frame with no patch, a foreign checkpoint) and CalibrationError (loss not
    finite, features collapsed).
    """
    begin = saved = time.monotonic()
    trainer = Trainer(patches, profile, config, device)
    if checkpoint is not None and checkpoint.exists():
        trainer.load(checkpoint)
    while trainer.step < trainer.steps:
        trainer.advance()
        progress(trainer.step, trainer.steps)
        due = trainer.step % trainer.steps_per_epoch == 0 or time.monotonic() - saved > CHECKPOINT_S
        if checkpoint is not None and due:
            trainer.save(checkpoint)
            saved = time.monotonic()
    curves = trainer.curves
    return Adaptation(
        rgb_state=unscaled(_on_cpu(trainer.rgb), trainer.scales[0]),
        points_state=unscaled(_on_cpu(trainer.points), trainer.scales[1]),
        curves=curves,
        spread={"rgb": curves.rgb_spread[-1], "points": curves.points_spread[-1]},
        seconds=time.monotonic() - begin,
    )


@torch.no_grad()
def adapt_patches(patches: PatchSet, rgb: Adaptor, points: Adaptor, batch: int = 8) -> PatchSet:
    """The patches after both adaptors (lsfa 3), a few images at a time; empty patches stay zero rows."""
    adapted_rgb = np.empty_like(patches.features["rgb"])
    adapted_points = np.zeros_like(patches.features["points"])
    for start in range(0, len(patches), batch):
        indices = np.arange(start, min(start + batch, len(patches)))
        tokens = make_batch(patches, indices)
        adapted_rgb[indices] = rgb(tokens.rgb).numpy()
        image, patch = np.nonzero(patches.nonempty[indices].reshape(len(indices), -1))
        adapted_points[indices[image], patch] = points(tokens.points, tokens.counts)[tokens.filled].numpy()
    return PatchSet({**patches.features, "rgb": adapted_rgb, "points": adapted_points}, patches.nonempty)


def _on_cpu(adaptor: Adaptor) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in adaptor.state_dict().items()}
