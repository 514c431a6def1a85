"""Which folder holds what, when the user's surroundings name some, none or an impossible one."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from asperity.runtime.errors import ConfigError
from asperity.runtime.folders import cache_folder, configuration_folder, runtime_folder, state_folder

KINDS: list[tuple[Callable[[str], Path], str, str, str]] = [
    (state_folder, "XDG_STATE_HOME", "STATE_DIRECTORY", ".local/state"),
    (cache_folder, "XDG_CACHE_HOME", "CACHE_DIRECTORY", ".cache"),
    (configuration_folder, "XDG_CONFIG_HOME", "CONFIGURATION_DIRECTORY", ".config"),
]
each_kind = pytest.mark.parametrize(("folder", "variable", "of_service", "below"), KINDS)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, and a user whom the system does not know."""
    for _, variable, of_service, _ in KINDS:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(of_service, raising=False)
    for name in ("HOME", "XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@each_kind
def test_the_first_that_is_set_counts(
    folder: Callable[[str], Path], variable: str, of_service: str, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir="/home/listed"))
    assert folder("") == Path("/home/listed") / below / "asperity"
    monkeypatch.setenv(of_service, "/var/lib/first:/var/lib/second")
    assert folder("") == Path("/var/lib/first")
    monkeypatch.setenv("HOME", "/home/own")
    assert folder("") == Path("/home/own") / below / "asperity"
    monkeypatch.setenv(variable, "/data")
    assert folder("") == Path("/data/asperity")


@each_kind
@pytest.mark.parametrize("home", [None, "", "/"])
@pytest.mark.parametrize("listed", [None, "", "/", "relative"])
def test_without_any_the_error_says_what_to_set(
    folder: Callable[[str], Path], variable: str, of_service: str, below: str, home: str | None, listed: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if home is not None:
        monkeypatch.setenv("HOME", home)
    if listed is not None:
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir=listed))
    monkeypatch.setenv(variable, "")
    with pytest.raises(ConfigError, match=rf"uid {os.getuid()}; set {variable} or HOME .*, or \[a\] key$"):
        folder("[a] key")


@each_kind
def test_a_relative_path_is_an_error(
    folder: Callable[[str], Path], variable: str, of_service: str, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "own")
    with pytest.raises(ConfigError, match="HOME=own is not an absolute path"):
        folder("")
    monkeypatch.setenv(variable, "~/x")
    with pytest.raises(ConfigError, match=f"{variable}=~/x is not an absolute path"):
        folder("")


def test_sockets_have_a_folder_always(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime_folder() == Path(f"/tmp/asperity-{os.getuid()}/asperity")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/station")
    assert runtime_folder() == Path("/run/station")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert runtime_folder() == Path("/run/user/1000/asperity")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    with pytest.raises(ConfigError, match="XDG_RUNTIME_DIR=run"):
        runtime_folder()
