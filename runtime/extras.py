"""What the extras of pyproject.toml stand for, as a command: no package index has Asperity itself."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, requires

_OF_EXTRA = re.compile(r"""(?:^|\band )\s*extra == ["']([\w-]+)["']""")
_OWN = re.compile(r"asperity\[([\w,-]+)\]")


def requirements(*extras: str) -> list[str]:
    """The requirements of the extras, as the installed package states them; from a bare checkout ``.[EXTRA]``."""
    try:
        stated = requires("asperity") or []
    except PackageNotFoundError:
        stated = []
    found: list[str] = []
    for line in stated:
        package, _, marker = (part.strip() for part in line.partition(";"))
        of_extra = _OF_EXTRA.search(marker)
        if of_extra is None or of_extra[1] not in extras:
            continue
        if own := _OWN.fullmatch(package):
            found += requirements(*own[1].split(","))
        else:
            rest = _OF_EXTRA.sub("", marker).strip()
            found.append(f"{package}; {rest}" if rest else package)
    return list(dict.fromkeys(found)) or [f".[{','.join(extras)}]"]


def install(*extras: str, only: str = "") -> str:
    """The command that adds what the extras stand for to the environment that runs; ``only``: of them this package."""
    found = requirements(*extras)
    alone = [line for line in found if only and re.match(rf"{only}\b(?!-)", line)]
    return shlex.join([sys.executable, "-m", "pip", "install", *(alone or found)])
