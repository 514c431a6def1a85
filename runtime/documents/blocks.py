"""Tables between two marks in a page that people write: ``<!-- made: NAME -->`` ... ``<!-- end -->``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from asperity.runtime.errors import DataError

_BLOCK = re.compile(r"(<!-- made by `make documents`: ([a-z]+) -->\n).*?(<!-- end -->)", re.S)


def filled(page: str, blocks: Mapping[str, Callable[[], list[str]]]) -> str:
    """``page`` with every block generated again. Raises DataError unless it has each block exactly once."""
    found = [match[2] for match in _BLOCK.finditer(page)]
    if sorted(found) != sorted(blocks):
        raise DataError(f"the page has the blocks {', '.join(found)}; it must have {', '.join(blocks)}, each once")
    return _BLOCK.sub(lambda match: match[1] + "\n".join(blocks[match[2]]()) + "\n" + match[3], page)
