"""The one place that knows which TensorRT is installed: `tensorrt` (10.3 to 11.x) or `tensorrt-rtx`, imported lazily.

Only names that both have are used outside of this file: Builder, INetworkDefinition, OnnxParser, IBuilderConfig,
Runtime, ICudaEngine, IExecutionContext. What differs between versions is answered here.
"""

from __future__ import annotations

import importlib
import re
import threading
from dataclasses import dataclass
from typing import Any, Literal, get_args

from asperity.runtime.errors import EngineError
from asperity.runtime.extras import install

LibraryName = Literal["tensorrt", "tensorrt-rtx"]
OLDEST: dict[LibraryName, tuple[int, int]] = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 4)}
NEXT_MAJOR: dict[LibraryName, int] = {"tensorrt": 12, "tensorrt-rtx": 2}
"""The first major version that was not tested."""
SAID_MAX = 20
SAID_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Library:
    """An imported TensorRT."""

    name: LibraryName
    version: str
    module: Any

    @property
    def label(self) -> str:
        """Name and version, ``tensorrt 10.3.0``."""
        return f"{self.name} {self.version}"

    @property
    def times_kernels(self) -> bool:
        """Whether building measures kernels, so that a timing cache saves time. RTX leaves that to the device."""
        return self.name == "tensorrt"


class Said:
    """The library's error messages, bounded: it reports failures here, and its calls return None or False."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        """Keep a line, cut to a bearable length, as long as there is room."""
        with self._lock:
            if len(self._lines) < SAID_MAX:
                self._lines.append(" ".join(line.split())[:SAID_CHARACTERS])

    def first(self) -> str:
        """The first complaint since ``clear``: those behind it are mostly its consequences."""
        with self._lock:
            return self._lines[0] if self._lines else "no reason given"

    def clear(self) -> None:
        """Forget all lines."""
        with self._lock:
            self._lines = []


def load_library(name: LibraryName | None = None) -> Library:
    """Import that library; without a name `tensorrt` where it is installed, else `tensorrt-rtx`.

    Raises EngineError where it is missing, does not load or is of a version outside the known ones.
    """
    names: tuple[LibraryName, ...] = get_args(LibraryName) if name is None else (name,)
    missing: list[str] = []
    for candidate in names:
        try:
            module = importlib.import_module(candidate.replace("-", "_"))
        except ModuleNotFoundError as error:
            missing.append(str(error))
            continue
        except (ImportError, OSError, RuntimeError) as error:
            # PyPI's stub of tensorrt, or libraries of another CUDA: there, but useless.
            raise EngineError(f"{candidate} does not load ({error}); {_remedy(candidate)}") from error
        return Library(candidate, _checked_version(candidate, module), module)
    wanted = " or ".join(names)
    raise EngineError(f"{wanted} is not installed ({missing[-1]}); {_remedy(names[-1])}")


def _remedy(name: LibraryName) -> str:
    return f"install it with: {install(name)} (a Jetson's TensorRT comes with JetPack; docs/engines.md)"


def _checked_version(name: LibraryName, module: Any) -> str:
    version = str(getattr(module, "__version__", ""))
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not hasattr(module, "Runtime"):
        raise EngineError(
            f"the Python module of {name} is not TensorRT's (version {version!r}): another package or a folder of that "
            f"name shadows it; {_remedy(name)}"
        )
    major, minor = int(found[1]), int(found[2])
    if (major, minor) < OLDEST[name] or major >= NEXT_MAJOR[name]:
        oldest = ".".join(map(str, OLDEST[name]))
        raise EngineError(
            f"{name} is of version {version}; this version of Asperity supports those from {oldest} to below "
            f"{NEXT_MAJOR[name]}: install one of them"
        )
    return version


def new_logger(library: Library) -> tuple[Any, Said]:
    """A logger for the library's objects and the place where its warnings and errors end. Keep the logger alive."""
    trt, said = library.module, Said()
    worst = {trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR}

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in worst:
                said.add(message)

    return Logger(), said


def scratch_nbytes(engine: Any) -> int:
    """Device memory that one execution context of the engine needs; at least one byte, so that there is an address."""
    nbytes = engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size
    return max(int(nbytes), 1)


def give_memory(context: Any, address: int, nbytes: int) -> None:
    """Device memory that the context works in from now on."""
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(address, nbytes)
    else:
        context.device_memory = address
