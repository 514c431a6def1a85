"""Tables of ``station.toml`` about what parts are called."""

from __future__ import annotations

from typing import Annotated

from asperity.runtime.settings.toml_tables import Section, number
from asperity.runtime.text.part_identity import BATCH_TEXT_MAX_NBYTES
from asperity.runtime.wire.counters import MAX_COUNTER_ROWS


class Parts(Section, frozen=True, forbid_unknown_fields=True):
    """What triggers may say of a part besides its id (docs/wire.md, Part identity)."""

    text_max_nbytes: Annotated[
        int, number(1, BATCH_TEXT_MAX_NBYTES, "longest lot, order or shift, bytes of UTF-8; a longer one is REFUSED")
    ] = BATCH_TEXT_MAX_NBYTES


class Counters(Section, frozen=True, forbid_unknown_fields=True):
    """What is counted of results until `reset_counters` (docs/wire.md, Counters); no verdict depends on it."""

    rows_max: Annotated[
        int,
        number(
            1,
            MAX_COUNTER_ROWS,
            "combinations of recipe, lot and shift that have counts of their own; the one counted longest ago joins "
            "`other`",
        ),
    ] = 64
    publish_ms: Annotated[
        int, number(100, 60_000, "published at most this often, and after 5 times this in any case")
    ] = 1000
    save_ms: Annotated[
        int, number(100, 600_000, "kept in `NAME.journal.counters` next to the journal at most this often")
    ] = 5000
