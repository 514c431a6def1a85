"""Pictures of the calibration report as PNG bytes. matplotlib draws without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from asperity.runtime.frame import BoolArray, ByteArray, FloatArray
from asperity.runtime.vision.maps import pixel_map

HELD_OUT, OWN, LIMIT, QUIET = "#2f6f9f", "#b9c4cc", "#c0392b", "#5d6d7e"
DPI = 110
TILE_PX = 224
FULL_HEAT = 0.75
"""Opacity of the map where it is hottest."""

CROP_PX, CROP_SHARE = 109, 0.2
"""What is shown around a patch: its side on the page, and as a share of the window's."""

Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Patch:
    """A place in a prepared frame; row and column are those of its middle as shares of the sides."""

    image: ByteArray
    cloud: FloatArray
    row: float
    column: float


def score_histogram(held_out: Values, own: Values, threshold: float) -> bytes:
    """Fused scores of held-out normals with the threshold; frames of the bank (leave-one-out) as an outline."""
    figure = Figure(figsize=(8.4, 3.0), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    edges = _edges([*held_out, *own, threshold])
    if len(own):
        axes.hist(
            own,
            bins=edges,
            histtype="stepfilled",
            color=OWN,
            label=f"{len(own)} frames of the memory bank (leave-one-out)",
        )
    axes.hist(held_out, bins=edges, color=HELD_OUT, alpha=0.85, label=f"{len(held_out)} held-out frames")
    axes.plot(
        held_out,
        np.full(len(held_out), -0.02),
        "|",
        color=HELD_OUT,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
    )
    axes.axvline(threshold, color=LIMIT, linewidth=1.8, label=f"threshold {threshold:.3g}")
    axes.axvspan(threshold, edges[-1], color=LIMIT, alpha=0.07)
    axes.set_xlabel("anomaly score (higher is more anomalous)")
    _plain(axes)
    figure.legend(frameon=False, fontsize=8, loc="outside upper left", ncols=3)
    return _png(figure)


def modality_histograms(panels: Sequence[tuple[str, Values, Values]]) -> bytes:
    """(name, held-out image distances, those of the bank's own frames) side by side."""
    figure = Figure(figsize=(8.4, 2.3), dpi=DPI, layout="constrained")
    for axes, (name, held_out, own) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        edges = _edges([*held_out, *own])
        if len(own):
            axes.hist(own, bins=edges, color=OWN)
        axes.hist(held_out, bins=edges, color=HELD_OUT, alpha=0.85)
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_xlabel("distance of the worst patch", fontsize=8)
        _plain(axes)
    return _png(figure)


def silhouette_strips(panels: Sequence[tuple[str, Values, float, float]]) -> bytes:
    """(figure, values of all normals, low, high): a dot a frame between the range's ends."""
    figure = Figure(figsize=(8.4, 0.62 * len(panels) + 0.2), dpi=DPI, layout="constrained")
    for axes, (name, values, low, high) in zip(figure.subplots(len(panels), 1), panels, strict=True):
        height = np.random.default_rng(0).uniform(-0.6, 0.6, len(values))
        axes.axvspan(low, high, color=HELD_OUT, alpha=0.10)
        axes.plot(values, height, ".", color=HELD_OUT, markersize=3.5, alpha=0.7)
        for end in (low, high):
            axes.axvline(end, color=LIMIT, linewidth=1.2)
        margin = 0.06 * (high - low)
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(-1, 1)
        axes.set_yticks([])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        _plain(axes)
        axes.spines["left"].set_visible(False)
        axes.grid(False)
    return _png(figure)


def curves(panels: Sequence[tuple[str, dict[str, Sequence[float]]]]) -> bytes:
    """(title, named curves over steps) side by side; nan where a term did not act."""
    figure = Figure(figsize=(8.4, 2.4), dpi=DPI, layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name, values in lines.items():
            axes.plot(values, label=name.replace("_", " "), linewidth=1.2)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
        _plain(axes)
        axes.legend(frameon=False, fontsize=7)
    return _png(figure)


def found_by_size(kinds: Sequence[tuple[str, Values, int]]) -> bytes:
    """(kind, the sizes from which a place's defect was found, ascending, places): the share found by size."""
    figure = Figure(figsize=(8.4, 2.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for name, sizes, places in kinds:
        axes.step(sizes, np.arange(1, len(sizes) + 1) / places, where="post", label=name, linewidth=1.4)
    for level in (0.5, 0.95):
        axes.axhline(level, color=QUIET, linewidth=0.6, linestyle=":")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("size, mm", fontsize=8)
    axes.set_ylabel("share found", fontsize=8)
    _plain(axes)
    axes.legend(frameon=False, fontsize=7)
    return _png(figure)


def colour_and_map(image: ByteArray, fused: FloatArray, scored: BoolArray, hottest: float) -> bytes:
    """The prepared image beside itself under its map; 0 is a usual patch, ``hottest`` the top of the scale."""
    colour = Image.fromarray(image).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)
    heat = np.clip(pixel_map(np.where(scored, fused, 0.0).astype(np.float32)) / max(hottest, 1e-9), 0.0, 1.0)
    paint = (colormaps["inferno"](heat)[..., :3] * 255.0).astype(np.float64)
    opacity = (FULL_HEAT * np.sqrt(heat))[..., None]
    over = np.asarray(colour, dtype=np.float64) * (1 - opacity) + paint * opacity
    sheet = Image.new("RGB", (2 * TILE_PX + 4, TILE_PX), "white")
    sheet.paste(colour, (0, 0))
    sheet.paste(Image.fromarray(over.round().astype(np.uint8)), (TILE_PX + 4, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def patch_pair(first: Patch, second: Patch) -> bytes:
    """Colour and height around two places side by side: colour, height, a gap, colour, height; heights on one scale."""
    crops = [(_crop(one.image, one.row, one.column), _crop(one.cloud, one.row, one.column)) for one in (first, second)]
    levels = [_level(np.where(cloud.any(axis=2), cloud[..., 2], np.nan)) for _, cloud in crops]
    known = np.concatenate([values[np.isfinite(values)] for values in levels])
    span = float(np.quantile(np.abs(known), 0.9)) if known.size else 0.0
    sheet = Image.new("RGB", (4 * CROP_PX + 16, CROP_PX), "white")
    for number, ((colour, _), values) in enumerate(zip(crops, levels, strict=True)):
        left = number * (2 * CROP_PX + 12)
        shade = colormaps["viridis"](np.clip(0.5 - 0.5 * np.nan_to_num(values) / max(span, 1e-9), 0.0, 1.0))[..., :3]
        shade[np.isnan(values)] = 0.0
        for at, pixels in ((left, colour), (left + CROP_PX + 4, (255 * shade).astype(np.uint8))):
            drawn = Image.fromarray(np.ascontiguousarray(pixels)).resize((CROP_PX, CROP_PX), Image.Resampling.NEAREST)
            sheet.paste(drawn, (at, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _level(depths: NDArray[Any]) -> NDArray[Any]:
    """Depths without their usual slope and level; nan stays."""
    for axis in (0, 1):
        steps = np.diff(depths, axis=axis)
        if np.isfinite(steps).any():
            slope = np.nanmedian(steps) * np.arange(depths.shape[axis])
            depths = depths - (slope[:, None] if axis == 0 else slope)
    return depths - np.nanmedian(depths) if np.isfinite(depths).any() else depths


def _crop(values: NDArray[Any], row: float, column: float) -> NDArray[Any]:
    """The square around a place given as shares of the sides, moved to lie within."""
    side = values.shape[0]
    half = max(2, round(CROP_SHARE * side / 2))
    top, left = (min(max(round(share * side) - half, 0), side - 2 * half) for share in (row, column))
    return values[top : top + 2 * half, left : left + 2 * half]


def _edges(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    margin = 0.04 * (high - low) or 0.5
    return [float(edge) for edge in np.linspace(low - margin, high + margin, 41)]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=QUIET)
    axes.grid(axis="y", linewidth=0.4, color="#dde3e8")
    axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
