"""A station's counters: counted with each result, kept in a file, published, reset on request. Part of the I/O thread.

Whatever happens to the file, results are judged, answered and counted on; the alarm COUNTERS says that a restart would
lose them.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from asperity.runtime import wire
from asperity.runtime.clock import MS, Now
from asperity.runtime.errors import WireError
from asperity.runtime.frame import Result
from asperity.runtime.records.counters import CounterFile, Kept, Tallies
from asperity.runtime.records.journal import Journal
from asperity.runtime.records.recovery import read_result
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.inspector_sockets import InspectorSockets
from asperity.runtime.text.part_identity import NO_BATCH, Batch

SHARE_OF_RING = 4
"""The file is written after a fourth of the journal's ring at the latest: what is not in it is still in the journal."""


class Counting:
    """The counters of one station, and the lot, order and shift that were set for it."""

    def __init__(
        self, config: StationConfig, session: str, journal: Journal, sockets: InspectorSockets, now: Now
    ) -> None:
        self.batch: Batch = NO_BATCH
        """What the parts belong to whose trigger does not say."""
        self.problem = ""
        """Why a restart would lose counts; empty: it would not."""
        self._config = config.counters
        self._station = config.station.name
        self._session = session
        self._journal = journal
        self._sockets = sockets
        self._tallies = Tallies(config.counters.rows_max, now.wall_us)
        self._file = CounterFile(journal.path.with_name(f"{journal.path.name}.counters"))
        self._save_after = max(1, config.journal.slots // SHARE_OF_RING)
        self._unsaved = 0  # results counted since the file was written
        self._changed = False  # anything that the file does not have
        self._news = True  # anything that was not published
        self._save_due_ns = self._publish_due_ns = 0

    def begin(self) -> None:
        """Take over what earlier runs counted. Before what they owe is settled."""
        try:
            kept = self._file.read()
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            self.problem = f"what was counted before cannot be read ({error}); counting starts at 0"
            kept = None
        self._changed = True
        if kept is None:
            return
        self.batch = kept.of_station
        self._tallies.take_over(kept.counters)
        for entry in self._journal.entries():
            if not entry.owed and not kept.counts(entry.result_id):
                self._tallies.count(read_result(self._journal, entry))

    def count(self, result: Result) -> None:
        """A result that is published."""
        self._tallies.count(result)
        self._unsaved += 1
        self._changed = self._news = True

    def set_batch(self, batch: Batch) -> None:
        """For the parts from now on; kept at once."""
        self.batch, self._changed, self._save_due_ns = batch, True, 0

    def reset(self, now: Now) -> wire.Counters:
        """From 0 again. What had been counted."""
        before = self.message()
        self._tallies.reset(now.wall_us)
        self._changed = self._news = True
        self._save_due_ns = self._publish_due_ns = 0
        return before

    def message(self) -> wire.Counters:
        """As it is published."""
        return self._tallies.message(self._station, self._session)

    def look(self, now: Now, pending: Collection[int]) -> None:
        """Write and publish what is due. ``pending``: ids that were given and have no result yet."""
        if self._changed and (now.ns >= self._save_due_ns or self._unsaved >= self._save_after):
            self._save_due_ns = now.ns + self._config.save_ms * MS
            self.save(pending)
        if now.ns >= self._publish_due_ns:
            # Without news too, for a receiver that joins.
            wait_ms = self._config.publish_ms if self._news else 5 * self._config.publish_ms
            self._publish_due_ns, self._news = now.ns + wait_ms * MS, False
            self._publish()

    def save(self, pending: Collection[int]) -> None:
        """Write the file; what fails is an alarm and tried again."""
        kept = Kept(self.message(), self._journal.last_id, tuple(pending), self.batch)
        try:
            self._file.write(kept)
        except OSError as error:
            self.problem = f"{self._file.path} cannot be written ({error.strerror or error})"
            self._unsaved = 0  # not again before it is due
            return
        self.problem, self._unsaved, self._changed = "", 0, False

    def close(self, pending: Collection[int]) -> None:
        """At the end."""
        if self._changed:
            self.save(pending)
        self._file.close()

    def _publish(self) -> None:
        try:
            self._sockets.publish(wire.encode_counters(self.message()))
        except WireError as error:
            self.problem = str(error)
