"""``asperity`` as a whole: its help, what it imports to start, and commands of other packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pytest
import typer

from asperity import runtime
from asperity.runtime import cli
from asperity.runtime.commands.lazy import OTHERS, PANELS, LazyCommand, LazyGroup, group_of
from asperity.runtime.errors import UsageError
from asperity.runtime.extras import install

HEAVY = {
    "scipy", "PIL", "tifffile", "onnxruntime", "cryptography", "torch", "open3d", "sklearn", "onnx", "matplotlib",
    "safetensors", "rich", "pydantic", "asyncio", "asperity.calibration", "asperity.export", "asperity.benchmarks",
}  # fmt: skip
"""None of these is needed to show a help, to watch a station, or to run one that judges by no bundle."""
AT_THE_END = "import atexit, sys; atexit.register(lambda: print('\\n'.join(['', 'MODULES', *sys.modules])))\n"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls a command, as Click has it, with these arguments."""

    def call(command: Any, *arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            command(arguments, prog_name="asperity")
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return call


def imported(code: str, *arguments: str) -> set[str]:
    """Modules that a process has imported at its end, and the packages they lie in."""
    command = [sys.executable, "-c", f"{AT_THE_END}{code}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "\nMODULES\n" in done.stdout, done.stderr
    names = done.stdout.split("\nMODULES\n")[1].split()
    return {".".join(name.split(".")[: count + 1]) for name in names for count in range(2)}


def asperity(*arguments: str) -> set[str]:
    """What ``asperity ARGUMENTS`` has imported at its end."""
    return imported("from asperity.runtime.cli import main; sys.argv[0] = 'asperity'; main()", *arguments)


def test_help_imports_no_command() -> None:
    found = asperity("--help")
    allowed = {"asperity.calibration", "asperity.export", "asperity.benchmarks"}  # the tables of their commands
    assert not found & (HEAVY - allowed | {"numpy", "zmq", "msgspec"})
    found = asperity("run", "--help")
    # Only the settings, whose defaults it shows; they need msgspec and numpy.
    assert "asperity.runtime" in found and not found & (HEAVY | {"zmq"})


def test_a_subscriber_imports_what_it_needs(tmp_path: Path) -> None:
    found = asperity("watch", "result", "--seconds=0.01", f"--results=ipc://{tmp_path}/results")
    assert "zmq" in found and not found & HEAVY


@pytest.mark.parametrize("module", ["client.station_client", "client.frame_sender", "inspector.serving"])
def test_a_client_and_the_inspector_import_what_they_need(module: str) -> None:
    found = imported(f"import asperity.runtime.{module}")
    assert f"asperity.{module.split('.', maxsplit=1)[0]}" not in found and "zmq" in found
    assert not found & (HEAVY | {"typer"})


def test_an_inspector_that_judges_by_no_bundle_does_without_what_judging_needs() -> None:
    code = """
import numpy as np
from asperity.runtime.frame import Frame
from asperity.runtime.inspector.serving import inspect
from asperity.runtime.judging.recipes import open_recipe
from asperity.runtime.settings.station_toml import load
from asperity.runtime.vision.scoring import decide
config = load(None, {"engine": {"name": "simulated"}, "recipes": {"simulated": "script:ng"}})
recipe = open_recipe("simulated", config, lambda stage: None)
frame = Frame(camera="cam1", camera_session="1", seq=1, rgb=np.zeros((8, 8, 3), np.uint8))
scores = recipe.engine.score(frame, lambda stage: None)
judgement = decide(scores, recipe.decision, recipe.manifest.silhouette, recipe.manifest.geometry)
assert judgement.region is not None and judgement.verdict.name == "NG"
"""
    assert not imported(code) & HEAVY


def test_an_inspector_that_judges_by_a_bundle_imports_nothing_of_calibration() -> None:
    modules = ("inspector.desk", "commands.run", "engines.cpu", "judging.recipes")
    found = imported("\n".join(f"import asperity.runtime.{module}" for module in modules))
    others = {"asperity.calibration", "asperity.export", "asperity.benchmarks"}
    assert "onnxruntime" in found
    assert not found & ({"torch", "open3d", "sklearn", "onnx", "matplotlib"} | others)


# --- help ------------------------------------------------------------------------------------------------------------


def groups() -> Iterator[tuple[str, LazyGroup]]:
    """Every group of commands, from the whole command line down."""
    waiting = [("asperity", cli.command_line())]
    while waiting:
        name, group = waiting.pop()
        yield name, group
        for each in group.list_commands(None):
            command = group.get_command(None, each)
            loaded = command.load() if isinstance(command, LazyCommand) else command
            if isinstance(loaded, LazyGroup):
                waiting.append((f"{name} {each}", loaded))


def test_the_help_of_a_command_is_that_of_the_table() -> None:
    lazy = {
        f"{name} {each}": command
        for name, group in groups()
        for each in group.list_commands(None)
        if isinstance(command := group.get_command(None, each), LazyCommand)
    }
    assert {"asperity run", "asperity bench latency", "asperity tune"} <= set(lazy)
    for name, command in lazy.items():
        assert command.help == str(command.load().help).partition("\n")[0], name


def test_every_command_has_a_help() -> None:
    assert not [
        f"{name} {each}"
        for name, group in groups()
        for each in group.list_commands(None)
        if not group.get_command(None, each).help
    ]


def test_commands_are_listed_by_who_uses_them(run: Run) -> None:
    shown = run(cli.command_line(), "--help").out
    places = [shown.index(f"\n{title}:\n") for title in PANELS]
    assert places == sorted(places)
    lines = [shown.index(f"\n  {name} ") for names in PANELS.values() for name in names.split()]
    assert lines == sorted(lines)


def test_version(run: Run) -> None:
    assert run(cli.command_line(), "--version") == Ended(0, f"asperity {runtime.__version__}\n", "")


# --- other packages --------------------------------------------------------------------------------------------------


def register(app: typer.Typer) -> None:
    """As a package of somebody else registers its commands."""

    @app.command("measure")
    def measure(times: int = 1, name: str = "x") -> None:
        """Measure something else."""
        typer.echo(f"{name} measured {times} times")

    @app.command("watch")
    def watch() -> None:
        """Stand in for a command that is there."""
        raise AssertionError

    more = typer.Typer(name="more", help="More commands.")
    app.add_typer(more)

    @more.command("deep")
    def deep() -> None:
        """Lie deep."""
        typer.echo("deep")

    @more.command("torch")
    def torch() -> None:
        """Need an extra."""
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.fixture
def third_package(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("third", f"{__name__}:register", "asperity.commands")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry])


@pytest.mark.usefixtures("third_package")
def test_a_third_package_adds_its_commands(run: Run) -> None:
    shown = run(cli.command_line(), "--help").out
    assert f"\n{OTHERS}:\n" in shown and "Measure something else." in shown and "More commands." in shown
    assert "Stand in for" not in shown, "our own commands stay ours"
    assert run(cli.command_line(), "measure", "--times", "3").out == "x measured 3 times\n"
    assert run(cli.command_line(), "more", "deep").out == "deep\n"


@pytest.mark.usefixtures("third_package")
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["asperity", "more", "torch"])
    monkeypatch.setattr("asperity.runtime.process.early_signals.install", lambda: None)
    monkeypatch.setattr(sys, "path", ["/", *sys.path])  # pytest puts its folders first, where a conftest.py lies
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == cli.MISSING_EXTRA_EXIT_CODE
    assert install("calibrate") in capsys.readouterr().err


