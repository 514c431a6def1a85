"""The table ``[clocks]`` of ``station.toml``."""

from __future__ import annotations

from typing import Annotated

from asperity.runtime.settings.toml_tables import Section, number, text


class Clocks(Section, frozen=True, forbid_unknown_fields=True):
    """When the alarm `CLOCK` is shown (docs/clocks.md); no good result depends on it."""

    require_synchronised: Annotated[
        bool, text("alarm unless the kernel reports that this computer's clock is synchronised")
    ] = False
    offset_max_ms: Annotated[
        float,
        number(0.001, 60_000, "alarm when more than this is left to correct of a clock that must be synchronised"),
    ] = 20.0
    look_s: Annotated[int, number(1, 3600, "the kernel is asked about this computer's clock this often")] = 10
    window_s: Annotated[
        int, number(1, 3600, "the camera's clock is measured by the frames of this time, and those of as long before")
    ] = 60
