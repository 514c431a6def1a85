"""A cable between PLC and gateway that can be pulled: a TCP proxy that stops passing anything on."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

PASS_NBYTES = 65_536
TURN_S = 0.05


class Cable:
    """Passes connections on to ``port`` of this computer. A pulled one keeps connections and loses nothing that was
    sent: as with TCP, it arrives when the cable is back, unless the client has given up."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        """Where the PLC connects."""
        self.target = 0
        """Where the gateway listens now; 0: nowhere."""
        self._plugged, self._ended = threading.Event(), threading.Event()
        self._plugged.set()
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, name="cable", daemon=True)
        self._thread.start()

    def pull(self) -> None:
        """Nothing passes from now on."""
        self._plugged.clear()

    def plug(self) -> None:
        """It passes again."""
        self._plugged.set()

    def close(self) -> None:
        """End every connection."""
        self._ended.set()
        self._plugged.set()
        self._thread.join()
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _accept(self) -> None:
        self._listening.settimeout(TURN_S)
        while not self._ended.is_set():
            with suppress(TimeoutError):
                client, _ = self._listening.accept()
                thread = threading.Thread(target=self._pass_on, args=(client,), name="cable", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while not self._plugged.wait(TURN_S) and not self._ended.is_set():
                pass
            with socket.create_connection(("127.0.0.1", self.target)) as gateway, selectors.DefaultSelector() as ready:
                ready.register(client, selectors.EVENT_READ, gateway)
                ready.register(gateway, selectors.EVENT_READ, client)
                while not self._ended.is_set():
                    for key, _ in ready.select(TURN_S):
                        while not self._plugged.wait(TURN_S):
                            pass
                        source: socket.socket = key.fileobj  # type: ignore[assignment]
                        data = source.recv(PASS_NBYTES)
                        if not data:
                            return
                        key.data.sendall(data)
