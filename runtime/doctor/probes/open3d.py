"""Open3D as the virtual camera loads it: with the libusb of ``libusb-package`` where the system has none."""

from __future__ import annotations

from asperity.runtime.cameras.virtual.open3d_scene import load_open3d

__version__ = load_open3d().__version__
