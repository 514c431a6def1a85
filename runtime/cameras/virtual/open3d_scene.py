"""Open3D, imported late: the virtual camera is the only place in ``runtime`` that may need it."""

from __future__ import annotations

import ctypes
from importlib import import_module, util
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import CameraError
from asperity.runtime.extras import install
from asperity.runtime.frame import BoolArray, FloatArray

LIBUSB = "libusb-1.0.so.0"


def load_open3d() -> ModuleType:
    """The ``open3d`` module. Its import needs libusb: the system's, else the one in PyPI's ``libusb-package``.

    Raises CameraError with the remedy when either is missing.
    """
    if util.find_spec("open3d") is None:
        raise CameraError(f"the virtual camera needs open3d, which is not installed; {_remedy()}")
    try:
        ctypes.CDLL(LIBUSB, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        _load_packaged_libusb()
    try:
        return import_module("open3d")
    except (ImportError, OSError) as error:
        raise CameraError(f"open3d is installed but does not load ({error}); {_remedy()}") from error


def _remedy() -> str:
    return f"with Python 3.11 or newer install it with: {install('calibrate')}"


def _load_packaged_libusb() -> None:
    """Load the library by its path: once in the process, open3d finds it under its own name."""
    spec = util.find_spec("libusb_package")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        library = Path(folder) / "libusb-1.0.so"
        if library.exists():
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            return
    raise CameraError(f"open3d needs {LIBUSB}, which is missing; install Debian's libusb-1.0-0 or libusb-package")


class Scene:
    """Triangles that rays can meet (Embree, on all cores; results do not depend on their number)."""

    def __init__(self, vertices: FloatArray, triangles: NDArray[np.uint32]) -> None:
        """``vertices`` (V, 3) f4 mm, ``triangles`` (T, 3) u4."""
        self._o3d = load_open3d()
        self._scene = self._o3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(self._o3d.core.Tensor(vertices), self._o3d.core.Tensor(triangles))

    def cast(self, rays: FloatArray) -> tuple[FloatArray, NDArray[np.uint32], FloatArray]:
        """First hits of rays (..., 6): multiples of their direction (inf: none), triangle, facet normal."""
        hits = self._scene.cast_rays(self._o3d.core.Tensor(rays))
        return hits["t_hit"].numpy(), hits["primitive_ids"].numpy(), hits["primitive_normals"].numpy()

    def blocked(self, rays: FloatArray, near: float, far: float) -> BoolArray:
        """Whether anything blocks rays (..., 6) between ``near`` and ``far`` multiples of their direction."""
        blocked: BoolArray = self._scene.test_occlusions(self._o3d.core.Tensor(rays), near, far).numpy()
        return blocked
