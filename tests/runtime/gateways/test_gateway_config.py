"""gateway.toml: what cannot be used is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways.config import GatewayConfig, load


def test_a_file_is_read_and_flags_override_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[station]\nname = "st7"\n[modbus]\nport = 502\nrecipes = { 1 = "lid" }\n')
    config = load(path, {"modbus": {"port": 5021}})
    assert (config.station.name, config.modbus.port, config.modbus.recipes) == ("st7", 5021, {"1": "lid"})
    assert load() == GatewayConfig()
    assert not load().gateway.accept_simulated and load().modbus.host == load().http.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[modbus]\nprot = 1\n", ["[modbus] has no key prot", "did you mean port?"]),
        ("[modbus]\nport = 65536\n", ["[modbus] port", "<= 65535"]),
        ('[modbus]\nrecipes = { 1 = "A B" }\n', ["[modbus] recipes", "a-z 0-9 _ -"]),
        ("[http]\nconnections_max = 0\n", ["[http] connections_max", ">= 1"]),
        ("[gateways]\n", ["there is no [gateways]", "did you mean gateway?"]),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert all(word in str(caught.value) for word in words), caught.value