# --- values ----------------------------------------------------------------------------------------------------------


class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"


def command_of_all_kinds(
    where: Annotated[Path, typer.Argument()],
    more: Annotated[list[Path] | None, typer.Argument()] = None,
    colour: Colour = Colour.RED,
    count: Annotated[int, typer.Option(min=1, max=5)] = 2,
    rate: Annotated[float, typer.Option(min=0.5)] = 1,
    words: Annotated[list[str] | None, typer.Option("--word")] = None,
    flag: bool = False,
    both: Annotated[bool | None, typer.Option("--both/--no-both")] = None,
    maybe: int | None = None,
    key: Annotated[Path | None, typer.Option(envvar="KEY_OF_A_TEST")] = None,
) -> None:
    seen.append((where, more, colour, count, rate, words, flag, both, maybe, key))


seen: list[tuple[Any, ...]] = []


@pytest.mark.parametrize(
    "line",
    [
        "a", "a b c", "a --colour blue", "a --colour green", "a --colour RED", "a --count 5", "a --count 6",
        "a --count 0", "a --count 1.0", "a --rate 2", "a --rate 0.4", "a --rate 1e1",
        "a --word x --word y", "a --flag", "a --both", "a --no-both", "a --maybe 7",
        "a --maybe -3", "a --maybe", "", "a --key k", "a --nothing",
    ],
)  # fmt: skip
def test_values_are_converted_as_typer_would(line: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_A_TEST", "/a/key")
    outcomes = []
    for quick in (False, True):
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command("all")(command_of_all_kinds)
        command = group_of(app).commands["all"] if quick else typer.main.get_command(app)
        seen.clear()
        ended = run(command, *line.split())
        outcomes.append((ended, [[(type(value), repr(value)) for value in row] for row in seen]))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "--count", "１"], "digits 0 to 9"),
        (["a", "--count", "0_1"], "digits 0 to 9"),
        (["a", "--count", " 1"], "digits 0 to 9"),
        (["a", "--maybe", "9" * 400], "at most 18 digits"),
        (["a", "--count", "x"], "digits 0 to 9"),
        (["a", "--count", ""], "digits 0 to 9"),
        (["a", "--rate", "0,5"], "write a decimal point"),
        (["a", "--rate", "2%"], "write the share itself, 0.02"),
        (["a", "--count", "5mm"], "write 5 alone, without a unit"),
        (["a", "--count", "2", "--count", "2"], "'--count': it is given 2 times"),
        (["a", "--word", ""], "the text is empty"),
        (["a", "--flag", "--flag"], "'--flag': it is given 2 times"),
        (["a", "--both", "--no-both"], "it is given 2 times"),
        (["a", "--maybe", "9" * 5000], "--maybe"),
        (["a", "--rate", "nan"], "digits 0 to 9"),
        (["a", "--rate", "inf"], "digits 0 to 9"),
        (["a", "--rate", "１.5"], "digits 0 to 9"),
        ([""], "the path is empty"),
        (["~/a"], "the shell did not replace the ~"),
        (["a", "--key=~/k"], "the shell did not replace the ~"),
        (["a", "b", "~"], "the shell did not replace the ~"),
        (["a\udcff"], "a\\udcff is not UTF-8"),
        (["a", "b\udcff"], "b\\udcff is not UTF-8"),
        (["a", "--word", "\udcff"], "is not UTF-8"),
    ],
)
def test_values_that_would_become_something_else_are_refused(arguments: list[str], words: str, run: Run) -> None:
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command("all")(command_of_all_kinds)
    seen.clear()
    try:
        ended = run(group_of(app).commands["all"], *arguments)  # Typer's own refusal
        assert ended.code == 2 and words in ended.err
    except UsageError as refused:
        assert words in str(refused)
    assert not seen
