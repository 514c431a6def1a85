"""Addresses to listen on: what cannot be one is refused, and why one could not be bound is said truly."""

from __future__ import annotations

import errno
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.errors import ConfigError, StationError
from asperity.runtime.gateways.process import cannot_listen
from asperity.runtime.security.socket_files import PATH_NBYTES_MAX
from asperity.runtime.settings.listening import Place, place_of, why_not_bound
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.inspector_sockets import InspectorSockets


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("tcp://127.0.0.1:5560", Place("127.0.0.1", 5560)),
        ("tcp://*:0", Place("*", 0)),
        ("tcp://localhost:*", Place("localhost", 0)),
        ("tcp://[::1]:65535", Place("::1", 65535)),
        ("tcp://[fe80::1%eth0]:1", Place("fe80::1%eth0", 1)),
        ("ipc:///run/a", Place(path=Path("/run/a"))),
    ],
)
def test_what_an_endpoint_names(endpoint: str, place: Place) -> None:
    assert place_of(endpoint) == place


BAD = [
    "", "5560", "tcp", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://127.0.0.1:x", "tcp://127.0.0.1:-1",
    "tcp://127.0.0.1:65536", "tcp://127.0.0.1:70000", "tcp://127.0.0.1:\u0663", "tcp://:5560", "tcp://[]:5560",
    "tcp://[::1:5560", "tcp://::1]:5560", "tcp://fe80::1:5560", "tcp://a b:1", "tcp://a/b:1", "tcp://a\n:1",
    "udp://127.0.0.1:1", "inproc://a", "TCP://127.0.0.1:1", "http://127.0.0.1:80", " tcp://127.0.0.1:1",
]  # fmt: skip


@pytest.mark.parametrize("endpoint", BAD)
def test_what_cannot_be_an_endpoint_is_refused_before_anything_is_bound(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bound(tmp_path, endpoint)
    assert str(caught.value).startswith(f"[sockets] frames is {endpoint!r}: ")


@given(st.text(max_size=40) | st.text(max_size=30).map("tcp://".__add__))
def test_any_text_is_a_place_or_refused(endpoint: str) -> None:
    with suppress(ValueError):
        place = place_of(endpoint)
        assert place.path is not None or (place.host and 0 <= place.port <= 65535)


def bound(folder: Path, frames: str) -> str:
    """Where an inspector's frames socket is bound."""
    folder.chmod(0o700)
    ends = {name: f"ipc://{folder}/{name}" for name in ("results", "bulk", "control")}
    config = msgspec.convert({"sockets": {**ends, "frames": frames, "insecure_lan": True}}, StationConfig)
    sockets = InspectorSockets(config)
    sockets.close(linger_ms=0)
    return sockets.endpoints["frames"]


def test_real_binds_that_fail_say_why(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        for endpoint, words in {
            f"tcp://127.0.0.1:{port}": [f"port {port} is in use", "another inspector"],
            "tcp://192.0.2.9:5560": ["192.0.2.9 is not an address of this computer"],
            "tcp://eth9:5560": ["eth9 is neither an address nor a name"],
            f"tcp://{'a' * 70}:5560": ["neither an address nor a name"],
            f"ipc://{tmp_path}/{'x' * 120}": ["bytes, a socket's may have 107", "XDG_RUNTIME_DIR"],
            f"ipc://{tmp_path}/a\0b": ["NUL"],
        }.items():
            with pytest.raises(StationError) as caught:
                bound(tmp_path, endpoint)
            assert all(word in str(caught.value) for word in words), caught.value
            assert ("another inspector" in str(caught.value)) == (str(port) in endpoint)


def test_the_longest_path_that_may_be_can_be_bound(tmp_path: Path) -> None:
    path = f"{tmp_path}/".ljust(PATH_NBYTES_MAX, "x")
    assert bound(tmp_path, f"ipc://{path}") == f"ipc://{path}"


PORT, LOW, SIX, FILE = Place("10.1.2.3", 5560), Place("0.0.0.0", 502), Place("::1", 5560), Place(path=Path("/r/st1/f"))


@pytest.mark.parametrize("kind", [OSError, zmq.ZMQError])
@pytest.mark.parametrize(
    ("number", "place", "words"),
    [
        (errno.EADDRINUSE, PORT, ["port 5560 is in use", "another inspector"]),
        (errno.EADDRNOTAVAIL, PORT, ["10.1.2.3 is not an address of this computer"]),
        (errno.EADDRNOTAVAIL, Place("127.0.0.1", 5560), ["`ip link set lo up`", "::1"]),
        (errno.EADDRNOTAVAIL, SIX, ["or IPv6 is off"]),
        (errno.EAFNOSUPPORT, SIX, ["IPv6 is off on this computer"]),
        (errno.EACCES, LOW, ["below 1024", "CAP_NET_BIND_SERVICE"]),
        (errno.EACCES, PORT, ["does not allow it"]),
        (errno.ENODEV, Place("eth9", 1), ["eth9 is neither"]),
        (errno.EINVAL, Place("fe80::1", 1), ["needs its interface"]),
        (errno.EMFILE, PORT, ["LimitNOFILE"]),
        (errno.EADDRINUSE, FILE, ["another process listens there"]),
        (errno.EACCES, FILE, ["may not create files in /r/st1"]),
        (errno.EPERM, FILE, ["cannot be created in /r/st1"]),
        (errno.ENOENT, FILE, ["/r/st1 does not exist", "0700"]),
        (errno.ENOTDIR, FILE, ["/r/st1 is not a folder"]),
        (errno.EROFS, FILE, ["read-only"]),
        (errno.ENOSPC, FILE, ["no space left in /r/st1"]),
        (errno.ENAMETOOLONG, FILE, ["shorter"]),
    ],
)
def test_each_reason_has_its_own_sentence(kind: Any, number: int, place: Place, words: list[str]) -> None:
    error = OSError(number, "x") if kind is OSError else zmq.ZMQError(number)
    text = why_not_bound(error, place, "another inspector")
    assert all(word in text for word in words), text
    assert ("another inspector" in text) == (number == errno.EADDRINUSE)


@given(st.sampled_from(sorted(errno.errorcode)), st.sampled_from([PORT, LOW, SIX, FILE]))
def test_whatever_the_system_says_there_is_a_sentence(number: int, place: Place) -> None:
    text = why_not_bound(OSError(number, "told so"), place, "another inspector")
    assert text and "None" not in text


def test_a_gateway_says_its_table_and_values() -> None:
    text = str(cannot_listen("modbus", "0.0.0.0", 502, PermissionError(errno.EACCES, "Permission denied")))
    assert text.startswith("[modbus] cannot listen on 0.0.0.0 port 502: ports below 1024") and "another" not in text
    text = str(cannot_listen("http", "127.0.0.1", 8088, OSError(errno.EADDRINUSE, "in use")))
    assert "is another gateway running?" in text
