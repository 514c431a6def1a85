"""Tables of ``station.toml`` about what parts are called."""

from __future__ import annotations

from typing import Annotated

from asperity.runtime.settings.toml_tables import Section, number
from asperity.runtime.text.part_identity import BATCH_TEXT_MAX_NBYTES


class Parts(Section, frozen=True, forbid_unknown_fields=True):
    """What triggers may say of a part besides its id (docs/wire.md, Part identity)."""

    text_max_nbytes: Annotated[
        int, number(1, BATCH_TEXT_MAX_NBYTES, "longest lot, order or shift, bytes of UTF-8; a longer one is REFUSED")
    ] = BATCH_TEXT_MAX_NBYTES
