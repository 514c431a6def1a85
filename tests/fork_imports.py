"""What the processes of ``tests/forked.py`` import before they fork."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from tests.places import ROOT

IMPORTED_LATE = ("typer._adapters", "anyio._backends._asyncio", "cryptography.hazmat.backends.openssl", "amqtt.broker")
"""What commands import when they run, and the broker that tests of the MQTT gateway start besides."""


def import_everything() -> None:
    """All that a station's commands would import. Not PyTorch: a fork of a large process costs more."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="asperity.commands"):
        import_module(entry.module)
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not {"__main__", "cuda", "documents", "tensorrt", "probes"} & set(parts):
            with suppress(ImportError):
                import_module(".".join(("asperity", *parts)).removesuffix(".__init__"))
    for library in IMPORTED_LATE:
        with suppress(ImportError):
            import_module(library)


WORKERS_LIBRARIES = (
    "torch", "safetensors.torch", "scipy.stats", "scipy.ndimage", "matplotlib.figure", "onnx", "onnxruntime", "asyncua",
    "pymodbus.client", "zmq", "msgspec", "cryptography.x509", "PIL.Image", "tifffile", "typer", "rich.console",
    "paho.mqtt.client", "prometheus_client", "hypothesis", "pytest",
)  # fmt: skip


def import_libraries() -> None:
    """What the workers of a run import from others; nothing of this repository, so that coverage sees all of it."""
    for library in WORKERS_LIBRARIES:
        with suppress(ImportError):
            import_module(library)


def import_tests(*places: str) -> None:
    """The tests below these places too, as pytest imports them: compiled and imported once, not by each worker.

    A file that does not import here is left to the workers, whose pytest says why.
    """
    import_libraries()
    from _pytest.config import _prepareconfig, apply_warning_filters
    from _pytest.pathlib import import_path

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        config = _prepareconfig([*places])  # its hook rewrites assertions, and conftest.py sets Hypothesis up
    search = sys.path[:]
    folders = [Path(place).resolve() for place in places]
    with warnings.catch_warnings():
        apply_warning_filters(config.getini("filterwarnings"), ())
        for folder in folders:
            for path in sorted(folder.rglob("test_*.py")) if folder.is_dir() else [folder]:
                with suppress(Exception, pytest.skip.Exception):
                    import_path(path, root=ROOT, consider_namespace_packages=False)
    sys.path[:] = search
    config._ensure_unconfigure()
