"""Fixtures that several rooms share: one small real bundle, made once a run from virtual frames."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from asperity.runtime.security.signing_keys import TrustStore
from tests.forked import Server, forked
from tests.kept import imported_by, kept

PRODUCT, SIZE_PX, NORMALS = "bracket", 128, 40

# Hundreds of processes are started, and each would compile every file again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A worker holds a million objects for its whole life, and Python's usual thresholds scan them over and over: a fifth of
# the collection of tests, and half of each start of an OPC UA server.
gc.set_threshold(20_000, 10, 10)

# The same examples in each run, and none that fails because a crowded machine took long over it.
settings.register_profile("tests", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


LONG = (
    "test_nothing_leaves.py", "test_opcua_parts.py", "test_bundle_commands.py", "test_simulate.py",
    "test_mqtt_parts.py", "test_onnx.py", "test_resume.py", "test_modbus_parts.py",
    "test_environments.py", "test_compile.py",
)  # fmt: skip
"""Files whose tests or fixtures take longest: begun last, they would keep one worker while the others have ended."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long files first, in turn at the head of each worker's part of the list; in random order, nothing."""
    if config.pluginmanager.hasplugin("randomly"):
        return
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for number, name in enumerate(LONG):
        long[number % workers] += [item for item in items if item.path.name == name]
    rest = [item for item in items if item.path.name not in LONG]
    left, ordered = len(items), list[pytest.Item]()
    for worker, begun in enumerate(long):
        part = left // (workers - worker)  # as xdist deals them out
        left -= part
        others = max(0, part - len(begun))
        ordered += [*begun, *rest[:others]]
        del rest[:others]
    items[:] = [*ordered, *rest]


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Iterator[None]:
    """xdist's workers are forks of a process that has imported the tests already (coverage sees no import of those)."""
    config = session.config
    if config.pluginmanager.hasplugin("dsession"):
        running = ExitStack()
        config.add_cleanup(running.close)
        places = [str(config.invocation_params.dir / place.partition("::")[0]) for place in config.args]
        server = Server("libraries") if config.getoption("cov_source", None) else Server("tests", *places)
        running.callback(server.close)
        running.enter_context(forked(server))
    yield


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Modules and tests live as long as the worker: the collector need not look at them again."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class LiteBundle:
    """A signed lite bundle with adaptors, and where it came from. Shared: copy before changing anything."""

    path: Path
    calibration: Path
    normals: Path
    """The frames it was calibrated on, MVTec 3D-AD layout; frame i is the virtual camera's index i."""
    trust: TrustStore
    """Trusts the key that signed it; ``trust.folder`` is for ``--keys`` and ``engine.trust``."""


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test touches the keys or stations of the person who runs it; processes that tests start inherit this too."""
    os.environ["ASPERITY_KEYS"] = str(tmp_path_factory.mktemp("keys") / "user")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def _fork_server(_own_folders: None) -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def forked_starts(_fork_server: Server) -> Iterator[None]:
    """Processes of this interpreter are forks of one that has imported everything (``tests/forked.py``)."""
    with forked(_fork_server):
        yield


@pytest.fixture(scope="session")
def lite_bundle() -> LiteBundle:
    """Normal frames of the virtual bracket, calibrated with short training of the adaptors, exported and signed."""
    folder = kept("lite_bundle", _make_lite_bundle, of=imported_by("tests.conftest"))
    trust = TrustStore(folder / "keys")
    return LiteBundle(folder / "bundle", folder / "calibration", folder / "normals", trust)


def _make_lite_bundle(folder: Path) -> None:
    import torch

    from asperity.calibration.adaptation.settings import AdaptationConfig
    from asperity.calibration.calibrate import calibrate
    from asperity.calibration.options import CalibrateOptions
    from asperity.export.bundle import export_bundle
    from asperity.runtime.cameras.mvtec_files import write_frame
    from asperity.runtime.cameras.virtual.camera import VirtualCamera
    from tests.quick_exports import quick_exports

    quick_exports()
    torch.set_num_threads(1)
    normals = folder / "normals"
    camera = VirtualCamera(PRODUCT, size_px=SIZE_PX)
    for index in range(NORMALS):
        frame = camera.frame(index).frame
        assert frame.xyz is not None
        write_frame(normals / "train" / "good", f"{index:03d}", frame.rgb, frame.xyz)
    # The default start instead of the identity, so that the adaptors matter although they are hardly trained.
    training = AdaptationConfig(epochs=1, queue_rows=512, query_patches=64, start="default", batch=4)
    options = CalibrateOptions(recipe="bracket", unit="m", strangest=0)
    calibration = calibrate(normals, folder, options, adaptation=training)
    export_bundle(calibration.path, folder / "bundle", TrustStore(folder / "keys"), threads=1, timing_s=0.5)
