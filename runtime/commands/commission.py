"""`asperity commission`: the acceptance of a station and its gateway, row by row, with a signed protocol."""

from __future__ import annotations

import getpass
import hashlib
import tempfile
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from asperity.runtime.commissioning.protocol import Document, RowOutcome
    from asperity.runtime.commissioning.walk import Row, Walk

HELP = "Check a station as the PLC sees it, and sign a protocol."
app = typer.Typer(name="commission", help=HELP, invoke_without_command=True)
PATIENT_S = 60.0
PATIENT_OPCUA_S = 5.0
"""The library does not notice that the other end is gone."""
SIMULATED_FALL_S = 30.0
"""At a simulated line times are reported and not judged: it may share its computer."""


class ProtocolName(str, Enum):
    """What the PLC speaks."""

    MODBUS = "modbus"
    ETHERNETIP = "ethernetip"
    OPCUA = "opcua"
    HTTP = "http"


class Ask(str, Enum):
    """Who answers questions."""

    PERSON = "person"
    NONE = "none"


@app.callback()
def commission(
    context: typer.Context,
    protocol: Annotated[ProtocolName, typer.Option(help="What the PLC speaks.")] = ProtocolName.MODBUS,
    gateway: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of the gateway, needed without --simulated; default: none."),
    ] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Start a simulated station and the gateway for this; no questions.")
    ] = False,
    station: Annotated[
        str | None,
        typer.Option(help="Name of the station; default: that of the gateway.toml, or st1."),
    ] = None,
    results: Annotated[
        str | None,
        typer.Option(help="The inspector's results socket; default: that of the gateway.toml."),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(help="The inspector's control socket; default: that of the gateway.toml."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The gateway's gateway.toml: its station, its recipes; default: none.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="With CURVE: client key with the roles read and operate; default: none."),
    ] = None,
    failing_recipe: Annotated[
        str | None, typer.Option(help="A recipe of the station that does not open, for the row recipe; default: none.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="User of the OPC UA or HTTP gateway with the role operate; default: none."),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(help="File that contains only that user's password; default: none."),
    ] = None,
    timeout_ms: Annotated[
        int, typer.Option(min=50, max=60_000, help="The PLC's own timeout for an answer of the gateway.")
    ] = 1000,
    ask: Annotated[
        Ask, typer.Option(help="Who does and sees what a program cannot; none: such rows are not checked.")
    ] = Ask.PERSON,
    who: Annotated[str | None, typer.Option(help="Who answers, for the protocol; default: this user.")] = None,
    row: Annotated[
        list[str] | None, typer.Option(help="Check this row only; repeatable. The others are then not checked.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The signed protocol; its page for people ends with .md.")
    ] = Path("commissioning.json"),
) -> None:
    """Check a station as the PLC sees it, and sign a protocol.

    Plays the PLC towards the gateway, row by row, and compares with what the station itself reports. A row that was
    not checked is not passed.
    """
    if context.invoked_subcommand is not None:
        return
    from asperity.runtime.commissioning.commissioning import document, walk_through
    from asperity.runtime.commissioning.questions import Questions
    from asperity.runtime.errors import UsageError
    from asperity.runtime.security.signing_keys import TrustStore

    if simulated == (gateway is not None):
        raise UsageError("give --gateway HOST:PORT, or --simulated")
    output = output.with_suffix(".json") if not output.suffix else output
    signing = TrustStore().key_for_signing()
    rows = _chosen(row)
    person = ask is Ask.PERSON and not simulated
    questions = Questions((lambda text: str(typer.prompt(text, default="", show_default=False))) if person else None)
    with ExitStack() as stack:
        if simulated:
            walk, where, digest = _simulated(stack, protocol.value, timeout_ms / 1000)
        else:
            assert gateway is not None
            walk, where, digest = _real(
                stack, protocol.value, gateway, (station, results, control), config, key, (user, password_file),
                timeout_ms / 1000, questions,
            )  # fmt: skip
            walk.failing_recipe = failing_recipe or ""
        outcomes = walk_through(walk, rows, questions, _say)
        answered_by = (who or getpass.getuser()) if person else ""
        made = document(walk, outcomes, protocol.value, where, digest, answered_by)
    _write(made, signing, output)
    _judge(made, output)


def _simulated(stack: ExitStack, protocol: str, timeout_s: float) -> tuple[Walk, str, str]:
    from asperity.runtime.commissioning.plc import Plc
    from asperity.runtime.commissioning.protocols import side_of
    from asperity.runtime.commissioning.simulated import FAILING_RECIPE, GOOD_RECIPE, RECIPES, SimulatedLine
    from asperity.runtime.commissioning.walk import Limits, Walk

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="asp-")))
    line = stack.enter_context(SimulatedLine(protocol, folder))
    line.start_gateway()
    patient_s = PATIENT_OPCUA_S if protocol == "opcua" else PATIENT_S
    side = side_of(protocol, "127.0.0.1", line.cable.port, patient_s, RECIPES, line.user)
    plc = Plc(side)
    plc.start()
    stack.callback(plc.close)
    walk = Walk(plc, line, Limits(fall_s=SIMULATED_FALL_S), timeout_s, GOOD_RECIPE, FAILING_RECIPE)
    return walk, "started for this", line.digest


