"""Several datasets as one."""

from __future__ import annotations

import math
from collections import abc
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.jpeg import ReducedFrame
from slt_gym.data.sequence import Sequence, SequenceDataset
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError


class MixtureDataset(SequenceDataset):
    """The sequences of several datasets, one dataset after the other.

    Training draws a dataset by the weights, then one of its sequences. Sequences are called
    ``"<dataset>/<name>"``.

    Args:
        datasets: The parts; no two of them have the same name.
        weights: How often each part is drawn, in relation to the others; all are drawn equally
            often by default (as by SLT-TransT and SLT-TrDiMP). PySOT's mixtures, which draw from
            one list of all videos, are the numbers of videos that each dataset has in the list.
        split: What the mixture counts as.

    Raises:
        InvalidArgumentError: The weights do not fit the parts, or two parts have one name.
        DatasetNotFoundError: A part holds no sequence.

    Attributes:
        datasets: The parts.
    """

    def __init__(
        self,
        datasets: abc.Sequence[SequenceDataset],
        weights: abc.Sequence[float] | None = None,
        split: str = "train",
    ) -> None:
        names = [dataset.name for dataset in datasets]
        for dataset in datasets:
            if names.count(dataset.name) > 1:
                raise InvalidArgumentError(
                    f"mixture {'+'.join(names)} names {dataset.name} twice: give it more weight"
                )
            if not len(dataset):
                raise DatasetNotFoundError(
                    f"split {dataset.split!r} of {dataset.name}, a part of the mixture "
                    f"{'+'.join(names)}, holds no sequence"
                )
        self.datasets = tuple(datasets)
        shares = _check_weights(names, weights)
        stops = list(accumulate(len(dataset) for dataset in datasets))
        ranges = [range(a, b) for a, b in zip([0, *stops], stops, strict=False)]
        self._parts = tuple(zip(shares, ranges, strict=True))
        super().__init__(
            "+".join(names),
            split,
            [f"{dataset.name}/{name}" for dataset in datasets for name in dataset.names],
        )

    @property
    def parts(self) -> tuple[tuple[float, range], ...]:
        """Shares of training draws, and the sequences among which each is drawn uniformly."""
        return self._parts

    def _load(self, index: int) -> Sequence:
        """Return sequence ``index`` under its new name."""
        for dataset, (_, part) in zip(self.datasets, self._parts, strict=True):
            if index in part:
                return _Renamed(self.names[index], dataset[index - part.start])
        raise IndexError(index)


class _Renamed(Sequence):
    """A sequence under another name."""

    def __init__(self, name: str, sequence: Sequence) -> None:
        super().__init__(
            name, sequence.boxes, sequence.visible, sequence.attributes, sequence.notes
        )
        self._sequence = sequence

    def read(self, t: int) -> NDArray[np.uint8]:
        """Return frame ``t``, RGB uint8, shape ``(H, W, 3)``."""
        return self._sequence.read(t)

    def read_mask(self, t: int) -> NDArray[np.bool_] | None:
        """Return the target's mask in frame ``t``, shape ``(H, W)``, if it is known."""
        return self._sequence.read_mask(t)

    def read_reduced(self, t: int, factor: int = 1, rows: int | None = None) -> ReducedFrame:
        """Return frame ``t`` smaller, or its upper part, if that is faster, else whole."""
        return self._sequence.read_reduced(t, factor, rows)


def _check_weights(names: list[str], weights: abc.Sequence[float] | None) -> list[float]:
    """Return the shares of the draws, which add up to 1."""
    if weights is None:
        weights = [1.0] * len(names)
    try:
        numbers = [float(weight) for weight in weights]
    except (TypeError, ValueError):
        numbers = []
    good = all(math.isfinite(number) and number >= 0 for number in numbers) and sum(numbers) > 0
    if len(numbers) != len(names) or not good:
        raise InvalidArgumentError(
            f"weights={weights!r} of the mixture {'+'.join(names)}: accepted are {len(names)} "
            "numbers, 0 or more and not all 0"
        )
    return [number / sum(numbers) for number in numbers]
