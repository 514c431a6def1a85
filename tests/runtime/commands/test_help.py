"""What `--help` of every command shows: all of what the source says, and the default of each option."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from asperity.runtime.cli import command_line
from asperity.runtime.commands.lazy import LazyCommand
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.settings.station_toml import StationConfig
from tests.places import ROOT

PACKAGES = ("runtime", "calibration", "export", "benchmarks")


def walk(command: Any, path: tuple[str, ...], parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(command, LazyCommand):
        command = command.load()
    context = command.make_context(path[-1], [], parent=parent, resilient_parsing=True)
    yield " ".join(path), command, context
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from walk(command.get_command(context, name), (*path, name), context)


@cache
def everything() -> dict[str, tuple[Any, str, list[str]]]:
    """Name of each command -> itself, its help, and the texts of the source that must be in it."""
    found = {}
    for name, command, context in walk(command_line(), ("asperity",)):
        texts = [command.help or "", *(each.help or "" for each in command.params)]
        found[name] = (command, command.get_help(context), texts)
    return found


def packed(text: str) -> str:
    """Without spaces and breaks, and without the end of a sentence, where a default may stand."""
    return re.sub(r"\s+", "", text).rstrip(".")


def test_nothing_of_a_help_text_is_swallowed() -> None:
    """`[station]` is not a tag of the terminal's markup, nor is anything else in brackets."""
    bracketed = 0
    for name, (_, shown, texts) in everything().items():
        for text in texts:
            assert packed(text.replace("\b", "")) in packed(shown), f"{name}: {text}"
            bracketed += "[" in text
    assert bracketed > 20, "the control: there are such texts"


def test_each_option_says_its_default() -> None:
    for name, (command, shown, _) in everything().items():
        for option in command.params:
            if option.param_type_name != "option" or (option.is_flag and not option.secondary_opts):
                continue
            flag = max(option.opts, key=len)
            entry = re.search(rf"^  (?:-\w, )?{flag}[ /].*(?:\n {{6,}}\S.*)*", shown, re.M)
            assert entry, f"{name} {flag}"
            said = " ".join(entry[0].split())
            assert re.search(r"default: |\[required|repeatable|empty: ", said), f"{name}: {said}"


def test_an_option_that_overrides_a_key_has_the_default_of_that_key() -> None:
    checked = 0
    for name, (_, shown, texts) in everything().items():
        config = GatewayConfig() if " gateway " in name else StationConfig()
        for table, key in (found for text in texts for found in re.findall(r"^Override \[(\w+)\] (\w+)", text)):
            value = getattr(getattr(config, table), key)  # AttributeError: there is no such key
            said = re.search(rf"Override\[{table}\]{key}.*?default:(.*?)\.?(?=Override|--|-\w,|$)", packed(shown))
            assert said is not None, f"{name}: {key}"
            wanted = str(value).lower() if isinstance(value, bool) else str(value)
            assert said[1].startswith(packed(wanted or "")), f"{name}: {key}: {said[1]}"
            checked += 1
    assert checked > 40


@pytest.mark.parametrize("package", PACKAGES)
def test_no_console_takes_brackets_for_markup(package: str) -> None:
    """A path or an error with `[recipes]` in it is shown whole."""
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console":
                given = {each.arg: each.value for each in node.keywords}
                value = given.get("markup")
                plain = isinstance(value, ast.Constant) and value.value is False
                assert plain, f"{file}:{node.lineno}"


def test_a_list_of_commands_cuts_no_sentence() -> None:
    for name, (command, shown, _) in everything().items():
        for each in getattr(command, "commands", {}).values():
            sentence = (each.help or "").split("\n\n")[0].split(". ")[0]
            assert packed(sentence) in packed(shown), f"{name}: {sentence}"
