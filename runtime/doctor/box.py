"""The machine itself: clocks, power, memory, disk, file permissions, and what starts the station."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from asperity.runtime.doctor.findings import CUDA_ONLY, Finding, listed, missing, no_folder, note, ok, warning
from asperity.runtime.doctor.platforms import jetpack_of
from asperity.runtime.doctor.world import World
from asperity.runtime.errors import AsperityError, ConfigError
from asperity.runtime.files import OTHERS_MAY_WRITE
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.reachability import open_to_network, open_to_users

CLOCKSOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
GOOD_CLOCKS = ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page")
"""Read without a call into the kernel; others cost a microsecond each, or jump."""
LOW_MEMORY_BYTES = 2**30
CACHE_BYTES = 4 * 2**30
"""Room for the engines of a few bundles and their timing caches."""
UNIT = "asperity-inspector.service"
UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a station's configuration expects of the machine."""

    station: StationConfig
    journals: tuple[Path, ...] | ConfigError
    """One a station that the process hosts. Here and below an error: there is no such folder."""
    journal_nbytes: int
    """Of each."""
    trust: Path | ConfigError
    """Folder of the keys whose bundles open here."""
    transport: Path | ConfigError
    """Key folder of the clients that may connect."""
    engines: Path | ConfigError
    """The engine cache."""


def check_clock(world: World) -> Finding:
    """Which clock source the kernel uses."""
    source = world.read(CLOCKSOURCE)
    if source is None:
        return note("clock source", "not reported by the kernel")
    if source not in GOOD_CLOCKS:
        return warning(
            "clock source",
            f"{source}: slow to read and not stable on every machine",
            "dmesg | grep -i clocksource  # shows why tsc was rejected; often a BIOS setting",
        )
    return ok("clock source", source)


def check_time(world: World) -> Finding:
    """Whether the wall clock is synchronised: results carry its time, and a camera may claim to share it."""
    seen = world.clock()
    if seen.synchronised is None:
        return note("wall clock", f"not known whether it is synchronised: {seen.why}")
    by = f" ({seen.source} runs)" if seen.source else ""
    if not seen.synchronised:
        return warning(
            "wall clock",
            f"not synchronised{by}: times of results are this computer's own, and no camera's clock can be compared",
            "sudo timedatectl set-ntp true  # or chrony, or ptp4l with phc2sys: docs/clocks.md",
        )
    return ok("wall clock", f"synchronised{by}, off by {seen.offset_ms:.3f} ms, error at most {seen.error_ms:.3f} ms")


def check_power(world: World) -> Finding:
    """CPU frequency: a governor that saves power makes the first frame after a gap late."""
    cores = world.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq")
    governors = sorted({world.read(f"{core}/scaling_governor") or "?" for core in cores})
    if not cores or governors == ["?"]:
        return note("cpu frequency", "not controlled by the kernel here (usual in a virtual machine)")
    now_khz, most_khz = (
        [int(text) for core in cores if (text := world.read(f"{core}/{name}") or "").isdigit()]
        for name in ("scaling_cur_freq", "cpuinfo_max_freq")
    )
    speed = f", {min(now_khz) / 1e6:.1f} of {max(most_khz) / 1e6:.1f} GHz now" if now_khz and most_khz else ""
    found = f"governor {listed(governors)}{speed}"
    if governors != ["performance"]:
        jetson = jetpack_of(world) is not None
        remedy = "sudo nvpmodel -m 0 && sudo jetson_clocks" if jetson else "sudo cpupower frequency-set -g performance"
        return warning("cpu frequency", found, remedy)
    return ok("cpu frequency", found)


def check_processors(world: World) -> Finding:
    """How many processors this process may use; the engine starts as many threads."""
    seen = world.processors()
    limits = [f"{seen.allowed} by its affinity"] if seen.allowed < seen.there else []
    limits += [f"{seen.quota:g} by the quota of its control group"] if seen.quota is not None else []
    found = f"{seen.there}, of which this process may use {seen.usable}" + (f" ({listed(limits)})" if limits else "")
    if seen.quota is not None and seen.quota < 1:
        return warning(
            "processors", f"{found}: it is stopped for part of each period, and frames are late",
            "set CPUQuota= of the service, or --cpus of the container, to 100 % of one processor or more",
        )  # fmt: skip
    return ok("processors", found) if seen.usable == seen.there else note("processors", found)


def check_memory(world: World) -> Finding:
    """How much memory is free now."""
    values = {}
    for line in (world.read("/proc/meminfo") or "").splitlines():
        key, _, text = line.partition(":")
        if text.split()[:1] and text.split()[0].isdigit():
            values[key] = int(text.split()[0]) * 1024
    if "MemAvailable" not in values:
        return note("memory", "not reported by the kernel")
    available, total = values["MemAvailable"], values.get("MemTotal", 0)
    limit = world.read("/sys/fs/cgroup/memory.max")
    used = world.read("/sys/fs/cgroup/memory.current")
    group = ""
    if limit and limit.isdigit():
        room = int(limit) - (int(used) if used and used.isdigit() else 0)
        available, group = min(available, max(room, 0)), f", this control group at most {int(limit) / 2**30:.1f} GiB"
    found = f"{available / 2**30:.1f} GiB of {total / 2**30:.1f} GiB free{group}"
    if available < LOW_MEMORY_BYTES:
        return warning(
            "memory", f"{found}: a recipe change needs memory for two", "free  # and stop what is not needed"
        )
    return ok("memory", found)


