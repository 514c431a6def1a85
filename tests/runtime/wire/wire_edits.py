"""The golden messages with something in them changed."""

from __future__ import annotations

import json
from typing import Any

from tests.runtime.wire import wire_golden as golden

GOLDEN = golden.load()
JSON_PART = {"request": 0, "reply": 0}


def edited(name: str, **changes: Any) -> list[bytes]:
    """The golden message ``name`` with fields of its JSON changed (``...`` removes one)."""
    parts = list(GOLDEN[name])
    index = JSON_PART.get(name.split("_", maxsplit=1)[0], 1)
    body = json.loads(parts[index]) | changes
    kept = {key: value for key, value in body.items() if value is not ...}
    parts[index] = json.dumps(kept, separators=(",", ":")).encode()
    return parts
