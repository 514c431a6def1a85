"""An engine that looks at nothing and follows a script: for PLC programmers and for tests of faults.

Everything it touches is named ``simulated``; gateways do not accept such parts unless their configuration says so.
A script is words, one per frame, chosen by ``seq`` modulo their number: the same frame always gets the same answer.
``WORD=MS`` answers after that many milliseconds. A frame whose ``sensor`` is ``simulate:WORD`` brings its own word.
"""

from __future__ import annotations

import threading
import time

import numpy as np

from asperity.runtime.engines import Engine, Progress
from asperity.runtime.errors import ConfigError, EngineError, EngineLostError, FrameRefused
from asperity.runtime.frame import EngineInfo, Frame, ModalityScores, Prepared, Scores, Silhouette, Window
from asperity.runtime.manifest import FORMAT, Decision, Geometry, Manifest, Modality, Network, Plane, SilhouetteRange
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.scoring import decide
from asperity.runtime.vision.units import infer_unit, median_depth

NAME = "simulated"
TIMING_RECIPE = "timing-only"
BROKEN_RECIPE = "does-not-open"
"""A recipe of this name fails to open, as one whose bundle is damaged: ``recipes.open_recipe`` raises BundleError."""
WORDS = {
    "ok": "a good part",
    "drift": "a good part with a score close to the threshold: many of them raise the alarm DRIFT",
    "ng": "a bad part: score above the threshold",
    "shape": "a bad part: silhouette out of range",
    "nan": "the engine returns NaN",
    "raise": "the engine fails",
    "crash": "the engine fails with an unexpected type of error",
    "refuse": "the frame is refused: too few points",
    "stuck": "the engine never returns",
    "gone": "the engine is lost permanently, as when a GPU fails: state 3, then the inspector exits with code 18",
    "huge": "a bad part whose score does not fit in an f32: its record says NOT_JUDGED",
    "look": "finds the part on the plane at 500 mm, as a real engine does; a good part if there is one",
    "unit": "derives the unit from the depth, as calibration does; a good part if that is possible",
}
SENSOR_PREFIX = "simulate:"
GRID = 28
THRESHOLD = 1.0
LOOK_SHAPE_PX = (32, 40)
LOOK_DISTANCE_MM = 500.0
STUCK_S = 3600.0
_STAGES = ("pre", "rgb", "points", "knn")


