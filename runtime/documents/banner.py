"""The notice in every generated file."""

from __future__ import annotations

MADE = "Made from the Python sources by `make documents`; do not edit."
