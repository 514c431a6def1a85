"""``station.toml`` as types: every bound, wait and size of a station has its name, default and description here.

``docs/station.md`` is made from this file. Flags of ``asperity run`` only override it. An unknown key or a value out of
range raises ConfigError with the key, the value and the remedy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from asperity.runtime.errors import ConfigError
from asperity.runtime.records.journal import PROMISES_MAX
from asperity.runtime.settings.toml_tables import (
    NAME_RULE,
    Name,
    Section,
    describe,
    number,
    read_sections,
    text,
    where_of,
)
from asperity.runtime.wire import MAX_BUFFER_BYTES, MAX_CONTROL_BYTES, MAX_PARTS, MAX_RESULTS_PER_REPLY

SCRIPT_PREFIX = "script:"
"""A recipe of the simulated engine is a script: ``name = "script:ok ok ng"``."""
STATIONS_MAX = 8
"""Stations that one process may host."""


class StationSection(Section, frozen=True, forbid_unknown_fields=True):
    """Who this station is and what it does by itself."""

    name: Annotated[Name, text(f"name used in every topic ({NAME_RULE})")] = "st1"
    number: Annotated[int, number(0, 65535, "number in the 64-byte record")] = 1
    camera: Annotated[Name, text("the camera of this station; frames from another are refused with WRONG_CAMERA")] = (
        "cam1"
    )
    recipe: Annotated[str, text("recipe from [recipes] to open at start; empty: wait for prepare_recipe")] = ""
    autostart: Annotated[bool, text("go to ContinuousExecution as soon as the first recipe is ready")] = True
    expected_rate_hz: Annotated[float, number(0, 1000, "frames per second expected from the camera; 0: unknown")] = 0.0
    triggers: Annotated[
        Literal["free_run", "software", "hard_wired"],
        text(
            "`free_run`: every frame is judged; `software`: the frame of a `trigger`; `hard_wired`: a sensor fires the "
            "camera and `expect` announces the part; with the last two, a frame that was not announced is UNANNOUNCED"
        ),
    ] = "free_run"


class HardWired(Section, frozen=True, forbid_unknown_fields=True):
    """With `triggers = "hard_wired"`: which exposure is which part's. How to measure each: docs/plc.md.

    early_ms + late_ms + 2 tolerance_ms must be below pitch_min_ms, and so must arrival_max_ms, or the station does not
    start.
    """

    early_ms: Annotated[int, number(0, 60_000, "`expect` arrives at most this long before the exposure")] = 20
    late_ms: Annotated[int, number(0, 60_000, "`expect` arrives at most this long after the exposure")] = 60
    arrival_max_ms: Annotated[int, number(1, 60_000, "a frame arrives at most this long after its exposure")] = 80
    tolerance_ms: Annotated[
        int, number(0, 1000, "largest difference between the clocks of the camera and this computer")
    ] = 5
    pitch_min_ms: Annotated[
        int, number(0, 600_000, "shortest time between two parts; 0: not measured yet, the station does not start")
    ] = 0
    quiet_ms: Annotated[
        int,
        number(
            0, 600_000,
            "UNSYNCED ends after a pause this long, longer than any announcement is delayed; at least 3 pitches "
            "are used, which is also what 0 means",
        ),
    ] = 0  # fmt: skip
    transit_ms: Annotated[
        int, number(0, 60_000, "clock `device` only: shortest time from exposure to arrival, as measured")
    ] = 0
    device_frames: Annotated[
        int, number(2, 1000, "clock `device` only: frames of a session after which its clock is known")
    ] = 8


class HostedStation(StationSection, frozen=True, forbid_unknown_fields=True):
    """One of several stations that one process hosts, 1 to 8, in place of `[station]`: every other table holds for all.

    Names, numbers, cameras and journals differ; the recipe may be the same, and is then open once.
    """

    journal: Annotated[str, text("journal file of the station; empty: `$XDG_STATE_HOME/asperity/NAME.journal`")] = ""
    hard_wired: Annotated[
        HardWired | None, text("the station's own table [stations.hard_wired]; absent: [hard_wired]")
    ] = None


class Limits(Section, frozen=True, forbid_unknown_fields=True):
    """When a frame is too late, surplus or not trusted."""

    queue_length: Annotated[
        int, number(1, 16, "maximum frames in the queue; above this the oldest is refused with OVERLOAD")
    ] = 2
    max_age_ms: Annotated[int, number(1, 3_600_000, "a frame older than this when its turn comes is STALE")] = 1000
    deadline_ms: Annotated[int, number(1, 3_600_000, "a frame not judged this long after it arrived is DEADLINE")] = 500
    seq_gap_max: Annotated[
        int, number(0, 4096, "a gap in seq up to this size gives that many LOST; a larger gap gives SEQ_JUMP")
    ] = 64
    camera_sessions: Annotated[int, number(1, 1024, "number of camera sessions whose last seq is remembered")] = 16
    engine_faults_max: Annotated[int, number(1, 1000, "this many ENGINE results in a row lead to state Error")] = 3
    engine_stuck_ms: Annotated[
        int, number(100, 3_600_000, "no progress of the engine thread for this long leads to state Error")
    ] = 5000
    camera_silent_ms: Annotated[
        int,
        number(1, 3_600_000, "with expected_rate_hz set: no frame for this long means that the camera is not alive"),
    ] = 2000
    beat_timeout_min_ms: Annotated[
        int, number(100, 3_600_000, "minimum of beat_timeout_ms; it is raised to the deadline and to 3 x frame_p99_ms")
    ] = 600


class Timing(Section, frozen=True, forbid_unknown_fields=True):
    """How often and how long the two threads wait."""

    state_interval_ms: Annotated[int, number(20, 1000, "a state message at least this often")] = 200
    poll_ms: Annotated[int, number(1, 1000, "longest wait of the I/O thread for a socket")] = 50
    idle_tick_ms: Annotated[
        int, number(1, 1000, "longest wait of the engine thread for a frame; then its heartbeat advances")
    ] = 100
    shutdown_ms: Annotated[int, number(0, 600_000, "at shutdown, longest wait for the frame being processed")] = 2000
    recipe_ms: Annotated[
        int, number(1000, 3_600_000, "longest time to verify, open and warm up a recipe, times the number of stations")
    ] = 120_000
    self_test_ms: Annotated[int, number(100, 600_000, "longest time of the self-test")] = 60_000


class Triggers(Section, frozen=True, forbid_unknown_fields=True):
    """Triggers given by the PLC."""

    pending_max: Annotated[
        int, number(1, PROMISES_MAX, "maximum triggers waiting for their frame; above this BUSY")
    ] = 4
    timeout_max_ms: Annotated[int, number(1, 3_600_000, "longest timeout_ms that a request may specify")] = 60_000


class Sockets(Section, frozen=True, forbid_unknown_fields=True):
    """Endpoints that the inspector binds. Off loopback only with CURVE (or ``insecure_lan``)."""

    frames: Annotated[str, text("PULL; `tcp://ADDRESS:PORT` or `ipc://PATH`")] = "tcp://127.0.0.1:5560"
    results: Annotated[str, text("PUB: results, records, states, events, triggers")] = "tcp://127.0.0.1:5561"
    bulk: Annotated[str, text("PUB: maps; a subscriber may miss some")] = "tcp://127.0.0.1:5562"
    control: Annotated[
        str, text("ROUTER; empty: `ipc://` in a folder owned by this user (0700), the socket itself 0600")
    ] = ""
    insecure_lan: Annotated[
        bool, text("allow binding to a non-loopback address although clients on that network are not authenticated")
    ] = False
    frames_hwm: Annotated[int, number(1, 64, "frames that ZeroMQ may buffer before the I/O thread reads them")] = 4
    results_hwm: Annotated[int, number(10, 1_000_000, "messages buffered for a slow subscriber")] = 4000
    bulk_hwm: Annotated[int, number(1, 64, "maps buffered for a slow subscriber")] = 2
    control_hwm: Annotated[int, number(1, 10_000, "requests and replies buffered for one client")] = 64
    frames_max_nbytes: Annotated[int, number(1024, MAX_BUFFER_BYTES, "largest part of a frame")] = MAX_BUFFER_BYTES
    control_max_nbytes: Annotated[int, number(1024, MAX_CONTROL_BYTES, "largest request")] = MAX_CONTROL_BYTES
    parts_max: Annotated[int, number(MAX_PARTS, 1024, "parts of a message; a connection that sends more is closed")] = (
        16
    )
    frames_message_nbytes: Annotated[
        int, number(65_536, 2**30, "largest message on the frames socket; a connection that sends more is closed")
    ] = 268_435_456
    frames_waiting_nbytes: Annotated[
        int,
        number(
            65_536,
            2**33,
            "frames of all connections that are queued or being read; above this one connection is closed",
        ),
    ] = 536_870_912
    message_ms: Annotated[
        int,
        number(
            100, 600_000, "longest time from the first byte of a message to its last; then the connection is closed"
        ),
    ] = 10_000
    subscriptions_max: Annotated[
        int, number(8, 4096, "maximum subscriptions of one connection; with more it is closed")
    ] = 256
    topic_max_nbytes: Annotated[
        int, number(64, 1024, "longest subscription topic; a connection with a longer one is closed")
    ] = 256
    linger_ms: Annotated[int, number(0, 60_000, "at shutdown, longest wait for subscribers")] = 1000
    heartbeat_ms: Annotated[int, number(100, 60_000, "interval of heartbeats to a silent camera connection")] = 1000
    heartbeat_timeout_ms: Annotated[int, number(100, 600_000, "a camera silent this long is not alive")] = 3000
    frames_per_turn: Annotated[int, number(1, 64, "frames read before deadlines are checked again")] = 4
    requests_per_turn: Annotated[int, number(1, 1000, "requests read before deadlines are checked again")] = 16


class Security(Section, frozen=True, forbid_unknown_fields=True):
    """Who may connect, and how much each client may ask."""

    curve: Annotated[
        bool, text("every socket uses CURVE, and only with clients created by `asperity keys new --client NAME`")
    ] = False
    keys: Annotated[str, text("key folder; empty: `$ASPERITY_KEYS`, else the user's configuration folder")] = ""
    reload_ms: Annotated[int, number(50, 60_000, "the list of clients is checked this often")] = 500
    handshake_ms: Annotated[
        int, number(100, 60_000, "a connection whose handshake is incomplete after this long is closed")
    ] = 3000
    connections: Annotated[
        int, number(1, 100_000, "maximum connections per socket; above this new ones are refused")
    ] = 64
    connects_per_min: Annotated[int, number(1, 100_000, "with CURVE: connections that one client may open")] = 240
    requests_per_s: Annotated[int, number(1, 1_000_000, "requests of one client; above this BUSY")] = 1000
    request_nbytes_per_s: Annotated[
        int, number(MAX_CONTROL_BYTES, 2**30, "bytes of one client's requests; above this BUSY")
    ] = 1_048_576


class Control(Section, frozen=True, forbid_unknown_fields=True):
    """Requests and replies."""

    reply_cache: Annotated[int, number(1, 100_000, "replies kept: a repeated id is answered, not executed again")] = 512
    request_age_max_ms: Annotated[
        int, number(100, 600_000, "a request that quotes a state older than this is TOO_OLD and not executed")
    ] = 1000
    results_per_reply: Annotated[
        int, number(1, MAX_RESULTS_PER_REPLY, "maximum results in one reply to get_result")
    ] = 24


class Journal(Section, frozen=True, forbid_unknown_fields=True):
    """The ring of admitted frames and results."""

    path: Annotated[str, text("file; empty: `$XDG_STATE_HOME/asperity/NAME.journal`")] = ""
    slots: Annotated[int, number(64, 1_048_576, "results kept; 4.2 KB each")] = 4096
    first_id: Annotated[int, number(1, 2**52, "first result_id of a new journal")] = 1
    reserve_ids: Annotated[
        int, number(16, 1_000_000, "ids reserved on disk; size of the gap after a power failure")
    ] = 4096


class Engine(Section, frozen=True, forbid_unknown_fields=True):
    """What scores."""

    name: Annotated[
        Literal["cpu", "cuda", "simulated"],
        text("`cpu`, `cuda` (docs/device-frame.md), or `simulated` for PLC programmers and tests"),
    ] = "cpu"
    threads: Annotated[int, number(0, 256, "threads of the engine; 0: one per core")] = 0
    script: Annotated[
        str,
        text("answers of the simulated engine, one word per seq (docs/plc.md): ok ng shape nan raise ..., or WORD=MS"),
    ] = "ok ok ok ok ng"
    trust: Annotated[str, text("folder of trusted public keys; empty: the user's configuration folder")] = ""
    allow_older: Annotated[
        bool,
        text("open a bundle of a recipe although a newer one was served here; every state message then reports it"),
    ] = False
    gpu: Annotated[int, number(0, 63, "cuda: GPU of this machine, as numbered by nvidia-smi")] = 0
    precision: Annotated[
        Literal["fp16", "fp32", "int8"], text("cuda: precision of the networks; the bundle's golden frames decide")
    ] = "fp16"
    lanes: Annotated[
        int, number(1, 8, "cuda: frames processed at the same time; each has its own buffers on the GPU")
    ] = 1
    cache: Annotated[str, text("cuda: folder of built networks; empty: `$XDG_CACHE_HOME/asperity/engines`")] = ""
    cache_max_mbytes: Annotated[
        int,
        number(
            64, 1_000_000, "cuda: size limit of that folder; above this the least recently used networks are removed"
        ),
    ] = 8192
    build_missing: Annotated[
        bool,
        text(
            "cuda: build networks missing from the cache before a recipe is opened, while the active recipe "
            "keeps running"
        ),
    ] = False
    build_s: Annotated[int, number(10, 86_400, "cuda: longest time for building a bundle's networks")] = 3600
    build_mbytes: Annotated[int, number(64, 1_000_000, "cuda: GPU memory that building may use")] = 2048
    recipes_in_memory: Annotated[
        int, number(1, 8, "cuda: recipes that must fit on the GPU at start; the next one opens next to the active one")
    ] = 2
    device_wait_ms: Annotated[int, number(10, 600_000, "cuda: longest wait for the GPU; then it is probed")] = 2000
    keep_warm_ms: Annotated[
        int,
        number(
            0,
            60_000,
            "cuda: while idle, a frame's work is repeated this often to keep the GPU clocked up; at "
            "idle_tick_ms at best; 0: never",
        ),
    ] = 200
    keep_warm_for_s: Annotated[int, number(1, 86_400, "cuda: for this long after the last frame")] = 600


class Audit(Section, frozen=True, forbid_unknown_fields=True):
    """Who asked what of the station, and what came of it (docs/security.md, Audit): JSON lines, one file a process."""

    path: Annotated[
        str, text("audit file; `.1`, `.2` ... are older ones; empty: `NAME.audit.jsonl` next to the (first) journal")
    ] = ""
    max_mbytes: Annotated[int, number(1, 1024, "largest size of a file; then a new one is started")] = 16
    files: Annotated[int, number(2, 100, "files kept, including the current one; the oldest is removed")] = 8
    queue_entries: Annotated[
        int, number(16, 100_000, "entries that may wait for the disk; above this they are only counted")
    ] = 4096
    refusals_per_min: Annotated[
        int,
        number(1, 100_000, "refused requests and connections recorded per minute; above this they are only counted"),
    ] = 120


class Trace(Section, frozen=True, forbid_unknown_fields=True):
    """The slowest frames and what every thread did in them: why were they late (docs/performance.md)?"""

    slowest: Annotated[int, number(0, 4096, "frames kept; 0: none")] = 0
    folder: Annotated[
        str, text("`NAME.trace.json` is written here when the process ends; empty: next to the journal")
    ] = ""


class Drift(Section, frozen=True, forbid_unknown_fields=True):
    """Whether good parts still score as when the station was calibrated (docs/drift.md); no verdict depends on it."""

    window_frames: Annotated[int, number(0, 100_000, "accepted frames per window; 0: never")] = 200
    level: Annotated[float, number(1e-9, 0.1, "probability of a false alarm per window if nothing has changed")] = 1e-4


class Log(Section, frozen=True, forbid_unknown_fields=True):
    """What is written to stderr."""

    level: Annotated[Literal["debug", "info", "warning", "error"], text("lowest level that is logged")] = "info"
    format: Annotated[Literal["text", "json"], text("`text` for people, or `json`: one JSON object per line")] = "text"
    repeat_ms: Annotated[int, number(0, 3_600_000, "a line of one kind is written at most once in this period")] = (
        10_000
    )
    kinds_max: Annotated[int, number(8, 10_000, "maximum kinds of lines whose repeats are counted")] = 256


class StationConfig(Section, frozen=True, forbid_unknown_fields=True):
    """A whole ``station.toml``."""

    station: StationSection = StationSection()
    stations: list[HostedStation] = msgspec.field(default_factory=list)
    limits: Limits = Limits()
    timing: Timing = Timing()
    triggers: Triggers = Triggers()
    hard_wired: HardWired = HardWired()
    sockets: Sockets = Sockets()
    security: Security = Security()
    control: Control = Control()
    journal: Journal = Journal()
    audit: Audit = Audit()
    engine: Engine = Engine()
    trace: Trace = Trace()
    drift: Drift = Drift()
    log: Log = Log()
    recipes: Annotated[
        dict[Name, str], text('bundles by recipe name, for prepare_recipe: `name = "/path/to/bundle"`')
    ] = msgspec.field(default_factory=dict)


def load(path: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> StationConfig:
    """Read ``station.toml`` and put ``overrides`` (section -> key -> value, from flags) over it.

    Without ``path`` every value is its default. Relative paths in it are relative to the file. Raises ConfigError.
    """
    config = read_sections(StationConfig, path, overrides, _make_absolute)
    _check(config, where_of(path))
    return config


def hosted(config: StationConfig) -> list[StationConfig]:
    """The configuration of each station of the process, as if it were the only one; in the order of the file."""
    if not config.stations:
        return [config]
    return [
        msgspec.structs.replace(
            config,
            station=StationSection(**{key: getattr(station, key) for key in StationSection.__struct_fields__}),
            stations=[],
            hard_wired=station.hard_wired or config.hard_wired,
            journal=msgspec.structs.replace(config.journal, path=station.journal),
        )
        for station in config.stations
    ]


def save(config: StationConfig) -> bytes:
    """The whole configuration as JSON, for another process of this program."""
    return msgspec.json.encode(config)


def restore(data: bytes) -> StationConfig:
    """What ``save`` wrote. Raises ConfigError."""
    try:
        return msgspec.json.decode(data, type=StationConfig)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"the configuration passed to this process cannot be read: {error}") from error


def journal_path(config: StationConfig) -> Path:
    """Where the station's journal lies."""
    if config.journal.path:
        return Path(config.journal.path)
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "asperity" / f"{config.station.name}.journal"


