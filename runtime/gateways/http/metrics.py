"""What Prometheus reads: results counted here as they arrive, and the station's last state as reported.

``asperity_accept`` and ``asperity_quality`` are computed at each scrape; everything else may be old when quality is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from asperity.runtime.client.ordering import Gap
from asperity.runtime.frame import LATENCY_STAGES
from asperity.runtime.gateways.http.clock_metrics import of_clocks
from asperity.runtime.gateways.link import Delivered, Item, Link, View, synced
from asperity.runtime.gateways.plc_clock import PlcClock
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.states import ALARMS
from asperity.runtime.wire import Counters, StationState, Tally

LATENCY_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
"""Upper ends of the histograms' buckets."""
OTHER = "other"


class Metrics:
    """Counts of one gateway and the picture of its station."""

    def __init__(
        self, link: Link, refused: Callable[[], int] = lambda: 0, plc: PlcClock | None = None
    ) -> None:
        """``refused``: log-ins refused so far."""
        self._registry = CollectorRegistry()
        self._results = Counter(
            "asperity_results", "Results received by the gateway.", ("verdict", "reason"), registry=self._registry
        )
        self._simulated = Counter(
            "asperity_results_simulated", "Results not scored by a real engine.", registry=self._registry
        )
        self._late = Counter("asperity_results_deadline_missed", "Results after the deadline.", registry=self._registry)
        self._latency = Histogram(
            "asperity_latency_seconds",
            "Time from the arrival of a frame to its result, per stage.",
            ("stage",),
            buckets=LATENCY_S,
            registry=self._registry,
        )
        for reason in Reason:
            self._results.labels(_verdict(reason), reason.name)
        for stage in LATENCY_STAGES:
            self._latency.labels(stage)
        self._registry.register(_Present(link, refused, plc))

    def count(self, item: Item) -> None:
        """An item that the link handed on."""
        if isinstance(item, Gap):
            return  # the link counts them
        result = item.result
        self._results.labels(result.verdict.name.lower(), result.reason.name).inc()
        self._simulated.inc(result.simulated)
        self._late.inc(result.deadline_missed)
        for stage in LATENCY_STAGES:
            if stage in result.latency_us:
                self._latency.labels(stage).observe(result.latency_us[stage] / 1e6)

    def text(self) -> bytes:
        """The exposition, Prometheus's text format."""
        return generate_latest(self._registry)


class _Present(Collector):
    """What the link says when it is asked."""

    def __init__(self, link: Link, refused: Callable[[], int], plc: PlcClock | None) -> None:
        self._link = link
        self._plc = plc
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        """As ``Collector.collect``."""
        view = self._link.view()
        yield from _of_view(view)
        yield CounterMetricFamily("asperity_log_ins_refused", "Log-ins refused by the gateway.", self._refused())
        if view.state is not None:
            yield from _of_state(view.state)
        said = view.state.clocks if view.state is not None else None
        yield from of_clocks(said, None if self._plc is None else self._plc.offset_ms)
        if view.counters is not None:
            yield from _of_counters(view.counters)


def _of_view(view: View) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "asperity_accept", "1 while the part of the last result may pass. For charts, never for a PLC.", view.accept
    )
    last = view.last.result.result_id if isinstance(view.last, Delivered) else 0
    yield GaugeMetricFamily(
        "asperity_last_result_id", "The result that asperity_accept refers to; 0: none, or a gap.", last
    )
    yield GaugeMetricFamily("asperity_quality", "1 while the station is ready and its heartbeat advances.", view.good)
    yield CounterMetricFamily("asperity_gaps", "Gaps reported in the results.", view.gaps)
    yield CounterMetricFamily("asperity_results_missing", "Results in those gaps.", view.missing)


