"""`asperity gateway ethernetip` on a real inspector, seen by pycomm3: what a controller is told, and when."""

from __future__ import annotations

import time
from collections import defaultdict

import pytest

from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.ethernetip.assemblies import ACKNOWLEDGE, ALL, COMMAND
from asperity.testing import STATION, Line
from tests.runtime.gateways.ethernetip.eip_floor import Controller
from tests.runtime.gateways.floor import GatewayProcess
from tests.runtime.gateways.modbus.test_modbus_line import Block, Plc, lies

pytestmark = pytest.mark.usefixtures("forked_starts")

TOML = """
[gateway]
accept_simulated = true
accept_hold_ms = {hold_ms}
[ethernetip]
port = 0
cyclic_port = 0
recipes = {{ 1 = 'simulated' }}
"""


class EipPlc(Plc):
    """The same PLC, over connected messages of EtherNet/IP."""

    def __init__(self, port: int) -> None:
        self.controller = Controller(port, connected=True)
        assert self.controller.write(COMMAND) == ""
        self.accepted, self.told, self.reads = {}, [], 0

    def read(self) -> Block:
        block = self.controller.read(ALL)
        self.reads += 1
        if block["accept"]:
            self.accepted[int(block["result_no"])] = block
        return block

    def write(self, name: str, *words: int) -> None:
        assert name == "result_ack"
        assert self.controller.write(ACKNOWLEDGE, result_ack=words[0]) == ""

    def close(self) -> None:
        self.controller.close()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_ten_thousand_results_of_simulate_in_a_row_over_ethernet_ip() -> None:
    with Line() as line:
        ends = [word for name, end in line.ends.items() for word in (f"--{name}", end)]
        line.asperity("simulate", "--rate", "150", "--script", "ok ok ng nan shape", "--station", STATION, *ends)
        # Room for what comes while a crowded machine does not let the client run.
        gateway = GatewayProcess(line, "ethernetip", TOML.format(hold_ms=2000) + "buffer_results = 1000\n")
        plc = EipPlc(gateway.port())
        plc.until(lambda block: block["result_valid"] > 0 and block["quality"] == 1, "the first result")
        first, began_s = len(plc.told), time.monotonic()
        while len(plc.told) < first + 10_000:
            plc.turn()
            line.heard.listen(0)
        took_s = time.monotonic() - began_s
        counts = plc.read()
        last_id = max(plc.accepted)
        line.wait(lambda: line.heard.results[-1].result_id >= last_id, "every result")
        heard = {result.result_id: result for result in line.heard.results}
        told = plc.told[first:]
        verdicts: dict[int, int] = defaultdict(int)
        for entry in told:
            verdicts[entry.verdict] += 1
        print(
            f"{len(told)} results in {took_s:.1f} s ({len(told) / took_s:.0f}/s), {plc.reads} reads, "
            f"{dict(verdicts)} by verdict, {sum(entry.accepted for entry in told)} accepted, "
            f"{counts['missing']} missing, {counts['overruns']} overruns"
        )
        plc.in_order_and_named()
        assert lies(plc.accepted, heard) == []
        assert len({entry.number for entry in told}) == len(told)
        assert all(heard[entry.number].verdict is Verdict(entry.verdict) for entry in told if entry.number in heard)
        assert len(told) / took_s >= 100
        plc.close()
