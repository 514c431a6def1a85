"""Products whose own surface is the border's plane, and what looks like them: what calibration makes of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.frames.silhouette import learn_shape
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.cameras.virtual.products import PRODUCTS
from asperity.runtime.errors import AsperityError, CalibrationError, FrameRefused
from asperity.runtime.frame import Frame, Silhouette, Verdict
from asperity.runtime.manifest import Geometry, SilhouetteRange
from asperity.runtime.vision.border_plane import fit_border_plane, is_height_map
from asperity.runtime.vision.preprocess import find_part, plane_heights, prepare
from asperity.runtime.vision.ransac_dbscan import border_strips
from asperity.runtime.vision.scoring import decide
from asperity.runtime.vision.units import points_mm
from tests.flat_products import (
    HEIGHT_PX,
    PITCH_MM,
    WIDTH_PX,
    Surface,
    Values,
    bodies,
    expose,
    frames,
    sheet,
    table,
)
from tests.runtime.vision.scored_frame import decision, scores
from tests.synthetic_station import small_network

PART = bodies((0, 0, 25, 10), shift_mm=10)
CHIPS = [(x, y, 5, 2.0) for x in (-60, -30, 0, 30, 60) for y in (-40, -10, 20)]
STRIP = np.zeros((HEIGHT_PX, WIDTH_PX), dtype=bool)
STRIP[:10], STRIP[-10:], STRIP[:, :5] = True, True, True


def specks(x: Values, y: Values, rng: np.random.Generator) -> Values:
    """A sheet with scattered points 2 mm above it: 0.6 % of all."""
    return 3.0 + np.where(rng.random(x.shape) < 0.006, 2.0, 0.0)


def embossed(relief_mm: float) -> Surface:
    return lambda x, y, rng: 3 + relief_mm * (np.sin(x * np.pi / 10) * np.sin(y * np.pi / 10) > 0.3)


def perforated(x: Values, y: Values, rng: np.random.Generator) -> Values:
    """Holes every 30 mm, through which the table is seen."""
    return np.where(np.hypot((x + 40) % 30 - 15, (y + 40) % 30 - 15) < 5, 0.0, 3.0)


def bowed(radius_mm: float, both: bool) -> Surface:
    return lambda x, y, rng: 3 + np.sqrt(radius_mm**2 - x * x - both * y * y) - radius_mm


def pocketed(x: Values, y: Values, rng: np.random.Generator) -> Values:
    """A plate that fills the view: its rim on one plane, a pocket, and a boss that stands above the rim."""
    return 10 - 5.0 * ((np.abs(x) < 50) & (np.abs(y) < 40)) + 8.0 * (np.hypot(x, y) < 8)


def pallet(x: Values, y: Values, rng: np.random.Generator) -> Values:
    """A part on a fixture that fills most of the view, above a lower table."""
    x0, y0 = rng.uniform(-5, 5, 2)
    return np.where(x < 40, 20.0, 0.0) + np.where(np.hypot(x + 15 - x0, y - y0) < 20, 8.0, 0.0)


OWN = "own surface"
CASES: dict[str, tuple[Callable[[], list[Frame]], str, str]] = {
    # Parts on a table, the controls: as ever.
    "a part": (lambda: frames(PART), "plane", "the part begins"),
    "camera tilted by 30 degrees": (
        lambda: frames(bodies((0, 0, 30, 10), shift_mm=10), tilt_deg=30), "plane", "the part begins",
    ),
    "part of a fourteenth of the view": (
        lambda: frames(bodies((0, 0, 20, 10), shift_mm=10)), "", r"of the view would be judged.*--geometry plane.*none",
    ),
    "part touches the border in some": (lambda: frames(PART, 6) + frames(bodies((55, 0, 25, 10)), 6), "plane", ""),
    "border partly missing": (lambda: frames(PART, lost=STRIP), "plane", ""),
    "a sheet with the table around it": (lambda: frames(sheet(3, (80, 60), 5)), "plane", ""),
    "one view in twelve is empty": (lambda: [*frames(PART, 11), expose(99, table)], "plane", ""),
    "axes of OpenGL": (lambda: frames(PART, axes="opengl"), "plane", ""),
    # The part fills the view.
    "sheet": (lambda: frames(sheet()), "none", OWN),
    "sheet, tilted": (lambda: frames(sheet(), tilt_deg=30), "none", OWN),
    "sheet with scattered points above": (lambda: frames(specks), "none", OWN),
    "sheet with holes": (lambda: frames(perforated), "none", OWN),
    "leather, fine relief": (lambda: frames(embossed(0.3), noise_mm=0.02), "none", OWN),
    "leather, coarse relief": (lambda: frames(embossed(2.0), noise_mm=0.02), "none", "several regions"),
    "board with components": (lambda: frames(bodies(*CHIPS, under=sheet(1.6))), "none", "several regions"),
    "cylinder": (lambda: frames(bowed(2000, False)), "none", OWN),
    "dome": (lambda: frames(bowed(2000, True)), "none", OWN),
    "dish": (lambda: frames(lambda x, y, rng: 3 + (x * x + y * y) / 4000), "none", OWN),
    "strongly bent": (lambda: frames(bowed(300, False)), "none", "fills the view"),
    "part thinner than the noise": (lambda: frames(sheet(0.05, (80, 60), 5)), "none", "more than 1 mm"),
    # Heights above a table.
    "profiler": (lambda: frames(PART, axes="height"), "plane", ""),
    "profiler, zero in mid range": (lambda: frames(PART, axes="height", belt_mm=-35), "plane", ""),
    "profiler, zero below the belt": (lambda: frames(PART, axes="height", belt_mm=35), "plane", ""),
    "profiler, sheet": (lambda: frames(sheet(), axes="height"), "none", OWN),
    # The frames do not tell: the error says why and names the choices.
    "empty views among sheets": (lambda: frames(sheet(), 9) + frames(table, 3), "", r"3 of 12 .*3 mm.*--exclude.*none"),
    "sheets among empty views": (lambda: frames(sheet(), 5) + frames(table, 7), "", r"5 of 12 .*--exclude"),
    "half of the views empty": (lambda: frames(sheet(), 6) + frames(table, 6), "", r"6 of 12 .*--exclude"),
    "parts among empty views": (lambda: frames(PART, 5) + frames(table, 7), "", r"5 of 12 .*--exclude"),
    "background on two levels": (lambda: frames(pallet), "", r"fixture.*--geometry plane.*--geometry none"),
    "plane of the part's own rim": (lambda: frames(pocketed), "", r"rim.*--geometry plane.*--geometry none"),
    "tiny part": (lambda: frames(bodies((0, 0, 5, 5), shift_mm=30)), "", r"0\.\d+% of the frame.*--geometry none"),
    "sheet with a screw": (lambda: frames(bodies((20, 10, 5, 3), under=sheet())), "", r"relief.*--geometry none"),
    "board with one large component": (
        lambda: frames(bodies(*CHIPS, (40, 30, 18, 6), under=sheet(1.6))), "", r"others beside it.*--geometry none",
    ),
    "heights from far below": (
        lambda: frames(PART, axes="height", belt_mm=800), "", r"behind.*--z height.*--geometry none",
    ),
    "heights without unit": (lambda: frames(PART, axes="height", unit=None), "", r"height above a table.*--unit"),
    "heights in um without unit": (
        lambda: frames(sheet(), axes="height", unit=None, to_unit=1e3), "", r"height above.*--unit",
    ),
    "y up": (lambda: frames(PART, axes="y_up"), "", r"from the side.*\[0, 2, 1\]"),
    "y up, sheet": (lambda: frames(sheet(), axes="y_up"), "", r"from the side.*\[0, 2, 1\]"),
}  # fmt: skip


def fitted(normal: Sequence[Frame], **options: Any) -> Geometry | AsperityError:
    try:
        return fit_geometry(normal, **options)
    except (CalibrationError, FrameRefused) as error:
        return error


@pytest.mark.parametrize("name", CASES)
def test_what_the_background_is(name: str) -> None:
    """A method and why, or an error with its remedy; a plane found is one that the part stands on."""
    shown, method, words = CASES[name]
    normal = shown()
    made = fitted(normal)
    if not method:
        assert isinstance(made, AsperityError), made
        assert re.search(words, str(made)), made
        return
    assert isinstance(made, Geometry), made
    assert made.method == method and re.search(words, made.why), made
    if made.plane is not None:
        found = find_part(normal[0], made)
        assert 0.01 < found.part.mean() < 0.5
        assert float(np.median(plane_heights(found.points, made.plane)[found.part])) > 2


@pytest.mark.parametrize(
    ("name", "options", "method"),
    [
        ("tiny part", {"method": "plane"}, "plane"),
        ("background on two levels", {"method": "plane"}, "plane"),
        ("plane of the part's own rim", {"method": "none"}, "none"),
        ("board with one large component", {"method": "none"}, "none"),
        ("heights from far below", {"z": "height"}, "plane"),
        ("heights without unit", {"unit": "mm"}, "plane"),
        ("heights in um without unit", {"unit": "um"}, "none"),
        ("empty views among sheets", {"method": "none"}, "none"),
    ],
)
def test_each_remedy_that_an_error_names_helps(name: str, options: dict[str, Any], method: str) -> None:
    made = fit_geometry(CASES[name][0](), **options)
    assert made.method == method
    assert made.mm_per_px == pytest.approx(PITCH_MM, rel=0.1)


def test_the_frames_that_do_not_fit_are_named_as_exclude_wants_them() -> None:
    """Several frames of one part share its id; the names are the data set's."""
    normal = [replace(frame, part_id="p1") for frame in frames(sheet(), 11) + frames(table, 1)]
    with pytest.raises(CalibrationError, match=r"1 of 12 normal frames \(train/good/011\)"):
        fit_geometry(normal, names=[f"train/good/{i:03d}" for i in range(12)])


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_virtual_products_keep_their_plane(product: str) -> None:
    """Digit for digit the plane of the border's points: judging what it is changes nothing about it."""
    camera = VirtualCamera(product, 3, size_px=128)
    normal = [camera.frame(index).frame for index in range(6)]
    made = fit_geometry(normal)
    pooled = []
    for frame in normal:
        points, valid = points_mm(frame, "m")
        pooled += [points[strip][valid[strip]] for strip in border_strips()]
    border = np.concatenate(pooled).astype(np.float64)
    chosen = np.random.default_rng(0).permutation(len(border))[:20_000]
    assert made.method == "plane" and made.plane == fit_border_plane(border[chosen]).plane
    assert not any(is_height_map(*points_mm(frame, "m")) for frame in normal)


