"""The table ``[ethernetip]`` of ``gateway.toml``."""

from __future__ import annotations

from typing import Annotated

from asperity.runtime.gateways.result_block import ResultBlock
from asperity.runtime.settings.toml_tables import host_text, number, text


class Ethernetip(ResultBlock, frozen=True, forbid_unknown_fields=True):
    """The EtherNet/IP adapter."""

    host: Annotated[
        str, host_text("IPv4 address to listen on; only 0.0.0.0 also answers those who look for devices by broadcast")
    ] = "127.0.0.1"
    port: Annotated[
        int, number(0, 65535, "port, TCP and UDP; 0: any free one, named in the log; controllers expect 44818")
    ] = 44818
    insecure_lan: Annotated[
        bool,
        text(
            "allow a host address other than loopback although EtherNet/IP has no authentication: anyone who can "
            "reach it may command"
        ),
    ] = False
    vendor_id: Annotated[
        int, number(0, 65535, "ODVA vendor number of who puts the station on the market; 0: none, as delivered")
    ] = 0
    connections_max: Annotated[
        int, number(1, 64, "maximum clients; another one closes one that asked nothing, else the one silent longest")
    ] = 8  # fmt: skip
    cyclic_max: Annotated[int, number(0, 16, "maximum cyclic (implicit, class 1) connections; 0: all are refused")] = 4
    cyclic_port: Annotated[
        int, number(0, 65535, "UDP port of cyclic data; 0: any free one; controllers expect 2222")
    ] = 2222
    cyclic_min_ms: Annotated[int, number(2, 200, "shortest interval (RPI) of a cyclic connection")] = 10
    idle_ms: Annotated[
        int, number(1000, 3_600_000, "a client without a request and without an open connection for this long is "
                    "disconnected")
    ] = 120_000  # fmt: skip
    request_ms: Annotated[
        int, number(100, 60_000, "longest time for a client to send a request or to read its response")
    ] = 2000
