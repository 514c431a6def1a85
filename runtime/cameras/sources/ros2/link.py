"""The messages of a ROS 2 driver that uses rmw_zenoh, over one zenoh session. The only file that imports zenoh."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from asperity.runtime.cameras.sources.ros2.keys import (
    Publisher,
    attachment,
    message_key,
    publisher,
    tokens_key,
    type_of_key,
)
from asperity.runtime.errors import CameraError, CameraLostError

log = logging.getLogger(__name__)

QUEUED_MAX = 16
"""Messages of each topic that wait to be taken; of more, the oldest are left out."""
ATTACHMENT_MAX_NBYTES = 256
TOKENS_MAX = 4096
"""Publishers that are remembered, of all topics."""
NAMED_MAX = 20
"""Topics that an error names."""


class Received(NamedTuple):
    """A message as it came: CDR, not decoded."""

    topic: int
    data: bytes
    sequence: int | None


class Endpoint(NamedTuple):
    """How a session is opened; nothing else is called or listened on."""

    mode: str
    connect: str
    listen: str
    open_ms: int


class Link:
    """The topics of one driver. Raises CameraLostError from ``take`` once the driver or the session is gone."""

    def __init__(
        self, endpoint: Endpoint, domain: int, topics: tuple[tuple[str, str], ...], *, max_nbytes: int
    ) -> None:
        """Connect, and wait until each topic (name, type) has its publisher.

        ``max_nbytes``: of one message, and half of what may wait to be taken. Raises CameraError.
        """
        from zenoh import SampleKind

        self._topics, self._max_nbytes = topics, max_nbytes
        self._put = SampleKind.PUT
        self._news = threading.Condition()
        self._waiting: deque[tuple[int, Any]] = deque()
        self._waiting_nbytes = 0
        self._publishers: dict[str, Publisher] = {}
        self._gids: dict[int, bytes] = {}
        self._lost = ""
        self._dropped = 0
        ends_s = time.monotonic() + endpoint.open_ms / 1000
        self._session = open_session(endpoint, max_nbytes)
        try:
            for at, (name, _) in enumerate(topics):
                self._session.declare_subscriber(message_key(domain, name), self._in_place(partial(self._on, at)))
            self._session.liveliness().declare_subscriber(
                tokens_key(domain), self._in_place(self._on_token), history=True
            )
            self.nodes = self._await_publishers(ends_s)
        except BaseException:
            self.close()
            raise

    def take(self, timeout_ms: int) -> Received | None:
        """The oldest message, None when none came in time. Raises CameraLostError, CameraError."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._lost, timeout_ms / 1000)
            if self._lost:
                raise CameraLostError(self._lost)
            waiting = self._waiting.popleft() if self._waiting else None
            if waiting is not None:
                self._waiting_nbytes -= len(waiting[1].payload)
        if waiting is not None:
            return self._received(*waiting)
        if self._session.is_closed():  # not under the lock that zenoh's thread waits for
            raise CameraLostError("the zenoh session was closed; start the router and the driver again")
        return None

    def close(self) -> None:
        """End the session."""
        with suppress(Exception):
            self._session.close()

    def _received(self, topic: int, sample: Any) -> Received:
        name, kind = self._topics[topic]
        if (found := type_of_key(str(sample.key_expr))) != kind:
            raise CameraLostError(f"{name} brought a message of the type {found or sample.key_expr}; it must be {kind}")
        said = sample.attachment
        known = attachment(said.to_bytes()) if said is not None and len(said) <= ATTACHMENT_MAX_NBYTES else None
        if known is None:
            raise CameraLostError(
                f"a message of {name} lacks the attachment of rmw_zenoh; run the driver with "
                "RMW_IMPLEMENTATION=rmw_zenoh_cpp"
            )
        if self._gids.setdefault(topic, known.gid) != known.gid:
            raise CameraLostError(_two(name))
        return Received(topic, sample.payload.to_bytes(), known.sequence)

    def _in_place(self, callback: Callable[[Any], None]) -> Any:
        """A handler on zenoh's own thread: no queue without a bound between it and ours."""
        from zenoh.handlers import Callback

        def guarded(sample: Any) -> None:
            try:
                callback(sample)
            except Exception as error:  # zenoh would print it and go on
                with self._news:
                    self._lose(f"what the driver sent cannot be read: {error!r:.300}")
                raise

        return Callback(guarded, indirect=False)

    def _on(self, topic: int, sample: Any) -> None:
        """A message, on zenoh's thread."""
        nbytes = len(sample.payload)
        with self._news:
            if nbytes > self._max_nbytes:
                self._lose(
                    f"a message of {self._topics[topic][0]} has {nbytes} bytes; give a larger message_max_mb if "
                    "that is right"
                )
                return
            self._waiting.append((topic, sample))
            self._waiting_nbytes += nbytes
            while len(self._waiting) > QUEUED_MAX * len(self._topics) or self._waiting_nbytes > 2 * self._max_nbytes:
                self._waiting_nbytes -= len(self._waiting.popleft()[1].payload)
                self._dropped += 1
                if self._dropped == 1:
                    log.warning("messages of the driver come faster than they are taken; some are left out")
            self._news.notify()

    def _on_token(self, sample: Any) -> None:
        """A publisher came or went, on zenoh's thread."""
        token = str(sample.key_expr)
        found = publisher(token)
        kinds = dict(self._topics)
        if found is None or (found.topic not in kinds and len(self._publishers) >= TOKENS_MAX):
            return
        came = sample.kind == self._put
        with self._news:
            others = [one for key, one in self._publishers.items() if one.topic == found.topic and key != token]
            if came:
                self._publishers[token] = found
            elif self._publishers.pop(token, None) and found.topic in kinds:
                self._lose(f"the publisher of {found.topic} ({found.node}) is gone; start the driver again")
            if came and found.topic in kinds:
                if found.type != kinds[found.topic]:
                    self._lose(_wrong(found, kinds[found.topic]))
                elif others:
                    self._lose(_two(found.topic))
            self._news.notify()

    def _await_publishers(self, ends_s: float) -> tuple[str, ...]:
        """The nodes that publish the topics. Raises CameraError."""

        def nodes() -> list[str]:
            there = {one.topic: one.node for one in self._publishers.values()}
            return [there[name] for name, _ in self._topics if name in there]

        with self._news:
            self._news.wait_for(
                lambda: self._lost or len(nodes()) == len(self._topics), max(0.0, ends_s - time.monotonic())
            )
            if self._lost:
                raise CameraError(self._lost)
            if len(nodes()) < len(self._topics):
                there = sorted({one.topic for one in self._publishers.values()})
                lacking = [name for name, _ in self._topics if name not in there]
                listed = ", ".join(there[:NAMED_MAX]) or "none"
                raise CameraError(
                    f"nobody publishes {' and '.join(lacking)}; published are: {listed}. Start the driver with "
                    "RMW_IMPLEMENTATION=rmw_zenoh_cpp, or correct the topic, domain and connect"
                )
            return tuple(nodes())

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        self._news.notify()


