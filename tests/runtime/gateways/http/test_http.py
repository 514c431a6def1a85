"""The HTTP gateway with clients that others wrote: urllib, and Prometheus's own parser."""

from __future__ import annotations

import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.config import GatewayConfig, Http
from asperity.runtime.gateways.http.gateway import HttpGateway
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import RecipeChange
from asperity.runtime.wire.state import EngineMessage
from tests.runtime.gateways.floor import FakeLink, GatewayProcess, Loop, floors, looping, open_files, result, until
from tests.system.line import PATIENCE_S, Camera, Line, kill

EVIL = "<script>alert(1)</script>&\"'"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


class Floor:
    """A gateway in the loop, and its link. Its clients may take a minute, unless a test is about that."""

    def __init__(self, loop: Loop, **http: Any) -> None:
        self.loop, self.link = loop, FakeLink()
        config = Http(**{"port": 0, "request_ms": 60_000, **http})
        self.gateway = HttpGateway(GatewayConfig(http=config), self.link)  # type: ignore[arg-type]
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


def samples(text: str) -> Samples:
    """Every sample of an exposition, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, /, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def everything(plain: socket.socket) -> bytes:
    """What comes until the other side closes."""
    data = b""
    try:
        while chunk := plain.recv(65536):
            data += chunk
    except ConnectionError:
        pass
    return data


@pytest.fixture
def make(loop: Loop) -> Iterator[Callable[..., Floor]]:
    with floors(Floor, loop) as make:
        yield make


@pytest.fixture
def floor(make: Callable[..., Floor]) -> Floor:
    return make()


def test_ready_says_why_not_and_live_says_only_that_the_gateway_turns(floor: Floor) -> None:
    assert floor.get("/readyz")[0] == 200
    floor.link.good = False
    status, text, _ = floor.get("/readyz")
    assert status == 503 and "heartbeat has stopped" in text
    assert floor.get("/livez")[0] == 200


def test_metrics_count_by_verdict_and_reason_and_stage(floor: Floor) -> None:
    late = {"deadline_missed": True, "latency_us": {"total": 1_200_000}}
    floor.show(
        result(1, latency_us={"total": 30_000, "knn": 4_000, "other": 9}),
        result(2, Verdict.NG, simulated=True),
        result(3, Verdict.UNKNOWN, **late),
        Gap(4, 6, "gone"),
    )
    found = samples(floor.get("/metrics")[1])
    for verdict, reason, count in (
        ("ok", "GOOD", 1),
        ("ng", "SCORE_ABOVE_THRESHOLD", 1),
        ("unknown", "DEADLINE", 1),
        ("unknown", "ENGINE", 0),
    ):
        assert value(found, "asperity_results_total", verdict=verdict, reason=reason) == count
    assert not any(name == "asperity_results_total" and ("verdict", "ok") in labels and ("reason", "GOOD") not in labels
                   for name, labels in found)  # fmt: skip
    assert value(found, "asperity_latency_seconds_count", stage="total") == 2
    assert value(found, "asperity_latency_seconds_sum", stage="total") == pytest.approx(1.23)
    assert value(found, "asperity_latency_seconds_bucket", stage="total", le="0.03") == 1
    assert value(found, "asperity_latency_seconds_count", stage="knn") == 1
    assert not any(("stage", "other") in labels for _, labels in found), "no label from outside makes a series"
    assert value(found, "asperity_gaps_total") == 1
    assert value(found, "asperity_results_missing_total") == 3
    assert value(found, "asperity_results_simulated_total") == 1
    assert value(found, "asperity_results_deadline_missed_total") == 1


def test_metrics_pass_on_what_the_station_says_of_itself(floor: Floor) -> None:
    assert floor.link.state is not None
    floor.link.state = msgspec.structs.replace(
        floor.link.state,
        received=20,
        lost=2,
        ok=9,
        ng=4,
        unknown=8,
        in_flight=1,
        unknown_by_reason={"LOST": 2, "STALE": 5, EVIL: 1},
        alarms=("CAMERA",),
        engine=EngineMessage(name="cpu", device=EVIL, precision="f32"),
        gpu={"temperature_c": 51.5, "throttle": "none"},
    )
    found = samples(floor.get("/metrics")[1])
    assert value(found, "asperity_station_received_total") == 20
    assert value(found, "asperity_station_results_total", verdict="ng") == 4
    assert value(found, "asperity_station_unknown_total", reason="STALE") == 5
    assert value(found, "asperity_station_unknown_total", reason="other") == 1
    unknown = {labels: count for (name, labels), count in found.items() if name == "asperity_station_unknown_total"}
    assert sum(unknown.values()) == 8 and len(unknown) < len(Reason)
    assert value(found, "asperity_station_beat") == 7
    assert value(found, "asperity_station_state") == 8
    assert value(found, "asperity_station_alarms") == 1
    assert value(found, "asperity_gpu", name="temperature_c") == 51.5
    info = next(dict(labels) for name, labels in found if name == "asperity_station_info")
    assert (info["station"], info["recipe"], info["device"]) == ("st1", "bracket", EVIL)


def test_the_recipe_its_last_change_and_what_frames_need_are_shown(floor: Floor) -> None:
    def change(status: str, text: str = "") -> RecipeChange:
        return RecipeChange(number=3, recipe="lid", status=status, text=text)

    assert floor.link.state is not None
    assert "last recipe change</th><td>none" in floor.get("/")[1]
    assert not any(name.startswith("asperity_recipe_change") for name, _ in samples(floor.get("/metrics")[1]))
    told = {"threshold": 0.5, "triggers": "hard_wired", "synced": False, "late": 6}
    for status, why in (("under_way", ""), ("failed", EVIL), ("done", "")):
        floor.link.state = msgspec.structs.replace(floor.link.state, recipe_change=change(status, why), **told)
        found = samples(floor.get("/metrics")[1])
        about = next(dict(labels) for name, labels in found if name == "asperity_recipe_change_info")
        assert about == {"number": "3", "recipe": "lid", "status": status, "text": why}
        page = Tags()
        page.feed(floor.get("/")[1])
        assert f"number 3 to lid: {status}" + (f": {why}" if why else "") in page.texts and "bracket " in page.texts
        assert "hard_wired, no" in page.texts
    assert value(found, "asperity_station_threshold") == 0.5
    assert value(found, "asperity_station_late_total") == 6
    assert value(found, "asperity_station_synced") == 0
    info = next(dict(labels) for name, labels in found if name == "asperity_station_info")
    assert info["triggers"] == "hard_wired"
    for triggers, matched, shown in (
        ("hard_wired", True, 1),
        ("software", None, 1),
        ("free_run", None, 1),
        ("", True, 0),
    ):
        floor.link.state = msgspec.structs.replace(floor.link.state, triggers=triggers, synced=matched, threshold=None)
        found = samples(floor.get("/metrics")[1])
        assert value(found, "asperity_station_synced") == shown
        assert ("asperity_station_threshold", frozenset()) not in found


def test_a_scrape_says_which_result_its_accept_is_of(floor: Floor) -> None:
    for item, number in ((result(4), 4), (result(5, Verdict.NG), 5), (Gap(6, 7, "gone"), 0)):
        floor.show(item)
        assert value(samples(floor.get("/metrics")[1]), "asperity_last_result_id") == number


def test_accept_is_a_gauge_of_the_moment_and_nothing_else(floor: Floor) -> None:
    assert value(samples(floor.get("/metrics")[1]), "asperity_accept") == 0
    floor.show(result(1))
    text = floor.get("/metrics")[1]
    assert value(samples(text), "asperity_accept") == value(samples(text), "asperity_quality") == 1
    assert "# TYPE asperity_accept gauge" in text
    floor.link.expired.add(1)
    assert value(samples(floor.get("/metrics")[1]), "asperity_accept") == 0
    floor.link.expired.clear()
    floor.link.good = False
    found = samples(floor.get("/metrics")[1])
    assert value(found, "asperity_accept") == value(found, "asperity_quality") == 0
    assert "accept" not in floor.get("/")[1]


def test_before_the_first_state_there_are_zeros_and_no_invented_ones(floor: Floor) -> None:
    floor.link.state, floor.link.good = None, False
    found = samples(floor.get("/metrics")[1])
    assert value(found, "asperity_accept") == value(found, "asperity_quality") == 0
    assert not any(name.startswith("asperity_station") for name, _ in found)
    assert "not ready" in floor.get("/")[1]


class Tags(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_shows_the_last_results_newest_first_and_escapes_everything(make: Callable[..., Floor]) -> None:
    floor = make(results_shown=3)
    floor.show(
        result(7001, part_id="first"), result(7002, Verdict.NG, part_id=EVIL), Gap(7003, 7004, EVIL), result(7005)
    )
    assert floor.link.state is not None
    floor.link.state = msgspec.structs.replace(floor.link.state, alarms=(EVIL,), unknown_by_reason={EVIL: 1})
    status, text, headers = floor.get("/")
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    page = Tags()
    page.feed(text)
    assert "script" not in page.tags and not {"img", "link", "iframe"} & set(page.tags)
    assert not any(name.startswith(("on", "src", "href")) for name, _ in page.attributes)
    assert page.texts.count(EVIL) == 2, "the part and the alarm, each as it was written"
    assert any("7003 to 7004 missing" in data for data in page.texts)
    assert "first" not in page.texts
    assert page.texts.index("7005") < page.texts.index("7002")
    assert ("http-equiv", "refresh") in page.attributes


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/nosuch", "GET", 404),
        ("/../etc/passwd", "GET", 404),
        ("/metrics", "POST", 405),
        ("/", "DELETE", 405),
        ("/livez?x=1", "GET", 200),
        ("/livez", "HEAD", 200),
    ],
)
def test_other_paths_and_methods_are_refused(floor: Floor, path: str, method: str, status: int) -> None:
    found, text, headers = floor.get(path, method)
    assert found == status
    assert headers["Connection"] == "close" and headers["X-Content-Type-Options"] == "nosniff"
    assert (text == "") == (method == "HEAD")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x00\xff\xfe\r\n\r\n", b"400"),
        (b"GET / HTTP/2\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000, b"431"),
    ],
)
def test_malformed_and_oversized_requests_are_answered_and_closed(
    make: Callable[..., Floor], sent: bytes, status: bytes
) -> None:
    floor = make(header_max_nbytes=1024)
    plain = floor.raw()
    plain.sendall(sent)
    said = everything(plain).split(b" ")[1:2]
    assert said == [status] or (len(sent) > 1024 and said == []), "an answer, or a reset while it still sent too much"
    assert floor.get("/livez")[0] == 200


@settings(deadline=None)
@given(request=st.binary(max_size=200))
def test_no_request_breaks_it(request: bytes) -> None:
    gateway = HttpGateway(GatewayConfig(), FakeLink())  # type: ignore[arg-type]
    _, answer = gateway._answer(request + b"\r\n\r\n")
    assert answer.status in (200, 400, 404, 405)


LIVE = b"GET /livez HTTP/1.1\r\n\r\n"


def test_who_never_finishes_his_request_is_closed(make: Callable[..., Floor]) -> None:
    floor = make(request_ms=400)
    slow, silent = floor.raw(), floor.raw()
    slow.sendall(b"GET / HTT")
    assert everything(slow) == everything(silent) == b""
    assert everything(floor.at_once(LIVE)).startswith(b"HTTP/1.1 200")


def test_probes_are_answered_always_however_many_clients_stay_silent(make: Callable[..., Floor]) -> None:
    floor = make(connections_max=8)
    for _ in range(40):
        slow = floor.raw()
        slow.sendall(b"GET /livez HTT")
        assert floor.get("/livez")[0] == 200
    assert len(floor.loop.call(lambda: list(floor.gateway._clients))) <= 8


def test_the_crowd_makes_room_and_not_the_client_of_another_address(make: Callable[..., Floor]) -> None:
    floor = make(connections_max=8)
    other = socket.create_connection(("127.0.0.1", floor.port), PATIENCE_S, source_address=("127.0.0.2", 0))
    until(lambda: len(floor.gateway._clients) == 1, "the other client")
    crowd = [floor.raw() for _ in range(20)]
    assert everything(crowd[0]) == b"", "the oldest of the crowd is closed"
    until(lambda: len(floor.gateway._clients) == 8, "the crowd")
    other.sendall(LIVE)
    assert everything(other).startswith(b"HTTP/1.1 200")
    other.close()


def test_a_client_that_does_not_read_costs_its_connection_only(make: Callable[..., Floor]) -> None:
    floor = make(request_ms=300, results_shown=1000)
    floor.show(*[result(number, part_id=EVIL) for number in range(1, 1001)])
    whole = len(floor.loop.call(floor.gateway._page).body)
    assert floor.gateway._server is not None
    floor.gateway._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    viewed = floor.link.views
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(PATIENCE_S)
        with floor.loop.standing():
            plain.connect(("127.0.0.1", floor.port))
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        until(lambda: floor.link.views > viewed and not floor.gateway._clients, "the client and its end")
        assert len(everything(plain)) < whole
    assert everything(floor.at_once(LIVE)).startswith(b"HTTP/1.1 200")


def test_five_hundred_visits_leave_nothing_behind(floor: Floor) -> None:
    before = open_files()
    for turn in range(500):
        plain = socket.create_connection(("127.0.0.1", floor.port), timeout=PATIENCE_S)
        if turn % 2:
            plain.sendall(LIVE)
            assert everything(plain).startswith(b"HTTP/1.1 200")
        plain.close()
    until(lambda: open_files() <= before + 2, "the end of old connections")


def test_on_a_line_ready_follows_the_inspector_and_the_process_ends_well() -> None:
    with Line("ok ng") as line:
        line.start()
        line.await_state(8)
        gateway = GatewayProcess(line, "http", "[gateway]\naccept_simulated = true\n", "--port", "0")
        url = f"http://127.0.0.1:{gateway.port()}"
        with Camera(line) as camera:
            camera.wait_connected(round(PATIENCE_S * 1000))
            until(lambda: get(url + "/readyz")[0] == 200, "ready")
            line.wait(lambda: bool(line.heard.states), "a state")
            camera.stream(line, 20, 10)
            journal = line.settle(camera)
            ok = {"verdict": "ok", "reason": "GOOD"}

            def counted() -> bool:
                found = samples(get(url + "/metrics")[1])
                counts = [count for (name, _), count in found.items() if name == "asperity_results_total"]
                return sum(counts) == len(journal) >= 20

            until(counted, "every result")
            found = samples(get(url + "/metrics")[1])
            by_station = value(found, "asperity_station_results_total", verdict="ok")
            assert value(found, "asperity_results_total", **ok) == len(
                [r for r in journal.values() if r.verdict is Verdict.OK]
            )
            assert by_station <= value(found, "asperity_results_total", **ok)
            kill(line.processes.pop(0))
            began_s = time.monotonic()
            until(lambda: get(url + "/readyz")[0] == 503, "not ready")
            print(f"kill -9: not ready after {time.monotonic() - began_s:.3f} s")
            assert value(samples(get(url + "/metrics")[1]), "asperity_accept") == 0
            assert get(url + "/livez")[0] == 200
            line.start()
            until(lambda: get(url + "/readyz")[0] == 200, "ready again without hands")
        second = GatewayProcess(line, "http", "", "--port", url.rpartition(":")[2])
        assert second.process.wait(PATIENCE_S) == GatewayError.exit_code, second.log()
        assert "is another gateway running" in second.log() and "Traceback" not in second.log()
        began_s = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(PATIENCE_S) == 0, gateway.log()
        print(f"ended in {time.monotonic() - began_s:.2f} s")
        assert "Traceback" not in gateway.log()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com", ""])
def test_a_bind_that_others_reach_is_refused_unless_wanted(host: str) -> None:
    with pytest.raises(ConfigError, match=r"\[http\] host"):
        HttpGateway(GatewayConfig(http=Http(host=host)), FakeLink())  # type: ignore[arg-type]
    if host in ("0.0.0.0", "::"):
        HttpGateway(GatewayConfig(http=Http(host=host, insecure_lan=True)), FakeLink())  # type: ignore[arg-type]
