"""Choosing visible frames at random, and the checks that all samplers share."""

from __future__ import annotations

import operator

import numpy as np

from slt_gym.data.sequence import Sequence
from slt_gym.errors import InvalidArgumentError


class Picker:
    """Uniform choice among the visible frames of a range."""

    def __init__(self, sequence: Sequence, rng: np.random.Generator) -> None:
        self.first = first_visible(sequence)
        self.visible = np.flatnonzero(sequence.visible)
        self.length = len(sequence)
        self._rng = rng

    def pick(self, low: int, high: int) -> int | None:
        """Return a visible frame in ``[low, high)``, or None where there is none."""
        start, stop = self.visible.searchsorted((low, high))
        return int(self.visible[self._rng.integers(start, stop)]) if start < stop else None


def first_visible(sequence: Sequence) -> int:
    """Return the number of the first frame in which the target is visible.

    Raises:
        InvalidArgumentError: There is none.
    """
    if not sequence.visible.any():
        raise InvalidArgumentError(
            f"the target of sequence {sequence.name!r} is not visible in any of its "
            f"{len(sequence)} frames: a clip needs a first box"
        )
    return int(np.argmax(sequence.visible))


def check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    """Refuse what is not a whole number from ``low`` up, or to ``high``.

    Raises:
        InvalidArgumentError: It is not.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if number < low or (high is not None and number > high):
        accepted = f"{low} or more" if high is None else f"{low} to {high}"
        raise InvalidArgumentError(
            f"{name}={value!r} is out of range: accepted are whole numbers, {accepted}"
        )


def check_share(name: str, value: float) -> None:
    """Refuse what is not a number from 0 to 1.

    Raises:
        InvalidArgumentError: It is not.
    """
    if not 0 <= value <= 1:
        raise InvalidArgumentError(f"{name}={value!r} is not a number from 0 to 1")
