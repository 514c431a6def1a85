"""``asperity simulate``: a whole station for PLC programmers, without a model and without a camera."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from queue import Empty, Full, Queue
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from asperity.runtime.settings.station_toml import StationConfig
    from asperity.runtime.simulation.player import Simulation
    from asperity.runtime.simulation.simulated_line import Summary
    from asperity.runtime.wire import Trigger

QUEUE_LENGTH = 16
"""``[limits] queue_length`` of a simulated station: at 500 frames/s a busy computer must not displace frames."""
TYPED_MAX = 100
TRIGGER_WAIT_MS = 20
RATE_MAX_HZ = 1000.0
REQUEST_TIMEOUT_MS = 2000
DEFAULT_SCRIPT = "ok ok ok ok ng"


def command(
    script: Annotated[
        str, typer.Option(help="Words, one per part, repeated: ok ng shape nan raise WORD=MS LOST STALE ... or all.")
    ] = DEFAULT_SCRIPT,
    reason: Annotated[
        list[str] | None, typer.Option(help="Play a good part, then this reason; repeatable. Replaces --script.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Parts per second, at most 1000.")] = 5.0,
    count: Annotated[int, typer.Option(min=0, help="Stop after this many exposures; 0: never.")] = 0,
    once: Annotated[bool, typer.Option("--once", help="Stop after every word was played once.")] = False,
    on_trigger: Annotated[
        bool, typer.Option("--on-trigger", help="Play a word on each trigger instead of at a rate.")
    ] = False,
    views: Annotated[
        int, typer.Option(min=0, max=8, help="Simulate parts that this many cameras see, each exposure with its word.")
    ] = 0,
    typed: Annotated[bool, typer.Option("--stdin", help="Play words typed on standard input next.")] = False,
    config: Annotated[Path | None, typer.Option(help="Configuration file, station.toml.")] = None,
    station: Annotated[str | None, typer.Option(help="Override [station] name.")] = None,
    camera: Annotated[str | None, typer.Option(help="Override [station] camera.")] = None,
    triggers: Annotated[
        str | None, typer.Option(help="Override [station] triggers: free_run, software or hard_wired.")
    ] = None,
    frames: Annotated[str | None, typer.Option(help="Override [sockets] frames.")] = None,
    results: Annotated[str | None, typer.Option(help="Override [sockets] results.")] = None,
    bulk: Annotated[str | None, typer.Option(help="Override [sockets] bulk.")] = None,
    control: Annotated[str | None, typer.Option(help="Override [sockets] control.")] = None,
    journal: Annotated[
        Path | None, typer.Option(help="Override [journal] path; default: a file removed at the end.")
    ] = None,
    deadline_ms: Annotated[int | None, typer.Option(help="Override [limits] deadline_ms.")] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="With CURVE: client key with the roles camera, read and administer."),
    ] = None,
    insecure_lan: Annotated[bool | None, typer.Option(help="Override [sockets] insecure_lan.")] = None,
    log_level: Annotated[str | None, typer.Option(help="Override [log] level.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Simulate a station to test a PLC program without a camera.

    An inspector with a simulated engine and a simulated camera gives every reason code on demand. Results say
    `simulated`: gateways keep accept at 0 unless their configuration says otherwise. With several [[stations]] in the
    configuration, each word is played at every station.
    """
    from asperity.runtime.errors import StationError, UsageError
    from asperity.runtime.reasons import Reason
    from asperity.runtime.simulation.player import words_of
    from asperity.runtime.simulation.simulated_line import Summary

    if not 0 < rate <= RATE_MAX_HZ:
        raise UsageError(
            f"--rate {rate:g} is out of range; give more than 0 and at most {RATE_MAX_HZ:g} parts a second"
        )
    unknown = [name for name in reason or () if name not in Reason.__members__]
    if unknown:
        raise UsageError(f"--reason {unknown[0]} is not a reason; use one of: {', '.join(Reason.__members__)}")
    words = words_of(" ".join(f"ok {name}" for name in reason) if reason else script)
    overrides: dict[str, dict[str, Any]] = {
        "station": {"name": station, "camera": camera, "triggers": triggers},
        "limits": {"deadline_ms": deadline_ms, "queue_length": QUEUE_LENGTH},
        "sockets": {
            "frames": frames, "results": results, "bulk": bulk, "control": control, "insecure_lan": insecure_lan,
        },
        "log": {"level": log_level},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="asperity-simulate-") as folder:
        made = _viewed(_configure(config, overrides, journal, Path(folder), on_trigger), views, Path(folder))
        if made.security.curve and key is None:
            raise UsageError(
                "[security] curve is set: give --key; make the key with "
                "asperity keys new --client simulate --role camera --role read --role administer"
            )
        play = _simulate_parts if made.combined else _simulate
        summary, balanced = play(made, words, rate, count, once, on_trigger, typed, key)
    told = {name: getattr(summary, name) for name in Summary.__dataclass_fields__}
    told |= {"per_second": round(summary.per_second, 1), "balanced": balanced}
    missed = [f"{word} {count} times" for word, count in summary.missed.items()]
    typer.echo(
        json.dumps(told)
        if as_json
        else f"{summary.results} results of {summary.exposures} exposures in {summary.seconds:.1f} s "
        f"({summary.per_second:.1f}/s), {summary.gaps} gaps, {summary.unanswered} without a result: "
        + ", ".join(f"{count} {name}" for name, count in sorted(summary.by_reason.items()))
        + (f"; played without its reason: {', '.join(missed)}" if missed else "")
    )
    if not balanced or summary.unanswered or summary.gaps:
        raise StationError("a frame has no result, or the counters do not add up; report this with the log above")


