"""One commissioning from the first row to the signed protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone

from msgspec.structs import replace

from asperity import runtime
from asperity.runtime.commissioning.line import state_of
from asperity.runtime.commissioning.protocol import Document, RowOutcome
from asperity.runtime.commissioning.questions import Questions
from asperity.runtime.commissioning.walk import Row, Walk
from asperity.runtime.text.names import host_name


def walk_through(
    walk: Walk, rows: Iterable[Row], questions: Questions, report: Callable[[RowOutcome], None]
) -> tuple[RowOutcome, ...]:
    """Every row in turn; ``report`` is called after each."""
    outcomes = []
    for row in rows:
        questions.begin(row.title)
        outcome = replace(walk.do(row), answers=questions.answered())
        outcomes.append(outcome)
        report(outcome)
    return tuple(outcomes)


def document(
    walk: Walk, outcomes: tuple[RowOutcome, ...], protocol: str, gateway: str, config_sha256: str, answered_by: str
) -> Document:
    """What there is to sign."""
    state = state_of(walk.line)
    engine = state.engine
    return Document(
        asperity=runtime.__version__,
        protocol=protocol,
        gateway=gateway,
        gateway_config_sha256=config_sha256,
        simulated=walk.line.simulated,
        station=state.station,
        recipe=state.recipe,
        bundle=state.bundle,
        engine=f"{engine.name} on {engine.device}, {engine.precision}" if engine is not None else "",
        answered_by=answered_by,
        computer=host_name(),
        began=outcomes[0].began if outcomes else "",
        ended=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        rows=outcomes,
    )
