"""Sockets that are files: who else could hold one, or take its place, is found out before anybody connects."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.commands import watch
from asperity.runtime.errors import StationError
from asperity.runtime.security.socket_files import check_ipc
from asperity.runtime.settings.station_toml import Sockets, StationConfig
from asperity.runtime.sockets.inspector_sockets import InspectorSockets

CLIENTS: dict[str, Callable[[str], object]] = {
    "results": lambda endpoint: StationClient(endpoint, station="st1"),
    "control": lambda endpoint: StationClient("tcp://127.0.0.1:1", endpoint, station="st1"),
    "frames": lambda endpoint: FrameSender("cam1", endpoint),
    "triggers": lambda endpoint: FrameSender("cam1", "tcp://127.0.0.1:1", station="st1", results_endpoint=endpoint),
    "watch": lambda endpoint: watch.command(results=endpoint, count=1),
    "inspector": lambda endpoint: InspectorSockets(
        StationConfig(sockets=Sockets(**{name: endpoint for name in ("frames", "results", "bulk", "control")}))
    ),
}


def strange(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a path another user's."""
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "asperity"
    made.mkdir(mode=0o700)
    return made


def bound(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    return made


def test_what_is_only_ours_is_taken_there_or_not(folder: Path) -> None:
    path = folder / "st1.control"
    assert check_ipc(f"ipc://{path}") == path
    with bound(path):
        assert check_ipc(f"ipc://{path}") == path
    assert check_ipc("tcp://127.0.0.1:5560") is None and check_ipc("") is None


@pytest.mark.parametrize("who", CLIENTS)
def test_a_folder_that_another_user_made_first_is_not_used(
    who: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange(folder, monkeypatch)
    with pytest.raises(StationError, match=r"belongs to another user.*XDG_RUNTIME_DIR"):
        CLIENTS[who](f"ipc://{folder}/st1.control")


@pytest.mark.parametrize("who", CLIENTS)
def test_a_folder_that_others_may_write_is_not_used(who: str, folder: Path) -> None:
    folder.chmod(0o770)
    with pytest.raises(StationError, match=f"chmod go-w {folder}"):
        CLIENTS[who](f"ipc://{folder}/st1.control")


@pytest.mark.parametrize("who", CLIENTS)
def test_a_link_on_the_way_is_not_followed(who: str, folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    with pytest.raises(StationError, match="is a link; give the real path of the endpoint"):
        CLIENTS[who](f"ipc://{folder.parent}/link/st1.control")


def test_every_folder_above_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = folder / "inner"
    inner.mkdir(mode=0o700)
    folder.chmod(0o777)
    with pytest.raises(StationError, match="mode 0777"):
        check_ipc(f"ipc://{inner}/control")
    folder.chmod(0o1777)
    assert check_ipc(f"ipc://{inner}/control"), "as /tmp is: others can make what is not there, and move nothing"
    with pytest.raises(StationError, match="a folder of its own"):
        check_ipc(f"ipc://{folder}/control")
    with pytest.raises(StationError, match="a folder of its own"):
        check_ipc(f"ipc://{folder}/control", make_folder=True)


def test_a_folder_that_another_user_could_make_first_is_made(folder: Path) -> None:
    folder.chmod(0o1777)
    check_ipc(f"ipc://{folder}/a/b/st1.control")
    made = folder / "a"
    assert made.is_dir() and stat.S_IMODE(made.stat().st_mode) == 0o700
    folder.chmod(0o700)
    check_ipc(f"ipc://{folder}/later/st1.control")
    assert not (folder / "later").exists(), "nobody else could make it"
    check_ipc(f"ipc://{folder}/later/st1.control", make_folder=True)
    assert stat.S_IMODE((folder / "later").stat().st_mode) == 0o700


def test_a_socket_of_another_user_is_not_spoken_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "st1.control"
    with bound(path):
        strange(path, monkeypatch)
        with pytest.raises(StationError, match="belongs to another user"):
            check_ipc(f"ipc://{path}")


def test_a_file_in_the_place_of_a_socket_is_left_alone(folder: Path) -> None:
    path = folder / "notes"
    path.write_text("precious")
    with pytest.raises(StationError, match="is not a socket"):
        CLIENTS["inspector"](f"ipc://{path}")
    assert path.read_text() == "precious"
    with pytest.raises(StationError, match=r"is not a folder|cannot be checked"):
        check_ipc(f"ipc://{path}/control")


@pytest.mark.parametrize("endpoint", ["ipc://@asperity", "ipc://", "ipc://*"])
def test_a_name_that_is_no_file_is_anybodys(endpoint: str) -> None:
    with pytest.raises(StationError, match="is not a file"):
        check_ipc(endpoint)


def test_the_inspector_and_its_clients_agree(folder: Path) -> None:
    ends = {name: f"ipc://{folder}/run/{name}" for name in ("frames", "results", "bulk", "control")}
    desk = InspectorSockets(StationConfig(sockets=Sockets(**ends)))
    try:
        client = StationClient(ends["results"], ends["control"], station="st1")
        with client, FrameSender("cam1", ends["frames"]) as sender:
            assert sender.wait_connected(20_000)
        assert stat.S_IMODE((folder / "run" / "control").stat().st_mode) == 0o600
    finally:
        desk.close(linger_ms=0)