def _configure(
    path: Path | None, overrides: dict[str, dict[str, Any]], journal: Path | None, folder: Path, on_trigger: bool
) -> StationConfig:
    """As ``asperity run`` would, never with a real station's engine, recipes, journal or audit. Raises ConfigError."""
    from msgspec.structs import replace

    from asperity.runtime.engines.simulated import BROKEN_RECIPE, TIMING_RECIPE
    from asperity.runtime.settings.loading import load
    from asperity.runtime.settings.station_toml import SCRIPT_PREFIX
    from asperity.runtime.simulation.inspector_process import RECIPE

    given = {name: {k: v for k, v in keys.items() if v is not None} for name, keys in overrides.items()}
    asked = load(path, given)
    recipes = {name: f"{SCRIPT_PREFIX}ok" for name in asked.recipes}
    given |= {
        "engine": {"name": "simulated", "script": "ok"},
        "recipes": {**recipes, **dict.fromkeys((RECIPE, TIMING_RECIPE, BROKEN_RECIPE), f"{SCRIPT_PREFIX}ok")},
        "audit": {"path": str(folder / "audit.jsonl")},
    }
    if journal is not None or not asked.stations:
        given["journal"] = {"path": str((journal or folder / "journal").absolute())}
    config = load(path, given)
    own = [replace(station, journal=str(folder / f"{station.name}.journal")) for station in config.stations]
    above = [replace(each, journal=str(folder / f"{each.name}.journal")) for each in config.combined]
    return _triggered(replace(config, stations=own, combined=above), on_trigger)


def _triggered(config: StationConfig, on_trigger: bool) -> StationConfig:
    """With ``--on-trigger`` a station that would run freely waits for software triggers."""
    from msgspec.structs import replace

    if not on_trigger:
        return config
    stations = [replace(each, triggers="software") if each.triggers == "free_run" else each for each in config.stations]
    if not stations and config.station.triggers == "free_run":
        return replace(config, station=replace(config.station, triggers="software"))
    return replace(config, stations=stations)