def _of_state(state: StationState) -> Iterator[Metric]:
    yield GaugeMetricFamily("asperity_station_state", "State of the station (docs/states.md).", state.state)
    yield GaugeMetricFamily("asperity_station_ready", "1 while the station reports that it is ready.", state.ready)
    yield GaugeMetricFamily("asperity_station_beat", "The inspector's heartbeat counter, as last received.", state.beat)
    yield GaugeMetricFamily("asperity_station_alarms", "Active alarms.", len(state.alarms))
    active = dict.fromkeys([*ALARMS, OTHER], False)
    for kind in state.alarms:
        active[kind if kind in active else OTHER] = True
    alarm = GaugeMetricFamily("asperity_station_alarm", "1 while the alarm is active.", labels=["alarm"])
    for kind, is_active in active.items():
        alarm.add_metric([kind], is_active)
    yield alarm
    yield GaugeMetricFamily("asperity_station_in_flight", "Frames admitted and not yet answered.", state.in_flight)
    yield CounterMetricFamily("asperity_station_received", "Frames received.", state.received)
    yield CounterMetricFamily("asperity_station_lost", "Frames and triggers for which nothing arrived.", state.lost)
    yield CounterMetricFamily(
        "asperity_station_late", "Frames that arrived after their exposure had been answered LOST.", state.late
    )
    yield GaugeMetricFamily(
        "asperity_station_synced", "1: announcements match exposures, or do not have to.", float(synced(state))
    )
    threshold = GaugeMetricFamily("asperity_station_threshold", "Active threshold; no sample: no recipe.", labels=[])
    if state.threshold is not None:
        threshold.add_metric([], state.threshold)
    yield threshold
    yield CounterMetricFamily("asperity_station_deadline_missed", "Missed deadlines.", state.deadline_missed)
    results = CounterMetricFamily(
        "asperity_station_results", "Results of the station, as counted by the station.", labels=["verdict"]
    )
    for verdict, count in (("ok", state.ok), ("ng", state.ng), ("unknown", state.unknown)):
        results.add_metric([verdict], count)
    yield results
    reasons = dict.fromkeys([reason.name for reason in Reason if reason not in JUDGED] + [OTHER], 0)
    for name, count in state.unknown_by_reason.items():
        reasons[name if name in reasons else OTHER] += count
    unknown = CounterMetricFamily("asperity_station_unknown", "Unknown results of the station.", labels=["reason"])
    for name, count in reasons.items():
        unknown.add_metric([name], count)
    yield unknown
    engine = state.engine
    yield InfoMetricFamily(
        "asperity_station",
        "Identity of the station and its engine.",
        {
            "station": state.station,
            "session": state.session,
            "recipe": state.recipe,
            "bundle": state.bundle,
            "engine": engine.name if engine else "",
            "device": engine.device if engine else "",
            "precision": engine.precision if engine else "",
            "triggers": state.triggers,
        },
    )
    change = state.recipe_change
    if change is not None:
        yield InfoMetricFamily(
            "asperity_recipe_change",
            "The last recipe change requested in this session; only the status `done` means done.",
            {"number": str(change.number), "recipe": change.recipe, "status": change.status, "text": change.text},
        )
    gpu = GaugeMetricFamily("asperity_gpu", "Values reported by the GPU; names include the unit.", labels=["name"])
    for name, value in (state.gpu or {}).items():
        if isinstance(value, float | int):
            gpu.add_metric([name], value)
    yield gpu


def _of_counters(counters: Counters) -> Iterator[Metric]:
    """What the station counts by recipe, lot and shift; ``other`` has the label `(other)` for each."""
    keys = ["recipe", "lot", "shift"]
    parts = CounterMetricFamily(
        "asperity_counted_parts", "Parts since the counters were reset, through restarts.", labels=[*keys, "verdict"]
    )
    reasons = CounterMetricFamily(
        "asperity_counted_rejects", "Of these, those that are not ok, by reason.", labels=[*keys, "reason"]
    )
    rows: list[tuple[list[str], Tally]] = [([row.recipe, row.lot, row.shift], row) for row in counters.rows]
    for key, tally in [*rows, (["(other)"] * 3, counters.other)]:
        for verdict, count in (("ok", tally.ok), ("ng", tally.ng), ("unknown", tally.unknown)):
            parts.add_metric([*key, verdict], count)
        for reason, count in tally.by_reason.items():
            reasons.add_metric([*key, reason], count)
    yield parts
    yield reasons
    yield GaugeMetricFamily("asperity_yield", "Share of ok among these parts; 0 if none.", counters.yielded or 0.0)
    yield GaugeMetricFamily("asperity_counters_since_seconds", "When they were reset last.", counters.since_us / 1e6)
    yield CounterMetricFamily("asperity_counter_resets", "How often they were reset.", counters.resets)


def _verdict(reason: Reason) -> str:
    """The name of the verdict that a result of this reason has."""
    if reason not in JUDGED:
        return "unknown"
    return "ok" if reason is Reason.GOOD else "ng"