def trace_path(config: StationConfig) -> Path:
    """Where the station's slowest frames are written."""
    if config.trace.folder:
        return Path(config.trace.folder) / f"{config.station.name}.trace.json"
    return journal_path(config).with_name(f"{config.station.name}.trace.json")


def audit_path(config: StationConfig) -> Path:
    """Where the process's audit file is written; ``config``: of its first station."""
    if config.audit.path:
        return Path(config.audit.path)
    return journal_path(config).with_name(f"{config.station.name}.audit.jsonl")


def engine_cache(config: StationConfig) -> Path:
    """Where networks built for this box's GPU lie."""
    if config.engine.cache:
        return Path(config.engine.cache)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "asperity" / "engines"


def control_endpoint(station: str, configured: str = "") -> str:
    """The control socket's endpoint: ``configured``, or the one in this user's runtime folder that clients try too."""
    if configured:
        return configured
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/asperity-{os.getuid()}"
    return f"ipc://{Path(base) / 'asperity' / station}.control"


def document() -> str:
    """``docs/station.md``, made from the types."""
    return "\n".join(
        [
            "# station.toml",
            "",
            "Made by `python -m asperity.runtime.settings.station_toml > docs/station.md`. Every key may be left out;",
            "an unknown one is refused. Flags of `asperity run` override the file; paths may be relative to it.",
            *describe(StationConfig),
            "",
        ]
    )