def _viewed(config: StationConfig, views: int, folder: Path) -> StationConfig:
    """With ``--views`` the station is a combined one, above as many stations with a camera each. Raises UsageError."""
    from msgspec.structs import replace

    from asperity.runtime.errors import UsageError
    from asperity.runtime.settings.station_toml import HostedStation, StationSection
    from asperity.runtime.settings.view_sections import Combined

    if not views:
        return config
    if config.stations:
        raise UsageError("--views makes its own stations, but the configuration has [[stations]]: leave one out")
    whole = config.station
    mode = "software" if whole.triggers == "free_run" else whole.triggers
    names = [f"{whole.name[:30]}-{number}" for number in range(1, views + 1)]
    stations = [
        HostedStation(
            name=name, number=whole.number + at, camera=f"{whole.camera[:30]}-{at}", triggers=mode,
            journal=str(folder / f"{name}.journal"),
        )
        for at, name in enumerate(names, 1)
    ]  # fmt: skip
    combined = Combined(
        name=whole.name, number=whole.number, views=names, journal=config.journal.path,
        complete_ms=config.triggers.timeout_max_ms + config.limits.deadline_ms,
    )  # fmt: skip
    journal = replace(config.journal, path="")
    return replace(config, station=StationSection(), stations=stations, combined=[combined], journal=journal)


def _simulate_parts(
    config: StationConfig,
    words: list[str],
    rate_hz: float,
    count: int,
    once: bool,
    on_trigger: bool,
    typed: bool,
    key: Path | None,
) -> tuple[Summary, bool]:
    """As ``_simulate``, at combined stations."""
    from asperity.runtime.client.limits import ClientLimits
    from asperity.runtime.client.station_client import StationClient
    from asperity.runtime.errors import UsageError
    from asperity.runtime.settings.paths import control_endpoint
    from asperity.runtime.simulation.camera import SimulatedCamera
    from asperity.runtime.simulation.inspector_process import StationProcess
    from asperity.runtime.simulation.simulated_parts import SimulatedParts, check_words

    if typed:
        raise UsageError("--stdin plays words at single stations; leave it out with views")
    check_words(words)
    told_to_end = _told_to_end()
    sockets, limits = config.sockets, ClientLimits(request_timeout_ms=REQUEST_TIMEOUT_MS)
    seen_by = {name for combined in config.combined for name in combined.views}
    inspector = StationProcess(config)
    inspector.start()
    try:
        with ExitStack() as stack:
            cameras = {
                each.name: stack.enter_context(closing(SimulatedCamera(
                    each.camera, sockets.frames, station=each.name, results_endpoint=sockets.results, key=key
                )))
                for each in config.stations if each.name in seen_by
            }  # fmt: skip
            clients = {
                each.name: stack.enter_context(StationClient(
                    sockets.results, control_endpoint(each.name, sockets.control), station=each.name, limits=limits,
                    key=key,
                ))
                for each in config.combined
            }  # fmt: skip
            parts = SimulatedParts(config, inspector, cameras, clients, told_to_end.is_set)
            parts.play(words, rate_hz, count, once, on_trigger)
            states = [client.request("get_state").state for client in clients.values()]
            balanced = all(state is not None and state.balanced for state in states)
            return parts.summary, balanced or told_to_end.is_set()
    finally:
        inspector.end()


