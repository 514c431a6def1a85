"""The first look's results files as the tables in docs/: all settings, and one setting's seeds against frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.benchmarks.results_tools.statistics import bootstrap, interval, times_drawn
from asperity.calibration.adaptation.settings import AdaptationConfig
from asperity.calibration.auroc import weighted_auroc, wins

SHOWN = ("temperature", "start", "compactness", "learning_rate", "epochs")
"""Columns of a setting; any other field that differs from the rest is named behind them."""
Line = dict[str, Any]
"""One decoded line of a results file."""


def read(folder: Path, profile: str) -> dict[str, list[Line]]:
    """Lines by setting (its canonical JSON), for settings that every product has."""
    by_setting: dict[str, list[Line]] = {}
    files = sorted(folder.glob(f"{profile}-*.jsonl"))
    for path in files:
        for text in path.read_text().splitlines():
            line = msgspec.json.decode(text)
            by_setting.setdefault(msgspec.json.encode(line["trial"]["config"]).decode(), []).append(line)
    return {setting: lines for setting, lines in by_setting.items() if len(lines) == len(files)}


def tables(settings: dict[str, list[Line]]) -> str:
    """Both tables: of each setting one seed; and the setting of which there are most seeds, pair by pair."""
    frozen = settings.pop("null")
    groups: dict[str, list[list[Line]]] = {}
    for lines in settings.values():
        config = {**lines[0]["trial"]["config"], "seed": 0}
        groups.setdefault(msgspec.json.encode(config).decode(), []).append(lines)
    first = {
        key: min(group, key=lambda lines: int(lines[0]["trial"]["config"]["seed"])) for key, group in groups.items()
    }
    repeated = max(groups.values(), key=len)
    return table({"null": frozen, **first}) + "\n\n" + paired_table(frozen, repeated)


def paired_table(frozen: list[Line], seeds: list[list[Line]]) -> str:
    """A setting's seeds against frozen features on the same test frames, product by product."""
    head = ["product", "frozen", f"adapted, {len(seeds)} seeds: mean (standard deviation)", "difference"]
    head += ["95 % of a bootstrap over test frames", "pseudo patch: frozen", "adapted", "stopped"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    everything: list[NDArray[np.float64]] = []
    for still in sorted(frozen, key=lambda line: str(line["trial"]["product"])):
        product = still["trial"]["product"]
        moved = [line for group in seeds for line in group if line["trial"]["product"] == product]
        done = [line for line in moved if line["test"] is not None]
        if not done:
            lines.append(
                f"| {product} | {still['test']['image_auroc']:.4f} | stopped in every seed | | | | | {len(moved)} |"
            )
            continue
        values = [line["test"]["image_auroc"] for line in done]
        differences = differences_drawn(still["test"], [line["test"] for line in done])
        everything.append(differences)
        low, high = interval(differences)
        spread = stdev(values) if len(values) > 1 else float("nan")
        pseudo = [line["trial"]["figures"]["patch_auroc"] for line in done]
        cells = [
            product, f"{still['test']['image_auroc']:.4f}", f"{fmean(values):.4f} ({spread:.4f})",
            f"{fmean(values) - still['test']['image_auroc']:+.4f}", f"{low:+.4f} to {high:+.4f}",
            f"{still['trial']['figures']['patch_auroc']:.4f}", f"{fmean(pseudo):.4f}", str(len(moved) - len(done)),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    if len(everything) < len(frozen):
        return "\n".join(lines)
    mean = np.mean(everything, axis=0)
    low, high = interval(mean)
    lines.append(f"| mean of products | | | {mean.mean():+.4f} | {low:+.4f} to {high:+.4f} | | | |")
    return "\n".join(lines)


def differences_drawn(frozen: Line, adapted: list[Line]) -> NDArray[np.float64]:
    """Differences of image AUROC (mean over seeds, less frozen) over resamplings of the test frames."""
    better = np.stack([_wins(one) for one in adapted]).mean(0) - _wins(frozen)
    good, defective = better.shape
    return np.array(bootstrap(lambda rng: weighted_auroc(better, times_drawn(rng, good), times_drawn(rng, defective))))


def _wins(test: Line) -> NDArray[np.float64]:
    return wins(test["good_scores"], test["defective_scores"])


def table(settings: dict[str, list[Line]]) -> str:
    """Markdown, frozen first, then by the figure that chooses."""
    products = sorted(line["trial"]["product"] for line in next(iter(settings.values())))
    head = [
        "T",
        "start",
        "compactness",
        "lr",
        "epochs",
        "other",
        "**pseudo patch**",
        "geometry",
        "colour",
        "pseudo image",
    ]
    head += ["test I-AUROC", *products, "test patch", "spread rgb / points", "s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    order = sorted(settings.values(), key=lambda each: (each[0]["trial"]["config"] is not None, -_chooses(each)))
    lines += ["| " + " | ".join(_cells(each, products)) + " |" for each in order]
    return "\n".join(lines)


def _chooses(lines: list[Line]) -> float:
    if any(line["trial"]["figures"] is None for line in lines):
        return -1.0
    return fmean(line["trial"]["figures"]["patch_auroc"] for line in lines)


def _cells(lines: list[Line], products: list[str]) -> list[str]:
    config = lines[0]["trial"]["config"]
    if config is None:
        setting = ["frozen", "", "", "", "", ""]
    else:
        plain = msgspec.to_builtins(AdaptationConfig())
        other = [f"{name} {value}" for name, value in config.items() if name not in SHOWN and value != plain[name]]
        setting = [str(config[name]) for name in SHOWN] + [", ".join(other)]
    if _chooses(lines) < 0:
        stopped = {line["trial"]["product"]: line["trial"]["stopped"] for line in lines if line["trial"]["stopped"]}
        return [*setting, "stopped: " + "; ".join(f"{name}: {why}" for name, why in stopped.items())]

    def mean(pick: Callable[[Line], float]) -> str:
        return f"{fmean(pick(line) for line in lines):.4f}"

    by_product = {line["trial"]["product"]: f"{line['test']['image_auroc']:.4f}" for line in lines}
    return [
        *setting,
        f"**{mean(lambda line: line['trial']['figures']['patch_auroc'])}**",
        mean(lambda line: line["trial"]["figures"]["geometry_auroc"]),
        mean(lambda line: line["trial"]["figures"]["colour_auroc"]),
        mean(lambda line: line["trial"]["figures"]["image_auroc"]),
        mean(lambda line: line["test"]["image_auroc"]),
        *(by_product[name] for name in products),
        mean(lambda line: line["test"]["patch_auroc"]),
        " / ".join(f"{fmean(line['trial'][name] for line in lines):.2f}" for name in ("rgb_spread", "points_spread")),
        f"{fmean(line['trial']['seconds'] for line in lines):.0f}",
    ]
