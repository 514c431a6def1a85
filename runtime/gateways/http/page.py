"""The page for people: the station's state and its last results. Plain HTML, no external resources, all escaped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import tzinfo
from html import escape

from asperity.runtime.client.ordering import Gap
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.http.plant_time import shown_time
from asperity.runtime.gateways.link import Item, View, synced
from asperity.runtime.gateways.plc_clock import PlcClock
from asperity.runtime.states import State, alarm_text
from asperity.runtime.text.part_identity import shown_id
from asperity.runtime.wire import Counters, ReceivedResult, StationState, Tally
from asperity.runtime.wire.clocks import Clocks

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5em; color: #1c1c1c; background: #fff }
h1 { font-size: 1.2em } table { border-collapse: collapse; margin-top: 1em }
th, td { text-align: left; padding: .2em .8em .2em 0; border-bottom: 1px solid #ddd; white-space: nowrap }
td.n { text-align: right; font-variant-numeric: tabular-nums } .gap, .unknown, .bad { color: #8a5a00 }
.ok, .good { color: #14662c } .ng { color: #a31616 }
"""
COLUMNS = (
    "result",
    "time",
    "verdict",
    "reason",
    "modality",
    "score",
    "threshold",
    "ms",
    "seq",
    "trigger",
    "part",
    "lot",
    "order",
    "shift",
    "position",
    "recipe",
    "",
)
LOG_IN = "/log-in"
TOP_REASONS = 5
"""Reasons shown with a yield, those first that cost most parts."""
STATES = {int(state): state.name for state in State}


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads the page, and how."""

    access: str
    """Who they are to the gateway, and what they may do, as text."""
    may_log_in: bool
    """There are users, and this is not one."""
    zone: tzinfo | None
    """Of all times; None: this computer's."""


def page(station: str, view: View, items: Iterable[Item], refresh_s: int, reader: Reader, plc: PlcClock) -> bytes:
    """The whole page; ``items`` newest first."""
    reason = why_not(view)
    said = _of_state(view.state, view.counters, reader.zone) if view.state is not None else []
    facts = [
        ("station", station), ("results here", str(view.results)), ("missing", str(view.missing)), *said,
        ("clock of the PLC", plc.problem or _plc(plc)), ("access", reader.access),
    ]  # fmt: skip
    rows = "".join(_row(item, reader.zone) for item in items)
    log_in = f"<p><a href={LOG_IN}>log in</a></p>" if reader.may_log_in else ""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        f"<meta http-equiv=refresh content={refresh_s}><title>{escape(station)}</title><style>{STYLE}</style></head>",
        f"<body><h1>{escape(station)}: <span class={'bad' if reason else 'good'}>",
        f"{escape('not ready: ' + reason) if reason else 'ready'}</span></h1><table>",
        "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts),
        "</table><table><tr>",
        "".join(f"<th>{name}</th>" for name in COLUMNS),
        f"</tr>{rows}</table>{log_in}</body></html>",
    ]
    return "".join(parts).encode()


def why_not(view: View) -> str:
    """Why the quality is bad, for people; empty: it is good."""
    if view.good or not view.why:
        return view.why
    state = view.state
    if state is None or state.can_judge:
        return view.why
    change = state.recipe_change
    failed = [f"recipe {change.recipe or 'none'} failed: {change.text}"] if change and change.status == "failed" else []
    return "; ".join([f"state {_state(state)}", *failed, *map(alarm_text, state.alarms)])


def _state(state: StationState) -> str:
    return f"{state.state} {STATES.get(state.state, 'unknown')}"


def _of_state(state: StationState, counters: Counters | None, zone: tzinfo | None) -> list[tuple[str, str]]:
    unknown = ", ".join(f"{name} {count}" for name, count in sorted(state.unknown_by_reason.items()))
    engine = state.engine
    return [
        ("state", _state(state)),
        ("alarms", "; ".join(map(alarm_text, state.alarms)) or "none"),
        ("active recipe", f"{state.recipe or 'none'} {state.bundle}"),
        ("last recipe change", _of_change(state)),
        ("active threshold", _number(state.threshold) or "none"),
        ("triggers, synced", f"{state.triggers or 'not known'}, {'yes' if synced(state) else 'no'}"),
        ("engine", f"{engine.name} on {engine.device}, {engine.precision}" if engine else "none"),
        ("received, lost, late", f"{state.received}, {state.lost}, {state.late}"),
        ("ok, ng, unknown", f"{state.ok}, {state.ng}, {state.unknown}" + (f" ({unknown})" if unknown else "")),
        ("in flight", str(state.in_flight)),
        *_of_counters(counters, state, zone),
        ("lot, order, shift", ", ".join(text or "none" for text in (state.lot, state.order, state.shift))),
        *_of_clocks(state.clocks),
    ]


