"""``asperity simulate``: a whole station for PLC programmers, without a model and without a camera."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, Full, Queue
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from runtime.config import StationConfig
    from runtime.simulation import Simulation, Summary

QUEUE_LENGTH = 16
"""``[limits] queue_length`` of a simulated station: at 500 frames/s a busy computer must not displace frames."""
TYPED_MAX = 100
TRIGGER_WAIT_MS = 20
RATE_MAX_HZ = 1000.0
REQUEST_TIMEOUT_MS = 2000
DEFAULT_SCRIPT = "ok ok ok ok ng"


def command(
    script: Annotated[
        str, typer.Option(help="words, one a part, over and over: ok ng shape nan raise WORD=MS LOST STALE ... or all")
    ] = DEFAULT_SCRIPT,
    reason: Annotated[
        list[str] | None, typer.Option(help="instead: a good part, then this reason (repeatable)")
    ] = None,
    rate: Annotated[float, typer.Option(help="parts a second, at most 1000")] = 5.0,
    count: Annotated[int, typer.Option(min=0, help="end after so many exposures; 0: never")] = 0,
    once: Annotated[bool, typer.Option("--once", help="end when every word was played once")] = False,
    on_trigger: Annotated[bool, typer.Option("--on-trigger", help="a word on each trigger, instead of a rate")] = False,
    typed: Annotated[bool, typer.Option("--stdin", help="words typed on standard input come next")] = False,
    config: Annotated[Path | None, typer.Option(help="station.toml (docs/station.md)")] = None,
    station: Annotated[str | None, typer.Option(help="[station] name")] = None,
    camera: Annotated[str | None, typer.Option(help="[station] camera")] = None,
    frames: Annotated[str | None, typer.Option(help="[sockets] frames")] = None,
    results: Annotated[str | None, typer.Option(help="[sockets] results")] = None,
    bulk: Annotated[str | None, typer.Option(help="[sockets] bulk")] = None,
    control: Annotated[str | None, typer.Option(help="[sockets] control")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="[journal] path; default: one that is removed at the end")
    ] = None,
    deadline_ms: Annotated[int | None, typer.Option(help="[limits] deadline_ms")] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="with CURVE: key of its camera and client, of the roles camera, read, administer"),
    ] = None,
    insecure_lan: Annotated[bool | None, typer.Option(help="[sockets] insecure_lan")] = None,
    log_level: Annotated[str | None, typer.Option(help="[log] level")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object at the end")] = False,
) -> None:
    """The inspector with a simulated engine and a camera of its own: every reason code on demand, for PLC programs.

    Results say `simulated`: gateways keep accept at 0 unless their configuration says otherwise.
    """
    from runtime.errors import StationError, UsageError
    from runtime.reasons import Reason
    from runtime.simulation import Summary, words_of

    if not 0 < rate <= RATE_MAX_HZ:
        raise UsageError(
            f"--rate {rate:g} is out of range; give more than 0 and at most {RATE_MAX_HZ:g} parts a second"
        )
    unknown = [name for name in reason or () if name not in Reason.__members__]
    if unknown:
        raise UsageError(f"--reason {unknown[0]} is no reason; there are: {', '.join(Reason.__members__)}")
    words = words_of(" ".join(f"ok {name}" for name in reason) if reason else script)
    overrides: dict[str, dict[str, Any]] = {
        "station": {"name": station, "camera": camera},
        "limits": {"deadline_ms": deadline_ms, "queue_length": QUEUE_LENGTH},
        "sockets": {
            "frames": frames, "results": results, "bulk": bulk, "control": control, "insecure_lan": insecure_lan,
        },
        "log": {"level": log_level},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="asperity-simulate-") as folder:
        made = _configure(config, overrides, journal or Path(folder) / "journal")
        if made.security.curve and key is None:
            raise UsageError(
                "[security] curve is set: give --key, made by "
                "asperity keys new --client simulate --role camera --role read --role administer"
            )
        summary, balanced = _simulate(made, words, rate, count, once, on_trigger, typed, key)
    told = {name: getattr(summary, name) for name in Summary.__dataclass_fields__}
    told |= {"per_second": round(summary.per_second, 1), "balanced": balanced}
    missed = f"; did not come about: {', '.join(summary.missed)}" if summary.missed else ""
    typer.echo(
        json.dumps(told)
        if as_json
        else f"{summary.results} results of {summary.exposures} exposures in {summary.seconds:.1f} s "
        f"({summary.per_second:.1f}/s), {summary.gaps} gaps, {summary.unanswered} without an answer: "
        + ", ".join(f"{count} {name}" for name, count in sorted(summary.by_reason.items()))
        + missed
    )
    if not balanced or summary.unanswered or summary.gaps:
        raise StationError(
            "a frame has no result, or the counters do not add up; please report this with the log above"
        )


def _configure(path: Path | None, overrides: dict[str, dict[str, Any]], journal: Path) -> StationConfig:
    """As ``asperity run`` would, but never with a real station's engine, recipes or journal. Raises ConfigError."""
    from runtime.config import SCRIPT_PREFIX, load
    from runtime.engines.simulated import TIMING_RECIPE
    from runtime.simulated_station import RECIPE

    given = {name: {k: v for k, v in keys.items() if v is not None} for name, keys in overrides.items()}
    recipes = {name: f"{SCRIPT_PREFIX}ok" for name in load(path, given).recipes}
    given |= {
        "engine": {"name": "simulated", "script": "ok"},
        "recipes": {**recipes, RECIPE: f"{SCRIPT_PREFIX}ok", TIMING_RECIPE: f"{SCRIPT_PREFIX}ok"},
        "journal": {"path": str(journal.absolute())},
    }
    return load(path, given)


