"""Part after part over OPC UA on a line with triggers, watched over HTTP: over real sockets, whatever the camera sends,
no Accept for a part that was not exposed and judged ok."""

from __future__ import annotations

import asyncio
import random
import urllib.error
import urllib.request
from contextlib import suppress

import pytest
from asyncua import Client, ua
from asyncua.ua.uaerrors import UaError
from prometheus_client.parser import text_string_to_metric_families

from asperity.runtime.errors import GatewayError
from asperity.testing import PATIENCE_S, Line
from tests.runtime.gateways.floor import GatewayProcess
from tests.runtime.gateways.opcua.opcua_floor import Told, call, node, soon, values
from tests.runtime.gateways.parts_line import NO_FRAME_MS, Answering, answered_line, judged_ok

pytestmark = pytest.mark.usefixtures("forked_starts")

TOML = "[gateway]\naccept_simulated = true\n[opcua]\ncertificate_folder = '{folder}'\n"
TAGS = ("Accept", "Verdict", "TriggerId", "ResultId", "ResultIdCopy")
GONE = (UaError, OSError, asyncio.TimeoutError)


class Plc:
    """A client that triggers part after part, takes every event and reads the tags all the time."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._toml = TOML.format(folder=line.folder / "certificate")
        self._told = Told()
        self.restarts = 0
        self.accepted: set[int] = set()
        """Triggers for which a read or an event ever said Accept."""
        self.passed: set[int] = set()
        """Parts that the gate opened for: Accept with their own trigger, read while they were awaited."""

    async def connect(self) -> None:
        """To another gateway; awaits that its station is ready."""
        self.gateway = GatewayProcess(self._line, "opcua", self._toml, "--port", "0")
        self._told = Told()
        self.client = Client(f"opc.tcp://127.0.0.1:{await asyncio.to_thread(self.gateway.port)}", timeout=PATIENCE_S)
        await self.client.connect()
        subscription = await self.client.create_subscription(20, self._told)
        kind = self.client.get_node(ua.NodeId("ResultReadyEventType", 2))
        await subscription.subscribe_events(await node(self.client, "3:VisionSystem"), [kind], queuesize=1000)
        while not (await values(self.client, "Ready"))[0]:
            await asyncio.sleep(0.005)

    async def restart(self) -> None:
        """As a supervisor does."""
        self.take_events()
        with suppress(Exception):  # whatever the library says of a server that is gone
            await asyncio.wait_for(self.client.disconnect(), 1)
        self.restarts += 1
        await self.connect()

    def take_events(self) -> None:
        self.accepted |= {event.TriggerId for event in self._told.events if event.Accept}

    async def part(self, number: int) -> None:
        """Trigger it and read until its event came, or nobody took it."""
        told = await call(self.client, "Trigger", number, str(number), NO_FRAME_MS)
        while True:
            accept, verdict, trigger_id, first, copy = await values(self.client, *TAGS)
            if accept:
                assert (verdict, first) == (1, copy)
                self.accepted.add(trigger_id)
                if trigger_id == number:
                    self.passed.add(number)
            if told[0] or any(event.TriggerId == number for event in self._told.events):
                self.take_events()
                return
            assert self.gateway.process.poll() is None, self.gateway.log()


class Scraper:
    """What Prometheus would see of the HTTP gateway."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.starts = 0
        self.accepted: set[int] = set()
        """Results of which a scrape ever said accept."""
        self._start()

    def _start(self) -> None:
        self.starts += 1
        self._gateway = GatewayProcess(self._line, "http", "[gateway]\naccept_simulated = true\n", "--port", "0")
        self.url = f"http://127.0.0.1:{self._gateway.port()}/"

    def scrape(self) -> dict[str, float]:
        """Metrics by name, of results only the good ones."""
        if self._gateway.process.poll() is not None:
            # On a crowded machine a loop may stand; the process ends, and its supervisor starts it again.
            assert self._gateway.process.returncode == GatewayError.exit_code, self._gateway.log()
            self._start()
        try:
            with urllib.request.urlopen(self.url + "metrics", timeout=PATIENCE_S) as answer:
                text = answer.read().decode()
        except OSError:
            self._gateway.process.wait(PATIENCE_S)
            return self.scrape()
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("reason", "GOOD") == "GOOD"
        }
        if found["asperity_accept"]:
            self.accepted.add(int(found["asperity_last_result_id"]))
        return found


async def run_parts(line: Line, camera: Answering, count: int, kills: int, seed: int) -> None:
    """``count`` parts, and more until enough of them passed; the gateway is killed ``kills`` times in the middle."""
    http, plc = Scraper(line), Plc(line)
    await plc.connect()
    await soon(lambda: http.scrape()["asperity_quality"])
    killed_at = set(random.Random(seed).sample(range(5, count), kills))
    number = 0
    while number < count or len(plc.passed) < count // 10:
        number += 1
        try:
            if number in killed_at:
                asking = asyncio.create_task(call(plc.client, "Trigger", number, str(number), NO_FRAME_MS))
                await asyncio.sleep(0)  # it is on its way
                plc.gateway.process.kill()
                with suppress(*GONE):
                    await asking
                await plc.restart()
                continue
            await plc.part(number)
        except GONE:
            # On a crowded machine a loop may stand; the process ends, and its supervisor starts it again.
            code = await asyncio.to_thread(plc.gateway.process.wait, PATIENCE_S)
            assert code == GatewayError.exit_code, plc.gateway.log()
            await plc.restart()
        await asyncio.to_thread(http.scrape)
    with suppress(*GONE):
        await plc.client.disconnect()
    good = camera.truth.good & judged_ok(line)
    journal = line.journal()
    print(
        f"{number} parts, {len(camera.truth.exposed)} exposed, {camera.truth.strays} strays, {len(good)} good, "
        f"{len(plc.passed)} passed, {len(plc.accepted)} accepted over OPC UA, {len(http.accepted)} in scrapes, "
        f"{plc.restarts} restarts"
    )
    assert plc.passed <= plc.accepted <= good
    assert http.accepted and {journal[result_id].trigger_id for result_id in http.accepted} <= good
    assert camera.truth.strays > 0 and plc.restarts >= kills
    counted = sum(result.accept for result in journal.values())
    await soon(lambda: http.starts > 1 or http.scrape()["asperity_results_total"] == counted)
    urllib.request.urlopen(http.url + "readyz", timeout=PATIENCE_S).close()
    line.kill()
    while http.scrape()["asperity_quality"]:
        await asyncio.sleep(0.25)  # half a minute goes by, and a scrape takes time from the whole machine
    assert not http.scrape()["asperity_accept"]
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(http.url + "readyz", timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("count", "kills"), [(60, 2), pytest.param(10_000, 20, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_over_opc_ua_and_http_no_part_is_accepted_that_was_not_exposed_and_judged_ok(count: int, kills: int) -> None:
    with answered_line(count) as (line, camera):
        asyncio.run(run_parts(line, camera, count, kills, seed=3))
