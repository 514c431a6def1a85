"""Which modalities a product is judged by, where calibration may choose (``--modalities auto``).

All sets are tried that hold colour and at least one modality of shape. The cheapest whose AUROC of good frames against
pseudo-defects lies within one standard error of the best one's is taken, so that ties go to the cheaper. Good frames
are fit frames judged by banks without their parts (``folds``); calibration frames take no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import msgspec

from asperity.calibration.banks.left_out import LEAST_SPOILED, SpoiledDistances, Wins
from asperity.calibration.banks.reference import FrameDistances, Reference
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.features.surfaces import only
from asperity.calibration.record import Choice, TriedModalities
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import ModalityName, Prepared
from asperity.runtime.manifest import Decision

COST: dict[ModalityName, float] = {"rgb": 1.0, "points": 2.6, "geometry": 1.5, "height": 1.9, "descriptor": 1.4}
"""What a modality costs a frame on a processor, bank included; 1 is a frame by colour alone (docs/method.md). Stated,
not measured as calibration runs: a choice must not depend on what else a machine is doing."""
SURFACE_COST = 0.6
"""Once, where one or more of these are judged by."""
OF_SURFACE = ("geometry", "height", "descriptor")
TIE_ERRORS = 1.0


def choose(
    decision: Decision, normal: Mapping[int, FrameDistances], spoiled: Sequence[SpoiledDistances]
) -> tuple[tuple[ModalityName, ...], Choice]:
    """The modalities to keep, in their order, and what was tried.

    ``decision``: of fusion ``squares``, with constants of all of them. Raises CalibrationError with too few spoiled
    frames to tell.
    """
    if len(spoiled) < LEAST_SPOILED:
        raise CalibrationError(
            f"--modalities auto: pseudo-defects could be made on {len(spoiled)} frames, and {LEAST_SPOILED} are needed "
            "to choose; name the modalities"
        )
    shapes = [name for name in decision.modalities() if name != "rgb"]
    sets: list[tuple[ModalityName, ...]] = [
        ("rgb", *some) for count in range(1, len(shapes) + 1) for some in combinations(shapes, count)
    ]  # fmt: skip
    wins = {names: Wins(_only(decision, names), normal, spoiled) for names in sets}
    best = max(sets, key=lambda names: wins[names].auroc)
    tried = []
    for names in sets:
        loss, error = wins[names].gain_of(wins[best])
        cost = sum(COST[name] for name in names) + SURFACE_COST * any(name in OF_SURFACE for name in names)
        tried.append(TriedModalities(names, wins[names].auroc, loss, error, round(cost, 2)))
    tied = [one for one in tried if one.loss <= TIE_ERRORS * one.standard_error or one.modalities == best]
    chosen = min(tied, key=lambda one: (one.cost, one.loss))
    return chosen.modalities, Choice(chosen, tuple(sorted(tried, key=lambda one: one.loss)))


def narrowed(whole: Reference, names: tuple[ModalityName, ...], prepared: Sequence[Prepared]) -> Reference:
    """Networks, banks and patches of the chosen modalities alone; the point network goes where points do.

    ``prepared``: the frames without what the others take.
    """
    if "points" not in names:
        whole.networks.drop_points()
    frozen = PatchSet({name: whole.frozen.features[name] for name in names}, whole.frozen.nonempty)
    found = Reference(only(whole.network, names), whole.networks, frozen, prepared)
    found.part_of = whole.part_of
    found.banks = {name: whole.banks[name] for name in names}
    return found


def without_others(frame: FrameDistances, names: Sequence[ModalityName]) -> FrameDistances:
    """A frame's distances of the chosen modalities."""
    return FrameDistances({name: frame.modalities[name] for name in names}, frame.scored)


def _only(decision: Decision, names: Sequence[ModalityName]) -> Decision:
    changed = {
        name: msgspec.structs.replace(one, weight=1.0 if name in names else 0.0)
        for name, one in decision.modalities().items()
    }
    return msgspec.structs.replace(decision, **changed)
