"""The registry of kernels: how each is prepared, launched and compared with float64, for the check and the benchmark.

A module of ``runtime.cuda.checks`` holds one or more kernels and lists them as ``ENTRIES``; nothing else needs to know.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from asperity.runtime.cuda.launch import Device

Shape: TypeAlias = Mapping[str, int]
"""Sizes by name, as the kernel's documentation calls them: ``{"m": 784, "n": 8329, "d": 768}``."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run does at least, from its shape alone."""

    flop: int = 0
    """Floating-point operations (a multiply-add is two)."""
    bytes: int = 0
    """Bytes read and written once each."""
    steps: int = 0
    """Steps that must follow one another (farthest point sampling); 0 where that is not the bound."""
    precision: str = "float32"
    """float16 where the operations are a tensor core's, else float32 or float64."""


class Prepared(Protocol):
    """One kernel with inputs and buffers on a device."""

    work: Cost

    def enqueue(self) -> None:
        """The frame path: launches only, no allocation, no waiting."""

    def problems(self) -> list[str]:
        """What is wrong with the outputs against a float64 oracle; empty when all is right. Says figures."""

    def figures(self) -> dict[str, float]:
        """Further figures worth keeping of the last run, for example the share of rows that needed a second pass."""


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """One line of the registry."""

    name: str
    source: str
    """Stem of the .cu file."""
    prepare: Callable[[Device, Shape, str, np.random.Generator], Prepared]
    """Device, shape, kind of input and randomness -> ready to be enqueued."""
    shapes: tuple[Shape, ...]
    """On a GPU: the sizes that matter and odd ones."""
    small: tuple[Shape, ...]
    """On the CPU stand-in and under compute-sanitizer: well under a second each."""
    kinds: tuple[str, ...] = ("random",)
    """Kinds of input: random first, then degenerate ones (all points equal, NaN in the input...)."""
    timed: tuple[Shape, ...] = field(default=())
    """Shapes that the benchmark times; default: ``shapes``."""
    hard: tuple[Shape, ...] = field(default=())
    """Shapes, in addition to the small ones, for the other kinds of input; default: ``shapes``."""
    least: tuple[int, int] = (7, 5)
    """Compute capability from which on it runs."""
    most: tuple[int, int] = (99, 9)
    """And up to which."""

    def runs_on(self, device: Device) -> bool:
        """Whether this kernel is for this chip at all."""
        return self.least <= device.capability <= self.most


def registry() -> tuple[KernelEntry, ...]:
    """Every kernel, in the order of the modules' names."""
    from asperity.runtime.cuda import checks

    entries: list[KernelEntry] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(checks.__path__)):
        entries.extend(importlib.import_module(f"{checks.__name__}.{module}").ENTRIES)
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise ValueError(f"two kernels of one name in the registry: {names}")
    return tuple(entries)
