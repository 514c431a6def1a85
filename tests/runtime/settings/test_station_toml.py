"""station.toml: typed, bounded, with a clear word for whatever cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from asperity.runtime.errors import ConfigError
from asperity.runtime.settings.loading import load, restore, save
from asperity.runtime.settings.paths import control_endpoint, journal_path
from asperity.runtime.settings.station_toml import STATIONS_MAX, StationConfig, hosted
from tests.places import ROOT


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "station.toml"
    path.write_text(text)
    return path


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""))
    assert config == StationConfig()
    assert (config.limits.queue_length, config.limits.seq_gap_max, config.journal.slots) == (2, 64, 4096)
    assert config.sockets.bulk_hwm == 2
    assert config.sockets.control_max_nbytes == 64 * 1024


def test_values_are_read_and_flags_override_them(tmp_path: Path) -> None:
    path = written(tmp_path, '[station]\nname = "st7"\n[limits]\ndeadline_ms = 300\n')
    config = load(path, {"limits": {"deadline_ms": 400}, "engine": {"name": "simulated"}})
    assert (config.station.name, config.limits.deadline_ms, config.engine.name) == ("st7", 400, "simulated")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[limits]\nque_length = 3\n", ["[limits] has no key que_length", "did you mean queue_length?"]),
        ("[limit]\nqueue_length = 3\n", ["there is no [limit]", "did you mean limits?"]),
        ("[zzz]\n", ["there is no [zzz]", "station, stations, limits"]),
        ("station = 3\n", ["station is a table"]),
        ("[limits]\nqueue_length = 0\n", ["[limits] queue_length", ">= 1"]),
        ("[limits]\nqueue_length = 17\n", ["[limits] queue_length", "<= 16"]),
        ('[limits]\nqueue_length = "2"\n', ["[limits] queue_length", "int", "str"]),
        ('[station]\nname = "St 1"\n', ["[station] name", "a-z 0-9 _ -"]),
        ('[station]\nname = "st1\\n"\n', ["[station] name", "a-z 0-9 _ -"]),
        ('[engine]\nname = "cuda9"\n', ["[engine] name", "cuda9"]),
        ('[sockets]\nframes = "udp://1.2.3.4:5"\n', ["[sockets] frames", "tcp://ADDRESS:PORT"]),
        ("[sockets]\nheartbeat_timeout_ms = 500\n", ["heartbeat_timeout_ms is 500", "set it to 2 or 3 times"]),
        ('[engine]\nname = "cuda"\ndevice_wait_ms = 2500\n', ["device_wait_ms is 2500", "engine_stuck_ms (5000)"]),
        ("[journal]\nslots = 64\n", ["[journal] slots is 64", "leave it at 4096"]),
        ('[station]\nrecipe = "x"\n[recipes]\ny = "/b"\n', ["[station] recipe is 'x'", "available in [recipes]: y"]),
        ("[station\n", ["is not TOML"]),
    ],
)
def test_what_cannot_be_used_is_named_with_the_remedy(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "absent.toml")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path, '[journal]\npath = "a.journal"\n[recipes]\nx = "bundles/x"\ny = "/abs/y"\nz = "script:ok ng"\n'
    )
    config = load(path)
    assert journal_path(config) == tmp_path / "a.journal"
    assert config.recipes == {"x": str(tmp_path / "bundles/x"), "y": "/abs/y", "z": "script:ok ng"}


def test_the_journal_lies_in_the_state_folder_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert journal_path(StationConfig()) == tmp_path / "asperity" / "st1.journal"


def test_the_control_socket_is_in_a_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert control_endpoint("st1") == "ipc:///run/user/1000/asperity/st1.control"
    assert control_endpoint("st1", "tcp://127.0.0.1:5563") == "tcp://127.0.0.1:5563"


def test_another_process_reads_the_same_configuration(tmp_path: Path) -> None:
    config = load(written(tmp_path, '[station]\nname = "st7"\n[recipes]\na = "/b"\n'))
    assert restore(save(config)) == config
    with pytest.raises(ConfigError):
        restore(b"{]")


STATIONS = """
[[stations]]
name = "left"
number = 1
camera = "left"
[[stations]]
name = "right"
number = 2
camera = "right"
journal = "right.journal"
"""


def test_several_stations_are_each_as_if_they_were_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = load(written(tmp_path, STATIONS + "[limits]\ndeadline_ms = 300\n"))
    left, right = hosted(config)
    assert (left.station.name, left.station.camera, right.station.number) == ("left", "left", 2)
    assert [journal_path(each) for each in (left, right)] == [
        tmp_path / "asperity" / "left.journal", tmp_path / "right.journal",
    ]  # fmt: skip
    assert left.limits == right.limits == config.limits and not left.stations
    assert restore(save(config)) == config
    alone = StationConfig()
    assert hosted(alone) == [alone]


def test_the_example_of_several_stations_opens_one_bundle_for_both() -> None:
    config = load(ROOT / "examples" / "stations.toml")
    assert [each.station.recipe for each in hosted(config)] == ["bracket", "bracket"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('"right"', '"left"'), ["no. 1 and no. 2", "have name 'left'"]),
        (("number = 2\n", "number = 1\n"), ["no. 1 and no. 2", "have number 1", "its own number"]),
        (('camera = "right"', 'camera = "left"'), ["have camera 'left'"]),
        (('camera = "right"', ""), []),
        (('journal = "right.journal"', 'journal = "{state}/asperity/left.journal"'), ["have journal"]),
        (("number = 2", 'number = "2"'), ["[[stations]] no. 2, number"]),
        (("number = 2", "nmber = 2"), ["[[stations]] has no key nmber", "did you mean number?"]),
        (
            ('camera = "right"', 'camera = "right"\nrecipe = "x"'),
            ["[[stations]] recipe is 'x'", "available in [recipes]: none"],
        ),
        (("\n[[stations]]", '[station]\nname = "st2"\n[[stations]]'), ["[station]", "there are [[stations]]"]),
        (("\n[[stations]]", '[journal]\npath = "a"\n[[stations]]'), ["[journal] path", "give each of them a journal"]),
    ],
)
def test_what_two_stations_may_not_share_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], words: list[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    old, new = change
    file = written(tmp_path, STATIONS.replace(old, new.replace("{state}", str(tmp_path)), 1))
    if not words:  # the default camera is one as good as any
        load(file)
        return
    with pytest.raises(ConfigError) as caught:
        load(file)
    for word in words:
        assert word in str(caught.value)


def test_a_process_hosts_no_more_stations_than_said(tmp_path: Path) -> None:
    rows = (f'[[stations]]\nname = "s{n}"\nnumber = {n}\ncamera = "c{n}"\n' for n in range(STATIONS_MAX + 1))
    with pytest.raises(ConfigError, match=r"there are 9 .* at most 8"):
        load(written(tmp_path, "".join(rows)))
    with pytest.raises(ConfigError, match=r"write each as \[\[stations\]\]"):
        load(written(tmp_path, '[stations]\nname = "x"\n'))
