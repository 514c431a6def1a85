"""The calibration report as one self-contained HTML file that an engineer reads in two minutes."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from asperity.calibration.frames.silhouette import FIGURES, figures
from asperity.calibration.outcome.result import Outcome
from asperity.calibration.outcome.threshold import worst_scores
from asperity.calibration.record import CalibrationRecord, Evidence
from asperity.calibration.report.choice import choice_section
from asperity.calibration.report.nearest import nearest_of
from asperity.calibration.report.pictures import (
    colour_and_map,
    curves,
    found_by_size,
    modality_histograms,
    score_histogram,
    silhouette_strips,
)
from asperity.calibration.report.types import NAMES, Report
from asperity.runtime.frame import FloatArray, ModalityName
from asperity.runtime.manifest import SmallestDefect
from asperity.runtime.vision.maps import pixel_map
from asperity.runtime.vision.missing_points import option_of
from asperity.runtime.vision.scoring import fused_map

OFFERS = 3
"""Higher rates whose thresholds are reported."""
EVIDENCE: dict[Evidence, str] = {
    "equal": "equal but for noise: counted as one part, whatever the ids",
    "alike": "they differ by noise, position and light alone: counted as one part. Different parts? Give each an id in "
    "<code>parts.csv</code>",
    "suspected": "hardly more different than frames of one part: NOT counted as one. Give frames of one part the same "
    "id in <code>parts.csv</code>, or photograph more parts",
}
FIGURE_NAMES = {
    "area_mm2": "area, mm²", "length_mm": "length, mm", "width_mm": "width, mm", "height_mm": "height, mm",
    "missing_share": "missing points, share", "level_mm": "level along z, mm",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Sets:
    """Indices of measured frames: outside the banks, and inside them."""

    held_out: list[int]
    own: list[int]


def page(outcome: Outcome, record: CalibrationRecord, report: Report) -> str:
    """The whole page."""
    inside = set(outcome.split.fit)
    sets = _Sets([i for i in outcome.distances if i not in inside], [i for i in outcome.distances if i in inside])
    sections = [
        _head(record, report),
        _scores(outcome, sets),
        _suspects(report),
        _refit(record),
        _strangest(outcome, report),
        choice_section(record.choice),
        _modalities(outcome, sets),
        _smallest(report),
        _silhouettes(outcome, report),
        _repeats(report),
        _refused(report),
        _adaptation(outcome),
        _facts(record, report),
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Calibration of {escape(report.recipe)}</title><style>{STYLE}</style></head>
<body><main>{"".join(sections)}</main></body></html>
"""


def _head(record: CalibrationRecord, report: Report) -> str:
    counts = report.normal_frames
    seeded = [origin.network for origin in report.weights if origin.seeded]
    notes = ""
    if seeded:
        notes += (
            f'<p class="bad">{escape(", ".join(seeded))}: RANDOM weights. Use for timing only, never for '
            "inspection.</p>"
        )
    if report.suspects:
        names = ", ".join(escape(one.name) for one in report.suspects)
        notes += f'<p class="bad">Check {names}: far more anomalous than the rest. A bad part among the good ones?</p>'
    if counts["refused"]:
        notes += f'<p class="bad">Refused and not used at all: {counts["refused"]} frames (see below).</p>'
    if any(not one.counted for one in report.repeats):
        notes += '<p class="bad">Some normal frames may show the same part (see "Frames of one part").</p>'
    if not notes:
        notes = '<p class="good">Nothing in the normal frames needs attention.</p>'
    rejected = report.false_rejects.alpha_total
    tiles = "".join(
        f"<div><b>{value}</b><span>{label}</span></div>"
        for value, label in (
            (f"{100 * rejected:.2g} %" if rejected < 1 else "not known", "good parts rejected, on average"),
            (f"{report.threshold:.3g}", "threshold of the score"),
            (f"{counts['fit']} + {counts['tune']} + {counts['calibrate']}", "frames: fit + tune + calibrate"),
            (f"{sum(report.stage_s.values()):.0f} s", "calibration took"),
        )
    )
    features = "adapted features (LSFA)" if report.method == "lsfa" else "frozen features"
    return f"""<h1>Calibration of {escape(report.recipe)}</h1>
<p class="quiet">profile {escape(report.profile)} · {features} · {escape(record.decision.fusion)} fusion
 · Asperity {escape(record.asperity)}</p>
<div class="tiles">{tiles}</div><p>{escape(report.false_rejects.statement)}</p>{notes}"""


