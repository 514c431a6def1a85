"""The products of the virtual station: a machined bracket, a bread roll, a printed nameplate.

Each function makes one physical part from its own random generator: dimensions, surface and colour vary from part to
part as for a real product. ``wrong`` makes a part of a similar type that must not pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import uniform_filter

from asperity.runtime.cameras.virtual.more_products import MORE_PRODUCTS
from asperity.runtime.cameras.virtual.part import BELOW_MM, SPACING_MM, Part, grid_mm, noise
from asperity.runtime.cameras.virtual.shapes import blend, disc, rounded_box
from asperity.runtime.errors import UsageError
from asperity.runtime.frame import FloatArray

PRINT_MM = 0.1
"""Size of a dot of the nameplate's print."""


def make_part(product: str, rng: np.random.Generator, *, wrong: bool = False) -> Part:
    """One part of a product. Raises UsageError for a product that does not exist."""
    try:
        maker = ALL_PRODUCTS[product]
    except KeyError:
        raise UsageError(f"the product {product!r} is not known; choose one of {', '.join(ALL_PRODUCTS)}") from None
    return maker(rng, wrong)


def bracket(rng: np.random.Generator, wrong: bool) -> Part:
    """Milled aluminium: sharp edges, counterbored holes, a pocket with a boss, brushed surface; tight tolerances."""
    x, y = grid_mm()
    top_mm = 9.0 + rng.normal(0, 0.03)
    outline = rounded_box(x, y, 38 + rng.normal(0, 0.04), 24 + rng.normal(0, 0.04), 5)
    notch = rounded_box(x - 38, y - 4, 5, 4, 1.2)
    body = np.maximum(outline, -notch)
    height = (top_mm - np.clip(body + 0.9, 0, 0.9)).astype(np.float32)  # chamfer of 0.9 mm around the upper edge
    if wrong:
        pocket, floor_mm, boss_at = disc(x + 2, y, 12.5), 4.0, None
        holes = [(-30.0, -17.0), (-30.0, 17.0), (30.0, -17.0), (18.0, -17.0)]
    else:
        pocket, floor_mm, boss_at = rounded_box(x + 2, y, 17, 10, 4), 4.5 + rng.normal(0, 0.04), (-7.0, 0.0)
        holes = [(-30.0, -17.0), (-30.0, 17.0), (30.0, -17.0), (30.0, 17.0)]
    height = blend(height, top_mm - floor_mm, pocket)
    if boss_at:
        height = blend(height, top_mm - 1.0, disc(x - boss_at[0], y - boss_at[1], 5.5))
        height = blend(height, top_mm - floor_mm, disc(x - boss_at[0], y - boss_at[1], 2.2))
    for at_x, at_y in holes:
        dx, dy = x - at_x - rng.normal(0, 0.04), y - at_y - rng.normal(0, 0.04)
        height = blend(height, top_mm - 2.2, disc(dx, dy, 5.2))
        height = blend(height, BELOW_MM, disc(dx, dy, 3.1))
    height = blend(np.full_like(height, BELOW_MM), height, body)
    height = height + noise(rng, (0.006, 3.0), (0.01, 25.0))
    brushed = noise(rng, (0.02, 1.2), (0.012, 4.0), stretch=14.0)
    tone = 0.60 + rng.normal(0, 0.008) + brushed
    albedo = tone[..., None] * np.array([0.98, 1.0, 1.03], np.float32)
    return Part(height.astype(np.float32), np.clip(albedo, 0, 1).astype(np.float32), gloss=0.10)


def roll(rng: np.random.Generator, wrong: bool) -> Part:
    """A bread roll: every one has another outline, height, bumps and browning."""
    x, y = grid_mm()
    angle = np.arctan2(y, x)
    wobble = 1 + sum(rng.normal(0, 0.022) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5))
    half_x, half_y = (34.0, 18.5) if wrong else (34.0, 24.0)
    rho = np.hypot(x / (half_x + rng.normal(0, 0.9)), y / (half_y + rng.normal(0, 0.7))) / wobble
    dome = np.clip(1 - np.maximum(rho, 0) ** 2.4, 0, None) ** 0.55
    height = (17 + rng.normal(0, 0.8)) * dome
    # The crease along the top, as baked in.
    bend = rng.normal(0, 1.2) + 1.5 * np.sin(x / 14 + rng.uniform(-0.5, 0.5))
    if not wrong:
        height = height - 1.6 * np.exp(-(((y - bend) / 2.6) ** 2)) * np.clip(1.15 - (x / 27) ** 2, 0, 1) * dome
    rough = noise(rng, (0.50, 26.0), (0.06, 8.0), (0.02, 2.5))
    height = np.where(rho < 1, height + rough * np.clip(dome * 1.5, 0, 1), BELOW_MM)
    browning = np.clip(0.5 + 0.55 * (dome - 0.7) + noise(rng, (0.13, 14.0), (0.06, 5.0)) + rng.normal(0, 0.05), 0, 1)
    pale, brown = np.array([0.88, 0.70, 0.44], np.float32), np.array([0.56, 0.33, 0.15], np.float32)
    albedo = pale + (brown - pale) * browning[..., None]
    speckle = noise(rng, (1.0, 1.6))
    albedo = albedo * (1 - 0.10 * np.clip(speckle - 1.4, 0, 1))[..., None] + noise(rng, (0.012, 1.5))[..., None]
    return Part(height.astype(np.float32), np.clip(albedo, 0, 1).astype(np.float32), gloss=0.04)


