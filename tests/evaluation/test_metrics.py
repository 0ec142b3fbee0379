from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.envs.rewards import frame_reward
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.metrics import paired_interval, success_auc, success_curve

# Half of them exactly on a threshold.
overlaps = st.lists(
    st.one_of(st.floats(0, 1), st.integers(0, 20).map(lambda k: 0.05 * k)), min_size=1, max_size=30
)


@given(ious=overlaps)
@settings(deadline=None)
def test_the_success_curve_counts_strictly_greater_overlaps(ious: list[float]) -> None:
    expected = [sum(value > 0.05 * k for value in ious) / len(ious) for k in range(21)]
    np.testing.assert_allclose(success_curve(ious), expected, rtol=1e-12)


@given(ious=overlaps)
@settings(deadline=None)
def test_the_auc_is_the_return_of_the_environments_reward(ious: list[float]) -> None:
    expected = sum(frame_reward("auc", value, len(ious)) for value in ious)
    assert success_auc(ious) == pytest.approx(expected, abs=1e-12)
    assert 0 <= success_auc(ious) <= 20 / 21
    curve = success_curve(ious)
    assert (np.diff(curve) <= 0).all()
    assert success_auc(ious) == pytest.approx(curve.mean(), abs=1e-12)


def test_success_of_known_overlaps() -> None:
    assert success_auc([1.0]) == pytest.approx(20 / 21)
    assert success_auc([0.0]) == 0
    assert success_curve([0.5, 0.0])[[0, 9, 10]].tolist() == [0.5, 0.5, 0.0]
    assert success_auc([]) == 0
    assert success_curve([]).tolist() == [0.0] * 21


def test_the_interval_covers_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for trial in range(200):
        base = rng.uniform(0, 1, 40)
        a = base + 0.03 + 0.1 * rng.standard_normal(40)
        _, low, high = paired_interval(a, base, seed=trial, resamples=400)
        covered.append(low <= 0.03 <= high)
    # A percentile bootstrap of 40 covers a little less than 95 %.
    assert 0.88 <= np.mean(covered) <= 0.985


def test_the_interval_is_that_of_the_normal_theory() -> None:
    rng = np.random.default_rng(1)
    difference = 0.2 * rng.standard_normal(400) + 0.1
    b = rng.uniform(0, 1, 400)
    mean, low, high = paired_interval(b + difference, b)
    error = difference.std() / np.sqrt(400)
    assert mean == pytest.approx(difference.mean(), abs=1e-12)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)
    _, low_90, high_90 = paired_interval(b + difference, b, level=0.9)
    assert low < low_90 < high_90 < high


def test_the_interval_uses_the_pairs() -> None:
    # Sequences differ much from each other, trackers little on each of them.
    rng = np.random.default_rng(2)
    b = rng.uniform(0, 1, 50)
    a = b + 0.01 + 0.001 * rng.standard_normal(50)
    mean, low, high = paired_interval(a, b)
    assert low <= mean <= high
    assert high - low < 0.001
    mean_2, low_2, high_2 = paired_interval(b, a)
    assert (mean_2, low_2, high_2) == pytest.approx((-mean, -high, -low), abs=5e-5)


def test_the_interval_of_equal_differences_is_a_point() -> None:
    for a, b, difference in (([0.5], [0.25], 0.25), ([1.0, 2.0, 3.0], [0.5, 1.5, 2.5], 0.5)):
        assert paired_interval(a, b) == pytest.approx((difference,) * 3)


def test_the_interval_depends_on_its_seed_alone() -> None:
    a, b = np.random.default_rng(3).uniform(0, 1, (2, 20))
    assert paired_interval(a, b, seed=1) == paired_interval(a, b, seed=1)
    assert paired_interval(a, b, seed=1)[1:] != paired_interval(a, b, seed=2)[1:]


@pytest.mark.parametrize(("a", "b"), [([], []), ([0.5, 0.4], [0.5]), ([[0.5]], [[0.4]])])
def test_paired_interval_needs_pairs(a, b):
    with pytest.raises(InvalidArgumentError, match="two equal ones"):
        paired_interval(a, b)