def _real(
    stack: ExitStack,
    protocol: str,
    gateway: str,
    ends: tuple[str | None, str | None, str | None],
    path: Path | None,
    key: Path | None,
    login: tuple[str | None, Path | None],
    timeout_s: float,
    questions: object,
) -> tuple[Walk, str, str]:
    from asperity.runtime.commissioning.line import AskedLine, Witness
    from asperity.runtime.commissioning.plc import Plc
    from asperity.runtime.commissioning.protocols import side_of
    from asperity.runtime.commissioning.questions import Questions
    from asperity.runtime.commissioning.walk import Walk
    from asperity.runtime.errors import UsageError
    from asperity.runtime.gateways.config import client_key, control_of, load
    from asperity.runtime.security.private_files import read_secret
    from asperity.runtime.text.numbers import whole_number

    assert isinstance(questions, Questions)
    host, _, digits = gateway.rpartition(":")
    port = whole_number(digits) or 0
    if not host or not 0 < port < 65536:
        raise UsageError(f"--gateway is {gateway!r}; give HOST:PORT")
    given = {name: value for name, value in zip(("name", "results", "control"), ends, strict=True) if value is not None}
    loaded = load(path, {"station": given})
    witness = Witness(
        loaded.station.results, control_of(loaded), station=loaded.station.name, key=key or client_key(loaded)
    )
    stack.enter_context(witness)
    witness.await_state(round(5000 + 1000 * timeout_s))
    name, file = login
    if (name is None) != (file is None):
        raise UsageError("give --user and --password-file, or neither")
    user = (name, read_secret(file).strip()) if name is not None and file is not None else None
    numbers = getattr(getattr(loaded, protocol), "recipes", {})
    recipes = {recipe: int(number) for number, recipe in numbers.items()}
    plc = Plc(side_of(protocol, host, port, timeout_s, recipes, user))
    plc.start()
    stack.callback(plc.close)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else ""
    return Walk(plc, AskedLine(witness, questions.ask), plc_timeout_s=timeout_s), gateway, digest


def _chosen(keys: list[str] | None) -> list[Row]:
    """All rows; those that were not asked for are not checked. Raises UsageError."""
    from dataclasses import replace

    from asperity.runtime.commissioning.line import NotChecked
    from asperity.runtime.commissioning.rows import ROWS
    from asperity.runtime.errors import UsageError

    known = [row.key for row in ROWS]
    for key in keys or ():
        if key not in known:
            raise UsageError(f"--row {key!r} is not a row; there are: {', '.join(known)}")

    def left_out(walk: Walk) -> str:
        raise NotChecked("left out (--row)")

    return [row if keys is None or row.key in keys else replace(row, check=left_out, settings=None) for row in ROWS]


def _say(outcome: RowOutcome) -> None:
    typer.echo(f"{outcome.status:11}  {outcome.key:28} {outcome.seen}")


def _write(made: Document, signing: object, output: Path) -> None:
    from asperity.runtime.commissioning.protocol import page, signed
    from asperity.runtime.security.signing_keys import SigningKey

    assert isinstance(signing, SigningKey)
    output.write_bytes(signed(made, signing))
    output.with_suffix(".md").write_text(page(made, signing.public), encoding="utf-8")


def _judge(made: Document, output: Path) -> None:
    """Raises CommissioningError, NotCheckedError unless every row that is needed passed."""
    from asperity.runtime.commissioning.protocol import FAILED, NOT_CHECKED, PASSED
    from asperity.runtime.errors import CommissioningError, NotCheckedError

    counts = ", ".join(
        f"{len(made.with_status(status))} {status}" for status in (PASSED, FAILED, NOT_CHECKED, "not needed")
    )
    typer.echo(f"{counts}; signed protocol: {output}, for people: {output.with_suffix('.md')}")
    if failed := made.with_status(FAILED):
        raise CommissioningError(f"failed: {', '.join(row.key for row in failed)}; what was seen is in the protocol")
    if not made.passed:
        open_rows = [row.key for row in made.with_status(NOT_CHECKED)]
        raise NotCheckedError(f"not checked: {', '.join(open_rows[:8])}{', ...' if len(open_rows) > 8 else ''}")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A protocol, FILE.json.")],
    show: Annotated[bool, typer.Option("--page", help="Print it for people, as Markdown.")] = False,
) -> None:
    """Check that a protocol is as it was signed, and say by which key."""
    from asperity.runtime.commissioning.protocol import page, verify
    from asperity.runtime.security.signing_keys import TrustStore

    made, key = verify(file, TrustStore())
    if show:
        typer.echo(page(made, key), nl=False)
        return
    outcome = "passed" if made.passed else "NOT passed"
    typer.echo(
        f"{file} is whole, signed by key {key.key_id} ({key.name}); station {made.station} over {made.protocol}, "
        f"{made.ended}: {outcome}"
    )
