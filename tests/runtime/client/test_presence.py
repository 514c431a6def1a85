"""Whether anybody listens at an endpoint: said where nobody does, and never where somebody may."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest

from asperity.runtime.client.presence import nobody_at
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.errors import StationError


def test_a_file_that_is_not_there_names_the_variable_and_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    why = nobody_at("ipc:///nowhere/st1.control", "[station] control")
    assert "ipc:///nowhere/st1.control (there is no such file)" in why
    assert "XDG_RUNTIME_DIR (here it is /run/user/7)" in why and "set [station] control" in why
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert "(here it is not set)" in nobody_at("ipc:///nowhere/st1.control", "[station] control")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/gateway")
    assert "(here it is not set, and RUNTIME_DIRECTORY is /run/gateway)" in nobody_at("ipc:///nowhere/x", "x")


def test_a_socket_of_a_process_that_has_ended_and_one_of_a_process_that_lives(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        assert nobody_at(f"ipc://{path}", "x") == ""
        with pytest.raises(BlockingIOError):
            listener.accept()  # it was not asked
    assert "its process has ended" in nobody_at(f"ipc://{path}", "x")
    path.unlink()
    path.write_text("")
    assert "it is not a socket" in nobody_at(f"ipc://{path}", "x")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_of_this_computer(host: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        assert nobody_at(f"tcp://{host}:{port}", "x") == ""
    why = nobody_at(f"tcp://{host}:{port}", "[station] results")
    assert f"nobody listens at tcp://{host}:{port} (the port is not open)" in why and "set [station] results" in why


@pytest.mark.parametrize(
    "endpoint", ["tcp://10.1.2.3:5561", "tcp://plc:5561", "tcp://127.0.0.1:x", "tcp://", "what", ""]
)
def test_what_cannot_be_known_is_not_said(endpoint: str) -> None:
    assert nobody_at(endpoint, "x") == ""


def test_where_the_tables_are_hidden_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asperity.runtime.client.presence._table", lambda name: [])
    assert nobody_at("tcp://127.0.0.1:1", "x") == ""


def test_a_client_that_waits_in_vain_says_where(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with StationClient(f"ipc://{tmp_path}/r", f"ipc://{tmp_path}/c", station="st1") as client:
        with pytest.raises(StationError, match=r"did not send anything within 1 ms; nobody listens at ipc://.*/r"):
            client.await_state(1)
        client._limits = client._limits.__class__(request_timeout_ms=1, request_tries=1)
        with pytest.raises(StationError, match=r"no answer to get_state in 1 ms; nobody listens at ipc://.*/c"):
            client.request("get_state")
