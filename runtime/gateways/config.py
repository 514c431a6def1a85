"""``gateway.toml`` as types: which station, and every bound, wait and port of the gateways.

One file serves all gateways of a station; each reads the first two tables and its own. The tables of
``docs/gateways.md`` are generated from this file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from asperity.runtime.gateways.ethernetip.settings import Ethernetip
from asperity.runtime.gateways.plc_clock import Clocks
from asperity.runtime.gateways.result_block import ResultBlock
from asperity.runtime.security.private_files import CLIENT_KEY_VARIABLE
from asperity.runtime.settings.paths import control_endpoint
from asperity.runtime.settings.toml_tables import (
    Name,
    Section,
    endpoint_text,
    host_text,
    number,
    path_text,
    read_sections,
    text,
)


class GatewayStation(Section, frozen=True, forbid_unknown_fields=True):
    """The station that the gateway speaks for."""

    name: Annotated[Name, text("the station's name")] = "st1"
    results: Annotated[str, endpoint_text("the inspector's results socket")] = "tcp://127.0.0.1:5561"
    control: Annotated[
        str, endpoint_text("the inspector's control socket; empty: the one in this user's runtime folder")
    ] = ""
    key_file: Annotated[
        str, path_text("client key for a station with CURVE; empty: the file named by `$ASPERITY_CLIENT_KEY`, if set")
    ] = ""


class Gateway(Section, frozen=True, forbid_unknown_fields=True):
    """Settings that all gateways share."""

    accept_simulated: Annotated[
        bool, text("let simulated results set accept: only while programming a PLC, never on a production line")
    ] = False
    accept_hold_ms: Annotated[
        int,
        number(
            10, 3_600_000, "accept is cleared this long after its result was forwarded, unless another result followed"
        ),
    ] = 2000
    commands: Annotated[bool, text("forward requests (trigger, start, stop, ...) to the station")] = True
    poll_ms: Annotated[int, number(1, 1000, "longest wait for a message from the station")] = 20
    tick_ms: Annotated[
        int, number(5, 1000, "the values that the protocol serves are refreshed at least this often")
    ] = 50
    queue_results: Annotated[int, number(16, 1_000_000, "maximum results waiting to be forwarded")] = 8192
    requests_max: Annotated[int, number(1, 16, "maximum pending requests to the station")] = 8
    patience_ms: Annotated[int, number(100, 3_600_000, "a missing result is reported as a gap after this long")] = 5000


class Users(Section, frozen=True, forbid_unknown_fields=True):
    """Users and roles, the same for OPC UA and HTTP, and how their passwords are checked."""

    file: Annotated[
        str,
        path_text(
            "created by `asperity gateway user`; empty: any OPC UA client may call methods, and HTTP takes no commands"
        ),
    ] = ""
    anonymous_read: Annotated[bool, text("with a file: clients without a user name may read")] = True
    checks: Annotated[int, number(1, 16, "maximum passwords checked at the same time, each in its own thread")] = 2
    delay_ms: Annotated[
        int,
        number(10, 60_000, "delay after a wrong password from a user name and address; doubled by each further one"),
    ] = 500
    delay_max_ms: Annotated[int, number(10, 600_000, "longest such delay")] = 4000
    wait_ms: Annotated[
        int, number(100, 600_000, "a log-in that waits for its turn this long is refused")
    ] = 5000


class Log(Section, frozen=True, forbid_unknown_fields=True):
    """What is written to stderr, with bounds on what others can cause."""

    repeat_ms: Annotated[
        int, number(0, 3_600_000, "period in which at most lines_max log lines of one kind are written")
    ] = 10_000
    lines_max: Annotated[
        int, number(1, 1000, "further lines of that kind are suppressed, and counted in the next one")
    ] = 10
    kinds_max: Annotated[int, number(8, 10_000, "maximum kinds of lines whose repeats are counted")] = 256


class Opcua(Section, frozen=True, forbid_unknown_fields=True):
    """The OPC UA server."""

    host: Annotated[str, host_text("address to listen on")] = "127.0.0.1"
    port: Annotated[int, number(0, 65535, "port; 0: any free one, named in the log")] = 4840
    encryption: Annotated[
        Literal["offered", "required"],
        text("`required`: only Basic256Sha256 SignAndEncrypt; `offered`: also None, on loopback or with insecure_lan"),
    ] = "offered"
    insecure_lan: Annotated[
        bool,
        text("allow security None and calls without users on other than loopback addresses, without authentication"),
    ] = False
    certificate_folder: Annotated[
        str, path_text("`server.der` and `server.pem`, created on first use; empty: the user's configuration folder")
    ] = ""
    clients_folder: Annotated[
        str, path_text("certificates (`*.der`, `*.pem`) of clients that may connect with encryption; empty: any")
    ] = ""
    connections_max: Annotated[
        int,
        number(
            2, 1000, "maximum connections; another one closes a silent one that is not logged in, or is itself closed"
        ),
    ] = 256
    handshake_ms: Annotated[
        int, number(100, 600_000, "a connection that has not logged in after this long is closed, silent or not")
    ] = 10_000
    sessions_max: Annotated[int, number(1, 1000, "maximum logged-in sessions")] = 20
    session_idle_ms: Annotated[int, number(5000, 3_600_000, "a session without a request for this long is closed")] = (
        60_000
    )
    subscriptions_max: Annotated[int, number(1, 10_000, "maximum subscriptions of all sessions together")] = 100
    subscriptions_each: Annotated[int, number(1, 1000, "maximum subscriptions per session")] = 10
    items_max: Annotated[int, number(1, 100_000, "maximum monitored items per session")] = 200
    events_max: Annotated[int, number(1, 1000, "maximum monitored items for events per session")] = 10
    queue_max: Annotated[int, number(1, 10_000, "values or events that may be queued in a monitored item")] = 1000
    publish_min_ms: Annotated[int, number(5, 10_000, "shortest publishing interval of a subscription")] = 10
    message_max_nbytes: Annotated[int, number(16_384, 16_777_216, "longest request")] = 65_536
    operations_max: Annotated[
        int, number(50, 10_000, "maximum nodes, items or calls per request; more is answered BadTooManyOperations")
    ] = 500
    unread_max_nbytes: Annotated[
        int,
        number(65_536, 268_435_456, "responses that a client may leave unread; above this its connection is closed"),
    ] = 4_194_304
    busy_share: Annotated[
        float, number(0.05, 0.9, "share of the gateway's time that all requests may use; divided among connections")
    ] = 0.5
    audit_file: Annotated[
        str,
        path_text(
            "log-ins, including refused ones; empty: `$XDG_STATE_HOME/asperity/NAME.opcua.audit.jsonl` (16 MB, 8 files)"
        ),
    ] = ""
    results_kept: Annotated[int, number(1, 10_000, "number of recent results available to GetResultById")] = 200
    recipes: Annotated[str, text("recipe names to show in RecipeManagement, separated by spaces")] = ""


class Mqtt(Section, frozen=True, forbid_unknown_fields=True):
    """The MQTT client."""

    host: Annotated[str, host_text("address of the broker")] = "127.0.0.1"
    port: Annotated[int, number(1, 65535, "port of the broker; usually 8883 with TLS")] = 1883
    version: Annotated[Literal["3.1.1", "5"], text("MQTT protocol version")] = "5"
    client_id: Annotated[
        str,
        text(
            "unique among the broker's clients; empty: `asperity`, the first 7 letters or digits of STATION, and 8 "
            "hexadecimal digits of this run, which no other client has"
        ),
    ] = ""
    prefix: Annotated[str, text("topics are PREFIX/STATION/result etc.")] = "asperity"
    commands: Annotated[
        bool,
        text("accept requests on PREFIX/STATION/command/OP; any client that may publish there may command the station"),
    ] = False
    tls: Annotated[bool, text("encrypt, and check the broker's certificate")] = False
    ca_file: Annotated[str, path_text("CA certificates for the broker's certificate; empty: those of the system")] = ""
    certificate_file: Annotated[
        str, path_text("client certificate that identifies the gateway to the broker; empty: none")
    ] = ""
    key_file: Annotated[str, path_text("private key of that certificate, mode 0600")] = ""
    user: Annotated[str, text("user name at the broker; empty: none")] = ""
    password_file: Annotated[str, path_text("file that contains only the password, mode 0600")] = ""
    insecure_lan: Annotated[bool, text("allow a broker that is not on loopback without TLS")] = False
    keepalive_s: Annotated[
        int, number(1, 3600, "the broker publishes the last will 1.5 x this or more after the gateway is silent")
    ] = 2
    connect_ms: Annotated[int, number(100, 60_000, "longest wait for the broker to answer")] = 3000
    retry_min_ms: Annotated[
        int,
        number(
            10, 1000,
            "pause before the second attempt to reach the broker; each further one is twice as long. All are shortened "
            "by up to half at random",
        ),
    ] = 100  # fmt: skip
    retry_max_ms: Annotated[int, number(100, 600_000, "longest such pause")] = 5000
    retry_held_ms: Annotated[
        int, number(1000, 3_600_000, "a connection that lasts this long, and 2 x retry_max_ms, resets the pauses")
    ] = 10_000
    inflight: Annotated[int, number(1, 16, "maximum messages waiting for the broker's acknowledgement")] = 10
    buffer_results: Annotated[int, number(1, 1_000_000, "results kept while the broker is unreachable")] = 10_000
    accept_expiry_s: Annotated[
        int,
        number(
            1, 3600, "an accept of true is valid for this long after it arrives, unless it is repeated (`valid_ms`)"
        ),
    ] = 2
    clash_quiet_ms: Annotated[
        int,
        number(
            2000, 600_000,
            "after a foreign message on the station's topics, and after connecting, nothing is accepted until there "
            "was none for this long",
        ),
    ] = 3000  # fmt: skip
    state_file: Annotated[
        str,
        path_text(
            "remembers what was published last, to continue from there; one for each gateway; empty: "
            "`$XDG_STATE_HOME/asperity/NAME.mqtt`"
        ),
    ] = ""


class Sparkplug(Section, frozen=True, forbid_unknown_fields=True):
    """The Sparkplug B edge node. Broker, TLS, password and bounds are those of `[mqtt]`."""

    group: Annotated[str, text("group of the node; no / + #")] = "asperity"
    node: Annotated[str, text("name of the node in its group; empty: the station's name")] = ""
    primary_host: Annotated[
        str, text("host application that must be online before anything is published; empty: none")
    ] = ""
    client_id: Annotated[str, text("as [mqtt] client_id, of this gateway; empty: one that no other client has")] = ""


class DigitalIo(Section, frozen=True, forbid_unknown_fields=True):
    """Digital outputs: on lines of this computer, or of a Modbus TCP module."""

    kind: Annotated[
        Literal["gpio", "modbus"], text("`gpio`: lines of `chip`; `modbus`: coils of the module at module_host")
    ] = "gpio"
    chip: Annotated[str, path_text("the GPIO chip's device")] = "/dev/gpiochip0"
    ready: Annotated[int, number(-1, 65_535, "line or coil: the station is ready; -1: none")] = -1
    busy: Annotated[int, number(-1, 65_535, "line or coil: parts are in work or wait for their strobe; -1: none")] = -1
    accept: Annotated[int, number(-1, 65_535, "line or coil: the part may pass; needs accept_proof; -1: none")] = -1
    reject: Annotated[
        int, number(-1, 65_535, "line or coil: the part may not pass, or the station is not ready; -1: none")
    ] = -1
    strobe: Annotated[int, number(-1, 65_535, "line or coil: one pulse for each result; -1: none")] = -1
    active_low: Annotated[str, text("names of outputs that are inverted, separated by spaces; gpio only")] = ""
    accept_proof: Annotated[
        Literal["", "toggle", "watchdog"],
        text("how a killed process is noticed: accept toggles, or the module's watchdog takes it back"),
    ] = ""
    toggle_ms: Annotated[int, number(2, 1000, "accept that toggles changes after this long")] = 20
    cycle_ms: Annotated[int, number(1, 1000, "the outputs are written this often")] = 5
    setup_ms: Annotated[int, number(0, 10_000, "accept or reject is on this long before the strobe")] = 5
    strobe_ms: Annotated[int, number(1, 10_000, "length of the strobe")] = 20
    hold_ms: Annotated[int, number(1, 60_000, "accept or reject is on this long in all")] = 50
    gap_ms: Annotated[int, number(1, 10_000, "pause between two results")] = 20
    queue_max: Annotated[
        int, number(1, 1000, "results that may wait for their strobe; with more the gateway ends, and a pass with it")
    ] = 16
    module_host: Annotated[str, host_text("address of the module")] = "127.0.0.1"
    module_port: Annotated[int, number(1, 65_535, "port of the module")] = 502
    module_unit: Annotated[int, number(0, 255, "unit id of the module")] = 1
    module_timeout_ms: Annotated[int, number(10, 10_000, "longest wait for the module; then the gateway ends")] = 200
    watchdog_register: Annotated[
        int, number(-1, 65_535, "holding register of the module's watchdog time, written and read back; -1: none")
    ] = -1
    watchdog_value: Annotated[int, number(0, 65_535, "what is written there, in the module's unit")] = 0


class Modbus(ResultBlock, frozen=True, forbid_unknown_fields=True):
    """The Modbus TCP server."""

    host: Annotated[str, host_text("address to listen on")] = "127.0.0.1"
    port: Annotated[
        int, number(0, 65535, "port; 0: any free one, named in the log; 502, the usual port, needs a privilege")
    ] = 5020
    insecure_lan: Annotated[
        bool,
        text(
            "allow a host address other than loopback although Modbus has no authentication: anyone who can "
            "reach it may command"
        ),
    ] = False
    connections_max: Annotated[
        int, number(1, 64, "maximum clients; another one closes the one that has been silent longest")
    ] = 8
    idle_ms: Annotated[int, number(100, 3_600_000, "a client without a request for this long is disconnected")] = 60_000
    request_ms: Annotated[
        int, number(100, 60_000, "longest time for a client to send a request or to read its response")
    ] = 2000


class Http(Section, frozen=True, forbid_unknown_fields=True):
    """The HTTP server."""

    host: Annotated[str, host_text("address to listen on")] = "127.0.0.1"
    port: Annotated[int, number(0, 65535, "port; 0: any free one, named in the log")] = 8088
    insecure_lan: Annotated[
        bool, text("allow a host address other than loopback although nothing is encrypted, passwords included")
    ] = False
    connections_max: Annotated[
        int, number(1, 1000, "maximum clients; another one closes one that has sent no request")
    ] = 64
    request_ms: Annotated[
        int,
        number(
            100, 60_000,
            "longest time for a client to send a request, again for the answer to be made, and again for it to be read",
        ),
    ] = 3000  # fmt: skip
    header_max_nbytes: Annotated[int, number(256, 65536, "largest request line plus headers")] = 8192
    body_max_nbytes: Annotated[int, number(256, 65536, "largest body of a command")] = 4096
    results_shown: Annotated[int, number(1, 1000, "number of recent results on the page")] = 20
    results_kept: Annotated[int, number(1, 100_000, "number of recent results that /api/v1 answers with")] = 1000
    refresh_s: Annotated[int, number(1, 3600, "the page reloads after this")] = 2
    time_zone: Annotated[
        str, text("zone of the times on the page, for example `Europe/Berlin`; empty: this computer's")
    ] = ""


class GatewayConfig(Section, frozen=True, forbid_unknown_fields=True):
    """A whole ``gateway.toml``."""

    station: GatewayStation = GatewayStation()
    gateway: Gateway = Gateway()
    log: Log = Log()
    users: Users = Users()
    clocks: Clocks = Clocks()
    opcua: Opcua = Opcua()
    mqtt: Mqtt = Mqtt()
    sparkplug: Sparkplug = Sparkplug()
    modbus: Modbus = Modbus()
    ethernetip: Ethernetip = Ethernetip()
    io: DigitalIo = DigitalIo()
    http: Http = Http()


def load(path: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> GatewayConfig:
    """Read ``gateway.toml`` and put ``overrides`` over it, as ``settings.loading.load`` does.

    Raises ConfigError.
    """
    return read_sections(GatewayConfig, path, overrides)


def client_key(config: GatewayConfig) -> Path | None:
    """The file with this gateway's key; None: the station speaks no CURVE."""
    file = config.station.key_file or os.environ.get(CLIENT_KEY_VARIABLE, "")
    return Path(file) if file else None


def control_of(config: GatewayConfig) -> str:
    """The control active endpoint."""
    return control_endpoint(config.station.name, config.station.control)
