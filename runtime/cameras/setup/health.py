"""What a few exposures say about a camera's set-up: figures, each with what is good and what to do."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.setup.depth_noise import Noise, measure
from asperity.runtime.cameras.setup.exposures import Taken
from asperity.runtime.cameras.setup.look import Look, dark, look_at, saturated, unit_of
from asperity.runtime.cameras.source import Triggers
from asperity.runtime.errors import FrameRefused
from asperity.runtime.frame import ByteArray, FloatArray, Frame, Unit
from asperity.runtime.vision.digest import frame_digest
from asperity.runtime.vision.missing_points import find_suspects
from asperity.runtime.vision.units import infer_unit, median_depth

SAMPLE_POINTS = 300_000
"""Pixels of a frame, evenly spread, from which noise and motion are measured."""
LEAST_VALID, LEAST_PART_VALID = 0.5, 0.95
MOST_SATURATED, MOST_DARK = 0.01, 0.5
BRIGHTNESS = (40, 220)
"""Median of the part's brightest channel, of 255."""
LEAST_PART_SHARE = 0.03
MOST_AGE_MS = 500.0
SUSPECTS_SHOWN = 3
MOST_NEGATIVE_MS = -1.0
MOST_NOISE_OF_PART = 0.1
"""Noise of more than this share of the part's height hides what the part looks like in 3D."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    value: str
    good: bool
    wanted: str
    """What is good."""
    remedy: str
    """What to do; shown where it is not good."""


@dataclass(slots=True)
class Health:
    """Collects exposures, then says what they show."""

    triggers: Triggers = "free_run"
    arrivals_s: list[float] = field(default_factory=list)
    waits_ms: list[float] = field(default_factory=list)
    """From the trigger to the arrival, with software triggers."""
    ages_ms: list[float] = field(default_factory=list)
    exposed_us: list[int] = field(default_factory=list)
    numbered: int = 0
    missed: int = 0
    repeats: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    looks: list[tuple[float, float | None, bool]] = field(default_factory=list)
    """Of each frame: share of valid points, share of the part's pixels with one (None: no part), cut by the edge."""
    saturated: list[float] = field(default_factory=list)
    dark: list[float] = field(default_factory=list)
    bright: list[float] = field(default_factory=list)
    suspects: dict[str, str] = field(default_factory=dict)
    """What looks like a missing point: as `invalid` takes it -> in words, of the first frame with it."""
    frame: Frame | None = None
    """The last one."""
    look: Look | None = None
    """Of the last frame that shows a part, or else of the last that could be used."""
    rgb: ByteArray | None = None
    """Of that frame."""
    unit: Unit | None = None
    valid_counts: NDArray[np.int64] | None = None
    _digest: int | None = None
    _stack: list[tuple[FloatArray, NDArray[np.bool_], FloatArray]] = field(default_factory=list)

    def add(self, taken: Taken) -> None:
        """Look at one more exposure."""
        frame = self.frame = taken.shot.frame
        self.missed += taken.missed
        self.arrivals_s.append(taken.arrived.ns / 1e9)
        self.exposed_us.append(frame.t_exposure_us)
        self.numbered += taken.shot.number is not None
        if taken.asked is not None:
            self.waits_ms.append((taken.arrived.ns - taken.asked.ns) / 1e6)
        if frame.t_exposure_us and frame.clock != "device":
            self.ages_ms.append((taken.arrived.wall_us - frame.t_exposure_us) / 1000)
        digest = frame_digest(frame)
        self.repeats += digest == self._digest
        self._digest = digest
        try:
            self.unit = self.unit or unit_of(frame)
            look = look_at(frame, self.unit, self.look.plane if self.look else None)
            found = find_suspects(frame, self.unit)
        except FrameRefused as error:
            self.refused[str(error)] += 1
            return
        for one in found:
            self.suspects.setdefault(one.option, f"{one} (invalid = {one.option})")
        self._add_look(frame, look)

    def _add_look(self, frame: Frame, look: Look) -> None:
        part = look.part
        on_part = float(look.valid[part.filled].mean()) if part else None
        self.looks.append((look.valid_share, on_part, bool(part and part.cut)))
        where = part.filled if part else np.ones_like(look.valid)
        self.saturated.append(float(saturated(frame.rgb)[where].mean()))
        self.dark.append(float(dark(frame.rgb)[where].mean()))
        self.bright.append(float(np.median(frame.rgb.max(axis=2)[where])))
        if self.valid_counts is None:
            self.valid_counts = np.zeros(look.valid.shape, dtype=np.int64)
        self.valid_counts += look.valid
        step = math.ceil(math.sqrt(look.valid.size / SAMPLE_POINTS))
        self._stack.append(
            (
                look.points[::step, ::step, 2].copy(), look.valid[::step, ::step].copy(),
                frame.rgb[::step, ::step].mean(axis=2, dtype=np.float32),
            )
        )  # fmt: skip
        if part or self.look is None or self.look.part is None:
            self.look, self.rgb = look, frame.rgb

    def noise(self) -> Noise | None:
        """Depth noise; None with fewer than two usable frames."""
        if len(self._stack) < 2:
            return None
        depths, valid, grey = (np.stack(each) for each in zip(*self._stack, strict=True))
        return measure(depths, valid, grey)

    def findings(self) -> list[Finding]:
        """The report, line by line; at least one exposure was added."""
        assert self.frame is not None
        found = [self._rate(), self._count(), self._age(), self._size()]
        if self.repeats:
            found.append(_bad(
                "repeats", f"{self.repeats} frames equal the one before in every pixel and point",
                "none", "the camera, its driver or a recording repeats pictures; a station refuses them (FROZEN_IMAGE)",
            ))  # fmt: skip
        for why, count in self.refused.items():
            found.append(_bad("unusable", f"{count} frames: {why}", "none", "see the text"))
        if self.looks:
            found += [*self._points(), *self._scene(), *self._depth(), *self._colour()]
        for suspect in list(self.suspects.values())[:SUSPECTS_SHOWN]:
            found.append(_bad(
                "missing points", suspect, "missing points are (0, 0, 0), NaN, or declared",
                "if such a point is missing, set this as the source's invalid value, or calibrate with --invalid",
            ))  # fmt: skip
        return found

    def _rate(self) -> Finding:
        if self.triggers == "software":
            waits = self.waits_ms
            return Finding(
                "answer", f"{np.median(waits):.0f} ms from trigger to frame, at most {max(waits):.0f} ms",
                max(waits) <= max(2 * float(np.median(waits)), MOST_AGE_MS), "short, and always about the same",
                "shorten the exposure, use a faster link, or free the processor",
            )  # fmt: skip
        own = len(set(self.exposed_us)) == len(self.exposed_us) and all(self.exposed_us)
        times_ms = np.array(self.exposed_us) / 1e3 if own else np.array(self.arrivals_s) * 1e3
        steps = np.diff(times_ms)
        if not len(steps):
            return Finding("rate", "one frame", True, "", "")
        usual, longest = float(np.median(steps)), float(steps.max())
        rate = f"{1000 / usual:.3g} frames/s" if usual > 0 else "all at once"
        return Finding(
            "rate", f"{rate}, one per {usual:.0f} ms, at most {longest:.0f} ms ({'exposure' if own else 'arrival'})",
            longest <= 2 * usual + 10 or self.triggers == "hard_wired", "as set on the camera, and steady",
            "look for lost frames, an exposure longer than the period, or a link that is too slow",
        )  # fmt: skip

    def _count(self) -> Finding:
        if not self.numbered:
            return _bad(
                "count", "the camera does not count its exposures", "the camera counts, and no number is left out",
                "a lost exposure cannot be noticed: use triggers = software, where each frame answers a trigger",
            )  # fmt: skip
        return Finding(
            "count", f"{self.missed} exposures missed between {len(self.arrivals_s)}", self.missed == 0, "0 missed",
            "the link loses frames: use jumbo packets, a port of its own, or a lower rate",
        )  # fmt: skip

    def _age(self) -> Finding:
        assert self.frame is not None
        clock = self.frame.clock
        wanted = "realtime or ptp, and well below [limits] max_age_ms"
        if not any(self.exposed_us):
            return Finding(
                "age", "the source has no exposure time", self.triggers != "hard_wired",
                wanted, "with hard_wired triggers a part cannot be matched: use a source that has one",
            )  # fmt: skip
        if not self.ages_ms:
            return Finding("age", "not known: exposure times are of the device's own clock", True, wanted, "")
        low, high = min(self.ages_ms), max(self.ages_ms)
        return Finding(
            "age", f"{low:.1f} to {high:.1f} ms from exposure to arrival, clock {clock}",
            low >= MOST_NEGATIVE_MS and high <= MOST_AGE_MS, wanted,
            "the clocks of camera and computer differ: set both by PTP or NTP" if low < MOST_NEGATIVE_MS or high > 1e6
            else "frames wait in the camera or its driver: make its queue shorter, or lower the rate",
        )  # fmt: skip

    def _size(self) -> Finding:
        assert self.frame is not None
        rows, columns = self.frame.shape_px
        stored = self.frame.xyz if self.frame.xyz is not None else self.frame.depth
        assert stored is not None
        form = "xyz" if self.frame.xyz is not None else "depth"
        by_distance, unit = _unit_by_distance(self.frame), self.frame.unit
        agrees = unit is not None and by_distance in ("", unit)
        said: str = unit or "not said"
        if not agrees and by_distance:
            said += f", {by_distance} by the distance"
        mb = (self.frame.rgb.nbytes + stored.nbytes) / 1e6
        return Finding(
            "size", f"{columns} x {rows}, {form} {stored.dtype}, unit {said}, {mb:.2f} MB per frame",
            agrees, "a unit is said, and the distance is one of a camera to its part",
            "set the source's unit; it may be right where z is a height or the camera very near or far",
        )  # fmt: skip

    def _points(self) -> list[Finding]:
        assert self.valid_counts is not None
        shares = [look[0] for look in self.looks]
        never = float((self.valid_counts == 0).mean())
        found = [Finding(
            "points", f"{np.median(shares):.1%} of the pixels ({min(shares):.1%} to {max(shares):.1%}); "
            f"{never:.1%} have none in any frame",
            min(shares) >= LEAST_VALID, f"at least {LEAST_VALID:.0%}",
            "change exposure, projector brightness, distance or angle; black in the picture of valid points. Where the "
            "camera does show points, check unit and scale: none is farther than 100 m",
        )]  # fmt: skip
        if on_part := [look[1] for look in self.looks if look[1] is not None]:
            found.append(Finding(
                "points on the part", f"{min(on_part):.1%} of its pixels", min(on_part) >= LEAST_PART_VALID,
                f"at least {LEAST_PART_VALID:.0%}", "against gloss: tilt the camera, dim or widen the light, use HDR",
            ))  # fmt: skip
        return found

    def _scene(self) -> list[Finding]:
        assert self.look is not None
        look, frames = self.look, len(self.looks)
        fills = "leave background in view around the part, or calibrate with --geometry none if the part fills the view"
        if look.plane is not None:
            plane = Finding(
                "background", f"a plane with noise of {look.plane.noise_mm:.3g} mm, "
                f"{look.plane.on_plane_share:.0%} of the border on it", True, "a plane at the border", fills,
            )  # fmt: skip
        else:
            plane = Finding(
                "background", f"no plane: {look.no_plane}", look.empty_border,
                "a plane at the border, or no points there", fills,
            )  # fmt: skip
        with_part = sum(look[1] is not None for look in self.looks)
        if not with_part or look.part is None:
            return [plane, _bad("part", "none was found", "one part in every frame", "put a part in view; " + fills)]
        figures, share = look.part.silhouette, float(look.part.filled.mean())
        cut = sum(look[2] for look in self.looks)
        good = with_part == frames and not cut and share >= LEAST_PART_SHARE
        return [plane, Finding(
            "part", f"in {with_part} of {frames} frames: {figures.length_mm:.1f} x {figures.width_mm:.1f} mm, "
            f"{figures.height_mm:.2f} mm high, {share:.1%} of the picture, {look.spacing_mm:.3g} mm per pixel"
            + (f"; cut by the picture's edge in {cut}" if cut else ""),
            good, f"in every frame, whole, at least {LEAST_PART_SHARE:.0%} of the picture",
            "move the camera so that the part lies whole and large in view",
        )]  # fmt: skip

    def _depth(self) -> list[Finding]:
        noise = self.noise()
        if noise is None:
            return []
        wanted = "small against the part's height and the smallest defect"
        if math.isnan(noise.noise_mm):
            motion = f"the scene moved: up to {noise.most_moved_share:.0%} of the pixels changed between two frames"
            few = f"only {noise.frames} frames without motion, or no pixel that is valid in all of them"
            return [_bad(
                "depth noise", f"not measured: {motion if noise.moved else few}", wanted,
                "let the part and the camera stand still, and check again with --frames 10",
            )]  # fmt: skip
        height = self.look.part.silhouette.height_mm if self.look and self.look.part else math.inf
        step = f", rounded to {noise.step_mm:.3g} mm" if noise.step_mm else ""
        found = [Finding(
            "depth noise", f"{noise.noise_mm:.3g} mm per pixel in {noise.frames} frames, 95 % of the pixels below "
            f"{noise.noise_95_mm:.3g} mm{step}",
            noise.noise_mm <= MOST_NOISE_OF_PART * height, wanted,
            "go nearer, use a finer depth unit, brighter projection or the camera's averaging",
        )]  # fmt: skip
        if noise.moved:
            found.append(_bad(
                "motion", f"the scene moved before frames {', '.join(str(k + 1) for k in noise.moved)}; the noise is "
                "that of the frames without motion", "none", "let the part and the camera stand still",
            ))  # fmt: skip
        return found

    def _colour(self) -> list[Finding]:
        white, black, bright = max(self.saturated), max(self.dark), float(np.median(self.bright))
        on = "part's pixels" if self.look and self.look.part else "pixels"
        low, high = BRIGHTNESS
        return [
            Finding(
                "saturation", f"{white:.1%} of the {on} are at white", white <= MOST_SATURATED,
                f"at most {MOST_SATURATED:.0%}", "shorten the exposure, dim the light, or raise the white level",
            ),
            Finding(
                "brightness", f"{bright:.0f} of 255, {black:.1%} of the {on} are black",
                low <= bright <= high and black <= MOST_DARK, f"{low} to {high}, at most {MOST_DARK:.0%} black",
                "change the exposure or the light" + (", or lower the white level" if bright < low else ""),
            ),
        ]  # fmt: skip

    def figures(self) -> dict[str, Any]:
        """The numbers behind the report, for programs; null where there is none."""
        noise, look = self.noise(), self.look
        part = look.part.silhouette if look and look.part else None
        return {
            "frames": len(self.arrivals_s), "missed": self.missed, "counts": bool(self.numbered),
            "repeats": self.repeats, "clock": self.frame.clock if self.frame else None,
            "age_ms": [min(self.ages_ms), max(self.ages_ms)] if self.ages_ms else None,
            "valid_share": [look[0] for look in self.looks],
            "never_valid_share": float((self.valid_counts == 0).mean()) if self.valid_counts is not None else None,
            "noise_mm": noise.noise_mm if noise and not math.isnan(noise.noise_mm) else None,
            "moved": bool(noise and noise.moved),
            "saturated_share": max(self.saturated, default=None), "dark_share": max(self.dark, default=None),
            "plane": bool(look and look.plane),
            "part_mm": [part.length_mm, part.width_mm, part.height_mm] if part else None,
            "suspects": len(self.suspects),
        }  # fmt: skip


def _bad(name: str, value: str, wanted: str, remedy: str) -> Finding:
    return Finding(name, value, False, wanted, remedy)


def _unit_by_distance(frame: Frame) -> str:
    """The unit in which the depths are a working distance; empty: none, or several."""
    try:
        return infer_unit(median_depth(frame))
    except FrameRefused:
        return ""
