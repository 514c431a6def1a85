"""Command lines as the pages write them: which commands a line has, and whether they and their options exist."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any

from asperity.runtime import __version__
from asperity.runtime.cli import command_line
from asperity.runtime.commands.lazy import LazyCommand
from asperity.runtime.reasons import Reason
from tests.places import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WHEEL = f"asperity-{__version__}-py3-none-any.whl"
KEYWORDS = {"do", "done", "then", "fi", "else", "sudo"}


def is_placeholder(word: str) -> bool:
    """Does the word stand for something of the reader's, such as BUNDLE or FRAMES/rgb? A reason's name does not."""
    return bool(re.match(r"^[A-Z][A-Z0-9_]*([./].*)?$", word)) and word not in Reason.__members__


def commands(text: str) -> Iterator[list[str]]:
    """Every command of a piece of shell, as its words: assignments, redirections and comments are taken away."""
    named: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        found: list[list[str]] = [[]]
        skip = False
        for word in lexer:
            if skip:
                skip = False
            elif set(word) <= set("<>"):
                skip = True
            elif set(word) <= set(";&|()"):
                found.append([])
            else:
                found[-1].append(word)
        for words in found:
            while words and (words[0] in KEYWORDS or re.match(r"^\w+=", words[0])):
                name, _, value = words.pop(0).partition("=")
                if " " in value:
                    named[name] = shlex.split(value)
                    yield named[name]
            if words[:1] == ["timeout"]:
                words = words[2:]  # noqa: PLW2901 - what it limits
            if words:
                yield [*named.get(words[0].removeprefix("$"), words[:1]), *words[1:]]


def fault(words: list[str], whole: bool = True) -> str:
    """What is wrong with a command; empty: nothing that is known here. ``whole``: no argument may be missing."""
    for word in words[1:]:
        if re.match(r"^(?:examples|deploy|tests)/[\w/.-]+\.\w+$", word) and not (ROOT / word).exists():
            return f"there is no {word}"
    words = [word.strip("[],") for word in words if word.strip("[],") not in ("", "...")]
    program, rest = words[0].rpartition("/")[2], words[1:]
    if program in ("asperity", "asperity-service"):
        return _asperity(_root(), ["asperity"], rest, whole)
    if program == "make":
        return _make(rest)
    if program in ("python", "python3"):
        return _python(rest)
    return _pip(rest) if program == "pip" else ""


@cache
def _root() -> Any:
    return command_line()


def _asperity(command: Any, path: list[str], rest: list[str], whole: bool) -> str:
    if "--help" in rest or (hasattr(command, "commands") and rest and is_placeholder(rest[0])):
        return ""
    name = " ".join(path)
    if hasattr(command, "commands"):
        if not rest:
            return f"`{name}` needs one of its commands" if whole else ""
        if rest[0].startswith("-"):
            return next((f"`{name}` {fault}" for fault in _parameter_faults(command.params, rest[:1], False)), "")
        found = command.get_command(None, rest[0])
        if found is None:
            return f"`{name}` has no command {rest[0]}"
        return _asperity(found.load() if isinstance(found, LazyCommand) else found, [*path, rest[0]], rest[1:], whole)
    return next((f"`{name}` {fault}" for fault in _parameter_faults(command.params, rest, whole)), "")


def _parameter_faults(parameters: list[Any], rest: list[str], whole: bool) -> Iterator[str]:
    """What there is not. Written out, since what typer parses by differs between its versions."""
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    options = {name: each for each in parameters for name in (*each.opts, *each.secondary_opts) if name[0] == "-"}
    values: list[tuple[Any, str]] = []
    places = [each for each in arguments for _ in range(each.nargs if each.nargs > 0 else len(rest))]
    given, words = set(), iter(rest)
    for word in words:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            if not places:
                yield f"takes no {word}"
                return
            values.append((places.pop(0), word))
        elif name not in options:
            yield f"has no {name}"
        elif not options[name].is_flag:
            value = value if equals else next(words, "")
            if whole and not value:
                yield f"{name} needs a value"
            values.append((options[name], value))
    for each, value in values:
        given.add(each.name)
        kind = getattr(getattr(each, "type_descriptor", None), "annotation", str)
        if value and not is_placeholder(value) and (kind in (int, float) or issubclass(kind, Enum)):
            try:
                kind(value)
            except ValueError:
                yield f"{each.name} is not {value}"
    yield from (f"needs {each.name}" for each in parameters if whole and each.required and each.name not in given)


def _make(rest: list[str]) -> str:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):", text, re.M)
    for word in rest:
        name, equals, _ = word.partition("=")
        if equals and not re.search(rf"^{name}\s*[?:]?=|\$\({name}\)", text, re.M):
            return f"the Makefile has no variable {name}"
        if not equals and word not in targets:
            return f"the Makefile has no target {word}"
    return ""


def _python(rest: list[str]) -> str:
    if rest[:1] != ["-m"]:
        script = next((word for word in rest if word.endswith(".py")), "")
        return f"there is no {script}" if script and not (ROOT / script).is_file() else ""
    module, *options = rest[1:]
    if module == "pip":
        return _pip(options)
    if module.split(".")[0] not in ("asperity", "tests"):
        return ""
    place = ROOT.joinpath(*module.split("."))
    file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return f"there is no module {module}"
    source = file.read_text()
    if not place.is_dir() and "__main__" not in source:
        return f"{module} does nothing when it is run"
    # Options that several programs share stand in a file that they import.
    shared = re.findall(r"^from (asperity[\w.]*\.harness) import", source, re.M)
    source += "".join(ROOT.joinpath(*name.split(".")).with_suffix(".py").read_text() for name in shared)
    named = [word.partition("=")[0] for word in options if word.startswith("-")]
    missing = [option for option in named if f'"{option}"' not in source and f"    {option[2:]}: " not in source]
    return f"{module} has no {', '.join(missing)}" if missing else ""


def _pip(rest: list[str]) -> str:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in rest:
        asked = re.fullmatch(r"(asperity|\.|/?[\w./*-]+\.whl)(?:\[(.+?)\]?)?(?:[<>=~!].*)?", word)
        if asked is None:
            continue
        if asked[1] == "asperity":
            return "no package index has asperity: install it from a checkout or a wheel (README, Installing)"
        if "asperity" in asked[1] and asked[1].rpartition("/")[2] != WHEEL:
            return f"a wheel of this version is called {WHEEL}"
        unknown = set((asked[2] or "").split(",")) - set(extras) - {""}
        if unknown:
            return f"pyproject.toml has no extra {', '.join(sorted(unknown))}"
    return ""
