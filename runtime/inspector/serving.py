"""The inspector as a process: opens journals and sockets, serves until it is asked to stop."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType

from threadpoolctl import threadpool_limits

from asperity.runtime.inspector.desk import Inspector
from asperity.runtime.judging.served_bundles import begin
from asperity.runtime.process import early_signals
from asperity.runtime.records.journal import Journal
from asperity.runtime.settings.combined_stations import combining
from asperity.runtime.settings.paths import journal_path
from asperity.runtime.settings.station_toml import StationConfig, hosted
from asperity.runtime.sockets.inspector_sockets import InspectorSockets


def inspect(config: StationConfig, first_recipes: Sequence[str]) -> None:
    """The inspector of the process's stations until it is asked to stop. For the main thread. Raises AsperityError.

    ``first_recipes``: one a station, in the order of the file; empty: it waits for ``prepare_recipe``.
    """
    # The small products outside the engine (maps) lose more to waking a thread pool than they gain; an engine takes the
    # threads it wants while it scores.
    threadpool_limits(limits=1, user_api="blas")
    configs = hosted(config)
    with ExitStack() as stack:
        journals: list[Journal] = []
        for each in [*configs, *(combining(config, combined) for combined in config.combined)]:
            if len(journals) < len(configs):
                begin(each)
            journals.append(
                Journal.open(
                    journal_path(each),
                    each.station.name,
                    slots=each.journal.slots,
                    first_id=each.journal.first_id,
                    reserve_ids=each.journal.reserve_ids,
                )
            )
            stack.callback(journals[-1].close)
        sockets = InspectorSockets(config)
        stack.pop_all()  # from here on they are the inspector's to close
    own = len(configs)
    inspector = Inspector(configs, journals[:own], sockets, combined_journals=journals[own:])

    def end(number: int, frame: FrameType | None) -> None:
        inspector.ending = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if early_signals.told():
        inspector.ending = True
    inspector.run(first_recipes)