def _simulate(
    config: StationConfig,
    words: list[str],
    rate_hz: float,
    count: int,
    once: bool,
    on_trigger: bool,
    typed: bool,
    key: Path | None,
) -> tuple[Summary, bool]:
    """Play until told to end: what came of it, and whether the station's counters add up."""
    from runtime.cameras.simulated import SimulatedCamera
    from runtime.client import ClientLimits, Station
    from runtime.config import control_endpoint
    from runtime.simulated_station import StationProcess
    from runtime.simulation import Simulation

    told_to_end = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        told_to_end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    inspector = StationProcess(config)
    sockets, name = config.sockets, config.station.name
    control = control_endpoint(name, sockets.control)
    limits = ClientLimits(request_timeout_ms=REQUEST_TIMEOUT_MS)
    inspector.start()
    try:
        triggers = sockets.results if on_trigger else ""
        camera = SimulatedCamera(
            config.station.camera, sockets.frames, station=name, results_endpoint=triggers, key=key
        )
        with closing(camera), Station(sockets.results, control, station=name, limits=limits, key=key) as client:
            simulation = Simulation(config, inspector, camera, client, rate_hz, told_to_end.is_set)
            simulation.await_running()
            if simulation.ended:
                return simulation.summary, True
            started_s = time.monotonic()
            _play(simulation, words, count, once, on_trigger, _typed_words() if typed else None)
            simulation.summary.seconds = time.monotonic() - started_s
            simulation.settle()
            state = client.request("get_state").state
            return simulation.summary, state is not None and state.balanced
    finally:
        inspector.end()


def _play(
    simulation: Simulation, words: list[str], count: int, once: bool, triggered: bool, typed: Queue[str] | None
) -> None:
    """Words in turn, typed ones first, until told to end, after ``count`` exposures or all words ``once``."""
    at = 0
    while not simulation.ended and not (count and simulation.summary.exposures >= count):
        if once and at == len(words):
            break
        trigger = None
        if triggered:
            simulation.listen(0)
            trigger = simulation.camera.wait_trigger(TRIGGER_WAIT_MS)
            if trigger is None:
                continue
        word, asked = words[at % len(words)], False
        if typed is not None:
            with suppress(Empty):
                word, asked = typed.get_nowait(), True
        at += not asked
        came = simulation.play(word, trigger)
        if asked:
            typer.echo(f"{word}: {', '.join(came) or 'sent'}", err=True)


def _typed_words() -> Queue[str]:
    """What is typed on standard input, read by a thread of its own."""
    from runtime.errors import AsperityError
    from runtime.simulation import words_of

    typed: Queue[str] = Queue(TYPED_MAX)

    def read() -> None:
        for line in sys.stdin:
            try:
                for word in words_of(line):
                    typed.put_nowait(word)
            except (AsperityError, Full) as error:
                typer.echo(str(error) or f"at most {TYPED_MAX} words may wait", err=True)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    return typed
