"""Learning rates as functions of the remaining progress, 1 at the start and 0 at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CosineSchedule:
    """Half a cosine from ``start`` down to ``end``.

    Over the share ``warmup`` of the training the rate first rises linearly, from a tenth of the
    cosine's: Adam's first steps, whose size the gradients do not bound, would disturb a trained
    network.
    """

    start: float
    end: float = 0.0
    warmup: float = 0.0

    def __call__(self, progress_remaining: float) -> float:
        """Return the learning rate."""
        cosine = (1 - math.cos(math.pi * progress_remaining)) / 2
        rate = self.end + (self.start - self.end) * cosine
        if self.warmup:
            rate *= 0.1 + 0.9 * min((1 - progress_remaining) / self.warmup, 1.0)
        return rate


@dataclass(frozen=True)
class StepSchedule:
    """``start``, times ``factor`` once the share ``at`` of the training is over."""

    start: float
    factor: float
    at: float

    def __call__(self, progress_remaining: float) -> float:
        """Return the learning rate."""
        return self.start * (self.factor if 1 - progress_remaining >= self.at else 1.0)


@dataclass(frozen=True)
class ExponentialSchedule:
    """From ``start`` to ``end`` in equal ratios, one step in each of ``epochs`` parts."""

    start: float
    end: float
    epochs: int

    def __call__(self, progress_remaining: float) -> float:
        """Return the learning rate."""
        done = (1 - progress_remaining) * self.epochs + 1e-9  # an epoch's start is in the epoch
        epoch = min(int(done), self.epochs - 1)
        return self.start * (self.end / self.start) ** (epoch / (self.epochs - 1))
