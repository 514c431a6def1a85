"""The clock of a PLC over every protocol that takes it: a figure and a warning, and nothing is asked of the station."""

from __future__ import annotations

import asyncio
import logging
import struct
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from asyncua import ua

from asperity.runtime.clock import MS, Now
from asperity.runtime.gateways.config import Gateway, GatewayConfig, Http, Users
from asperity.runtime.gateways.ethernetip.assemblies import PLC_CLOCK, SHOWN_CLOCKS, TRIGGERED_PART
from asperity.runtime.gateways.ethernetip.cip import CipError
from asperity.runtime.gateways.ethernetip.objects import Identity, Objects
from asperity.runtime.gateways.http.api import date_us
from asperity.runtime.gateways.http.clock_metrics import of_clocks
from asperity.runtime.gateways.http.gateway import HttpGateway
from asperity.runtime.gateways.http.page import Reader, page
from asperity.runtime.gateways.modbus.clock_blocks import ClockBlocks
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.modbus.server import Refusal
from asperity.runtime.gateways.modbus.table import CLOCKS, PLC_TIME, unpack
from asperity.runtime.gateways.opcua.methods import Methods
from asperity.runtime.gateways.opcua.session import CALLER, Client
from asperity.runtime.gateways.opcua.tags import TAGS, data_value, moment
from asperity.runtime.gateways.parts import Parts
from asperity.runtime.gateways.plc_clock import Clocks, PlcClock
from asperity.runtime.wire.clocks import CameraClock, ComputerClock
from asperity.runtime.wire.clocks import Clocks as StationClocks
from tests.runtime.gateways.floor import FakeLink

S = 1_000_000
WALL_S = 1_790_000_000
SAID = StationClocks(
    computer=ComputerClock(synchronised=True, source="chrony", offset_ms=-0.5, error_ms=2.0),
    camera=CameraClock(clock="ptp", offset_ms=38.25, jumps=1),
)


class Time:
    """The gateway's clock."""

    def __init__(self) -> None:
        self.now = Now(0, WALL_S * S + 250_000)

    def __call__(self) -> Now:
        return self.now

    def pass_s(self, s: float) -> None:
        self.now = Now(self.now.ns + round(s * 1000 * MS), self.now.wall_us + round(s * S))


def link() -> FakeLink:
    made = FakeLink()
    assert made.state is not None
    made.state = msgspec.structs.replace(made.state, clocks=SAID)
    return made


