"""``asperity evaluate``: every product, every seed, and a control with random weights; resumable, one result file.

Rows are written as soon as they are computed; a run repeated with the same settings resumes where it stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from asperity.benchmarks.accuracy.material import Material, load_material, products_of
from asperity.benchmarks.accuracy.methods import method as find_method
from asperity.benchmarks.accuracy.trial import Figures, Judged, Settings, run_trial
from asperity.benchmarks.results_tools import reports
from asperity.benchmarks.results_tools.machine import machine
from asperity.calibration.calibrate import asked_modalities
from asperity.calibration.frames.datasets import check_exclude
from asperity.calibration.frames.parts import listed
from asperity.calibration.networks.point_mae import PointBn
from asperity.calibration.networks.torch_networks import TorchNetworks, build
from asperity.calibration.options import AUTO, CalibrateOptions, Meaning, Removal
from asperity.calibration.options import Method as CalibrationMethod
from asperity.calibration.profiles import Profile
from asperity.calibration.profiles import profile as find_profile
from asperity.runtime.errors import DataError, UsageError
from asperity.runtime.frame import MissingPoint, Unit
from asperity.runtime.vision.missing_points import option_of

LOG = logging.getLogger(__name__)

SUMMARY = (
    "i_auroc", "i_auroc_fg", "p_auroc", "p_auroc_fg", "aupro30", "aupro30_fg", "aupro05", "aupro05_fg", "ap",
    "i_auroc_rgb", "i_auroc_points", "detected_at_5",
)  # fmt: skip

Progress = Callable[[str, int, int], None]
Show = Callable[[Material, int, Judged], None]
"""Called with each finished trial of the method, to draw it."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What to evaluate, and how."""

    source: Path
    profile: str = "lite"
    method: str = "lsfa"
    seeds: int = 3
    categories: tuple[str, ...] = ()
    """Products to evaluate; empty: all."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Fields of the adaptation that differ from the method's."""
    shots: int | None = None
    alpha: float = 0.05
    thresholds: int | None = None
    limit: int | None = None
    """At most this many normal frames of each product."""
    unit: Unit | None = None
    invalid: tuple[MissingPoint, ...] | None = None
    exclude: tuple[str, ...] = ()
    geometry: Removal = "auto"
    z: Meaning = "auto"
    """As of a calibration (``CalibrateOptions``)."""
    rgb_weights: Path | None = None
    point_weights: Path | None = None
    control: bool = True
    """Also run frozen features of random weights, from one seed."""
    pixels: bool = True
    random_weights: bool = False
    """Use random weights instead of trained ones for the method itself: features unrelated to any picture."""
    point_bn: PointBn | None = None
    """Where the mini-PointNet's normalisation takes its statistics (lsfa 11 row 17); None: as the profile says."""
    modalities: tuple[str, ...] | None = None
    """What frames are judged by; ``auto``: chosen per product and seed; None: as the profile says."""
    cache: Path = Path("build/evaluate")


class Run(msgspec.Struct):
    """One seed."""

    seed: int
    products: dict[str, Figures]


class Report(msgspec.Struct, kw_only=True):
    """The JSON. ``mean`` and ``spread`` (standard deviation, ddof 1) are over seeds, of the mean over products."""

    method: str
    profile: str
    command: str
    settings: dict[str, Any]
    weights: list[dict[str, Any]]
    machine: dict[str, Any]
    mean: dict[str, float] = {}
    spread: dict[str, float] = {}
    frames: dict[str, list[str]] = {}
    """Product -> names of its test frames; every run's scores are in this order."""
    leaked: dict[str, list[str]] = {}
    """Product -> names of its test frames that show a part of the training frames."""
    runs: list[Run] = []
    control: Run | None = None
    """Random weights, frozen features, same frames and figures."""


def evaluate(
    options: EvaluateOptions, out: Path, command: str, progress: Progress, show: Show = lambda *_: None
) -> Report:
    """Evaluate and write ``out`` after every product of every seed.

    Raises UsageError (options; ``out`` holds an evaluation with other settings), and DataError and CalibrationError
    as ``asperity calibrate`` does on the same folder.
    """
    chosen, method = profile_of(options), find_method(options.method)
    method.config(chosen, 0, options.overrides)
    if options.seeds < 1:
        raise UsageError(f"--seeds {options.seeds} must be 1 or more")
    folders = _folders(options)
    check_exclude(options.exclude, len(folders), "name one with --category, and a file for each (--json)")
    networks = build(
        chosen, rgb_weights=options.rgb_weights, point_weights=options.point_weights, seeded=options.random_weights
    )
    report = resumed(options, out, command, networks)
    settings = Settings(options.shots, options.alpha, options.thresholds, options.pixels)
    calibrate = CalibrateOptions(
        profile=options.profile, limit=options.limit, unit=options.unit, invalid=options.invalid,
        geometry=options.geometry, z=options.z, exclude=options.exclude, modalities=options.modalities,
    )  # fmt: skip
    for folder in folders:
        name = folder.resolve().name
        missing = [run for run in report.runs if name not in run.products]
        if missing:
            material = load_material(folder, chosen, networks, calibrate, options.cache, progress)
            if report.frames.setdefault(name, list(material.test.names)) != list(material.test.names):
                raise DataError(f"{out} holds figures of other test frames of {name}; remove it or name another")
            if material.leaked:
                report.leaked[name] = list(material.leaked)
                LOG.warning(
                    "%s: %d test frames show parts of the training frames (%s); their figures say nothing about new "
                    "parts: take them out", name, len(material.leaked), listed(material.leaked),
                )  # fmt: skip
            for run in missing:
                config = method.config(chosen, run.seed, options.overrides)
                adapted = options.cache / "adapted"
                auto = options.modalities == AUTO
                judged = run_trial(material, method, config, chosen, run.seed, settings, progress, adapted, auto)
                run.products[name] = judged.figures
                show(material, run.seed, judged)
                write_report(report, out)
            del material
        if report.control is not None and name not in report.control.products:
            random = build(chosen, seeded=True, seed=0)
            material = load_material(folder, chosen, random, calibrate, options.cache, progress)
            judged = run_trial(material, find_method("frozen"), None, chosen, 0, settings, progress)
            report.control.products[name] = judged.figures
            write_report(report, out)
    write_report(report, out)
    return report