class SimulatedEngine(Engine):
    """Scores by script. Raises ConfigError on a word that is not known."""

    def __init__(self, script: str = "ok") -> None:
        self._steps = [_step(word) for word in script.split()]
        if not self._steps:
            raise ConfigError("[engine] script is empty; give words, for example: ok ok ng")
        self._closed = threading.Event()
        self._gone = False

    def describe(self) -> EngineInfo:
        """As ``Engine.describe``."""
        return EngineInfo(NAME, "none", "none")

    def score(self, frame: Frame, progress: Progress) -> Scores:
        """As ``Engine.score``: the script's word for ``frame.seq``."""
        word, delay_s = self._steps[frame.seq % len(self._steps)]
        if frame.sensor.startswith(SENSOR_PREFIX):
            word, delay_s = _step(frame.sensor.removeprefix(SENSOR_PREFIX))
        if word == "look":
            from asperity.runtime.vision.preprocess import find_part  # scipy, which no other word needs

            find_part(frame, plane_geometry(*LOOK_SHAPE_PX))
        if word == "unit":
            infer_unit(median_depth(frame))
        return self._answer(word, delay_s, max(frame.shape_px), progress)

    def score_prepared(self, prepared: Prepared, progress: Progress) -> Scores:
        """As ``Engine.score_prepared``: the script's first word."""
        word, delay_s = self._steps[0]
        return self._answer(word, delay_s, prepared.window.side_px, progress)

    def close(self) -> None:
        """As ``Engine.close``; releases a frame that is stuck."""
        self._closed.set()

    def _answer(self, word: str, delay_s: float, side_px: int, progress: Progress) -> Scores:
        start_ns = time.monotonic_ns()
        self._closed.wait(STUCK_S if word == "stuck" else delay_s)
        self._gone = self._gone or word == "gone"
        if self._gone:
            raise EngineLostError(f"simulated: {WORDS['gone']}")
        if word in ("raise", "stuck"):
            raise EngineError(f"simulated: {WORDS[word]}")
        if word == "crash":
            raise ZeroDivisionError("simulated: division by zero")
        if word == "refuse":
            raise FrameRefused(Reason.TOO_FEW_POINTS, f"simulated: {WORDS[word]}")
        stage_us = {}
        for stage in _STAGES:
            progress(stage)
            stage_us[stage] = (time.monotonic_ns() - start_ns) // 1000
            start_ns = time.monotonic_ns()
        said = {"ng": 2.0 * THRESHOLD, "huge": 1e39, "nan": float("nan"), "drift": 0.9 * THRESHOLD}
        distance = said.get(word, 0.5 * THRESHOLD)
        patches = np.full((GRID, GRID), 0.1, dtype=np.float32)
        patches[GRID // 2, GRID // 2] = min(distance, 2.0 * THRESHOLD) if word != "nan" else distance
        modality = ModalityScores(patches, distance)
        return Scores(
            modalities={"rgb": modality, "points": modality},
            scored=np.ones((GRID, GRID), dtype=np.bool_),
            window=Window(0, 0, side_px),
            silhouette=Silhouette(2.0 if word == "shape" else 1.0, 1.0, 1.0, 1.0, 0.0),
            stage_us=stage_us,
        )


def simulated_manifest(recipe: str = NAME) -> Manifest:
    """A manifest that fits the engine: no networks, threshold 1, one silhouette figure.

    The recipe called ``TIMING_RECIPE`` is for timing only.
    """
    modality = Modality(0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.5, 0)
    return Manifest(
        format=FORMAT,
        asperity=NAME,
        recipe=recipe,
        created_us=0,
        geometry=_geometry(16384, 16384, None),
        network=Network(
            profile=NAME, image_px=GRID, grid=GRID, rgb_grid=GRID, rgb_channels=1, rgb_mean=(0.0, 0.0, 0.0),
            rgb_std=(1.0, 1.0, 1.0), cloud_px=GRID, cloud_resize="nearest", groups=1, group_size=1, points_channels=1,
            group_scale_mm=1.0, position_scale_mm=1.0, centre_positions=False, pooling="valid_mean", adaptor="none",
        ),
        weights=(),
        decision=Decision(
            engine=NAME, precision="none", rgb=modality, points=modality, fusion="average", threshold=THRESHOLD,
            alpha=0.05, alpha_total=0.05, calibration_scores=tuple(step / 19 for step in range(20)),
            timing_only=recipe == TIMING_RECIPE,
        ),
        silhouette=(SilhouetteRange("area_mm2", 0.5, 1.5),),
        golden=(),
        golden_tolerance=0.0,
        normal_frames={},
        frame_p99_ms=1.0,
        files=(),
    )  # fmt: skip


def plane_geometry(height_px: int, width_px: int) -> Geometry:
    """Geometry of a station that looks straight down on a plane ``LOOK_DISTANCE_MM`` away; for the word ``look``."""
    return _geometry(height_px, width_px, Plane((0.0, 0.0, -1.0), LOOK_DISTANCE_MM))


def _geometry(height_px: int, width_px: int, plane: Plane | None) -> Geometry:
    return Geometry(
        method="plane" if plane else "none", why=NAME, unit="mm", height_px=height_px, width_px=width_px, plane=plane,
        plane_cut_mm=2.0, point_spacing_mm=1.0, plane_noise_mm=0.1, cluster_gap_px=1, side_px=1, mm_per_px=1.0,
        min_points=20 if plane else 0, moved_share=0.2 if plane else 1.0, moved_mm=2.0,
    )  # fmt: skip


def warm(manifest: Manifest) -> None:
    """Make one decision, so that the first frame does not wait for what is imported or tabled on first use."""
    scores = SimulatedEngine("ok")._answer("ok", 0.0, GRID, lambda stage: None)
    decide(scores, manifest.decision, manifest.silhouette, manifest.geometry)


def check_word(word: str) -> None:
    """Raises ConfigError on a word that is not known."""
    _step(word)


def _step(word: str) -> tuple[str, float]:
    name, _, delay_ms = word.partition("=")
    number = delay_ms.isascii() and delay_ms.isdecimal() and len(delay_ms) <= 7
    if name not in WORDS or not (delay_ms == "" or number):
        known = ", ".join(WORDS)
        raise ConfigError(
            f"[engine] script has the unknown word {word!r}; known words are {known}, each also as WORD=MILLISECONDS"
        )
    return name, int(delay_ms or 0) / 1000
