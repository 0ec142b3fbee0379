"""Scores of any boxes: what must hold of them, and a loop over frames that they must equal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slt_gym.errors import SltGymError
from slt_gym.evaluation import score
from slt_gym.evaluation.metrics import inclusive_iou
from slt_gym.evaluation.rules import RULES
from slt_gym.geometry import iou

NAN = float("nan")


# Quarters of a pixel: all sums are exact, so that equal boxes overlap by exactly 1.
def quarters(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(4 * low, 4 * high).map(lambda k: k / 4)


box = st.tuples(quarters(1, 40), quarters(1, 40), quarters(1, 30), quarters(1, 30))
odd_box = st.one_of(
    box,
    st.tuples(*[quarters(-5, 20)] * 4),
    st.sampled_from([(0.0, 0.0, 0.0, 0.0), (NAN, NAN, NAN, NAN)]),
)
frames = st.lists(st.tuples(box, box), min_size=1, max_size=12)
odd_frames = st.lists(st.tuples(odd_box, odd_box, st.booleans()), min_size=1, max_size=12)
HONEST = [rule for rule in RULES if not RULES[rule].divide_by_valid]


@given(rows=odd_frames)
@settings(deadline=None, max_examples=50)
def test_curves_are_shares_and_monotonous(rows: list[Any]) -> None:
    truth, track, absent = zip(*rows, strict=True)
    for rule in HONEST:
        try:
            found = score(truth, track, rule, absent=absent, cover=~np.array(absent))
        except SltGymError:
            continue
        for key, value in found.items():
            if isinstance(value, np.ndarray):
                assert ((value >= 0) & (value <= 1)).all()
                step = np.diff(value)
                assert (step <= 0).all() if "succ" in key else (step >= 0).all()
            else:
                assert math.isnan(value) or 0 <= value <= (100 if rule == "trackingnet" else 1)


@given(boxes=st.lists(box, min_size=2, max_size=12))
@settings(deadline=None, max_examples=30)
def test_a_perfect_prediction(boxes: list[Any]) -> None:
    for rule in RULES:
        for key, value in score(boxes, boxes, rule).items():
            if key == "success_auc":
                assert value == pytest.approx(20 / 21)
            elif not isinstance(value, np.ndarray):
                assert value == pytest.approx(100 if rule == "trackingnet" else 1)


@given(rows=frames, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_the_order_of_later_frames_does_not_matter(rows: list[Any], seed: int) -> None:
    order = [0, *(1 + np.random.default_rng(seed).permutation(len(rows) - 1))]
    truth, track = np.array(rows).swapaxes(0, 1)
    for rule in RULES:
        expected, found = score(truth, track, rule), score(truth[order], track[order], rule)
        for key in expected:
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-12)


@given(rows=frames, power=st.integers(-1, 6))
@settings(deadline=None, max_examples=30)
def test_overlap_and_success_do_not_depend_on_the_scale(rows: list[Any], power: int) -> None:
    truth, track = np.array(rows).swapaxes(0, 1)
    scale = 2.0**power
    for overlap in (iou, inclusive_iou):
        np.testing.assert_array_equal(overlap(scale * truth, scale * track), overlap(truth, track))
    for rule in RULES:
        if rule != "trackingnet":  # It rounds to pixels.
            key = "ao" if rule == "got10k_val" else "success_auc"
            expected = score(truth, track, rule)[key]
            np.testing.assert_array_equal(score(scale * truth, scale * track, rule)[key], expected)


@given(rows=frames)
@settings(deadline=None, max_examples=30)
def test_inclusive_and_continuous_overlap_are_equal(rows: list[Any]) -> None:
    truth, track = np.array(rows).swapaxes(0, 1)
    np.testing.assert_allclose(inclusive_iou(truth, track), iou(truth, track), rtol=1e-12)


def plain_overlap(g: Any, p: Any) -> float:
    width = min(g[0] + g[2], p[0] + p[2]) - max(g[0], p[0])
    height = min(g[1] + g[3], p[1] + p[3]) - max(g[1], p[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (g[2] * g[3] + p[2] * p[3] - width * height)


def plain_errors(g: Any, p: Any, least: float = -math.inf) -> tuple[float, float]:
    x = (p[0] + (p[2] - 1) / 2) - (g[0] + (g[2] - 1) / 2)
    y = (p[1] + (p[3] - 1) / 2) - (g[1] + (g[3] - 1) / 2)
    w, h = max(g[2], least), max(g[3], least)
    norm = float(np.hypot(x / w, y / h)) if w and h else math.inf
    return float(np.hypot(x, y)), norm


def plain_score(rule: str, rows: list[Any]) -> tuple[list[float], list[float], list[float]]:
    """Score frame by frame, threshold by threshold, with what the rule says written out."""
    success, precision, norm_precision = [0] * 21, [0] * 51, [0] * 51
    counted = 0
    last = rows[0][1]
    for t, (g, p, absent) in enumerate(rows):
        faulty = any(math.isnan(v) for v in p) or p[2] <= 0 or p[3] <= 0
        if rule == "lasot" and t > 0 and faulty:
            p = last  # noqa: PLW2901
        last = p
        if not rule.startswith("pysot") and t == 0:
            p = g  # noqa: PLW2901
        nan_truth = any(math.isnan(v) for v in g)
        if rule == "got10k_lasot" and nan_truth:
            continue
        counted += 1
        overlap = plain_overlap(g, p)
        error, norm = plain_errors(g, p, 1.0 if rule == "got10k_lasot" else -math.inf)
        if rule == "lasot" and not all(v > 0 for v in g):
            overlap, error, norm = -1.0, -1.0, -1.0
        if rule.startswith("pysot"):
            if not (g[2] > 0 and g[3] > 0):
                overlap = -1.0
            if not (g[0] + (g[2] - 1) / 2 > 0 and g[1] + (g[3] - 1) / 2 > 0):
                error, norm = -1.0, -1.0
        if absent and rule in ("lasot", "pysot_ope_absent"):
            continue
        for k in range(21):
            success[k] += overlap > 0.05 * k
        for k in range(51):
            precision[k] += error <= k
            norm_precision[k] += norm <= k / 100
    shares = [[hits / max(counted, 1) for hits in curve] for curve in (success, precision)]
    return shares[0], shares[1], [hits / max(counted, 1) for hits in norm_precision]


@pytest.mark.parametrize("rule", ["pysot_ope", "pysot_ope_absent", "got10k_lasot", "lasot"])
@given(rows=odd_frames)
@settings(deadline=None, max_examples=60)
def test_arrays_score_as_a_loop_over_frames(rule: str, rows: list[Any]) -> None:
    truth, track, absent = zip(*rows, strict=True)
    found = score(truth, track, rule, absent=absent)
    curves = ("success_curve", "precision_curve", "norm_precision_curve")
    for key, expected in zip(curves, plain_score(rule, rows), strict=True):
        np.testing.assert_allclose(found[key], expected, atol=1e-12, err_msg=key)
