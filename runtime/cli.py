"""The `asperity` command. Packages add their commands through the entry-point group ``asperity.commands``."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from runtime.errors import AsperityError


def register(app: typer.Typer) -> None:
    """Add the runtime's own commands."""


def main() -> None:
    """Run the command line; an AsperityError becomes one sentence on stderr and its exit code."""
    app = typer.Typer(name="asperity", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    for entry in sorted(entry_points(group="asperity.commands"), key=lambda e: e.name):
        entry.load()(app)
    try:
        app()
    except AsperityError as error:
        typer.echo(f"asperity: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
