"""Reads a frame's head and answer on the host (``runtime.cuda.lane``)."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from asperity.runtime.cuda.maps import peak_values
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, ModalityScores

FAULTS = {
    1: "NaN or infinity",
    2: "a count outside its buffer",
    4: "empty input",
    8: "an index outside its table",
    16: "shapes that do not match",
}
"""Bits of the kernels' fault word (``runtime/cuda/faults.cuh``)."""
EMPTY = 4


def modality_of(answer: dict[str, NDArray[Any]], name: str, scored: BoolArray) -> ModalityScores:
    """One modality's distances; Raises EngineError where the search could not answer."""
    not_finite, _, _, no_row = answer[f"{name}_stats"].tolist()
    if not_finite or no_row:
        raise EngineError(f"{not_finite} {name} features are not finite and {no_row} found no row of the bank")
    if not scored.any():
        distance = 0.0
    elif f"{name}_peak" in answer:
        distance = float(peak_values(answer[f"{name}_peak"])[0])
    else:
        distance = float(answer[f"{name}_distance"][0])
    return ModalityScores(answer[name].copy(), distance)


def check_number(told: dict[str, NDArray[Any]], number: int) -> None:
    """Raises EngineError where what came back is another frame's."""
    found = int(told["number"][0])
    if found != number:
        raise EngineError(f"the device answered for frame {found} instead of frame {number}")


def check_fault(fault: int) -> None:
    """Raises EngineError for any bit of the fault word."""
    if fault:
        found = ", ".join(text for bit, text in FAULTS.items() if fault & bit) or f"fault {fault:#x}"
        raise EngineError(f"a kernel met {found}; the networks, the banks or the frame's 3D data are damaged")