def nameplate(rng: np.random.Generator, wrong: bool) -> Part:
    """A printed plate with a raised rim and a woven grain; the print sits a little off, the plate is a little bowed."""
    x, y = grid_mm()
    outline = rounded_box(x, y, 38.5 + rng.normal(0, 0.05), 25 + rng.normal(0, 0.05), 4)
    top_mm = 6.0 + rng.normal(0, 0.04)
    bow = rng.normal(0, 0.10) * ((x / 38) ** 2 - 0.4) + rng.normal(0, 0.06) * (y / 25) ** 2
    grain = 0.030 * (
        np.sin(2 * np.pi * (x + rng.uniform(0, 2)) / 2.0) + np.sin(2 * np.pi * (y + rng.uniform(0, 2)) / 2.0)
    )
    inner = np.full_like(x, top_mm) + grain
    surface = blend(np.full_like(x, top_mm + 0.7), inner, outline + 2.2) + (bow + noise(rng, (0.01, 12.0)))
    height = blend(np.full_like(x, BELOW_MM), surface.astype(np.float32), outline)
    shift_x, shift_y = rng.normal(0, 0.18, 2)
    ink = _print(wrong)
    column = np.clip(((x - shift_x) / PRINT_MM + ink.shape[1] / 2).astype(np.int32), 0, ink.shape[1] - 1)
    row = np.clip(((shift_y - y) / PRINT_MM + ink.shape[0] / 2).astype(np.int32), 0, ink.shape[0] - 1)
    albedo = ink[row, column] * (1 + rng.normal(0, 0.012)) + noise(rng, (0.010, 1.2), (0.006, 20.0))[..., None]
    return Part(height.astype(np.float32), np.clip(albedo, 0, 1).astype(np.float32), gloss=0.05)


PRODUCTS: dict[str, Callable[[np.random.Generator, bool], Part]] = {
    "bracket": bracket,
    "roll": roll,
    "nameplate": nameplate,
}
ALL_PRODUCTS = PRODUCTS | MORE_PRODUCTS


@cache
def _print(wrong: bool) -> FloatArray:
    """The nameplate's print, 10 dots a mm, softened to the grid's spacing: H x W x 3, 0..1."""
    width, height = round(80 / PRINT_MM), round(54 / PRINT_MM)
    picture = Image.new("RGB", (width, height), (214, 208, 192))
    draw = ImageDraw.Draw(picture)
    bar, accent = ((150, 52, 44), (52, 84, 130)) if wrong else ((44, 78, 128), (196, 92, 40))
    draw.rounded_rectangle((60, 60, 740, 170), 25, fill=bar)
    draw.text((90, 66), "TYPE 7B" if wrong else "MOTOR M4", font=ImageFont.load_default(92), fill=(235, 232, 222))
    draw.ellipse((600, 76, 680, 156), fill=accent)
    rng = np.random.default_rng(2 if wrong else 1)
    for line, text in enumerate(("230 V  50 Hz", "0.37 kW  1390 rpm", "IP 55  cl. F")):
        draw.text((70, 190 + 66 * line), text, font=ImageFont.load_default(58), fill=(48, 46, 44))
    left = 70
    while left < 500:  # a bar code
        thick = int(rng.integers(4, 16))
        draw.rectangle((left, 405, left + thick, 480), fill=(40, 40, 42))
        left += thick + int(rng.integers(6, 16))
    for ring in range(3):  # a sign of concentric rings
        draw.ellipse((560 + 26 * ring, 300 + 26 * ring, 730 - 26 * ring, 470 - 26 * ring), outline=accent, width=12)
    return _soften(np.asarray(picture).astype(np.float32) / np.float32(255))


def _soften(picture: FloatArray) -> FloatArray:
    """Mean over one grid spacing, so that the print does not alias on the grid."""
    size = max(1, round(SPACING_MM / PRINT_MM))
    return np.asarray(uniform_filter(picture, (size, size, 0)), dtype=np.float32)