def _scores(outcome: Outcome, sets: _Sets) -> str:
    picture = score_histogram(
        [outcome.score(i) for i in sets.held_out], [outcome.score(i) for i in sets.own], outcome.decision.threshold
    )
    own = (
        " Frames of the memory bank are measured without their own patches; they score somewhat higher, since the bank "
        "keeps the strangest patches and just those are taken away."
        if sets.own
        else ""
    )
    return f"""<h2>Scores of good parts</h2>
<p>A part above the threshold is rejected. {_split_words(outcome)}{own}</p>{_image(picture, "histogram of scores")}
<p>{_other_rates(outcome)}</p>"""


def _other_rates(outcome: Outcome) -> str:
    """What a higher rate of false rejects would buy: one strange good part may hold the threshold high."""
    rejects = outcome.false_rejects
    parts = [outcome.normals.parts.of_frames[i] for i in outcome.split.calibrate] if rejects.parts else []
    ascending = sorted(worst_scores([outcome.score(i) for i in outcome.split.calibrate], parts))
    offers = [
        f"<code>--alpha {math.ceil(1000 * rate) / 1000:g}</code> gives {ascending[-rank]:.3g}"
        for rank in range(rejects.allowed + 1, min(rejects.allowed + 1 + OFFERS, len(ascending)))
        if (rate := (rank + len(rejects.shape_widened_for[:1])) / (rejects.witnesses + 1)) < 1
    ]
    if not offers:
        return ""
    return f"A lower threshold finds more defects and rejects more good parts: {', '.join(offers)}."


def _split_words(outcome: Outcome) -> str:
    words = f"Frames were split {outcome.split.how}."
    return escape(words if outcome.options.held_out == "split" else f"{words} The threshold is based on leave-one-out.")


def _suspects(report: Report) -> str:
    if not report.suspects:
        return ""
    rows = "".join(
        f"<tr><td>{escape(one.name)}</td><td>{one.split}</td><td>"
        + ", ".join(f"{NAMES[name]} {value:+.1f} σ" for name, value in one.deviations.items())
        + f"</td><td><code>--exclude {escape(one.name)}</code></td></tr>"
        for one in report.suspects
    )
    calibrated = [one.name for one in report.suspects if one.split == "calibrate"]
    spoken = (
        f"{escape(', '.join(calibrated))} calibrated: without a calibration frame the promise no longer covers parts "
        "like it. "
        if calibrated
        else ""
    )
    return f"""<h2>Proposed for exclusion</h2>
<p>These frames were used like all others. Look at the parts: exclude those that are bad, and no other.
{spoken}If all of them are excluded and are good parts, about {100 * report.alpha_if_excluded:.2g} of 100 good parts are
rejected.</p><table><tr><th>frame</th><th>served to</th><th>beyond frames like it</th><th>if it is bad</th></tr>{rows}
</table>"""


