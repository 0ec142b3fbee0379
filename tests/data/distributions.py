"""Sequences without frames, and tests of whether draws follow a distribution."""

from __future__ import annotations

import numpy as np

from slt_gym.data import Sequence, SequenceDataset


class Boxes(Sequence):
    """A sequence without frames."""

    def __init__(self, visible, name: str = "boxes") -> None:
        visible = np.asarray(visible, bool)
        super().__init__(name, np.tile([1.0, 2.0, 3.0, 4.0], (len(visible), 1)), visible)

    def read(self, t: int):
        raise NotImplementedError


class BoxesDataset(SequenceDataset):
    """Sequences of given lengths, all of whose frames are visible."""

    def __init__(self, name: str, *lengths: int, split: str = "train") -> None:
        super().__init__(name, split, [f"s-{i}" for i in range(len(lengths))])
        self.lengths = lengths

    def _load(self, index: int) -> Sequence:
        return Boxes(np.ones(self.lengths[index], bool), self.names[index])


def assert_counts(counts, shares) -> None:
    """Check counts against expected shares: a chi-square test at four standard deviations."""
    counts, shares = np.asarray(counts, float), np.asarray(shares, float)
    assert (counts[shares == 0] == 0).all()
    counts, shares = counts[shares > 0], shares[shares > 0]
    expected = counts.sum() * shares / shares.sum()
    assert expected.min() >= 5, "too few draws for the test"
    freedom = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    # Wilson and Hilferty: the cube root of chi-square over its freedom is nearly normal.
    spread = 2 / (9 * freedom)
    z = (np.cbrt(statistic / freedom) - (1 - spread)) / np.sqrt(spread)
    assert z < 4, f"chi-square {statistic:.1f} with {freedom} degrees of freedom"


def assert_share(hits, share: float) -> None:
    """Check how often something happened against its probability, within four deviations."""
    hits = np.asarray(hits, bool)
    assert abs(hits.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(hits))


def assert_uniform(values, low, high, bins: int = 20) -> None:
    """Check that each whole number is uniform in its own ``[low, high)``, bounds included."""
    values, low, high = np.broadcast_arrays(values, low, high)
    assert (values >= low).all()
    assert (values < high).all()
    # A number drawn uniformly within each whole one makes the share of the range uniform.
    within = np.random.default_rng(0).random(len(values))
    position = (values - low + within) / (high - low)
    assert_counts(np.histogram(position, bins, (0, 1))[0], np.full(bins, 1 / bins))