def check_journal(world: World, setting: Setting) -> Finding:
    """Room for the journals, which are taken whole at their first start."""
    if isinstance(setting.journals, ConfigError):
        return no_folder("journal", setting.journals)
    to_make = []
    for path in setting.journals:
        folder = shlex.quote(str(path.parent))
        if not world.may_write(str(path)):
            found = f"{path} cannot be written by uid {world.uid()}"
            return missing("journal", found, f"sudo chown {world.uid()} {folder}")
        if not world.exists(str(path)):
            to_make.append(path)
    names = ", ".join(str(path) for path in setting.journals)
    if not to_make:
        return ok("journal", f"{names}: there")
    need, free = len(to_make) * setting.journal_nbytes, world.free_bytes(str(to_make[0]))
    found = f"{names}, to be made: {need / 1e6:.1f} MB of {free / 1e9:.1f} GB free"
    if free < need:
        remedy = (
            f"df -h {shlex.quote(str(to_make[0].parent))}  # free some space, or set [journal] slots or path in "
            "station.toml"
        )
        return missing("journal", found, remedy)
    return ok("journal", found)


def check_sockets(setting: Setting) -> Finding:
    """Who besides the station's own clients could reach its sockets."""
    keys = "asperity keys new --client NAME --role ROLE  # for each client; then [security] curve = true"
    try:
        network, users = open_to_network(setting.station), open_to_users(setting.station)
    except ConfigError as error:
        return no_folder("sockets", error)
    if network:
        return warning("sockets", network, keys)
    if users:
        return note("sockets", users, keys)
    return ok("sockets", "CURVE" if setting.station.security.curve else "files of one user (ipc)")


def check_keys(world: World, setting: Setting) -> Finding:
    """Trusted keys and transport keys, read as a station reads them: who else may touch them is an error there."""
    from asperity.runtime.security.curve_keys import ClientKeys
    from asperity.runtime.security.signing_keys import TrustStore

    if isinstance(setting.trust, ConfigError):
        return no_folder("keys", setting.trust)
    if isinstance(setting.transport, ConfigError):
        return no_folder("keys", setting.transport)
    if not world.exists(str(setting.trust)):
        return note("keys", f"no {setting.trust}: the first calibration creates one", "asperity keys trust KEYFILE")
    try:
        store, clients = TrustStore(setting.trust), ClientKeys(setting.transport)
        trusted, signs, allowed = store.trusted(), store.signing_key() is not None, clients.allowed()
        if world.exists(str(clients.folder / "station.key")):
            clients.station()
    except AsperityError as error:
        return missing("keys", str(error), _last_command(str(error)))
    found = f"{setting.trust}: {len(trusted)} trusted, {len(allowed)} clients, {'signs' if signs else 'does not sign'}"
    if not trusted:
        return note("keys", found, "asperity keys trust KEYFILE  # before a bundle made elsewhere opens")
    return ok("keys", found)


def check_engine_cache(world: World, setting: Setting) -> Finding:
    """Engines are executable code: nobody else may write to their folder."""
    if isinstance(setting.engines, ConfigError):
        return no_folder("engine cache", setting.engines, CUDA_ONLY)
    where = str(setting.engines)
    if not world.may_write(where):
        folder = shlex.quote(where)
        return missing(
            "engine cache", f"{where} cannot be written by uid {world.uid()}", f"sudo chown -R {world.uid()} {folder}",
            CUDA_ONLY,
        )  # fmt: skip
    for path in [where, *world.glob(f"{where}/*"), *world.glob(f"{where}/*/*")]:
        seen = world.mode(path)
        if seen is None:
            continue
        mode, owner = seen
        if owner != world.uid():
            remedy = f"sudo chown -R {world.uid()} {shlex.quote(where)}"
            return missing(
                "engine cache", f"{path} belongs to uid {owner}, who could put code into it", remedy, CUDA_ONLY
            )
        if mode & OTHERS_MAY_WRITE:
            return missing(
                "engine cache", f"{path} has mode {mode:04o}: other users could put code into it",
                f"chmod -R go-w {shlex.quote(where)}", CUDA_ONLY,
            )  # fmt: skip
    free = world.free_bytes(where)
    found = f"{where}, {free / 1e9:.1f} GB free" + ("" if world.exists(where) else ", to be made")
    if free < CACHE_BYTES:
        remedy = f"df -h {shlex.quote(where)}  # or set XDG_CACHE_HOME to a larger disk"
        return warning("engine cache", found, remedy)
    return ok("engine cache", found)


def check_systemd(world: World) -> Finding:
    """Whether systemd restarts the station."""
    install = f"sudo cp deploy/systemd/{UNIT} {UNIT_FOLDERS[0]}/ && sudo systemctl daemon-reload"
    enable = "sudo systemctl enable --now asperity-inspector"
    place = next((f"{folder}/{UNIT}" for folder in UNIT_FOLDERS if world.exists(f"{folder}/{UNIT}")), None)
    if place is None:
        return note(
            "supervisor",
            "no systemd unit: the station is not restarted automatically",
            f"{install} && {enable}  # in a checkout; user, keys and configuration first: docs/service.md",
        )
    state = world.say("systemctl", "show", UNIT, "--property=UnitFileState,ActiveState", "--value")
    words = state.split() if state else []
    if "disabled" in words:
        return warning("supervisor", f"{place}, not enabled: the station does not start with the computer", enable)
    return ok("supervisor", f"{place}{', ' + ' '.join(words) if words else ''}")


def _last_command(sentence: str) -> str:
    """The command that an error's sentence names between backquotes; the sentence itself where it names none."""
    parts = sentence.split("`")
    return parts[-2] if len(parts) > 2 else sentence
