"""Open3D as the virtual camera loads it: with the libusb of ``libusb-package`` where the system has none."""

from __future__ import annotations

from runtime.cameras.virtual_open3d import load_open3d

__version__ = load_open3d().__version__
