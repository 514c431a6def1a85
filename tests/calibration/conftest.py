"""Fixtures of this folder."""

from tests.read_once import frames_are_read_once

__all__ = ["frames_are_read_once"]
