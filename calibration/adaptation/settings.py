"""Every choice of the adaptation in one typed config; its defaults are lsfa 11's."""

from __future__ import annotations

from typing import Literal

import msgspec

from asperity.calibration.profiles import Profile
from asperity.runtime.errors import ConfigError

MIN_TEMPERATURE = 0.02
"""exp(1 / T) times a batch of patches must stay finite in float32."""


class AdaptationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every choice of the adaptation. A loss weight of 0 switches its term off and saves its work.

    Raises ConfigError naming the field, its value and what is allowed.
    """

    local_alignment: float = 1.0
    """Weight of L_LA: patches of one position agree across modalities, all others of the batch are negatives."""
    global_alignment: float = 0.2
    """Weight of L_GA: likewise for the images' mean features."""
    compactness: float = 0.9
    """Weight of L_IFC = local_compactness L_LC + global_compactness L_GC."""
    local_compactness: float = 1.0
    """Weight of L_LC within L_IFC: distance to the nearest row of the local queue."""
    global_compactness: float = 0.4
    """Weight of L_GC within L_IFC: distance of the image's mean feature to the nearest one of the global queue."""
    temperature: float = 0.2
    """T of the alignments."""
    head_channels: int = 512
    """Width of the projection heads; at most the narrower modality's own width is used."""
    queue_rows: int = 8192
    """Rows of each modality's local queue. Compactness acts once the queue has filled."""
    global_queue_rows: int = 100
    """Rows of each modality's global queue."""
    query_patches: int | None = 256
    """Random non-empty patches an image that L_LC pulls and the queue takes in; None: all of them."""
    start: Literal["default", "identity"] = "identity"
    """Adaptors begin at PyTorch's initialisation (as released) or as the identity (output projections zero)."""
    standardise: bool = False
    """Divide each modality's features by their standard deviation before adaptation. The adaptor's output projections
    take it back, so the stored adaptor is of the same form; what changes is how far a step moves either modality's
    features: EfficientNet's are much larger than those that leave a LayerNorm."""
    batch: int = 8
    epochs: int = 4
    learning_rate: float = 3e-4
    """The gentlest of those tried, and the best of them against pseudo-defects (docs/method.md, "The sweep")."""
    warmup_share: float = 0.1
    """Share of the steps in which the learning rate rises linearly from 0; then half a cosine falls back to 0."""
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.01
    clip_norm: float | None = None
    """Largest gradient norm; None: gradients are not clipped, as published."""
    collapse_share: float = 0.2
    """Stop when the adapted features' mean pairwise distance falls under this share of the frozen features' own.
    0 switches the guard off."""
    seed: int = 0

    def __post_init__(self) -> None:
        weights = ("local_alignment", "global_alignment", "compactness", "local_compactness", "global_compactness")
        for name in (*weights, "weight_decay", "collapse_share"):
            self._need(name, getattr(self, name) >= 0, "0 or more")
        for name in ("head_channels", "queue_rows", "global_queue_rows", "epochs"):
            self._need(name, getattr(self, name) >= 1, "1 or more")
        self._need("batch", self.batch >= 2, "2 or more: the global alignment needs other images as negatives")
        self._need("query_patches", self.query_patches is None or self.query_patches >= 1, "1 or more, or none")
        self._need("temperature", self.temperature >= MIN_TEMPERATURE, f"{MIN_TEMPERATURE} or more")
        self._need("learning_rate", self.learning_rate > 0, "more than 0")
        self._need("warmup_share", 0 <= self.warmup_share < 1, "0 or more and less than 1")
        self._need("clip_norm", self.clip_norm is None or self.clip_norm > 0, "more than 0, or none")
        self._need("collapse_share", self.collapse_share < 1, "less than 1")
        for name in ("beta1", "beta2"):
            self._need(name, 0 <= getattr(self, name) < 1, "0 or more and less than 1")

    def _need(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ConfigError(f"adaptation.{name} is {getattr(self, name)}; it must be {allowed}")


def default_config(profile: Profile) -> AdaptationConfig:
    """The decisions of lsfa 11 for a profile: queues and query patches by row 4, the rest as the sweep found."""
    if profile.name == "paper":
        return AdaptationConfig(queue_rows=60_000, query_patches=None)
    return AdaptationConfig()