@given(
    thickness_mm=st.floats(0.2, 20), tilt_deg=st.floats(-30, 30), noise_mm=st.floats(0, 0.3), share=st.floats(0, 0.02),
    axes=st.sampled_from(["camera", "opengl", "height"]),
)
@settings(max_examples=12, deadline=None)
def test_no_sheet_is_cut_up(thickness_mm: float, tilt_deg: float, noise_mm: float, share: float, axes: str) -> None:
    """Whatever its thickness and the camera's place and noise, and however many points are scattered above it."""

    def surface(x: Values, y: Values, rng: np.random.Generator) -> Values:
        return thickness_mm + np.where(rng.random(x.shape) < share, 4.0, 0.0)

    made = fitted(frames(surface, 5, tilt_deg=tilt_deg, noise_mm=noise_mm, axes=axes))
    assert isinstance(made, Geometry) and made.method == "none", made


@given(
    radius_mm=st.floats(10, 45), height_mm=st.floats(3, 20), tilt_deg=st.floats(-30, 30), noise_mm=st.floats(0, 0.3),
    axes=st.sampled_from(["camera", "opengl", "height"]),
)
@settings(max_examples=12, deadline=None)
def test_every_part_on_a_table_is_found(
    radius_mm: float, height_mm: float, tilt_deg: float, noise_mm: float, axes: str
) -> None:
    """The control: a body that stands out by more than the noise; a small one where calibration was asked for it."""
    body = bodies((0, 0, radius_mm, height_mm), shift_mm=5)
    normal = frames(body, 5, tilt_deg=tilt_deg, noise_mm=noise_mm, axes=axes)
    made = fitted(normal)
    if isinstance(made, CalibrationError) and "of the view would be judged" in str(made):
        made = fitted(normal, method="plane")
    assert isinstance(made, Geometry) and made.method == "plane", made


