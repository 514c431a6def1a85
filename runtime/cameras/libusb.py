"""libusb for SDKs that link against it: the system's, else the one in PyPI's ``libusb-package``."""

from __future__ import annotations

import ctypes
from importlib import util
from pathlib import Path

from asperity.runtime.errors import CameraError

LIBUSB = "libusb-1.0.so.0"


def load_libusb(needed_by: str) -> None:
    """Load the library before the SDK is imported: once in the process, the SDK finds it under its own name.

    Raises CameraError with the remedy when there is none.
    """
    try:
        ctypes.CDLL(LIBUSB, mode=ctypes.RTLD_GLOBAL)
        return
    except OSError:
        spec = util.find_spec("libusb_package")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        library = Path(folder) / "libusb-1.0.so"
        if library.exists():
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            return
    raise CameraError(
        f"{needed_by} needs {LIBUSB}, which is missing; install Debian's libusb-1.0-0 or libusb-package"
    )