def _check(config: StationConfig, where: str) -> None:
    """What one field alone cannot say."""
    sockets = config.sockets
    if sockets.heartbeat_timeout_ms < sockets.heartbeat_ms:
        raise ConfigError(
            f"{where}: [sockets] heartbeat_timeout_ms is {sockets.heartbeat_timeout_ms}, below heartbeat_ms "
            f"({sockets.heartbeat_ms}); set it to 2 or 3 times that"
        )
    if sockets.frames_waiting_nbytes < sockets.frames_message_nbytes:
        raise ConfigError(
            f"{where}: [sockets] frames_waiting_nbytes is {sockets.frames_waiting_nbytes}, below frames_message_nbytes "
            f"({sockets.frames_message_nbytes}); set it to 2 times that or more"
        )
    in_work = config.limits.queue_length + config.triggers.pending_max + config.limits.seq_gap_max
    if config.journal.slots < 4 * in_work:
        raise ConfigError(
            f"{where}: [journal] slots is {config.journal.slots}, fewer than 4 x the {in_work} results that "
            "queue_length, pending_max and seq_gap_max allow to be pending; leave it at 4096"
        )
    for each in hosted(config):
        if each.station.triggers == "hard_wired":
            _check_hard_wired(each, where)
        if each.station.recipe and each.station.recipe not in config.recipes:
            known = ", ".join(config.recipes) or "none"
            table = "[[stations]]" if config.stations else "[station]"
            raise ConfigError(f"{where}: {table} recipe is {each.station.recipe!r}; available in [recipes]: {known}")
    if config.stations:
        _check_stations(config, where)
    engine, limits = config.engine, config.limits
    if engine.name == "cuda" and 2 * engine.device_wait_ms >= limits.engine_stuck_ms:
        raise ConfigError(
            f"{where}: [engine] device_wait_ms is {engine.device_wait_ms}; twice that must be below [limits] "
            f"engine_stuck_ms ({limits.engine_stuck_ms}), or a GPU that hangs is mistaken for an engine that is stuck"
        )
    for key in ("frames", "results", "bulk", "control"):
        endpoint = getattr(sockets, key)
        if not endpoint.startswith(("tcp://", "ipc://")) and not (key == "control" and endpoint == ""):
            raise ConfigError(f"{where}: [sockets] {key} is {endpoint!r}; write tcp://ADDRESS:PORT or ipc://PATH")