def _of_clocks(clocks: Clocks | None) -> list[tuple[str, str]]:
    if clocks is None:
        return []
    computer, camera = clocks.computer, clocks.camera
    words = {None: "not known whether synchronised", True: "synchronised", False: "not synchronised"}
    by = f", {computer.source} runs" if computer.source else ""
    ms = f", off by {_ms(computer.offset_ms)}, error at most {_ms(computer.error_ms)}" if computer.synchronised else ""
    way = f", {_ms(camera.offset_ms)} to arrival at least, jumps {camera.jumps}" if camera.offset_ms is not None else ""
    return [
        ("clock of the computer", words[computer.synchronised] + by + ms),
        ("clock of the camera", (camera.clock or "no frame yet") + way),
    ]


def _plc(plc: PlcClock) -> str:
    return "not known" if plc.offset_ms is None else f"off by {_ms(plc.offset_ms)}"


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f} ms"


def _of_counters(counters: Counters | None, state: StationState, zone: tzinfo | None) -> list[tuple[str, str]]:
    """Since the last reset: all, and those of the present recipe, lot and shift."""
    if counters is None:
        return []
    here = counters.row(state.recipe, state.lot, state.shift)
    since = f"since {shown_time(counters.since_us, zone, ms=False)}"
    return [(f"yield {since}", _tally(counters)), ("yield of this recipe, lot and shift", _tally(here))]


def _tally(tally: Tally) -> str:
    if tally.yielded is None:
        return "nothing counted"
    top = sorted(tally.by_reason.items(), key=lambda each: (-each[1], each[0]))[:TOP_REASONS]
    reasons = f"; {', '.join(f'{name} {count}' for name, count in top)}" if top else ""
    return f"{100 * tally.yielded:.2f} %: ok {tally.ok}, ng {tally.ng}, unknown {tally.unknown}{reasons}"


def _of_change(state: StationState) -> str:
    change = state.recipe_change
    if change is None:
        return "none"
    why = f": {change.text}" if change.text else ""
    return f"number {change.number} to {change.recipe or 'none'}: {change.status}{why}"


def _row(item: Item, zone: tzinfo | None) -> str:
    if isinstance(item, Gap):
        text = f"{item.first_id} to {item.last_id} missing: {item.why}"
        return f"<tr class=gap><td colspan={len(COLUMNS)}>{escape(text)}</td></tr>"
    result = item.result
    verdict = result.verdict.name.lower() if result.verdict in (Verdict.OK, Verdict.NG) else "unknown"
    cells = "".join(f"<td class=n>{escape(text)}</td>" for text in _cells(result, zone))
    return f"<tr class={verdict}>{cells}</tr>"


def _cells(result: ReceivedResult, zone: tzinfo | None) -> list[str]:
    total_us = result.latency_us.get("total")
    return [
        str(result.result_id),
        shown_time(result.t_done_us, zone),
        result.verdict.name.lower(),
        result.reason.name,
        result.modality,
        _number(result.score),
        _number(result.threshold),
        "" if total_us is None else f"{total_us / 1000:.1f}",
        str(result.seq),
        str(result.trigger_id or ""),
        shown_id(result.part_id),
        result.lot,
        result.order,
        result.shift,
        "" if result.position is None else str(result.position),
        result.recipe,
        "; ".join(_about(result)),
    ]


def _about(result: ReceivedResult) -> list[str]:
    """What else a person should know of it."""
    of_view = f"one view of {result.view_of}, accepts no part" if result.view_of else ""
    views = ", ".join(map(str, result.views))
    return [text for text in ("simulated" if result.simulated else "", of_view, views) if text]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
