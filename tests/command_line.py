"""Commands for Typer's runner."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import typer

from asperity.runtime.commands.lazy import LazyTyper


def commands_of(register: Callable[[LazyTyper], None]) -> typer.Typer:
    """The commands that a package registers, imported at once."""
    lazy, app = LazyTyper("asperity", ""), typer.Typer()
    register(lazy)
    for name, command in lazy.lazy.items():
        module, _, attribute = command.place.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app
