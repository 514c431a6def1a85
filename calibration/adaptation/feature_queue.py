"""FIFO queues of past adapted features: the dynamic banks M of lsfa 4."""

from __future__ import annotations

import torch
from torch import Tensor


class FeatureQueue:
    """The newest ``capacity`` detached rows, oldest out first.

    A row may stand for several equal ones: ``capacity`` counts those (lsfa 11 row 18), and a row stays as long as one
    of its copies would. Row order is oldest first.
    """

    def __init__(self, capacity: int, channels: int, device: torch.device | str = "cpu") -> None:
        self.capacity = capacity
        self.rows = torch.zeros((0, channels), device=device)
        self.weights = torch.zeros((0,), device=device)

    @property
    def full(self) -> bool:
        """Whether the queue has seen at least its capacity."""
        return float(self.weights.sum()) >= self.capacity

    def push(self, rows: Tensor, weights: Tensor) -> None:
        """Append detached ``rows`` (n, C) with multiplicities ``weights`` (n,), and drop what is too old."""
        self.rows = torch.cat([self.rows, rows.detach()])
        self.weights = torch.cat([self.weights, weights.detach()])
        newer = self.weights.flip(0).cumsum(0).flip(0) - self.weights
        keep = newer < self.capacity
        self.rows, self.weights = self.rows[keep], self.weights[keep]
