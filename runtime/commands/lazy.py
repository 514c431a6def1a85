"""Commands that are imported when they are called: `asperity --help` takes their names and help from a table.

A package registers its commands with ``register(app)`` in the entry-point group ``asperity.commands``: each with
``app.add(NAME, "MODULE:OBJECT", HELP)``, or imported at once, as with any ``typer.Typer``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from asperity.runtime.errors import SystemLimitError, UsageError
from asperity.runtime.files import shown
from asperity.runtime.process import limits
from asperity.runtime.text.names import has_stray_bytes, path_fault
from asperity.runtime.text.numbers import number_fault

PANELS = {
    "On the line": "run simulate watch camera doctor keys",
    "Learn a product": "calibrate refit export inspect score evaluate tune engines",
    "For the PLC": "gateway commission",
    "Measure": "bench demo",
}
"""Groups of `asperity --help`, by the user of a command; commands of other packages come after them."""
OTHERS = "Commands"
WHOLE = 1000
"""Characters of the first sentence of a help: all of it."""


class QuickCommand(TyperCommand):
    """A command whose values are converted by ``_Quick``, and whose options are given once."""

    def get_params(self, ctx: Any) -> Any:
        """As ``TyperCommand.get_params``."""
        return _quick(super().get_params(ctx))

    def make_parser(self, ctx: Any) -> Any:
        """As ``TyperCommand.make_parser``; of an option that is given twice, none is chosen silently."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            values, left, order = parse(args)
            for param, times in Counter(order).items():
                why, value = "", values.get(param.name or "")
                if times > 1 and param.param_type_name == "option" and not param.multiple:
                    why = f"it is given {times} times; give it once"
                elif _takes_text(param) and (value == "" or (isinstance(value, list | tuple) and "" in value)):
                    why = "the text is empty; leave it out or give one"  # such as "$NAME" where the shell knows none
                if why:
                    raise typer.BadParameter(why, ctx=ctx, param=param)  # type: ignore[arg-type]
            return values, left, order

        parser.parse_args = parse_once  # type: ignore[method-assign]
        return parser

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """As ``TyperCommand.format_options``; each option says its default, or that it has none."""
        for param in self.get_params(ctx):
            _say_default(param, ctx.command_path)
        super().format_options(ctx, formatter)


class LazyCommand(TyperCommand):
    """What is known about a command before it is imported."""

    def __init__(self, name: str, place: str, help: str) -> None:
        """``place``: MODULE:OBJECT, a function or a ``typer.Typer``; ``help``: the first line of its own help."""
        super().__init__(name, help=help, rich_markup_mode=None)
        self.place = place

    def load(self) -> Any:
        """The command itself, as Click has it. Raises SystemLimitError."""
        if shortage := limits.shortage():
            raise SystemLimitError(shortage)
        module, _, name = self.place.partition(":")
        found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            return group_of(found)
        single = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
        single.command(self.name, cls=QuickCommand)(found)
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

    def get_params(self, ctx: Any) -> Any:
        """As ``TyperGroup.get_params``."""
        return _quick(super().get_params(ctx))

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
                helps = {name: command.get_short_help_str(WHOLE) for name, command in shown.items()}
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
            name=name, help=help, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
            pretty_exceptions_enable=False,
        )  # fmt: skip
        self.lazy: dict[str, LazyCommand] = {}

    def add(self, name: str, place: str, help: str) -> None:
        """Add a command, or a group of them, that lies at ``place`` (MODULE:OBJECT)."""
        self.lazy[name] = LazyCommand(name, place, help)


def group_of(app: typer.Typer) -> LazyGroup:
    """The commands of ``app`` as Click has them, with plain help."""
    app.rich_markup_mode, app.info.cls = None, LazyGroup
    for command in app.registered_commands:
        command.cls = QuickCommand
    group = get_group(app)
    assert isinstance(group, LazyGroup)
    if isinstance(app, LazyTyper):
        group.commands = {**app.lazy, **group.commands}
    return group


def _takes_text(param: Any) -> bool:
    quick = getattr(param, "_runtime_param", None)
    return isinstance(quick, _Quick) and str in (quick.kind, *get_args(quick.kind))


class _Quick:
    """Converts the values of a parameter where that is simple, and else has Typer do it, which says what is wrong."""

    def __init__(self, param: Any) -> None:
        self._slow: Callable[[], Any] = param.get_runtime_param
        self.kind, self._info = param.type_descriptor.annotation, param.type_descriptor.parameter_info

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """As ``typer._coercion.RuntimeParam.coerce``; what is typed in is checked first."""
        for text in [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ():
            if isinstance(text, str) and (why := self._refusal(text)):
                raise UsageError(f"{param.opts[0] if param.param_type_name == 'option' else param.name}: {why}")
        if not param.multiple and param.nargs == 1:
            if value is None:
                return None
            with suppress(ValueError):
                converted = self._converted(value)
                if converted is not None:
                    return converted
        param._runtime_param = None
        return self._slow().coerce(value, param=param, ctx=ctx)

    def _refusal(self, text: str) -> str:
        """Why a text cannot be a value of this kind; empty: it may be."""
        kinds = {self.kind, *get_args(self.kind)}
        if has_stray_bytes(text):
            return f"{shown(text)} is not UTF-8; rename it"
        if Path in kinds and not text:
            return "the path is empty; leave the option out or give a path"
        if Path in kinds and (text == "~" or text.startswith("~/")):
            return f"the shell did not replace the ~ in {text}; write the whole path"
        if Path in kinds and (fault := path_fault(text)):
            return f"it {fault}"
        return number_fault(text, whole=int in kinds) if kinds & {int, float} else ""

    def _converted(self, value: Any) -> Any:
        kind = self.kind
        if not isinstance(kind, type) or isinstance(value, kind):
            return value if isinstance(kind, type) else None
        if kind is Path or issubclass(kind, Enum):
            return kind(value)
        if kind in (int, float):
            number = kind(value)
            low, high = self._info.min, self._info.max
            return number if (low is None or number >= low) and (high is None or number <= high) else None
        return None


def _say_default(param: Any, command_path: str) -> None:
    """Extend the help of an option of which Click shows no default: it has none, or that of the key it overrides."""
    if param.param_type_name != "option" or param.required or param.default not in (None, "", ()):
        return
    text = param.help or ""
    key = re.match(r"Override \[(\w+)\] (\w+)", text)
    if "default:" in text or "empty:" in text or "repeatable" in text or (param.is_flag and not key):
        return
    default = _default_of_key(key[1], key[2], " gateway " in command_path) if key else "none"
    param.help = f"{text.rstrip('.')}; default: {default}."


def _default_of_key(table: str, key: str, of_gateway: bool) -> str:
    if of_gateway:
        from asperity.runtime.gateways.config import GatewayConfig as Config
    else:
        from asperity.runtime.settings.station_toml import StationConfig as Config  # type: ignore[assignment]
    value = getattr(getattr(Config(), table), key)
    return (str(value).lower() if isinstance(value, bool) else str(value)) or "empty"


def _quick(params: Any) -> Any:
    """Typer 0.29 converts values by pydantic, whose import takes longer than the rest of a start: do without it."""
    for param in params:
        if getattr(param, "_runtime_param", True) is None:
            param._runtime_param = _Quick(param)
    return params