def _refit(record: CalibrationRecord) -> str:
    found, now = record.refit, record.false_rejects
    if found is None:
        return ""

    def sets(frames: dict[str, int]) -> str:
        return f"{frames['fit']} + {frames['tune']} + {frames['calibrate']}"

    rows = "".join(
        f"<tr><td>{name}</td><td>{before}</td><td>{after}</td></tr>"
        for name, before, after in (
            ("frames: fit + tune + calibrate", sets(found.earlier_frames), sets(record.normal_frames)),
            ("good parts rejected, on average", f"{found.earlier.alpha_total:.2%}", f"{now.alpha_total:.2%}"),
            ("below, with 95 % confidence", f"{found.earlier.bound_95:.2%}", f"{now.bound_95:.2%}"),
            ("threshold", f"{found.earlier_threshold:.4g}", f"{record.decision.threshold:.4g}"),
        )
    )
    return f"""<h2>Frames added</h2>
<p>{found.added} frames were added to {found.kept}, said to be those of all parts of their time whatever
the verdict was.
The earlier threshold rejects {found.above_earlier} of {found.judged_earlier} later parts; the probability of so few
or fewer is {found.chance_of_fewer:.2g}, of so many or more {found.chance_of_more:.2g}.</p>
<table><tr><th></th><th>before</th><th>now</th></tr>{rows}</table>"""


def _strangest(outcome: Outcome, report: Report) -> str:
    if not report.strangest:
        return ""
    place = {name: i for i, name in enumerate(outcome.normals.names)}
    indices = [place[one.name] for one in report.strangest]
    maps = [_fused(outcome, i) for i in indices]
    hottest = float(max(pixel_map(values).max() for values in maps))
    cards = []
    for rank, (index, values, one) in enumerate(zip(indices, maps, report.strangest, strict=True), start=1):
        picture = colour_and_map(
            outcome.normals.prepared[index].image, values, outcome.distances[index].scored, hottest
        )
        near = nearest_of(outcome, index)
        beside = ""
        if near is not None:
            beside = (
                f'{_image(near.picture, f"patch of {one.name} and the nearest normal one")}<br>its strangest patch by '
                f"{NAMES[near.modality]}, and the normal one most like it: {escape(near.name)}, at {near.x_px}, "
                f"{near.y_px} px<br>"
            )
        judged = "without its own patches" if one.leave_one_out else "held out"
        state = "suspect" if one.suspect else "above" if one.above_threshold else ""
        flag = {"suspect": "check this part", "above": "above the threshold", "": ""}[state]
        told = ", ".join(f"{NAMES[name]} {stds:+.1f} σ" for name, stds in one.stds.items())
        why = NAMES[max(one.stds, key=lambda name: one.stds[name])]
        cards.append(
            f'<figure class="{state}">{_image(picture, one.name)}<figcaption><b>{rank}. {escape(one.name)}</b> '
            f"<em>{flag}</em><br>score {one.score:.3g}, {one.split}, {judged}<br>"
            f"mostly {why}: {told}<br>{beside}"
            f"<code>--exclude {escape(one.name)}</code></figcaption></figure>"
        )
    return f"""<h2>The {len(cards)} strangest normal frames</h2>
<p>Is one of them a bad part? Then calibrate again with its <code>--exclude</code>. Left: colour; right: where it is
anomalous, same scale for all, dark is normal. Below: colour and height around its strangest patch, and the same of the
normal patch of another part that is most like it.</p><div class="cards">{"".join(cards)}</div>"""


def _fused(outcome: Outcome, index: int) -> FloatArray:
    one = outcome.distances[index]
    return np.where(one.scored, fused_map(one.modalities, outcome.decision), np.float32(0.0))


def _modalities(outcome: Outcome, sets: _Sets) -> str:
    def distances(name: ModalityName, indices: Sequence[int]) -> list[float]:
        return [outcome.distances[i].modalities[name].image_distance for i in indices]

    panels = [
        (NAMES[name], distances(name, sets.held_out), distances(name, sets.own))
        for name in outcome.decision.modalities()
    ]
    decision = outcome.decision
    unit = {
        "average": " per standard deviation", "ocsvm": " on raw distances",
        "squares": " of the squared standard deviations above the usual distance",
    }[decision.fusion]  # fmt: skip
    weights = ", ".join(f"{NAMES[name]} {one.weight:.3g}" for name, one in decision.modalities().items())
    left_out = "".join(
        f" {NAMES[one.modality]} is left out: pseudo-defects on good frames are found better without it, by an AUROC "
        f"of {one.gain:.3f} &plusmn; {one.standard_error:.3f} (standard error); "
        f"its own distance rises by {one.response:.1f} standard errors when a frame is spoiled."
        for one in outcome.left_out
    )
    return f"""<h2>Each modality by itself</h2>
<p>Weights in the score: {weights}{unit}.{left_out}</p>
{_image(modality_histograms(panels), "histograms of each modality")}"""


