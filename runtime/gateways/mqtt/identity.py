"""Who a gateway is at the broker, and what of ``[mqtt]`` cannot be. Pure."""

from __future__ import annotations

import re
from pathlib import Path

from asperity.runtime.errors import ConfigError
from asperity.runtime.folders import state_folder
from asperity.runtime.gateways.config import GatewayConfig, Mqtt

TOPIC_NBYTES_MAX = 65_535
TOPIC_REST_NBYTES = 128
"""What follows the prefix: station, ``reply`` and an id."""
STATION_LETTERS = 7


def check(own: Mqtt) -> None:
    """Raises ConfigError where keys contradict each other or MQTT."""
    if not own.prefix or any(character in "+#" or not character.isprintable() for character in own.prefix):
        raise ConfigError(f"[mqtt] prefix is {own.prefix!r}; use a topic without + and #, for example asperity")
    if own.prefix.startswith("$"):
        raise ConfigError(f"[mqtt] prefix is {own.prefix!r}; topics that begin with $ are the broker's own")
    for key in ("prefix", "client_id", "user"):
        nbytes = len(getattr(own, key).encode())
        if nbytes > TOPIC_NBYTES_MAX - TOPIC_REST_NBYTES:
            raise ConfigError(f"[mqtt] {key} has {nbytes} bytes; MQTT carries 65535")
    for key in ("client_id", "user"):
        if not getattr(own, key).isprintable():
            raise ConfigError(f"[mqtt] {key} is {getattr(own, key)!r}; use printable characters only")
    if own.retry_min_ms > own.retry_max_ms:
        raise ConfigError(
            f"[mqtt] retry_min_ms {own.retry_min_ms} is above retry_max_ms {own.retry_max_ms}; lower the first"
        )
    if own.password_file and not own.user:
        raise ConfigError("[mqtt] password_file is set without user, so it would not be used; set user too")
    if own.key_file and not own.certificate_file:
        raise ConfigError("[mqtt] key_file is set without certificate_file; set both or none")
    for key in ("ca_file", "certificate_file"):
        if getattr(own, key) and not own.tls:
            raise ConfigError(f"[mqtt] {key} is set and tls is false, so it would not be used; set tls = true")


def client_id(own: Mqtt, station: str, instance: str) -> str:
    """The configured one, or one that no other client has: of 23 letters and digits at most, which every broker takes.

    It is another one in each run of the gateway. No session outlives its connection, so nothing is lost by that, and
    a second gateway of the same station is noticed by its messages instead of ending the connection of the first.
    """
    letters = re.sub(r"[^a-z0-9]", "", station)[:STATION_LETTERS]
    return own.client_id or f"asperity{letters}{instance[:8]}"


def state_path(config: GatewayConfig) -> Path:
    """Where it is remembered what was published last."""
    if config.mqtt.state_file:
        return Path(config.mqtt.state_file)
    return state_folder("[mqtt] state_file") / f"{config.station.name}.mqtt"