def profile_of(options: EvaluateOptions) -> Profile:
    """The profile, with its choices changed. Raises UsageError."""
    chosen = find_profile(options.profile)
    method: CalibrationMethod = "lsfa" if find_method(options.method).adapt else "frozen"
    asked = CalibrateOptions(profile=options.profile, method=method, modalities=options.modalities)
    chosen = replace(chosen, modalities=asked_modalities(asked, chosen))
    if options.point_bn is None:
        return chosen
    if chosen.points_encoder != "point_mae":
        raise UsageError(f"--point-bn {options.point_bn}: the point encoder of {chosen.name} has no BatchNorm")
    return replace(chosen, point_bn=options.point_bn)


def _folders(options: EvaluateOptions) -> list[Path]:
    folders = products_of(options.source)
    if not options.categories:
        return folders
    by_name = {folder.resolve().name: folder for folder in folders}
    unknown = [name for name in options.categories if name not in by_name]
    if unknown:
        raise UsageError(f"--category {', '.join(unknown)}: {options.source} holds {', '.join(by_name)}")
    return [by_name[name] for name in options.categories]


def resumed(options: EvaluateOptions, out: Path, command: str, networks: TorchNetworks) -> Report:
    """The report so far, or a new one. The number of seeds may be increased; nothing else may differ."""
    settings: dict[str, Any] = {
        "source": options.source.resolve().name, "overrides": options.overrides, "shots": options.shots,
        "alpha": options.alpha, "thresholds": options.thresholds, "limit": options.limit, "pixels": options.pixels,
        "random_weights": options.random_weights, "point_bn": options.point_bn,
    }  # fmt: skip
    if options.invalid is not None:
        settings["invalid"] = [option_of(value) for value in options.invalid]
    # As they are read from the file.
    settings |= {name: list(value) for name in ("exclude", "modalities") if (value := getattr(options, name))}
    if options.unit:
        settings["unit"] = options.unit
    # Named only where it was asked for: so results of earlier versions can be continued.
    settings |= {name: value for name in ("geometry", "z") if (value := getattr(options, name)) != "auto"}
    weights = [msgspec.to_builtins(origin) for origin in networks.origins]
    fresh = Report(
        method=options.method, profile=options.profile, command=command, settings=settings, weights=weights,
        machine=machine(), control=Run(0, {}) if options.control else None,
    )  # fmt: skip
    report = fresh
    if out.exists():
        try:
            report = msgspec.convert(reports.read_result(out), Report)
        except (DataError, msgspec.MsgspecError) as error:
            raise DataError(
                f"{out} is not an evaluation that could go on ({error}); remove it or name another"
            ) from error
        said = [(r.method, r.profile, r.settings, r.weights) for r in (report, fresh)]
        if said[0] != said[1]:
            raise UsageError(
                f"{out} holds an evaluation of {report.method}, {report.profile}, {report.settings}, which is another; "
                "remove it or name another --json"
            )
        report.control = report.control or fresh.control
    known = {run.seed for run in report.runs}
    report.runs.extend(Run(seed, {}) for seed in range(options.seeds) if seed not in known)
    return report


def summary(runs: Sequence[Run]) -> Iterator[tuple[str, float, float]]:
    """(figure, mean over seeds of the mean over products, standard deviation over seeds); 0 with one seed."""
    for name in SUMMARY:
        by_seed = []
        for run in runs:
            values = [getattr(figures, name) for figures in run.products.values()]
            if values and all(value is not None for value in values):
                by_seed.append(float(np.mean(values)))
        if by_seed:
            yield name, float(np.mean(by_seed)), float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else 0.0


def write_report(report: Report, out: Path) -> None:
    rows = list(summary([run for run in report.runs if run.products]))
    report.mean = {name: round(mean, 5) for name, mean, _ in rows}
    report.spread = {name: round(spread, 5) for name, _, spread in rows}
    reports.write_result(out, msgspec.to_builtins(report))
