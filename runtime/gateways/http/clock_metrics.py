"""What Prometheus reads of clocks. What is not known has no sample: 0 would be a right clock."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from asperity.runtime.wire.clocks import Clocks

NO_SAMPLE = " No sample: not known."


def of_clocks(clocks: Clocks | None, plc_offset_ms: float | None) -> Iterator[Metric]:
    """Of the station's last state, and of the PLC that writes its time to this gateway."""
    said = clocks or Clocks()
    synchronised = said.computer.synchronised
    yield _gauge(
        "asperity_clock_synchronised", "1 while the kernel of the station's computer reports that its clock is.",
        None if synchronised is None else float(synchronised),
    )  # fmt: skip
    yield _gauge("asperity_clock_offset_seconds", "What is left to correct of it.", _s(said.computer.offset_ms))
    yield _gauge("asperity_clock_error_seconds", "The largest error that it reckons with.", _s(said.computer.error_ms))
    yield _gauge(
        "asperity_camera_clock_offset_seconds", "Smallest arrival minus exposure of the last minutes.",
        _s(said.camera.offset_ms),
    )  # fmt: skip
    yield CounterMetricFamily("asperity_camera_clock_jumps", "How often that changed suddenly.", said.camera.jumps)
    yield _gauge(
        "asperity_plc_clock_offset_seconds", "By how much the clock of the PLC is ahead, by its requests.",
        _s(plc_offset_ms),
    )  # fmt: skip


def _s(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def _gauge(name: str, meaning: str, value: float | None) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, meaning + NO_SAMPLE, labels=[])
    if value is not None:
        gauge.add_metric([], value)
    return gauge
