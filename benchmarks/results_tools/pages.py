"""Result files as pages for people: one HTML file with embedded pictures; nothing is fetched."""

from __future__ import annotations

import base64
import html
import io
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asperity.runtime.extras import install

Axes = Any
"""matplotlib's; it has no types."""

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1060px;margin:2em auto;padding:0 1em;color:#1b1f24;background:#fff}
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #d0d7de}
table{border-collapse:collapse;margin:.8em 0}td,th{padding:.25em .8em;border-bottom:1px solid #e4e8ec;text-align:right}
td:first-child,th:first-child{text-align:left;white-space:nowrap}th{font-weight:600}
figure{margin:1.2em 0}img{max-width:100%}
figcaption{color:#57606a;font-size:.93em}code{background:#f3f5f7;padding:.1em .3em;border-radius:3px}
.bad{color:#b42318;font-weight:600}.good{color:#1a7f37}.dim{color:#57606a}
"""
BLUE, ORANGE, GREEN, RED, GREY = "#2166ac", "#d9822b", "#2f7d4f", "#b42318", "#8a929a"
SERIES = (BLUE, ORANGE, GREEN, RED, GREY, "#7b4fa3", "#12939a", "#8c6d31", "#c2559d", "#222222")
POINTS_MAX = 20_000
"""Points of a plot; a longer run is thinned evenly, keeping its slowest frame."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot, and what it shows in a sentence."""

    caption: str
    draw: Callable[[Axes], None]
    height_in: float = 3.2


def write_page(path: Path, title: str, lead: str, parts: Iterable[str]) -> None:
    """Write the page and its folder. ``parts`` are HTML. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "\n".join(parts)
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>\n{body}</html>\n"
    )


def heading(text: str) -> str:
    """A section."""
    return f"<h2>{html.escape(text)}</h2>"


def sentence(text: str, kind: str = "") -> str:
    """A paragraph; ``kind``: good, bad or dim."""
    return f'<p class="{kind}">{html.escape(text)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Numbers unchanged, None as a dash."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(said(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def said(value: object) -> str:
    """A cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, dict):
        return ", ".join(f"{key} {said(entry)}" for key, entry in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(said(entry) for entry in value) or "–"
    return str(value)


def conditions_table(report: dict[str, Any]) -> str:
    """Machine, conditions, versions, commit and command of a result."""
    rows: list[tuple[str, object]] = [("command", report["command"]), ("commit", report["commit"])]
    rows += [(key, value) for key, value in report["machine"].items()]
    rows += [(key, value) for key, value in report["conditions"].items()]
    rows += [("versions", report["versions"])]
    return heading("Conditions") + table(("", ""), rows)


def figures(pictures: Iterable[Picture]) -> list[str]:
    """Each picture as HTML with its caption; without matplotlib one sentence instead: the numbers are in the tables."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return [sentence(f"The pictures need matplotlib: {install('calibrate')}", "dim")]

    told = []
    for picture in pictures:
        figure = Figure(figsize=(9.6, picture.height_in), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(True, color="#e4e8ec", linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        picture.draw(axes)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        data = base64.b64encode(buffer.getvalue()).decode()
        caption = html.escape(picture.caption)
        told.append(f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
                    f"<figcaption>{caption}</figcaption></figure>")  # fmt: skip
    return told


def over_time(axes: Axes, x: Sequence[float], y: Sequence[float], x_label: str, y_label: str, **lines: float) -> None:
    """Dots, and a horizontal line for each of ``lines``."""
    at = _thinned(np.asarray(y, dtype=np.float64))
    axes.plot(np.asarray(x)[at], np.asarray(y)[at], ".", color=BLUE, markersize=2.5, alpha=0.6)
    for (name, value), colour in zip(lines.items(), (ORANGE, RED, GREY), strict=False):
        axes.axhline(value, color=colour, linewidth=1.1, label=f"{name} {value:g}")
    if lines:
        axes.legend(loc="upper right", frameon=False, ncols=len(lines))
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_ylim(bottom=0)


def distribution(axes: Axes, series: dict[str, Sequence[float]], x_label: str) -> None:
    """How many frames are slower than x: the complement of the CDF, on a log axis, so that the tail is visible."""
    for (name, values), colour in zip(series.items(), itertools.cycle(SERIES), strict=False):
        ordered = np.sort(np.asarray(values, dtype=np.float64))
        share = 1 - np.arange(ordered.size) / max(1, ordered.size)
        axes.step(ordered, share, where="post", color=colour, label=name, linewidth=1.4)
    axes.set_yscale("log")
    axes.set(xlabel=x_label, ylabel="share of frames that are slower")
    for beyond, name in ((0.5, "p50"), (0.1, "p90"), (0.01, "p99"), (0.001, "p99.9")):
        axes.axhline(beyond, color="#c9d1d9", linewidth=0.8, linestyle=":")
        axes.annotate(name, (1, beyond), xycoords=("axes fraction", "data"), fontsize=8, color=GREY, ha="right",
                      va="bottom")  # fmt: skip
    if len(series) > 1:
        axes.legend(frameon=False, loc="lower left")


def bars(axes: Axes, values: dict[str, float], x_label: str, marked: Sequence[str] = ()) -> None:
    """One horizontal bar per value, with its number."""
    names = list(values)
    colours = [GREY if name in marked else BLUE for name in names]
    drawn = axes.barh(range(len(names)), [values[name] for name in names], color=colours, height=0.62)
    axes.bar_label(drawn, labels=[f" {values[name]:.2f}" for name in names], fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel=x_label)


def counts(axes: Axes, found: dict[str, Any], x_label: str) -> None:
    """A histogram of ``statistics.histogram``, counts on a log axis."""
    edges = np.asarray(found["edges"])
    if edges.size:
        axes.bar(edges[:-1], found["counts"], width=np.diff(edges), align="edge", color=BLUE, edgecolor="white",
                 linewidth=0.3)  # fmt: skip
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
    axes.set(xlabel=x_label, ylabel="frames")


def _thinned(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    if values.size <= POINTS_MAX:
        return np.arange(values.size)
    kept = np.linspace(0, values.size - 1, POINTS_MAX).astype(np.int64)
    return np.unique(np.append(kept, int(values.argmax())))

