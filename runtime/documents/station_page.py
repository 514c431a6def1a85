"""``docs/station.md``, from the types of ``station.toml``."""

from __future__ import annotations

from asperity.runtime.documents.banner import MADE
from asperity.runtime.documents.toml_keys import described
from asperity.runtime.settings.station_toml import StationConfig


def page() -> str:
    """The whole page."""
    return "\n".join(
        [
            "# station.toml",
            "",
            MADE,
            "",
            "Every key may be left out; an unknown one is refused. Flags of `asperity run` override the file;",
            "paths may be relative to it or begin with `~/` ([text files, names and addresses](text-files.md)).",
            "Without a home folder or `XDG_STATE_HOME`: [environment](environment.md).",
            "To copy and edit: [station.toml](../examples/station.toml), for several stations",
            "[stations.toml](../examples/stations.toml), for several views of one part",
            "[views.toml](../examples/views.toml).",
            *described(StationConfig),
            "",
        ]
    )
