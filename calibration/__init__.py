"""Normal frames to numbers: networks, adaptation, memory bank, threshold."""

import atexit
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from asperity import runtime  # noqa: F401 - first: it turns off what a library would send, before that library is loaded
from asperity.runtime.errors import ConfigError
from asperity.runtime.folders import cache_folder


def _cache() -> Path:
    """The user's cache folder; without one that can be written, a folder that goes when the process ends."""
    with contextlib.suppress(ConfigError):
        folder = cache_folder()
        there = next(place for place in (folder, *folder.parents) if os.access(place, os.F_OK))
        if os.access(there, os.W_OK | os.X_OK):
            return folder
    own = tempfile.mkdtemp(prefix="asperity-calibrate-")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return Path(own)


# torch, matplotlib and the fc-list that it calls keep caches in folders of their own: in the user's home, in
# /var/cache, and in /tmp under a name that anybody on the machine can take first. A folder that the user names stays.
if not {"MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"} <= os.environ.keys():
    _CACHE = _cache()
    os.environ.setdefault("MPLCONFIGDIR", str(_CACHE / "matplotlib"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_CACHE / "torch"))
os.environ.setdefault("FONTCONFIG_FILE", str(Path(__file__).with_name("fonts.conf")))
