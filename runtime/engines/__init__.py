"""The engine interface: turns a frame into scores. One file per engine in this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from asperity.runtime.errors import AsperityError, EngineError, EngineLostError
from asperity.runtime.frame import EngineInfo, Frame, Prepared, Scores

Progress = Callable[[str], None]
"""Called with a stage's name when the stage ends."""


class Engine(Protocol):
    """Scores frames of one bundle, of one station or of several that run it. Used by one thread at a time.

    An engine that inherits this scores frames one by one; one that can do better says so by ``batch_max``.
    """

    batch_max: int = 1
    """Frames that ``score_batch`` may be given at once."""

    def describe(self) -> EngineInfo:
        """What scores, on what device, at what precision."""

    def score(self, frame: Frame, progress: Progress) -> Scores:
        """The frame's scores.

        Raises FrameRefused when it must not be scored, EngineError when scoring failed, EngineLostError when nothing
        more can be scored until the engine is opened again.
        """

    def score_batch(self, frames: Sequence[Frame], progress: Progress) -> list[Scores | AsperityError]:
        """Scores of at most ``batch_max`` frames, in their order, or what ``score`` would have raised for each.

        A frame that is refused or fails costs the others nothing. Raises only what is true of all of them.
        """
        return [_scores_or_error(self, frame, progress) for frame in frames]

    def score_prepared(self, prepared: Prepared, progress: Progress) -> Scores:
        """Scores of a frame that was prepared before: calibration inputs and benchmarks. Raises EngineError."""

    def begin_serving(self) -> None:
        """The engine was proven and is about to judge: from here on it allocates nothing it could have before."""
        return

    def idle(self) -> None:
        """No frame waits: called at every idle tick, so an engine may keep itself awake. Raises EngineLostError."""
        return

    def close(self) -> None:
        """Frees what the engine holds. May be called twice."""


def _scores_or_error(engine: Engine, frame: Frame, progress: Progress) -> Scores | AsperityError:
    try:
        return engine.score(frame, progress)
    except EngineLostError:
        raise
    except AsperityError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever an engine raises costs this frame alone
        return EngineError(f"{type(error).__name__}: {error}")
