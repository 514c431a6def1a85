"""The first look's results files as one table in docs/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from calibration.adaptation_config import AdaptationConfig

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