@given(empty=st.integers(1, 9), thickness_mm=st.floats(0.6, 20), axes=st.sampled_from(["camera", "height"]))
@settings(max_examples=12, deadline=None)
def test_empty_views_are_never_learnt_as_sheets(empty: int, thickness_mm: float, axes: str) -> None:
    """Any number of them, with any sheet thicker than half a pixel."""
    normal = frames(sheet(thickness_mm), 10 - empty, axes=axes, tilt_deg=10) + [
        expose(500 + seed, table, axes=axes, tilt_deg=10) for seed in range(empty)
    ]
    assert isinstance(fitted(normal), CalibrationError)


def learnt(normal: Sequence[Frame]) -> tuple[Geometry, tuple[SilhouetteRange, ...]]:
    geometry = fit_geometry(normal)
    assert geometry.method == "none"
    seen = [silhouette(frame, geometry) for frame in normal]
    return geometry, learn_shape(seen[:8], seen[8:], geometry).ranges


def silhouette(frame: Frame, geometry: Geometry) -> Silhouette:
    return prepare(frame, geometry, small_network()).silhouette


@pytest.mark.parametrize(
    ("surface", "options"),
    [
        (sheet(3.0), {}),
        (sheet(0.8), {}),
        (sheet(3.0), {"tilt_deg": 30}),
        (sheet(3.0), {"axes": "opengl"}),
        (sheet(3.0), {"axes": "height"}),
        (sheet(3.0), {"axes": "height", "belt_mm": -1.5}),  # the sheet as high above zero as the belt is below
        (embossed(0.3), {"noise_mm": 0.02}),
        (bodies(*CHIPS, under=sheet(1.6)), {}),
        (bowed(2000, True), {}),
        (perforated, {}),
    ],
)
def test_an_empty_view_is_never_ok(surface: Surface, options: dict[str, Any]) -> None:
    """Nothing is removed from a flat part's frame, and the networks may see no difference between it and the table."""
    geometry, ranges = learnt(frames(surface, **options))

    def verdict(frame: Frame) -> Verdict:
        blind = scores(rgb=1.0, points=2.0, silhouette=silhouette(frame, geometry))
        return decide(blind, decision(), ranges, geometry).verdict

    assert verdict(expose(77, surface, **options)) is Verdict.OK, "the control: a good part"
    assert verdict(expose(78, table, **options)) is Verdict.NG

    def half(x: Values, y: Values, rng: np.random.Generator) -> Values:
        return np.where(x < 0, surface(x, y, rng), 0.0)

    assert verdict(expose(79, half, **options)) is Verdict.NG
