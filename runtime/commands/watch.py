"""``asperity watch``: print what a station publishes. Also the shortest example of a subscriber: SUB, topic, decode.

It shows what passes and recovers nothing; a program that must not miss a result uses ``runtime.client.station_client``.
"""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from asperity.runtime.files import shown
from asperity.runtime.security.private_files import CLIENT_KEY_VARIABLE


class Stream(str, Enum):
    """What may be watched."""

    RESULT = "result"
    STATE = "state"
    RECORD = "record"
    EVENT = "event"
    TRIGGER = "trigger"
    COUNTERS = "counters"
    BULK = "bulk"
    ALL = "all"


KINDS = {
    Stream.RESULT: ("result",),
    Stream.STATE: ("state",),
    Stream.RECORD: ("record",),
    Stream.EVENT: ("event",),
    Stream.TRIGGER: ("trigger",),
    Stream.COUNTERS: ("counters",),
    Stream.BULK: ("map", "picture"),
    Stream.ALL: ("result", "record", "state", "event", "trigger", "counters", "map", "picture"),
}
QUIET_S = 5.0
"""Silence after which the command says once that it hears nothing."""


def command(
    what: Annotated[Stream, typer.Argument(help="Messages to print.")] = Stream.RESULT,
    station: Annotated[str, typer.Option(help="Name of the station.")] = "st1",
    results: Annotated[str, typer.Option(help="Results socket of the inspector.")] = "tcp://127.0.0.1:5561",
    bulk: Annotated[str, typer.Option(help="Bulk socket of the inspector.")] = "tcp://127.0.0.1:5562",
    count: Annotated[int, typer.Option(min=0, help="Stop after this many messages; 0: never.")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="Stop after this many seconds; 0: never.")] = 0,
    key: Annotated[
        Path | None, typer.Option(envvar=CLIENT_KEY_VARIABLE, help="Key file of this client, for a station with CURVE.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Print the messages that a station publishes."""
    import zmq

    from asperity.runtime.client.presence import nobody_at
    from asperity.runtime.errors import StationError, UsageError, WireError
    from asperity.runtime.security.curve_keys import receive, secure
    from asperity.runtime.security.socket_files import check_ipc
    from asperity.runtime.wire import MAX_BUFFER_BYTES, topic

    ends = {"--bulk": bulk} if what is Stream.BULK else {"--results": results}

    def nobody() -> str:
        return "".join(f": {why}" for flag, endpoint in ends.items() if (why := nobody_at(endpoint, flag)))

    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_BUFFER_BYTES)
    try:
        for kind in KINDS[what]:
            socket.setsockopt(zmq.SUBSCRIBE, topic(kind, station))
        for endpoint in {bulk if kind in ("map", "picture") else results for kind in KINDS[what]}:
            check_ipc(endpoint, error=UsageError)
            secure(socket, key)
            try:
                socket.connect(endpoint)
            except zmq.ZMQError as error:
                raise UsageError(
                    f"cannot connect to {endpoint}: {error}; give tcp://HOST:PORT or ipc://PATH"
                ) from error
        started_s, printed, quiet_said = time.monotonic(), 0, False
        while not (count and printed >= count):
            left_s = started_s + seconds - time.monotonic() if seconds else QUIET_S
            if left_s <= 0:
                break
            if socket.poll(max(1, round(min(left_s, QUIET_S) * 1000))):
                try:
                    said = line(receive(socket), json)
                except WireError as error:
                    said = _malformed(error, json)
                typer.echo(said if json else shown(said))
                printed += 1
            elif not printed and not quiet_said:
                quiet_said = True
                typer.echo(f"nothing received from station {station} at {results} yet{nobody()}", err=True)
        if not printed:
            why = nobody() or "; is the inspector running, and is the name right?"
            raise StationError(f"nothing received from station {station}{why}")
    finally:
        context.destroy(linger=0)


def line(parts: list[bytes], json: bool) -> str:
    """One message as a line: JSON, or words for a person. What cannot be decoded is shown as such, never hidden."""
    import msgspec

    from asperity.runtime import wire
    from asperity.runtime.errors import WireError
    from asperity.runtime.frame import Verdict
    from asperity.runtime.text.part_identity import shown_id

    decoders: dict[str, Any] = {
        "result": wire.decode_result,
        "record": wire.decode_record_message,
        "state": wire.decode_state,
        "event": wire.decode_event,
        "trigger": wire.decode_trigger,
        "counters": wire.decode_counters,
        "map": wire.decode_bulk,
        "picture": wire.decode_bulk,
    }
    try:
        kind, station = wire.split_topic(parts[0])
        message = decoders[kind](parts)
    except (WireError, KeyError) as error:
        return _malformed(error, json)
    if kind == "record":
        fields = msgspec.to_builtins(message[1]) | {"accept": message[1].accept}
    else:
        fields = msgspec.json.decode(parts[1])
    if json:
        return msgspec.json.encode({"kind": kind} | fields).decode()
    if kind == "result":
        score = " / ".join("none" if value is None else f"{value:.4g}" for value in (message.score, message.threshold))
        took_ms = message.latency_us.get("total", 0) / 1000
        by = f" by {message.modality}" if message.modality and message.verdict is Verdict.NG else ""
        words = [str(message.result_id), message.verdict.name, score, message.reason_text + by, f"{took_ms:.1f} ms"]
        part = shown_id(message.part_id)
        of_view = f"(a view of {message.view_of}: accepts no part)" if message.view_of else ""
        views = f"[{', '.join(map(str, message.views))}]" if message.views else ""
        more = [text for text in ("SIMULATED" if message.simulated else "", of_view, views) if text]
        return "  ".join([station, *words, part, *more]).rstrip()
    return f"{kind} {station}  " + "  ".join(f"{name}={value}" for name, value in fields.items() if value)


def _malformed(error: Exception, json: bool) -> str:
    import msgspec

    return msgspec.json.encode({"malformed": str(error)}).decode() if json else f"malformed: {error}"