def open_session(endpoint: Endpoint, max_nbytes: int) -> Any:
    """A session that only calls and listens on what ``endpoint`` names: no multicast, no gossip. Raises CameraError."""
    import zenoh

    settings = {
        "mode": endpoint.mode,
        "connect/endpoints": endpoint.connect.split(),
        "connect/timeout_ms": endpoint.open_ms,
        "connect/exit_on_failure": True,
        "listen/endpoints": endpoint.listen.split(),
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "transport/shared_memory/enabled": False,
        "transport/link/rx/max_message_size": 2 * max_nbytes,  # between the two, the error names the size
    }
    config = zenoh.Config()
    try:
        for key, value in settings.items():
            config.insert_json5(key, json.dumps(value))
        return zenoh.open(config)
    except zenoh.ZError as error:
        raise CameraError(
            f"no zenoh session: {str(error).partition(' at ')[0][:300]}; start `ros2 run rmw_zenoh_cpp rmw_zenohd`, or "
            f"correct connect = {endpoint.connect!r} and listen = {endpoint.listen!r}"
        ) from error


def publishers(endpoint: Endpoint, timeout_ms: int) -> list[tuple[str, Publisher]]:
    """Domain and publisher of each topic that is seen within ``timeout_ms``. Raises CameraError."""
    session = open_session(endpoint, 2**20)
    found = []
    try:
        for reply in session.liveliness().get(tokens_key("*"), timeout=timeout_ms / 1000):
            token = str(reply.ok.key_expr) if reply.ok is not None else ""
            if (one := publisher(token)) is not None:
                found.append((token.split("/")[1], one))
            if len(found) >= TOKENS_MAX:
                break
    finally:
        session.close()
    return found


def _two(topic: str) -> str:
    return f"two publishers are on {topic}, whose pictures would mix; stop one of the drivers, or rename its topics"


def _wrong(found: Publisher, kind: str) -> str:
    hint = ""
    if found.type == "sensor_msgs/msg/CompressedImage":
        hint = "; take the topic of the raw pictures, or republish them with image_transport"
    return f"{found.topic} is of the type {found.type}, and not {kind}{hint}"