def _check_hard_wired(config: StationConfig, where: str) -> None:
    """That an exposure can lie in the window of one part only, and that a verdict can wait for its part."""
    wired, station = config.hard_wired, config.station.name
    window_ms = wired.early_ms + wired.late_ms + 2 * wired.tolerance_ms
    if window_ms >= wired.pitch_min_ms:
        raise ConfigError(
            f"{where}: station {station} has hard-wired triggers, and [hard_wired] pitch_min_ms is "
            f"{wired.pitch_min_ms}, not above early_ms + late_ms + 2 tolerance_ms ({window_ms}); measure the least "
            "time between two parts and set it, announce parts more punctually, or give software triggers"
        )
    if wired.arrival_max_ms >= wired.pitch_min_ms:
        raise ConfigError(
            f"{where}: [hard_wired] arrival_max_ms is {wired.arrival_max_ms}, not below pitch_min_ms "
            f"({wired.pitch_min_ms}): if the camera's clock went back by a pitch, each part would be given the next "
            "one's picture; send smaller pictures or over a faster link, or give software triggers"
        )
    if wired.arrival_max_ms > config.limits.max_age_ms:
        raise ConfigError(
            f"{where}: [hard_wired] arrival_max_ms is {wired.arrival_max_ms}, above [limits] max_age_ms "
            f"({config.limits.max_age_ms}), after which a frame is STALE; raise max_age_ms to it"
        )
    settled_ms = wired.early_ms + max(wired.arrival_max_ms, wired.late_ms) + wired.late_ms + 3 * wired.tolerance_ms
    if settled_ms >= config.limits.deadline_ms:
        raise ConfigError(
            f"{where}: station {station}: which part an exposure belongs to may be known only after {settled_ms} ms "
            "([hard_wired] early_ms + late_ms + 3 tolerance_ms, and the larger of arrival_max_ms and late_ms); "
            f"[limits] deadline_ms is {config.limits.deadline_ms}; raise it above that"
        )


