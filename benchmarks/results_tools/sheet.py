"""A picture sheet: one row (or column) per frame with colour, depth, anomaly map and truth side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Frame, Window
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import ReceivedResult

CELL_PX = 200
GAP_PX = 6
TEXT_PX = 22
LEFT_PX = 90
"""Of a sheet laid out across: room for the rows' names."""
COLUMNS = ("colour", "depth", "anomaly map", "truth")
INK, PAPER = (235, 235, 235), (24, 26, 30)


@dataclass(frozen=True, slots=True)
class Tile:
    """One frame with its map (values around 0 on normal surface) and its truth."""

    caption: str
    frame: Frame
    mask: BoolArray  # H x W
    fused: FloatArray  # map over ``window``; H x W where that is None
    window: Window | None = None


def write_sheet(path: Path, tiles: Sequence[Tile], *, across: bool = False) -> None:
    """Write the sheet as PNG: one row per frame, or ``across``: one column per frame.

    The maps share one scale, from 0 to the highest value, so that frames can be compared.
    """
    top = max(float(tile.fused.max()) for tile in tiles)
    step_px, row_px = CELL_PX + GAP_PX, CELL_PX + TEXT_PX + GAP_PX
    if across:
        size = LEFT_PX + step_px * len(tiles), 2 * TEXT_PX + GAP_PX + step_px * len(COLUMNS)
    else:
        size = GAP_PX + step_px * len(COLUMNS), TEXT_PX + row_px * len(tiles)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, title in enumerate(COLUMNS):
        spot = (GAP_PX, 2 * TEXT_PX + step_px * place) if across else (GAP_PX + place * step_px, 4)
        pen.text(spot, title, fill=INK)
    for number, tile in enumerate(tiles):
        if across:
            x_px = LEFT_PX + number * step_px
            pen.text((x_px, 4), tile.caption.replace(": ", "\n", 1), fill=INK)
            spots = [(x_px, 2 * TEXT_PX + GAP_PX + step_px * place) for place in range(len(COLUMNS))]
        else:
            y_px = TEXT_PX + number * row_px
            pen.text((GAP_PX, y_px + 4), tile.caption, fill=INK)
            spots = [(GAP_PX + place * step_px, y_px + TEXT_PX) for place in range(len(COLUMNS))]
        for spot, picture in zip(spots, _pictures(tile, top), strict=True):
            sheet.paste(Image.fromarray(picture).resize((CELL_PX, CELL_PX)), spot)
    sheet.save(path)


def caption(kind: str, result: ReceivedResult | None) -> str:
    """What a frame showed and its result."""
    if result is None:
        return f"{kind}: no result"
    said = Reason(result.reason_code).name
    score = f" ({said})" if result.score is None else f", score {result.score:.2f}, threshold {result.threshold:.2f}"
    return f"{kind}: {result.verdict.name.lower()}{score}"


def _pictures(tile: Tile, top: float) -> list[ByteArray]:
    assert tile.frame.xyz is not None
    depth = tile.frame.xyz[..., 2]
    seen = depth > 0
    low, high = np.percentile(depth[seen], [1, 99])
    grey = np.where(seen, 255 - 215 * np.clip((depth - low) / max(high - low, 1e-9), 0, 1), 0).astype(np.uint8)
    truth = np.where(tile.mask, 255, 30).astype(np.uint8)
    return [tile.frame.rgb, np.dstack([grey] * 3), _overlay(tile, top), np.dstack([truth] * 3)]


def _overlay(tile: Tile, top: float) -> ByteArray:
    """The map as heat over the grey picture, at its window's place in the frame."""
    height_px, width_px = tile.frame.shape_px
    heat = np.zeros((height_px, width_px), np.float32)
    window = tile.window
    if window is None:
        heat[:] = tile.fused
    else:
        scaled = np.asarray(Image.fromarray(tile.fused).resize((window.side_px, window.side_px)))
        y0, x0 = max(window.y_px, 0), max(window.x_px, 0)
        y1, x1 = min(window.y_px + window.side_px, height_px), min(window.x_px + window.side_px, width_px)
        heat[y0:y1, x0:x1] = scaled[y0 - window.y_px : y1 - window.y_px, x0 - window.x_px : x1 - window.x_px]
    share = np.clip(heat / max(top, 1e-6), 0, 1)[..., None]
    grey = tile.frame.rgb.mean(axis=2, keepdims=True)
    colour = np.concatenate([255 * np.clip(share * 2, 0, 1), 255 * np.clip(share * 2 - 1, 0, 1), 40 + 0 * share], -1)
    blended: ByteArray = (grey * 0.6 * (1 - share) + colour * share).clip(0, 255).astype(np.uint8)
    return blended