def _smallest(report: Report) -> str:
    if not report.smallest_defects:
        return ""
    rows = "".join(
        f"<tr><td>{one.kind}</td><td>{_size(one, one.half_mm, one.half_strength)}</td>"
        f"<td>{_size(one, one.often_mm, one.often_strength)}</td></tr>"
        for one in report.smallest_defects
    )
    picture = found_by_size([(one.kind, one.sizes_mm, one.places) for one in report.smallest_defects])
    return f"""<h2>The smallest defect this station sees</h2>
<p>Defects of falling size were put into held-out good frames, at {report.smallest_defects[0].places} places each, and
judged at the threshold above. A size is a diameter, or the length of a scratch. Flatter and fainter defects must be
larger to be found, and so must those at edges, where none was tried.</p>
{_image(picture, "share found by size")}
<table><tr><th>defect</th><th>half are found from</th><th>95 of 100 are found from</th></tr>{rows}</table>"""


def _size(one: SmallestDefect, size_mm: float | None, strength: float | None) -> str:
    if size_mm is None or strength is None:
        return f"not up to {one.largest_mm:.3g} mm"
    what = f"{strength:.0%} of its colour" if one.kind == "stain" else f"{strength:.2g} mm high or deep"
    return f"<b>{size_mm:.2g} mm</b>, {what}"


def _silhouettes(outcome: Outcome, report: Report) -> str:
    values = figures([one.silhouette for one in outcome.normals.prepared])
    panels = [
        (FIGURE_NAMES[one.figure], values[:, FIGURES.index(one.figure)], one.low, one.high) for one in report.silhouette
    ]
    rows = "".join(
        f"<tr><td>{FIGURE_NAMES[one.figure]}</td><td>{one.low:.4g} … {one.high:.4g}</td>"
        f"<td>{one.seen_low:.4g} ({escape(one.lowest_frame)})</td>"
        f"<td>{one.seen_high:.4g} ({escape(one.highest_frame)})</td></tr>"
        for one in report.silhouette
    )
    widened = report.false_rejects.shape_widened_for
    note = f"<p class='bad'>Widened for {escape(', '.join(widened))}: check these parts.</p>" if widened else ""
    return f"""<h2>Silhouette</h2><p>A part outside one of these ranges is rejected as SHAPE_OUT_OF_RANGE.</p>{note}
{_image(silhouette_strips(panels), "silhouette figures")}
<table><tr><th>figure</th><th>accepted</th><th>lowest seen</th><th>highest seen</th></tr>{rows}</table>"""


def _repeats(report: Report) -> str:
    if not report.repeats:
        return ""
    rows = "".join(
        f"<tr><td>{escape(', '.join(one.frames))}</td><td>{escape(', '.join(one.part_ids)) or 'none'}</td>"
        f"<td>{EVIDENCE[one.evidence]}</td></tr>"
        for one in report.repeats
    )
    return f"""<h2>Frames of one part</h2><p>Frames of one part are alike: they count once, and never serve in two sets.
What the promise needs is different parts.</p>
<table><tr><th>frames</th><th>part ids given</th><th>what was found</th></tr>{rows}</table>"""


def _refused(report: Report) -> str:
    if not report.refused and not report.excluded:
        return "<h2>Left out</h2><p>No frame was refused or excluded.</p>"
    rows = "".join(
        f"<tr><td>{escape(one.name)}</td><td>{escape(one.reason)}</td><td>{escape(one.message)}</td></tr>"
        for one in report.refused
    ) + "".join(f"<tr><td>{escape(name)}</td><td>excluded</td><td>by --exclude</td></tr>" for name in report.excluded)
    return f"<h2>Left out</h2><table><tr><th>frame</th><th>reason</th><th>why</th></tr>{rows}</table>"


