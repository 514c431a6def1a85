"""Results that an earlier run of the inspector still owed, published at the start of the next."""

from __future__ import annotations

from dataclasses import replace

from asperity.runtime import wire
from asperity.runtime.errors import WireError
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.reasons import Reason
from asperity.runtime.records.journal import Entry, Journal
from asperity.runtime.records.ledger import Ledger, Sequence

_NOT_COUNTED = frozenset({Reason.WRONG_CAMERA, Reason.DUPLICATE_SEQ, Reason.SEQ_JUMP, Reason.CAMERA_CONFLICT})
"""Reasons of results whose ``seq`` the ledger did not continue from."""


def settle_past(journal: Journal, ledger: Ledger, sequence: Sequence) -> list[Result]:
    """Answer every owed entry and promise as it says (unknown, RESTARTED), count it, and restore the camera's seq.

    Returns the results to be published. Raises WireError where a payload was written by another version.
    """
    entries = list(journal.entries())
    results = {entry.result_id: read_result(journal, entry) for entry in entries}
    _restore(sequence, results)
    settled = []
    for entry in entries:
        if entry.owed:
            ledger.receive()
            journal.answer(entry.result_id, entry.payload)
            settled.append(results[entry.result_id])
    for number, promise in journal.promises().items():
        result = read_result(journal, promise)
        kept = any(
            later.trigger_id == result.trigger_id
            for result_id, later in results.items()
            if result_id >= promise.result_id
        )
        if not kept:
            ledger.lose()
            result = replace(result, result_id=journal.reserve())
            journal.answer(result.result_id, wire.encode_result_body(result))
            settled.append(result)
        journal.redeem(number)
    for result in settled:
        ledger.settle(result)
    return settled


def _restore(sequence: Sequence, results: dict[int, Result]) -> None:
    """Go through the frames again as they were counted, in order of admission."""
    for _, result in sorted(results.items()):
        if result.camera_session == "" or result.reason in _NOT_COUNTED:
            continue
        if result.reason is Reason.REFUSED_MESSAGE:
            sequence.refused(result.camera_session, result.seq)
        else:
            sequence.restore(result.camera_session, result.seq, lost=result.reason is Reason.LOST)


def read_result(journal: Journal, entry: Entry) -> Result:
    """What an entry says. Raises WireError where another version wrote it."""
    try:
        found = wire.decode_result_body(entry.payload)
    except WireError as error:
        raise WireError(
            f"journal {journal.path} holds a result that this version cannot read ({error}); run the version that "
            "wrote it once more, then this one, or move the file away and set [journal] first_id"
        ) from error
    fields = {name: getattr(found, name) for name in Result.__dataclass_fields__}
    if found.verdict is Verdict.UNKNOWN:
        return Result(**{**fields, "score": None, "threshold": None})
    return Result(**fields)
