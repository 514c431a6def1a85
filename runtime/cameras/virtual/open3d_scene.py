"""Open3D, imported late: the virtual camera is the only place in ``runtime`` that may need it."""

from __future__ import annotations

from importlib import import_module, util
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.libusb import load_libusb
from asperity.runtime.errors import CameraError
from asperity.runtime.extras import install
from asperity.runtime.frame import BoolArray, FloatArray


def load_open3d() -> ModuleType:
    """The ``open3d`` module. Its import needs libusb: the system's, else the one in PyPI's ``libusb-package``.

    Raises CameraError with the remedy when either is missing.
    """
    if util.find_spec("open3d") is None:
        raise CameraError(f"the virtual camera needs open3d, which is not installed; {_remedy()}")
    load_libusb("open3d")
    try:
        return import_module("open3d")
    except (ImportError, OSError) as error:
        raise CameraError(f"open3d is installed but does not load ({error}); {_remedy()}") from error


def _remedy() -> str:
    return f"with Python 3.11 or newer install it with: {install('calibrate')}"


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