def _told_to_end() -> threading.Event:
    """Set by SIGTERM and SIGINT."""
    from asperity.runtime.process import early_signals

    told_to_end = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        told_to_end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if early_signals.told():
        told_to_end.set()
    return told_to_end


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
    """Play until asked to end; returns the outcome and whether every station's counters add up."""
    from asperity.runtime.client.limits import ClientLimits
    from asperity.runtime.client.station_client import StationClient
    from asperity.runtime.settings.paths import control_endpoint
    from asperity.runtime.settings.station_toml import hosted
    from asperity.runtime.simulation.camera import SimulatedCamera
    from asperity.runtime.simulation.inspector_process import StationProcess
    from asperity.runtime.simulation.player import Simulation
    from asperity.runtime.simulation.simulated_line import Summary

    told_to_end = _told_to_end()
    inspector = StationProcess(config)
    limits = ClientLimits(request_timeout_ms=REQUEST_TIMEOUT_MS)
    inspector.start()
    try:
        with ExitStack() as stack:
            stations: list[Simulation] = []
            clients: list[StationClient] = []
            for each in hosted(config):
                sockets, name = each.sockets, each.station.name
                triggers = sockets.results if on_trigger or each.station.triggers == "software" else ""
                camera = SimulatedCamera(
                    each.station.camera, sockets.frames, station=name, results_endpoint=triggers, key=key
                )
                stack.enter_context(closing(camera))
                control = control_endpoint(name, sockets.control)
                client = StationClient(sockets.results, control, station=name, limits=limits, key=key)
                clients.append(stack.enter_context(client))
                stations.append(Simulation(each, inspector, camera, client, rate_hz, told_to_end.is_set, config, key))
            for simulation in stations:
                simulation.await_running()
            summary = Summary()
            if told_to_end.is_set():
                return summary, True
            started_s = time.monotonic()
            _play(stations, words, count, once, on_trigger, _typed_words() if typed else None)
            summary.seconds = time.monotonic() - started_s
            for simulation in stations:
                simulation.settle()
                summary.add(simulation.summary)
            states = [client.request("get_state").state for client in clients]
            return summary, all(state is not None and state.balanced for state in states)
    finally:
        inspector.end()


def _play(
    stations: list[Simulation], words: list[str], count: int, once: bool, triggered: bool, typed: Queue[str] | None
) -> None:
    """Words in turn, typed ones first, until told to end, after ``count`` exposures or all words ``once``.

    Each word is played at every station, one after the other; on triggers, at the one that was triggered.
    """
    at = 0
    while not stations[0].ended and not (count and sum(each.summary.exposures for each in stations) >= count):
        if once and at == len(words):
            break
        triggers: list[tuple[Simulation, Trigger | None]] = [(station, None) for station in stations]
        if triggered:
            triggers = _next_trigger(stations)
            if not triggers:
                continue
        word, asked = words[at % len(words)], False
        if typed is not None:
            with suppress(Empty):
                word, asked = typed.get_nowait(), True
        at += not asked
        came = [_play_at(station, stations, word, trigger) for station, trigger in triggers]
        if asked:
            typer.echo(f"{word}: {', '.join(sorted(set().union(*came))) or 'sent'}", err=True)


def _next_trigger(stations: list[Simulation]) -> list[tuple[Simulation, Trigger | None]]:
    """The first station that is triggered, within a moment."""
    for station in stations:
        station.listen(0)
        trigger = station.next_trigger(TRIGGER_WAIT_MS // len(stations))
        if trigger is not None:
            return [(station, trigger)]
    return []


def _play_at(station: Simulation, stations: list[Simulation], word: str, trigger: Trigger | None) -> set[str]:
    """Play a word at one station; the others stand still while it brings a reason about, which may end the process."""
    from asperity.runtime.reasons import Reason

    if word == Reason.WRONG_CAMERA.name and station is not stations[0]:
        return set()  # such a frame is nobody's, and the first station answers it
    others = [other for other in stations if other is not station]
    if word in Reason.__members__:
        for other in others:
            other.settle()
    restarts = station.summary.restarts
    came = station.play(word, trigger)
    for other in others if station.summary.restarts > restarts else ():
        other.await_running()
    return set(came)


def _typed_words() -> Queue[str]:
    """What is typed on standard input, read by its own thread."""
    from asperity.runtime.errors import AsperityError
    from asperity.runtime.simulation.player import words_of

    typed: Queue[str] = Queue(TYPED_MAX)

    def read() -> None:
        for line in sys.stdin:
            try:
                for word in words_of(line):
                    typed.put_nowait(word)
            except (AsperityError, Full) as error:
                typer.echo(str(error) or f"at most {TYPED_MAX} words can wait", err=True)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    return typed
