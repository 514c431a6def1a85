"""A picture for people of what a camera's check saw: colour, part, depth and valid points side by side."""

from __future__ import annotations

import numpy as np

from asperity.runtime.cameras.setup.look import Look
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray
from asperity.runtime.vision.overlay import HEAT_COLOURS, HEAT_STOPS
from asperity.runtime.vision.regions import dilated

MOST_SIDE_PX = 1280
"""Of one view: larger ones are thinned out."""
OUTLINE = (255, 0, 255)
GAP_PX = 4


def check_picture(rgb: ByteArray, look: Look, valid_share: FloatArray) -> ByteArray:
    """Four views in one. Above: colour; colour with the part's outline. Below: depth, near red and far blue, black
    without a point; and how often each pixel had a point: white always, black never."""
    step = -(-max(rgb.shape[:2]) // MOST_SIDE_PX)
    outlined = rgb.copy()
    if look.part is not None:
        outlined[_rim(look.part.filled, 1 + step)] = OUTLINE
    share = np.round(255 * valid_share).astype(np.uint8)
    views = [rgb, outlined, _depth(look.points[..., 2], look.valid), np.repeat(share[..., None], 3, axis=2)]
    thin = [view[::step, ::step] for view in views]
    rows, columns = thin[0].shape[:2]
    whole = np.full((2 * rows + GAP_PX, 2 * columns + GAP_PX, 3), 128, dtype=np.uint8)
    for index, view in enumerate(thin):
        top, left = (index // 2) * (rows + GAP_PX), (index % 2) * (columns + GAP_PX)
        whole[top : top + rows, left : left + columns] = view
    return whole


def _rim(mask: BoolArray, width_px: int) -> BoolArray:
    """Pixels around the mask, and at the picture's edge within it."""
    rim: BoolArray = dilated(mask, width_px) & ~mask
    for strip in (np.s_[:width_px], np.s_[-width_px:], np.s_[:, :width_px], np.s_[:, -width_px:]):
        rim[strip] |= mask[strip]
    return rim


def _depth(z_mm: FloatArray, valid: BoolArray) -> ByteArray:
    colours = np.zeros((*z_mm.shape, 3), dtype=np.uint8)
    if not valid.any():
        return colours
    near, far = np.percentile(np.abs(z_mm[valid]), (2, 98))
    level = np.clip((far - np.abs(z_mm[valid])) / max(far - near, 1e-9), 0.0, 1.0)
    mixed = np.stack([np.interp(level, HEAT_STOPS, HEAT_COLOURS[:, channel]) for channel in range(3)], axis=1)
    colours[valid] = np.round(mixed).astype(np.uint8)
    return colours
