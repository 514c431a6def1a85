"""The HTTP gateway in a loop, and its clients."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from typing import Any

from asperity.runtime.gateways.config import Gateway, GatewayConfig, GatewayStation, Http, Users
from asperity.runtime.gateways.http.gateway import HttpGateway
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import FakeLink, Loop

EVIL = "<script>alert(1)</script>&\"'"


class Floor:
    """A gateway in the loop, and its link. Its clients may take a minute, unless a test is about that."""

    def __init__(
        self, loop: Loop, accounts: Users | None = None, own: Gateway | None = None,
        station: GatewayStation | None = None, **http: Any,
    ) -> None:  # fmt: skip
        self.loop, self.link = loop, FakeLink()
        config = Http(**{"port": 0, "request_ms": 60_000, **http})
        whole = GatewayConfig(
            station=station or GatewayStation(), http=config, users=accounts or Users(), gateway=own or Gateway()
        )
        self.gateway = HttpGateway(whole, self.link)  # type: ignore[arg-type]
        self.url = loop.run(self.gateway.open())
        self.port = int(self.url.rstrip("/").rpartition(":")[2])
        self._plain: list[socket.socket] = []

    def get(self, path: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
        return get(self.url.rstrip("/") + path, method)

    def raw(self) -> socket.socket:
        self._plain.append(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S))
        return self._plain[-1]

    def at_once(self, sent: bytes) -> socket.socket:
        """A client whose request is there before the gateway looks, however slowly this test is let run."""
        with self.loop.standing():
            plain = self.raw()
            plain.sendall(sent)
        return plain

    def show(self, *items: Any) -> None:
        self.loop.call(lambda: self.link.put(*items))
        self.loop.call(self.gateway.refresh)

    def close(self) -> None:
        for plain in self._plain:
            plain.close()
        self.loop.run(self.gateway.close())


def get(url: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    """Status, text, headers."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def everything(plain: socket.socket) -> bytes:
    """What comes until the other side closes."""
    data = b""
    try:
        while chunk := plain.recv(65536):
            data += chunk
    except ConnectionError:
        pass
    return data
