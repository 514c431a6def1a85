"""What only a person can do or see: asked, and what was answered."""

from __future__ import annotations

from collections.abc import Callable

from asperity.runtime.commissioning.line import NotChecked

YES, NO = ("", "y", "yes", "done"), ("n", "no", "s", "skip")


class Questions:
    """Asks one person. ``prompt``: shows a text and returns what was typed; None: nobody is there."""

    def __init__(self, prompt: Callable[[str], str] | None) -> None:
        self._prompt = prompt
        self._answers: list[str] = []
        self._title = ""

    def begin(self, title: str) -> None:
        """The next row."""
        self._title, self._answers = title, []

    def ask(self, what: str) -> bool:
        """Have it done; False: it was not. Raises NotChecked where nobody is there."""
        if self._prompt is None:
            raise NotChecked(f"nobody was asked (--ask none): {what}")
        while True:
            typed = self._prompt(f"{self._title}: {what} Enter when done, s to leave it out").strip()
            if typed.lower() in YES + NO:
                break
        self._answers.append(f"{what} - {typed or 'done'}")
        return typed.lower() in YES

    def answered(self) -> tuple[str, ...]:
        """Questions and answers of this row."""
        return tuple(self._answers)
