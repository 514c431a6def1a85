"""The HTTP gateway with clients that others wrote: urllib, and Prometheus's own parser."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Callable
from html.parser import HTMLParser

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.config import GatewayConfig, Http
from asperity.runtime.gateways.http.gateway import HttpGateway
from asperity.runtime.gateways.http.metrics import RECIPES_MAX
from asperity.runtime.reasons import Reason
from asperity.runtime.states import ALARMS, State
from asperity.runtime.wire import RecipeChange
from asperity.runtime.wire.state import EngineMessage
from asperity.testing import PATIENCE_S, Camera, Line
from tests.places import ROOT
from tests.runtime.gateways.floor import COUNTERS, FakeLink, GatewayProcess, result, until
from tests.runtime.gateways.http.http_floor import EVIL, Floor, get

pytestmark = pytest.mark.usefixtures("forked_starts")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Every sample of an exposition, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, /, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_ready_says_why_not_and_live_says_only_that_the_gateway_turns(floor: Floor) -> None:
    assert floor.get("/readyz")[0] == 200
    floor.link.good = False
    status, text, _ = floor.get("/readyz")
    assert status == 503 and "heartbeat has stopped" in text
    assert floor.get("/livez")[0] == 200


def test_probe_and_page_say_the_reason_and_not_only_the_state(floor: Floor) -> None:
    failed = RecipeChange(number=1, recipe="part", status="failed", text="the bundle is signed by an unknown key")
    state = msgspec.structs.replace(
        floor.link.state, ready=False, state=State.INITIALIZED, recipe_change=failed, alarms=("CAMERA", "NEW_ONE")
    )
    floor.link.good, floor.link.state, floor.link.why = False, state, "the station is not ready (state 5); CAMERA"
    for path in ("/readyz", "/"):
        said = floor.get(path)[1]
        for reason in ("state 5 INITIALIZED", "recipe part failed: the bundle is signed by an unknown key",
                       "CAMERA: no camera is connected", "NEW_ONE"):  # fmt: skip
            assert reason in said, f"{path}: {said}"
    found = samples(floor.get("/metrics")[1])
    assert {kind: value(found, "asperity_station_alarm", alarm=kind) for kind in ("CAMERA", "other", "DRIFT")} == {
        "CAMERA": 1, "other": 1, "DRIFT": 0,
    }  # fmt: skip


def test_every_alarm_that_a_station_can_show_has_its_meaning() -> None:
    calls = r"(?:alarms\.(?:show|hold)|\.fault)\(\s*(?:Reason\.(\w+)\.name|\"(\w+)\")"
    sources = [path.read_text() for path in (ROOT / "runtime/inspector").glob("*.py")]
    kinds = {reason or name for source in sources for reason, name in re.findall(calls, source)}
    assert len(kinds) > 12 and kinds <= set(ALARMS), "give each its line in ALARMS of runtime/states.py"


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


def test_the_counters_are_on_the_page_with_yield_and_top_reasons_and_in_the_scrape(floor: Floor) -> None:
    assert "yield" not in floor.get("/")[1]
    assert floor.link.state is not None
    floor.link.state = msgspec.structs.replace(floor.link.state, lot="L-7\u00fc", shift="late")
    floor.link.counters = COUNTERS
    page = Tags()
    page.feed(floor.get("/")[1])
    assert "75.00 %: ok 9, ng 2, unknown 1; SHAPE_OUT_OF_RANGE 2, LOST 1" in page.texts
    assert "80.00 %: ok 4, ng 1, unknown 0; SHAPE_OUT_OF_RANGE 1" in page.texts
    text = floor.get("/metrics")[1]
    assert 'asperity_counted_parts_total{verdict="ok"} 9.0' in text
    assert 'asperity_counted_rejects_total{reason="LOST"} 1.0' in text
    assert "asperity_yield 0.75" in text and "asperity_resets_total 3.0" in text


def test_no_lot_and_a_bounded_number_of_recipes_become_series(floor: Floor) -> None:
    floor.show(*(result(number + 1, recipe=f"r{number % 40}", lot=f"lot {number}") for number in range(100)))
    text = floor.get("/metrics")[1]
    assert "lot" not in text and text.count("asperity_recipe_results_total{") == RECIPES_MAX + 1
    assert 'asperity_recipe_results_total{recipe="r31",verdict="ok"} 2.0' in text
    assert 'asperity_recipe_results_total{recipe="(other)",verdict="ok"} 16.0' in text


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
        result(7001, part_id="first"), result(7002, Verdict.NG, part_id=EVIL), Gap(7003, 7004, EVIL),
        result(7005, part_id="01\x1d10L", lot="L-7", position=-5),
    )  # fmt: skip
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
    assert "first" not in page.texts and "\x1d" not in text
    assert {"01\u241d10L", "L-7", "-5"} <= set(page.texts)
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
            line.stream(camera, 20, 10)
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
            line.kill()
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


def test_the_address_in_the_log_can_be_opened(floor: Floor) -> None:
    """An IPv6 address stands in brackets in a URL."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    gateway = HttpGateway(GatewayConfig(http=Http(host="::1", port=0)), FakeLink())  # type: ignore[arg-type]
    try:
        url = floor.loop.run(gateway.open())
    except GatewayError:
        pytest.skip("no ::1 here")
    try:
        assert url.startswith("http://[::1]:") and get(url + "livez")[0] == 200
    finally:
        floor.loop.run(gateway.close())