def _adaptation(outcome: Outcome) -> str:
    if outcome.adaptation is None:
        return ""
    found = outcome.adaptation.curves
    terms = {name: values for name, values in found.terms.items() if not all(map(math.isnan, values))}
    picture = curves(
        [
            ("losses", {"total": found.loss, **terms}),
            ("spread, share of the frozen features'", {"colour": found.rgb_spread, "geometry": found.points_spread}),
        ]
    )
    return f"""<h2>Adaptation</h2><p>The spread must not fall to 0:
features that all look alike cannot tell parts apart.</p>
{_image(picture, "losses and spread")}"""


def _facts(record: CalibrationRecord, report: Report) -> str:
    origins = "".join(
        f"<tr><td>{escape(one.network)}</td><td>{escape(one.source)}</td><td>{escape(one.licence)}</td>"
        f"<td><code>{one.sha256[:12]}</code></td></tr>"
        for one in report.weights
    )
    times = "".join(
        f"<tr><td>{escape(name)}</td><td>{seconds:.1f} s</td></tr>" for name, seconds in report.stage_s.items()
    )
    geometry = record.geometry
    window_mm = geometry.side_px * geometry.mm_per_px
    stored = "; ".join(map(option_of, geometry.invalid or ())) or "none (every point is measured)"
    missing = "" if geometry.invalid is None else f"Missing points are stored as {stored}."
    banks = ", ".join(f"{rows} {NAMES[name]} rows" for name, rows in report.bank_rows.items())
    return f"""<h2>Station and networks</h2>
<p>Background {escape(report.background)}. Unit {geometry.unit}; frames {geometry.width_px} x {geometry.height_px}
pixels of {geometry.mm_per_px:.3g} mm; window {geometry.side_px} pixels = {window_mm:.3g} mm.
{missing} Memory banks: {banks}.</p>
<table><tr><th>network</th><th>weights</th><th>licence</th><th>sha256</th></tr>{origins}</table>
<table><tr><th>stage</th><th>time</th></tr>{times}</table>"""


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


STYLE = """
body{margin:0;background:#f4f6f8;color:#22303c;font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:980px;margin:0 auto;padding:24px 28px 60px;background:#fff}
h1{font-size:26px;margin:0}h2{font-size:18px;margin:34px 0 6px;border-top:1px solid #e3e8ec;padding-top:16px}
p{margin:6px 0 10px}.quiet{color:#5d6d7e;margin:0 0 14px}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:14px 0}
.tiles div{background:#f4f6f8;border-radius:8px;padding:10px 14px}.tiles b{display:block;font-size:22px}
.tiles span{color:#5d6d7e;font-size:13px}
.good,.bad{border-left:4px solid #2e8b57;background:#eef7f1;padding:8px 12px;border-radius:4px}
.bad{border-color:#c0392b;background:#fbeeec}
img{max-width:100%}table{border-collapse:collapse;margin:10px 0 18px;font-size:13.5px;width:100%}
th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid #e3e8ec;vertical-align:top;overflow-wrap:anywhere}
th{color:#5d6d7e;font-weight:600}
.cards{display:grid;grid-template-columns:1fr 1fr;gap:14px}
figure{margin:0;border:1px solid #e3e8ec;border-radius:8px;padding:10px}figure img{width:100%;border-radius:4px}
figure.above{border-color:#e0a030}figure.suspect{border:2px solid #c0392b}
figcaption{font-size:13px;margin-top:6px}figcaption em{color:#c0392b;font-style:normal}
code{background:#f0f3f5;border-radius:3px;padding:0 4px;font-size:12.5px}
@media(max-width:700px){.tiles{grid-template-columns:1fr 1fr}.cards{grid-template-columns:1fr}}
"""
