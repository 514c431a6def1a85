"""Normal frames to numbers: networks, adaptation, memory bank, threshold."""

import contextlib
import os
from pathlib import Path

from asperity import runtime  # noqa: F401 - first: it turns off what a library would send, before that library is loaded
from asperity.runtime.errors import ConfigError
from asperity.runtime.folders import cache_folder

# torch, matplotlib and the fc-list that it calls keep caches in folders of their own: in the user's home, in
# /var/cache, and in /tmp under a name that anybody on the machine can take first. A folder that the user names stays.
with contextlib.suppress(ConfigError):  # a user without a home folder
    _CACHE = cache_folder()
    os.environ.setdefault("MPLCONFIGDIR", str(_CACHE / "matplotlib"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_CACHE / "torch"))
os.environ.setdefault("FONTCONFIG_FILE", str(Path(__file__).with_name("fonts.conf")))
