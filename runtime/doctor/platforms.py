"""Desktop or Jetson, and the commands that differ with it."""

from __future__ import annotations

import re
import shlex

from asperity.runtime.doctor.world import World

TEGRA_RELEASE = "/etc/nv_tegra_release"
"""``# R36 (release), REVISION: 4.3, ...``: written by JetPack."""
JETPACK_OF_L4T = {35: 5, 36: 6, 38: 7, 39: 7}
PYTHON_OF_JETPACK = {5: (3, 8), 6: (3, 10), 7: (3, 12)}


def jetpack_of(world: World) -> int | None:
    """The major version of JetPack; None where this is not a Jetson, 0 where it is one that reports no version."""
    release = world.read(TEGRA_RELEASE)
    if release is None:
        model = world.read("/proc/device-tree/model") or ""
        return 0 if "jetson" in model.lower() else None
    number = re.search(r"R(\d+)", release)
    l4t = int(number.group(1)) if number else 0
    return JETPACK_OF_L4T.get(l4t, 7 if l4t > max(JETPACK_OF_L4T) else 0)


def python_of_jetpack(jetpack: int) -> tuple[int, int]:
    """The Python that JetPack's TensorRT is made for; of an unknown JetPack the newest known."""
    return PYTHON_OF_JETPACK.get(jetpack, PYTHON_OF_JETPACK[7])


def in_container(world: World) -> bool:
    """Whether this is a container, whose driver comes from outside."""
    return world.exists("/.dockerenv") or world.exists("/run/.containerenv")


def pip(world: World, *arguments: str) -> str:
    """The command of this very interpreter's pip."""
    return shlex.join([world.python.executable, "-m", "pip", *arguments])
