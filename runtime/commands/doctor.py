"""`asperity doctor`: checks this machine against what each engine needs, and the command that fixes each problem."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from asperity.runtime.doctor.findings import Diagnosis, Engine, Finding, State, listed

if TYPE_CHECKING:
    from asperity.runtime.doctor.box import Setting
    from asperity.runtime.settings.station_toml import StationConfig

T = TypeVar("T")
MISSING_EXIT_CODE = 1
STYLES = {State.OK: "green", State.NOTE: "dim", State.WARNING: "yellow", State.MISSING: "bold red"}


def command(
    engine: Annotated[
        Engine | None, typer.Option(help="Engine to check for; default: the best that this machine could run.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file, station.toml: also check its journal, keys and recipes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Check this machine and print a fix for each problem.

    The exit code is 1 if the engine would not run.
    """
    from asperity.runtime.cuda.build import FATBIN
    from asperity.runtime.doctor.diagnosis import diagnose
    from asperity.runtime.doctor.world import ThisMachine
    from asperity.runtime.settings.loading import load

    station = load(config)
    if engine is None and config is not None and station.engine.name in {known.value for known in Engine}:
        engine = Engine(station.engine.name)
    diagnosis = diagnose(ThisMachine(FATBIN), setting_of(station), FATBIN, engine)
    if as_json:
        typer.echo(json.dumps(diagnosis.told()))
    else:
        show(diagnosis)
    if not diagnosis.runs:
        raise typer.Exit(MISSING_EXIT_CODE)


def setting_of(station: StationConfig) -> Setting:
    """What this configuration expects of the machine."""
    from asperity.runtime.doctor.box import Setting
    from asperity.runtime.errors import ConfigError
    from asperity.runtime.records.journal import file_nbytes
    from asperity.runtime.security.private_files import default_key_folder
    from asperity.runtime.settings.combined_stations import combining
    from asperity.runtime.settings.paths import engine_cache, journal_path
    from asperity.runtime.settings.station_toml import hosted

    def known(folder: Callable[[], T]) -> T | ConfigError:
        try:
            return folder()
        except ConfigError as error:
            return error

    above = [combining(station, one) for one in station.combined]
    return Setting(
        station=station,
        journals=known(lambda: tuple(journal_path(one) for one in [*hosted(station), *above])),
        journal_nbytes=file_nbytes(station.journal.slots),
        trust=known(lambda: Path(station.engine.trust or default_key_folder())),
        transport=known(lambda: Path(station.security.keys or default_key_folder())),
        engines=known(lambda: engine_cache(station)),
    )


def show(diagnosis: Diagnosis) -> None:
    """A table, then the fixes, then which engines run."""
    from rich.table import Table
    from rich.text import Text

    from asperity.runtime.commands.tables import print_table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("what", "state", "found"):
        table.add_column(title, no_wrap=title != "found", overflow="fold")
    for finding in diagnosis.findings:
        table.add_row(finding.name, Text(_word(finding), STYLES[finding.state]), Text(finding.found))
    print_table(table)
    to_mend = [finding for finding in diagnosis.findings if finding.mend]
    if to_mend:
        typer.echo("\nto fix")
    for finding in to_mend:
        # Never wrapped: a command must survive being copied.
        typer.echo(f"  {finding.name} ({_word(finding)}):\n      {finding.mend}")
    typer.echo("")
    for engine in Engine:
        lacks = diagnosis.lacks(engine)
        says = f"would not run: {listed(finding.name for finding in lacks)}" if lacks else "has all it needs"
        typer.echo(f"engine {engine.value:5} {says}")
    typer.echo(f"checked for engine {diagnosis.wanted.value}: {diagnosis.why}")


def _word(finding: Finding) -> str:
    if finding.state is not State.MISSING or len(finding.needed_by) == len(Engine):
        return finding.state.value
    return f"{finding.state.value} for {listed(engine.value for engine in finding.needed_by)}"


if __name__ == "__main__":  # from a checkout that is not installed: python -m asperity.runtime.commands.doctor
    typer.run(command)
