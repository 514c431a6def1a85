"""How a calibration's modalities become one score, and which of them count: on fit and tune frames alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec

from asperity.calibration.banks.choice import choose, without_others
from asperity.calibration.banks.folds import FRAMES_ENOUGH, judge_folds
from asperity.calibration.banks.left_out import SpoiledDistances, leave_out
from asperity.calibration.banks.reference import FrameDistances, OwnedBanks, Reference, Views, fit_decision, no_views
from asperity.calibration.features.embedding import frame_of
from asperity.calibration.features.views import make_views
from asperity.calibration.frames.prepare_normals import Normals, Progress
from asperity.calibration.frames.split import Split
from asperity.calibration.options import AUTO, CalibrateOptions
from asperity.calibration.profiles import Profile
from asperity.calibration.record import Choice, LeftOut
from asperity.calibration.tuning.spoiled_normals import spoiler
from asperity.runtime.frame import Prepared
from asperity.runtime.manifest import Decision, Network
from asperity.runtime.vision.features import frozen_patches


def fuse(
    reference: Reference, normals: Normals, split: Split, distances: dict[int, FrameDistances],
    options: CalibrateOptions, chosen: Profile, progress: Progress, earlier: Decision | None,
) -> tuple[Decision, tuple[LeftOut, ...], Choice | None]:  # fmt: skip
    """Standardisation and weights, the modalities that do not count, and which were chosen where nobody named them.

    Calibration frames take no part.
    """
    fusion = options.fusion or chosen.fusion
    tune = [distances[i] for i in split.tune]
    if fusion != "squares":
        return fit_decision(tune, reference.banks, fusion), (), None
    seen, spoiled = _judge_folds(reference, normals, split, options, chosen, progress, spoil=earlier is None)
    decision = fit_decision([*seen.values(), *tune], reference.banks, fusion)
    if earlier is None and options.modalities == AUTO:
        names, choice = choose(decision, seen, spoiled)
        gone = {name: None for name in decision.modalities() if name not in names}
        decision = msgspec.structs.replace(decision, **gone)
        seen = {index: without_others(one, names) for index, one in seen.items()}
        spoiled = [replace(one, distances=without_others(one.distances, names)) for one in spoiled]
        return *leave_out(decision, seen, spoiled), choice
    if earlier is None:
        return *leave_out(decision, seen, spoiled), None
    counted = earlier.modalities()
    weighed = {
        name: msgspec.structs.replace(one, weight=counted[name].weight) for name, one in decision.modalities().items()
    }
    return msgspec.structs.replace(decision, **weighed), (), None


def _judge_folds(
    reference: Reference, normals: Normals, split: Split, options: CalibrateOptions, chosen: Profile,
    progress: Progress, spoil: bool,
) -> tuple[dict[int, FrameDistances], list[SpoiledDistances]]:  # fmt: skip
    """Fit frames, as they are and where ``spoil`` with pseudo-defects, by banks without their parts."""
    network, networks = reference.network, reference.networks
    made = spoiler(normals, network, options.seed) if spoil else None
    spoiled: list[SpoiledDistances] = []

    def fill(frames: list[int]) -> OwnedBanks:
        others = Reference(network, networks, reference.frozen, reference.prepared, normals.parts.of_frames)
        others.fit_banks(
            frames, chosen, seed=options.seed, projection=options.bank_projection, device=options.device,
            progress=progress, views=views_of(normals, network, options),
        )  # fmt: skip
        return others.banks

    def judge(index: int, owned: OwnedBanks) -> FrameDistances:
        banks = {name: one.bank for name, one in owned.items()}
        for one in made(index) if made else ():
            patches = frozen_patches(one.prepared, network, networks)
            spoiled.append(SpoiledDistances(index, one.kind, reference.measured(patches, one.prepared.inspect, banks)))
        progress("folds", len({one.frame for one in spoiled}), min(len(split.fit), FRAMES_ENOUGH))
        return reference.measured(frame_of(reference.frozen, index), reference.prepared[index].inspect, banks)

    return judge_folds(split.fit, [normals.parts.of_frames[i] for i in split.fit], fill, judge), spoiled


def views_of(normals: Normals, network: Network, options: CalibrateOptions) -> Views:
    """As many of each fit frame as were asked for."""

    def of(index: int) -> Iterator[Prepared]:
        frame = normals.items[index].frame(seq=index)
        return make_views(frame, normals.geometry, network, normals.masks, options.seed, options.views, normals.heights)

    return of if options.views else no_views