def test_an_offset_is_a_figure_that_warns_once_and_expires(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asperity.gateway")
    time = Time()
    plc = PlcClock(Clocks(plc_offset_max_ms=100, plc_silent_s=60), time)
    assert (plc.word, plc.offset_ms, plc.problem) == ("unknown", None, "")
    for ahead_ms, word in ((100, "ok"), (-101, "off"), (-150, "off"), (0, "ok")):
        plc.says(time.now.wall_us + 1000 * ahead_ms, "modbus plc")
        assert (plc.word, plc.offset_ms, bool(plc.problem)) == (word, ahead_ms, word == "off")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    plc.says(time.now.wall_us + 10 * S, "modbus plc")
    time.pass_s(61)
    assert (plc.word, plc.offset_ms, plc.problem) == ("unknown", None, ""), "a clock not heard of is not a wrong one"


def test_registers_show_the_stations_time_and_take_the_plcs() -> None:
    time, linked = Time(), link()
    blocks = ClockBlocks(Clocks(), time)

    def shown() -> dict[str, Any]:
        return unpack(CLOCKS, blocks.show(linked.view()))  # type: ignore[arg-type]

    before = shown()
    assert (before["station_time_s"], before["station_time_ms"]) == (WALL_S, 250)
    assert (before["computer_clock"], before["computer_offset_ms"], before["computer_error_ms"]) == (1, -0.5, 2.0)
    assert (before["camera_clock"], before["camera_offset_ms"], before["plc_clock"]) == (1, 38.25, 0)
    blocks.write([*struct.unpack(">HH", struct.pack(">I", WALL_S + 2)), 500], "modbus plc")
    assert (shown()["plc_clock"], shown()["plc_offset_ms"]) == (2, 2250.0)
    linked.state = None
    assert (shown()["computer_clock"], shown()["camera_clock"], shown()["plc_clock"]) == (0, 0, 2)


def test_a_time_is_written_whole_without_commands_and_asks_nothing_of_the_station() -> None:
    linked = link()
    registers = ModbusRegisters(GatewayConfig(gateway=Gateway(commands=False)), linked)  # type: ignore[arg-type]
    first = PLC_TIME[0].address
    for address, words in ((first, [1, 1]), (first + 2, [5]), (first - 1, [0, 1, 1, 5]), (first, [1, 1, 1000])):
        with pytest.raises(Refusal):
            registers.write(address, words, "plc")
    assert registers.clocks.plc.word == "unknown"
    registers.write(first, [1, 1, 5], "plc")
    assert registers.read(first, 3) == struct.pack(">HHH", 1, 1, 5) and registers.clocks.plc.word == "off"
    registers.write(first, [0, 0, 0], "plc")
    assert registers.clocks.plc.word == "off" and linked.asked == []


def test_over_ethernet_ip_the_time_is_taken_although_a_controller_owns_the_commands() -> None:
    linked = link()
    registers = ModbusRegisters(GatewayConfig(), linked, "ethernetip")  # type: ignore[arg-type]
    objects = Objects(registers, Identity.of("st1", 0), 120, lambda: "a controller", lambda: 0)
    with pytest.raises(CipError):
        objects.write_assembly(TRIGGERED_PART, bytes(TRIGGERED_PART.nbytes), "plc")
    objects.write_assembly(PLC_CLOCK, struct.pack("<IHxx", WALL_S, 500), "plc")
    assert objects.write_status == 0, "what says the outcome of requests is as it was"
    places = {place.row.name: place.offset for place in SHOWN_CLOCKS.places}
    data = objects.read_assembly(SHOWN_CLOCKS)
    assert struct.unpack_from("<f", data, places["camera_offset_ms"]) == (38.25,)
    assert struct.unpack_from("<H", data, places["plc_clock"]) == (2,)
    assert struct.unpack_from("<I", data, places["station_time_s"])[0] > WALL_S - 10 * 365 * 86_400


@pytest.mark.parametrize("operates", [True, False])
def test_over_opc_ua_a_user_who_may_operate_says_the_time(operates: bool) -> None:
    time, linked = Time(), link()
    plc = PlcClock(Clocks(), time)
    methods = Methods(linked, Parts(10), True, lambda: None, plc)  # type: ignore[arg-type]
    at = datetime.fromtimestamp(WALL_S + 1.5, timezone.utc).replace(tzinfo=None)  # as the library hands it on
    CALLER.set(Client(None, "plc", may_operate=operates))
    answer = asyncio.run(methods.set_plc_time(ua.NodeId(), ua.Variant(at, ua.VariantType.DateTime)))
    assert bool(answer.OutputArguments) is operates and linked.asked == []
    now = moment(linked.view(), None, False, True, False, "", plc=plc)
    shown = {tag.name: data_value(tag, now).Value.Value for tag in TAGS}
    assert (shown["PlcClock"], shown["PlcOffsetMs"]) == (("off", 1250.0) if operates else ("unknown", 0.0))
    assert (shown["ClockSynchronised"], shown["ClockOffsetMs"], shown["CameraOffsetMs"]) == (True, -0.5, 38.25)
    if operates:
        nothing = asyncio.run(methods.set_plc_time(ua.NodeId(), ua.Variant()))
        assert nothing.OutputArguments[0].Value == 3


def test_the_date_of_a_command_is_the_middle_of_its_second() -> None:
    assert date_us("Mon, 21 Sep 2026 14:13:20 GMT") == WALL_S * S + 500_000
    for text in ("", "yesterday", "Mon, 99 Sep 2026 14:13:20 GMT"):
        assert date_us(text) is None


def test_page_scrape_and_state_show_the_clocks() -> None:
    linked = link()
    plc = PlcClock(Clocks())
    text = page("st1", linked.view(), [], 2, Reader("", False, timezone.utc), plc).decode()
    assert "synchronised, chrony runs, off by -0.500 ms, error at most 2.000 ms" in text
    assert "ptp, 38.250 ms to arrival at least, jumps 1" in text and "clock of the PLC</th><td>not known" in text
    samples = {sample.name: sample.value for family in of_clocks(SAID, 1500.0) for sample in family.samples}
    assert samples == {
        "asperity_clock_synchronised": 1.0, "asperity_clock_offset_seconds": -0.0005,
        "asperity_clock_error_seconds": 0.002, "asperity_camera_clock_offset_seconds": 0.03825,
        "asperity_camera_clock_jumps_total": 1.0, "asperity_plc_clock_offset_seconds": 1.5,
    }  # fmt: skip
    unknown = [sample.name for family in of_clocks(None, None) for sample in family.samples]
    assert unknown == ["asperity_camera_clock_jumps_total"], "what is not known is not 0"
    gateway = HttpGateway(GatewayConfig(http=Http(), users=Users()), linked)  # type: ignore[arg-type]
    state = msgspec.json.decode(asyncio.run(gateway._api._state(None, None, "")).body)  # type: ignore[arg-type]
    assert state["clocks"]["camera"]["offset_ms"] == 38.25 and state["plc_offset_ms"] is None
