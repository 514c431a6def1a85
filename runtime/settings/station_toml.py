"""``station.toml`` as types: every bound, wait and size of a station has its name, default and description here.

``docs/station.md`` is made from this file. ``settings.loading`` reads a ``station.toml``, ``settings.cross_checks``
checks keys against each other, and ``settings.paths`` derives paths from them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from asperity.runtime.records.journal import PROMISES_MAX
from asperity.runtime.settings.clock_section import Clocks
from asperity.runtime.settings.part_sections import Counters, Parts
from asperity.runtime.settings.toml_tables import (
    NAME_RULE,
    Name,
    Section,
    endpoint_text,
    number,
    path_text,
    text,
)
from asperity.runtime.settings.view_sections import Combined
from asperity.runtime.wire import MAX_BUFFER_BYTES, MAX_CONTROL_BYTES, MAX_PARTS, MAX_RESULTS_PER_REPLY

SCRIPT_PREFIX = "script:"
"""A recipe of the simulated engine is a script: ``name = "script:ok ok ng"``."""
STATIONS_MAX = 8
"""Stations that one process may host."""


class StationSection(Section, frozen=True, forbid_unknown_fields=True):
    """The station's identity and what it does without requests."""

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

    journal: Annotated[
        str, path_text("journal file of the station; empty: `$XDG_STATE_HOME/asperity/NAME.journal`")
    ] = ""
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

    frames: Annotated[str, endpoint_text("PULL; `tcp://ADDRESS:PORT` or `ipc://PATH`", binds=True)] = "tcp://127.0.0.1:5560"
    results: Annotated[str, endpoint_text("PUB: results, records, states, events, triggers", binds=True)] = "tcp://127.0.0.1:5561"
    bulk: Annotated[str, endpoint_text("PUB: maps and pictures; a subscriber may miss some", binds=True)] = "tcp://127.0.0.1:5562"
    control: Annotated[
        str,
        endpoint_text(
            "ROUTER; empty: `ipc://` in a folder owned by this user (0700), the socket itself 0600", binds=True
        ),
    ] = ""
    insecure_lan: Annotated[
        bool, text("allow binding to a non-loopback address although clients on that network are not authenticated")
    ] = False
    pictures: Annotated[
        bool, text("send each frame's colour picture to `bulk` as well, as it came, for people")
    ] = False
    frames_hwm: Annotated[int, number(1, 64, "frames that ZeroMQ may buffer before the I/O thread reads them")] = 4
    results_hwm: Annotated[int, number(10, 1_000_000, "messages buffered for a slow subscriber")] = 4000
    bulk_hwm: Annotated[int, number(1, 64, "maps and pictures buffered for a slow subscriber")] = 2
    control_hwm: Annotated[int, number(1, 10_000, "requests and replies buffered for one client")] = 64
    frames_max_nbytes: Annotated[
        int, number(1024, MAX_BUFFER_BYTES, "largest part of a frame; a recipe whose colour has more does not open")
    ] = MAX_BUFFER_BYTES
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
    keys: Annotated[str, path_text("key folder; empty: `$ASPERITY_KEYS`, else the user's configuration folder")] = ""
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

    path: Annotated[str, path_text("file; empty: `$XDG_STATE_HOME/asperity/NAME.journal`")] = ""
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
    trust: Annotated[str, path_text("folder of trusted public keys; empty: the user's configuration folder")] = ""
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
    cache: Annotated[str, path_text("cuda: folder of built networks; empty: `$XDG_CACHE_HOME/asperity/engines`")] = ""
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
    """Record of requests and their outcome (docs/security.md, Audit): JSON lines, one file per process."""

    path: Annotated[
        str,
        path_text("audit file; `.1`, `.2` ... are older ones; empty: `NAME.audit.jsonl` next to the (first) journal"),
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
        str, path_text("`NAME.trace.json` is written here when the process ends; empty: next to the journal")
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
    parts: Parts = Parts()
    combined: list[Combined] = msgspec.field(default_factory=list)
    counters: Counters = Counters()
    hard_wired: HardWired = HardWired()
    clocks: Clocks = Clocks()
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
        dict[Name, str],
        path_text('bundles by recipe name, for prepare_recipe: `name = "/path/to/bundle"`', unless=SCRIPT_PREFIX),
    ] = msgspec.field(default_factory=dict)


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
