"""Digital outputs as a user configures them: on a stand-in of libgpiod, and on a Modbus module that others wrote."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.config import DigitalIo, GatewayConfig
from asperity.runtime.gateways.io.gateway import IoGateway, outputs_of, serve
from asperity.testing import PATIENCE_S, Camera, Line
from asperity.testing.site import free_port
from tests.runtime.gateways.floor import FakeLink, GatewayProcess, result, until
from tests.runtime.gateways.io.io_module import Module

NUMBERS = {"ready": 3, "busy": 4, "accept": 5, "reject": 6, "strobe": 7}


class Chip:
    """``gpiod`` as far as it is used."""

    def __init__(self) -> None:
        self.held = False
        self.lines: dict[int, Any] = {}
        self.seen: list[dict[int, bool]] = []
        self.fails = False
        self.line = SimpleNamespace(
            Direction=SimpleNamespace(OUTPUT="out"), Value=SimpleNamespace(ACTIVE=True, INACTIVE=False)
        )
        self.LineSettings = SimpleNamespace

    def request_lines(self, chip: str, consumer: str, config: dict[int, Any]) -> Chip:
        if chip != "/dev/gpiochip7":
            raise FileNotFoundError(2, "No such file or directory")
        self.held, self.lines = True, config
        return self

    def set_values(self, values: dict[int, bool]) -> None:
        if self.fails:
            raise OSError(5, "Input/output error")
        self.seen.append(dict(values))

    def release(self) -> None:
        self.held = False


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Chip:
    chip = Chip()
    monkeypatch.setitem(sys.modules, "gpiod", chip)  # type: ignore[arg-type]
    return chip


def config(**own: Any) -> DigitalIo:
    given = {"chip": "/dev/gpiochip7", "accept_proof": "toggle", "cycle_ms": 1, "toggle_ms": 5, **NUMBERS, **own}
    return DigitalIo(**given)


async def soon(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.002)

    await asyncio.wait_for(wait(), PATIENCE_S)


def test_lines_follow_the_results_and_are_given_back(chip: Chip) -> None:
    async def play() -> None:
        own, link = config(active_low="reject"), FakeLink()
        gateway = IoGateway(GatewayConfig(io=own), link, outputs_of(own))  # type: ignore[arg-type]
        assert await gateway.open() == "/dev/gpiochip7 lines ready 3, busy 4, accept 5, reject 6, strobe 7"
        assert chip.seen[0] == {3: False, 4: False, 5: False, 6: True, 7: False}
        assert [line for line, settings in chip.lines.items() if settings.active_low] == [6]
        link.put(result(1), result(2, Verdict.NG))
        gateway.refresh()
        await soon(lambda: any(one[5] for one in chip.seen) and any(one[6] and one[7] for one in chip.seen))
        link.good = False
        await soon(lambda: not chip.seen[-1][3])
        assert chip.seen[-1][6] and not chip.seen[-1][5]
        await gateway.close()
        assert not chip.held and chip.seen[-1] == {3: False, 4: False, 5: False, 6: True, 7: False}

    asyncio.run(play())


def test_a_line_that_fails_ends_the_gateway_in_words(chip: Chip) -> None:
    async def play() -> None:
        own = config()
        gateway = IoGateway(GatewayConfig(io=own), FakeLink(), outputs_of(own))  # type: ignore[arg-type]
        await gateway.open()
        chip.fails = True
        assert gateway._cycle is not None
        await soon(gateway._cycle.done)
        with pytest.raises(GatewayError, match="cannot be written"):
            gateway.refresh()
        await gateway.close()
        with pytest.raises(GatewayError, match="gpioinfo"):
            await outputs_of(config(chip="/dev/gpiochip9")).open()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"accept_proof": ""}, "keeps its level when the process is killed"),
        ({"accept_proof": "watchdog"}, "keeps its level when the process is killed"),
        ({"accept_proof": "watchdog", "kind": "modbus"}, "watchdog_register"),
        ({"accept_proof": "toggle", "toggle_ms": 2, "cycle_ms": 5}, "toggle_ms"),
        (dict.fromkeys(NUMBERS, -1), "names no output"),
        ({"busy": 3}, "given to two outputs"),
        ({"active_low": "valve"}, "'valve', which is not one of the outputs"),
        ({"hold_ms": 10}, "less than setup_ms"),
        ({"kind": "modbus", "active_low": "reject"}, "for kind gpio"),
        ({"kind": "modbus", "ready": 9}, "not next to each other"),
    ],
)
def test_what_could_leave_accept_on_or_means_nothing_is_refused(own: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        serve(GatewayConfig(io=config(**own)))


def test_without_accept_no_proof_is_needed(chip: Chip) -> None:
    assert outputs_of(config(accept=-1, accept_proof=""))


@pytest.fixture
def module() -> Iterator[Module]:
    module = Module()
    yield module
    module.close()


@pytest.mark.usefixtures("forked_starts")
def test_a_modules_coils_follow_a_line_until_the_gateway_is_killed(module: Module) -> None:
    names = "".join(f"{name} = {number}\n" for name, number in NUMBERS.items())
    toml = (
        f'[gateway]\naccept_simulated = true\n[io]\nkind = "modbus"\n{names}accept_proof = "watchdog"\n'
        "module_timeout_ms = 10_000\nwatchdog_register = 20\nwatchdog_value = 5\nqueue_max = 1000\n"
        "hold_ms = 5\nsetup_ms = 1\nstrobe_ms = 3\ngap_ms = 3\ncycle_ms = 1\n"
    )
    with Line("ok ng") as line:
        line.start()
        line.await_state(8)
        gateway = GatewayProcess(line, "io", toml, "--port", str(module.port))
        with Camera(line) as camera:
            camera.wait_connected(round(PATIENCE_S * 1000))
            until(lambda: module.coils[-1:] == [[True, False, False, False, False]], "ready")
            line.stream(camera, 10, 10)
            line.settle(camera)
            until(lambda: any(one[2] for one in module.coils) and any(one[3] for one in module.coils), "both verdicts")
            assert not any(one[2] and one[3] for one in module.coils)
            line.kill()
            until(lambda: module.coils[-1][0] is False and module.coils[-1][3] is True, "reject of a dead station")
        gateway.process.kill()
        gateway.process.wait(PATIENCE_S)
        written = len(module.coils)
        assert module.coils[-1][2] is False
        until(lambda: len(module.coils) == written, "the end of writing: the module's watchdog sees it")


def test_a_module_that_keeps_no_watchdog_or_is_not_there_is_refused(module: Module) -> None:
    own = {"kind": "modbus", "accept_proof": "watchdog", "watchdog_register": 20, "module_port": module.port}

    async def play() -> None:
        fine = outputs_of(config(**own, watchdog_value=7))
        await fine.open()
        await fine.close()
        with pytest.raises(GatewayError, match="refused function 6"):
            await outputs_of(config(**{**own, "watchdog_register": 900})).open()
        with pytest.raises(GatewayError, match="does not answer"):
            await outputs_of(config(**{**own, "module_port": free_port()})).open()

    asyncio.run(play())
