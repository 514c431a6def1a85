"""Station, camera, gateway and cable in a temporary folder, for ``asperity commission --simulated``."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from asperity.runtime.client.limits import ClientLimits
from asperity.runtime.commissioning import gateway_process
from asperity.runtime.commissioning.cable import Cable
from asperity.runtime.commissioning.line import NotChecked, Witness
from asperity.runtime.engines.simulated import BROKEN_RECIPE, TIMING_RECIPE
from asperity.runtime.errors import GatewayError, StationError
from asperity.runtime.gateways.log_ins.users import new_user, put_user
from asperity.runtime.process.child import Child, of_ours
from asperity.runtime.settings.loading import load
from asperity.runtime.settings.station_toml import SCRIPT_PREFIX, StationConfig
from asperity.runtime.simulation.camera import SimulatedCamera
from asperity.runtime.simulation.inspector_process import RECIPE, StationProcess
from asperity.runtime.simulation.player import Simulation
from asperity.runtime.text.formats import decode_json
from asperity.runtime.wire import Trigger

STATION, CAMERA = "simulated", "simulated-camera"
DEADLINE_MS = 1200
SLOW_MS = 600
"""Of a part that must still be in work when something happens to it. For a crowded machine."""
RATE_HZ = 100.0
TRIGGERS_PENDING = 2
PATIENCE_S = 60.0
HOLD_MS = 600_000
"""Accept falls for the reason that is checked, not because time is up."""
GOOD_RECIPE, FAILING_RECIPE = RECIPE, BROKEN_RECIPE
RECIPES = {GOOD_RECIPE: 1, FAILING_RECIPE: 2}
TRIES = 5
BUFFER_RESULTS = 100
"""A crowded machine may let the PLC acknowledge late; what is dropped then is named, and not shown."""
JUDGES = 8


def station_config(folder: Path) -> StationConfig:
    """A station with the simulated engine and software triggers, all of it in ``folder``."""
    ends = {name: f"ipc://{folder}/{name}" for name in ("frames", "results", "bulk", "control")}
    return load(
        None,
        {
            "station": {"name": STATION, "camera": CAMERA, "triggers": "software"},
            "engine": {"name": "simulated", "script": "ok"},
            "recipes": dict.fromkeys((GOOD_RECIPE, TIMING_RECIPE, FAILING_RECIPE), f"{SCRIPT_PREFIX}ok"),
            "limits": {"deadline_ms": DEADLINE_MS, "queue_length": 16, "engine_faults_max": 1000},
            "triggers": {"pending_max": TRIGGERS_PENDING},
            "journal": {"path": str(folder / "journal")},
            "audit": {"path": str(folder / "audit.jsonl")},
            "log": {"level": "error"},
            "sockets": ends,
        },
    )


class SimulatedLine:
    """As ``line.LineSide``. For one thread, and for a ``with``."""

    simulated = True

    def __init__(self, protocol: str, folder: Path) -> None:
        self._folder, self._protocol = folder, protocol
        self.user: tuple[str, str] | None = None
        """Name and password of one who may operate; None: the protocol has no users."""
        if protocol in ("http", "opcua"):
            self.user = ("commission", secrets.token_urlsafe(16))
            put_user(folder / "users", new_user(self.user[0], "operate", self.user[1]))
        self.config = station_config(folder)
        self.cable = Cable()
        self._stack = ExitStack()
        self._gateway: Child | None = None
        self._gateways = 0
        self._answered: dict[int, Trigger] = {}
        self.gateway_toml = ""

    def __enter__(self) -> SimulatedLine:
        config, stack = self.config, self._stack
        stack.callback(self.cable.close)
        self.inspector = StationProcess(config)
        self.inspector.start()
        stack.callback(self._end_inspector)
        ends, name = config.sockets, config.station.name
        camera = SimulatedCamera(CAMERA, ends.frames, station=name, results_endpoint=ends.results)
        stack.enter_context(closing(camera))
        limits = ClientLimits(request_timeout_ms=2000, patience_ms=60_000)
        self.witness = Witness(ends.results, ends.control, station=name, limits=limits)
        stack.callback(self.witness.close)
        self.player = Simulation(config, self.inspector, camera, self.witness, RATE_HZ)
        self.player.slow = f"ok={SLOW_MS}"
        self.player.await_running()
        self.player.await_triggers()
        return self

    def __exit__(self, *error: object) -> None:
        if self._gateway is not None:
            with suppress(OSError):
                self._gateway.kill()
        self._stack.close()

    def listen(self, timeout_ms: int) -> None:
        """As ``LineSide.listen``."""
        self.player.listen(timeout_ms)

    def place(self, what: str) -> None:
        """As ``LineSide.place``."""

    def expose(self, trigger_id: int, word: str) -> None:
        """As ``LineSide.expose``."""
        trigger = self._trigger(trigger_id)
        self.player.settle()
        self.player.trigger = trigger
        self.player.expose(f"ok={SLOW_MS}" if word == "slow" else word)

    def expose_for_nobody(self, trigger_id: int) -> None:
        """As ``LineSide.expose_for_nobody``."""
        trigger = self._answered.get(trigger_id)
        promise, part_id = (trigger.promise, trigger.part_id) if trigger is not None else (0, "")
        self.player.settle()
        self.player.expose(trigger_id=trigger_id, promise=promise, part_id=part_id)

    def play(self, reason: str) -> None:
        """As ``LineSide.play``."""
        for _ in range(TRIES):
            missed = self.player.summary.missed[reason]
            self.player.play(reason)
            if self.player.summary.missed[reason] == missed:
                return
        raise NotChecked(f"{reason} did not come about in {TRIES} attempts on this machine")

    def stand_still(self) -> None:
        """As ``LineSide.stand_still``."""
        self.inspector.pause(paused=True)

    def go_on(self) -> None:
        """As ``LineSide.go_on``."""
        self.inspector.pause(paused=False)

    def kill_inspector(self) -> None:
        """As ``LineSide.kill_inspector``: what is in work then is in the journal."""
        self.player.await_in_work(1)
        self.inspector.kill()

    def start_inspector(self) -> None:
        """As ``LineSide.start_inspector``."""
        self.player.start_again()

    def kill_gateway(self) -> None:
        """As ``LineSide.kill_gateway``."""
        assert self._gateway is not None
        self._gateway.kill()
        self.cable.target = 0

    def start_gateway(self, **settings: Any) -> None:
        """As ``LineSide.start_gateway``."""
        if self._gateway is not None and self._gateway.poll() is None:
            self.kill_gateway()
        self._gateways += 1
        config, log = self._folder / "gateway.toml", self._folder / f"gateway{self._gateways}.log"
        self.gateway_toml = self._gateway_toml(**settings)
        config.write_text(self.gateway_toml)
        command = of_ours(gateway_process.MODULE, self._protocol, str(config))
        self._gateway = Child(command, log=log, own_session=True)
        ends_s = time.monotonic() + PATIENCE_S
        while not (found := re.findall(r"is served at .*?(\d+)/?$", self._gateway.log(), flags=re.M)):
            if self._gateway.poll() is not None or time.monotonic() > ends_s:
                raise GatewayError(f"the gateway does not serve; its log:\n{self._gateway.log()}")
            self.listen(20)
        self.cable.target = int(found[-1])

    def pull_cable(self) -> None:
        """As ``LineSide.pull_cable``."""
        self.cable.pull()

    def plug_cable(self) -> None:
        """As ``LineSide.plug_cable``."""
        self.cable.plug()

    def audited(self, op: str) -> bool | None:
        """As ``LineSide.audited``."""
        lines = Path(self.config.audit.path).read_bytes().splitlines()
        return any(decode_json(line, dict[str, Any]).get("op") == op for line in lines)

    def repair(self) -> None:
        """As ``LineSide.repair``."""
        self.inspector.pause(paused=False)
        self.cable.plug()
        if not self.inspector.started:
            self.player.start_again()
        state = self.witness.state
        if state is not None and state.state != JUDGES:
            self.player.ask("reset")
            self.player.run_again()
        if self._gateway is None or self._gateway.poll() is not None:
            self.start_gateway()

    @property
    def digest(self) -> str:
        """SHA-256 of the gateway's configuration."""
        return hashlib.sha256(self.gateway_toml.encode()).hexdigest()

    def _trigger(self, trigger_id: int) -> Trigger:
        """What the station published for the camera. Raises StationError."""
        ends_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_s:
            trigger = self.player.next_trigger(20)
            self.listen(0)
            if trigger is not None and trigger.trigger_id == trigger_id:
                self._answered[trigger_id] = trigger
                return trigger
        raise StationError(f"trigger {trigger_id} did not reach the camera")

    def _gateway_toml(self, accept_simulated: bool = True, accept_hold_ms: int = HOLD_MS) -> str:
        station, sockets, folder = self.config.station.name, self.config.sockets, self._folder
        numbers = ", ".join(f'{number} = "{name}"' for name, number in RECIPES.items())
        block = f"recipes = {{ {numbers} }}\nbuffer_results = {BUFFER_RESULTS}\n"
        own = {
            "modbus": block,
            "ethernetip": f"{block}cyclic_max = 0\n",
            "opcua": f'certificate_folder = "{folder}/certificate"\naudit_file = "{folder}/opcua.jsonl"\n',
        }
        users = f'[users]\nfile = "{folder}/users"\n' if self.user is not None else ""
        return (
            f'[station]\nname = "{station}"\nresults = "{sockets.results}"\ncontrol = "{sockets.control}"\n'
            f"[gateway]\naccept_simulated = {str(accept_simulated).lower()}\naccept_hold_ms = {accept_hold_ms}\n"
            f"{users}[{self._protocol}]\nport = 0\n{own.get(self._protocol, '')}"
        )

    def _end_inspector(self) -> None:
        self.inspector.pause(paused=False)
        self.inspector.end()