def _check_stations(config: StationConfig, where: str) -> None:
    """That no two stations of the process have in common what makes them two."""
    if config.station != StationSection():
        raise ConfigError(
            f"{where}: [station] (and --station, --camera, --autostart) applies to a process with one station, but "
            "there are [[stations]]; move its keys into these"
        )
    if config.journal.path:
        raise ConfigError(
            f"{where}: [journal] path (and --journal) names the single file {config.journal.path}, but there are "
            "[[stations]]; give each of them a journal, or none: then it is named after the station"
        )
    if len(config.stations) > STATIONS_MAX:
        raise ConfigError(
            f"{where}: there are {len(config.stations)} [[stations]], but one process hosts at most {STATIONS_MAX}; "
            "run the others in another process"
        )
    taken: dict[tuple[str, str | int], int] = {}
    for at, each in enumerate(hosted(config), start=1):
        station = each.station
        marks: dict[str, str | int] = {"name": station.name, "number": station.number, "camera": station.camera}
        for key, value in {**marks, "journal": str(journal_path(each))}.items():
            other = taken.setdefault((key, value), at)
            if other != at:
                raise ConfigError(
                    f"{where}: [[stations]] no. {other} and no. {at} both have {key} {value!r}; give each its own {key}"
                )


def _make_absolute(values: dict[str, Any], base: Path) -> None:
    recipes, journal, audit, engine, security, trace = (
        values.get(name) for name in ("recipes", "journal", "audit", "engine", "security", "trace")
    )
    if isinstance(recipes, dict):
        values["recipes"] = {
            name: str(base / place) if isinstance(place, str) and not place.startswith(SCRIPT_PREFIX) else place
            for name, place in recipes.items()
        }
    stations = values.get("stations")
    journals = [(station, "journal") for station in (stations if isinstance(stations, list) else [])]
    own = ((journal, "path"), (audit, "path"), (engine, "trust"), (engine, "cache"))
    for table, key in (*own, (security, "keys"), (trace, "folder"), *journals):
        if isinstance(table, dict) and isinstance(table.get(key), str) and table[key]:
            table[key] = str(base / table[key])


if __name__ == "__main__":
    print(document(), end="")
