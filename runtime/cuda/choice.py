"""Which nearest-neighbour path a GPU uses for which sizes: tables measured by ``make gpu-bench``, or else a rule.

``choice/<device>.json`` is a ``ChoiceTable``: ``"paths": {"m<=1024,n<=16384,d<=768": "tensor", ...}``.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from asperity.runtime.cuda.device_bank import Path as SearchPath
from asperity.runtime.errors import EngineError
from asperity.runtime.text.formats import TextRefused, decode_json

FOLDER = Path(__file__).resolve().parent / "choice"

M_EDGES = (256, 1024, 4096, 16384, 65536)
N_EDGES = (4096, 16384, 65536, 262144, 1048576)
D_EDGES = (192, 384, 768, 1536)


class ChoiceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One GPU's measured choice."""

    device: str
    measured: str
    """The result file that it comes from."""
    paths: dict[str, SearchPath]


def bucket(m: int, n: int, d: int) -> str:
    """The name of the sizes' bucket: each up to the next edge, ``inf`` beyond the last."""
    return ",".join(
        f"{name}<={next((edge for edge in edges if value <= edge), 'inf')}"
        for name, value, edges in (("m", m, M_EDGES), ("n", n, N_EDGES), ("d", d, D_EDGES))
    )


def file_of(device: str, folder: Path = FOLDER) -> Path:
    """Path of a device's table."""
    return folder / (re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") + ".json")


def choose(device: str, m: int, n: int, d: int, folder: Path = FOLDER) -> SearchPath:
    """The measured path where there is one for this GPU and sizes, else ``tensor``: every supported chip has the cores.

    Raises EngineError where a table is there and cannot be read: a table that is ignored would hide a slow station.
    """
    path = file_of(device, folder)
    if not path.is_file():
        return "tensor"
    try:
        table = decode_json(path.read_bytes(), ChoiceTable)
    except TextRefused as error:
        raise EngineError(
            f"{path.name} is not a table of paths ({error}); generate it again with make gpu-bench"
        ) from error
    if table.device != device:
        raise EngineError(
            f"{path.name} was measured on {table.device}, not on {device}; generate it again with make gpu-bench"
        )
    return table.paths.get(bucket(m, n, d), "tensor")
