"""Whatever bytes station.toml and gateway.toml hold: types, or a ConfigError that names the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways import config as gateway_toml
from asperity.runtime.settings import loading as station_toml

LOADERS: dict[str, Any] = {"station.toml": station_toml.load, "gateway.toml": gateway_toml.load}
TABLES = st.sampled_from(
    ["station", "stations", "sockets", "recipes", "journal", "engine", "hard_wired", "modbus", "mqtt", "opcua", "users",
     "log"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["name", "recipe", "frames", "control", "path", "trust", "host", "port", "recipes", "file", "script", "É"]
)
VALUES = st.sampled_from(
    [
        '""', '"~"', '"~/x"', '"$HOME"', '"a\\u0000b"', '"a\\u202e"', "'C:\\x'", '"tcp://127.0.0.1:1"', '"ipc://x"',
        "nan", "-1", "9" * 5000, "1.5", "true", "2020-01-01", "[]", "[[]]", '["a"]', "{}", '{ 1 = "a" }',
        '{ "１" = 2 }', '"１"', '"tcp://１:１"', "[" * 2000, "1e400", '"""a\nb"""',
    ]
)  # fmt: skip
LINES = st.one_of(
    st.builds("[{}]".format, TABLES), st.builds("[[{}]]".format, TABLES), st.builds("{} = {}".format, KEYS, VALUES)
)
FILES = st.binary(max_size=80) | st.lists(LINES, max_size=5).map(lambda lines: "\n".join(lines).encode())


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", LOADERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300)
@given(data=FILES)
def test_any_bytes_are_settings_or_a_configuration_error(tmp_path: Path, name: str, data: bytes) -> None:
    path = written(tmp_path, name, data)
    try:
        LOADERS[name](path)
    except ConfigError as error:
        assert str(path) in str(error)


PLAIN = '[station]\nname = "left"\nresults = "tcp://127.0.0.1:7"\n'


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
    ],
)
def test_what_notepad_saves_is_read(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, "gateway.toml", data)
    assert gateway_toml.load(path) == gateway_toml.load(written(tmp_path, "plain.toml", PLAIN.encode()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# grün\n".encode("cp1252"), ["station.toml is not UTF-8 text", "line 1", "'ü' in Windows-1252"]),
        ("[station]\n".encode("utf-16-be"), ["UTF-16 without a byte order mark"]),
        (b"[station]\nname = " + b"[" * 10_000, ["nested too deeply"]),
        (b"[station]\nnumber = " + b"9" * 5000, ["out of range"]),
        ('[station]\nname = "Ä"', ["[station] name", "a-z 0-9 _ -", "not 'Ä'"]),
        ('[station]\nname = "st１"', ["[station] name", "not 'st１'"]),
        ('[station]\nrecipe = "a\\u202eb"', ["[station] recipe is 'a\\u202eb'", "cannot be seen"]),
        ('[recipes]\nBracket = "/b"', ["[recipes] has the name 'Bracket'", "a-z 0-9 _ -"]),
        ('[recipes]\nb = ""', ["[recipes] b is empty"]),
        ('[recipes]\nb = "$HOME/b"', ["[recipes] b is '$HOME/b'", "write the whole path"]),
        ("[recipes]\nb = 'C:\\b'", ["[recipes] b is", "a path of Windows"]),
        ('[journal]\npath = "~line/j"', ["[journal] path is '~line/j'", "write the whole path"]),
        ('[[stations]]\njournal = "$X/j"', ["[[stations]] journal is '$X/j'"]),
        ('[sockets]\nbulk = "tcp://127.0.0.1:65536"', ["[sockets] bulk is 'tcp://127.0.0.1:65536'", "0 to 65535"]),
        ('[sockets]\nframes = ""', ["[sockets] frames is empty"]),
        ('[sockets]\ncontrol = "ipc://control"', ["[sockets] control is 'ipc://control'", "the whole path"]),
    ],
)
def test_the_key_the_value_and_the_remedy_are_named(tmp_path: Path, text: bytes | str, words: list[str]) -> None:
    path = written(tmp_path, "station.toml", text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as refused:
        station_toml.load(path)
    assert all(word in str(refused.value) for word in [str(path), *words]), refused.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[station]\nresults = "http://127.0.0.1:5561"', ["[station] results is", "write tcp://ADDRESS:PORT"]),
        ('[station]\nresults = "tcp://127.0.0.1:0"', ["[station] results is", "1 to 65535"]),
        ('[station]\nresults = ""', ["[station] results is empty"]),
        ('[mqtt]\nhost = "mqtt://broker"', ["[mqtt] host is", "without mqtt://"]),
        ('[mqtt]\nhost = "broker:1883"', ["[mqtt] host is", "in the key port"]),
        ('[modbus]\nhost = "１27.0.0.1"', ["[modbus] host is", "not an IP address"]),
        ('[http]\nhost = ""', ["[http] host is ''"]),
        ('[mqtt]\nca_file = "%APPDATA%/ca.pem"', ["[mqtt] ca_file is", "variables are not replaced"]),
    ],
)
def test_the_gateways_keys_too(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        gateway_toml.load(written(tmp_path, "gateway.toml", text.encode()))
    assert all(word in str(refused.value) for word in words), refused.value


def test_paths_of_every_key_are_relative_to_the_file_or_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/line")
    lines = ('[users]\nfile = "~/users"\n[opcua]\ncertificate_folder = "certificates/"\naudit_file = "/var/log/opcua"\n'
             '[mqtt]\nca_file = "ca.pem"\n[station]\nkey_file = "../gateway.key"\n')  # fmt: skip
    config = gateway_toml.load(written(tmp_path, "gateway.toml", lines.encode()))
    assert config.users.file == "/home/line/users"
    assert config.opcua.certificate_folder == str(tmp_path / "certificates")
    assert config.opcua.audit_file == "/var/log/opcua" and config.opcua.clients_folder == ""
    assert (config.mqtt.ca_file, config.station.key_file) == (str(tmp_path / "ca.pem"), f"{tmp_path}/../gateway.key")
    lines = ('[audit]\npath = "~/audit"\n[engine]\ntrust = "trust"\ncache = "cache"\n[security]\nkeys = "keys"\n'
             '[trace]\nfolder = "trace"\n[[stations]]\njournal = "j"\n')  # fmt: skip
    station = station_toml.load(written(tmp_path, "station.toml", lines.encode()))
    assert station.audit.path == "/home/line/audit"
    assert [station.engine.trust, station.engine.cache, station.security.keys, station.trace.folder] == [
        str(tmp_path / name) for name in ("trust", "cache", "keys", "trace")
    ]
    assert station.stations[0].journal == str(tmp_path / "j")


def test_flags_stay_relative_to_the_current_folder_and_are_checked() -> None:
    assert station_toml.load(None, {"journal": {"path": "a/j"}}).journal.path == "a/j"
    for key, value in (("frames", "tcp://x"), ("frames", ""), ("control", "ipc://x")):
        with pytest.raises(ConfigError, match=rf"the flags: \[sockets\] {key} is"):
            station_toml.load(None, {"sockets": {key: value}})
    with pytest.raises(ConfigError, match="cannot be seen"):
        station_toml.load(None, {"recipes": {"a": "/b\udcff"}})


@pytest.mark.parametrize("name", LOADERS)
def test_a_pipe_a_folder_and_a_large_file_are_named(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * 2**21)
    for path, words in {"pipe": "it is a pipe", ".": "it is a folder", "large": "it is larger"}.items():
        with pytest.raises(ConfigError, match=words):
            LOADERS[name](tmp_path / path)
