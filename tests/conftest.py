"""Fixtures that several rooms share."""

from __future__ import annotations
