"""Commands that are imported when they are called: `asperity --help` takes their names and help from a table.

A package registers its commands with ``register(app)`` in the entry-point group ``asperity.commands``: each with
``app.add(NAME, "MODULE:OBJECT", HELP)``, or imported at once, as with any ``typer.Typer``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

PANELS = {
    "On the line": "run simulate watch camera doctor keys",
    "Learn a product": "calibrate export inspect score evaluate tune engines",
    "For the PLC": "gateway",
    "Measure": "bench demo",
}
"""Of `asperity --help`, by who uses a command; commands of other packages come after them."""
OTHERS = "Commands"


class LazyCommand(TyperCommand):
    """What is known of a command before it is imported."""

    def __init__(self, name: str, place: str, help: str) -> None:
        """``place``: MODULE:OBJECT, a function or a ``typer.Typer``; ``help``: the first line of its own help."""
        super().__init__(name, help=help, rich_markup_mode=None)
        self.place = place

    def load(self) -> Any:
        """The command itself, as Click has it."""
        module, _, name = self.place.partition(":")
        found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            return group_of(found)
        single = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
        single.command(self.name)(found)
        return get_command(single)


class LazyGroup(TyperGroup):
    """A group that imports a command when it is called."""

    panels: Mapping[str, str] = {}
    """Title -> names of the commands under it, in order. What is not named comes after them."""
    others: Callable[[], Mapping[str, Any]] | None = None
    """Commands of other packages, looked for when a command is not known here or all are listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands."""
        self._find_others()
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, perhaps a ``LazyCommand``."""
        if cmd_name not in self.commands:
            self._find_others()
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, one panel after another."""
        left = {name: self.commands[name] for name in self.list_commands(ctx) if not self.commands[name].hidden}
        width = max(map(len, left), default=0)
        for title, names in [*self.panels.items(), (OTHERS, " ".join(left))]:
            shown = {name: left.pop(name) for name in names.split() if name in left}
            if shown:
                helps = {name: command.get_short_help_str(formatter.width) for name, command in shown.items()}
                with formatter.section(title):
                    formatter.write_dl([(f"{name:{width}}", text) for name, text in helps.items()])

    def _find_others(self) -> None:
        if self.others is not None:
            others, self.others = self.others, None
            self.commands = {**others(), **self.commands}


class LazyTyper(typer.Typer):
    """Typer, and commands that are imported when they are called. Its help is plain text."""

    def __init__(self, name: str, help: str) -> None:
        super().__init__(
            name=name, help=help, cls=LazyGroup, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
            pretty_exceptions_enable=False,
        )  # fmt: skip
        self.lazy: dict[str, LazyCommand] = {}

    def add(self, name: str, place: str, help: str) -> None:
        """Add a command, or a group of them, that lies at ``place`` (MODULE:OBJECT)."""
        self.lazy[name] = LazyCommand(name, place, help)


def group_of(app: typer.Typer) -> TyperGroup:
    """The commands of ``app`` as Click has them, with plain help."""
    app.rich_markup_mode = None
    group = get_group(app)
    if isinstance(app, LazyTyper):
        group.commands = {**app.lazy, **group.commands}
    return group
