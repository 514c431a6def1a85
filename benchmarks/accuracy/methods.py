"""The methods that can be compared, by name: which parts of LSFA are on, how banks and scores are computed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from asperity.calibration.adaptation.settings import AdaptationConfig, default_config
from asperity.calibration.options import Fusion
from asperity.calibration.profiles import Profile
from asperity.runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Method:
    """One row of an ablation table."""

    what: str
    adapt: bool = True
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of AdaptationConfig that differ from the profile's default."""
    fusion: Fusion | None = None
    """How the modalities' scores become one; None: as the profile says."""
    whitening: bool = True
    """False: features are compared as they are, whatever the profile says."""
    bank_share: float | None = None
    """Share of the fit frames' rows that both banks keep; None: the profile's share and cap."""
    distances: Literal["published", "local"] | None = None
    """How a patch's distance is measured (lsfa 7.3, docs/decisions/local-distances.md); None: as the profile says."""

    def config(self, chosen: Profile, seed: int, overrides: dict[str, Any]) -> AdaptationConfig | None:
        """How the adaptors are trained; None: features stay frozen. Raises ConfigError, UsageError."""
        if not self.adapt:
            return None
        fields = {**self.changes, **overrides, "seed": seed}
        unknown = set(fields) - set(AdaptationConfig.__struct_fields__)
        if unknown:
            known = ", ".join(AdaptationConfig.__struct_fields__)
            raise UsageError(f"--set {', '.join(sorted(unknown))}: no such field of the adaptation; there are: {known}")
        plain: dict[str, Any] = msgspec.to_builtins(default_config(chosen))
        try:
            return msgspec.convert({**plain, **fields}, AdaptationConfig)
        except msgspec.ValidationError as error:
            raise UsageError(f"--set: {error}") from error


METHODS: dict[str, Method] = {
    "frozen": Method("no adaptation", adapt=False),
    "ifc": Method(
        "compactness within each modality alone (L_IFC)", changes={"local_alignment": 0.0, "global_alignment": 0.0}
    ),
    "clc": Method("alignment between the modalities alone (L_CLC)", changes={"compactness": 0.0}),
    "lsfa": Method("L_IFC and L_CLC"),
    "lsfa-default-start": Method("LSFA from PyTorch's initialisation, as released", changes={"start": "default"}),
    "lsfa-identity-start": Method("LSFA from the identity", changes={"start": "identity"}),
    "lsfa-standardised": Method(
        "LSFA on features divided by their spread", changes={"standardise": True, "learning_rate": 1e-3}
    ),
    "ifc-standardised": Method(
        "compactness alone, on features divided by their spread",
        changes={"standardise": True, "learning_rate": 1e-3, "local_alignment": 0.0, "global_alignment": 0.0},
    ),
    "lsfa-ocsvm": Method("LSFA, scores fused by the linear one-class SVM", fusion="ocsvm"),
    "frozen-ocsvm": Method("frozen, scores fused by the linear one-class SVM", adapt=False, fusion="ocsvm"),
    "lsfa-average": Method("LSFA, average of the modalities' scores", fusion="average"),
    "frozen-average": Method("frozen, average of the modalities' scores", adapt=False, fusion="average"),
    "lsfa-plain": Method("LSFA, features not whitened", whitening=False),
    "frozen-plain": Method("frozen, features not whitened", adapt=False, whitening=False),
    "lsfa-before": Method("LSFA, features not whitened, average of the scores", fusion="average", whitening=False),
    "frozen-before": Method(
        "frozen, features not whitened, average of the scores", adapt=False, fusion="average", whitening=False
    ),
    "lsfa-bank-1": Method("LSFA, banks of 1 % of the rows", bank_share=0.01),
    "lsfa-bank-10": Method("LSFA, banks of 10 % of the rows", bank_share=0.1),
    "frozen-bank-10": Method("frozen, banks of 10 % of the rows", adapt=False, bank_share=0.1),
    "frozen-bank-1": Method("frozen, banks of 1 % of the rows", adapt=False, bank_share=0.01),
}

METHODS |= {
    f"{name}-published": replace(
        METHODS[name],
        what=f"{METHODS[name].what}; scored as published",
        distances="published",
        fusion="average",
        whitening=False,
    )
    for name in ("frozen", "ifc", "clc", "lsfa", "lsfa-standardised")
}


def method(name: str) -> Method:
    """The method of that name. Raises UsageError naming the known ones."""
    try:
        return METHODS[name]
    except KeyError:
        raise UsageError(f"--method {name!r} is not known; choose one of {', '.join(METHODS)}") from None
