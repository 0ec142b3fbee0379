from __future__ import annotations

import functools
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slt_gym.errors import AnnotationError, InvalidArgumentError, ResultsError, SltGymError
from slt_gym.evaluation import score
from slt_gym.evaluation.dataset_scoring import GroundTruth, score_dataset
from slt_gym.evaluation.metrics import centre_errors, precision_curve, success_curve
from slt_gym.evaluation.rules import RULES

NAN = float("nan")
# The two rules whose reference values go by the names of the programs.
KEYS = {"lasot": "lasot_matlab_port", "trackingnet": "trackingnet_devkit"}
CASES = (
    "noisy_drift",
    "perfect",
    "no_overlap",
    "absent_zero_gt",
    "absent_nan_gt",
    "nan_prediction",
    "zero_area_boxes",
    "short_prediction",
)


@functools.cache
def load_reference(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    reference = json.loads((folder / "parity" / "metrics.json").read_text("utf-8"))
    return {case["name"]: case for case in reference["cases"]}, reference["golden"]


def test_rules_and_cases_are_those_of_the_reference(shared: Path) -> None:
    cases, golden = load_reference(shared)
    assert sorted(KEYS.get(rule, rule) for rule in RULES) == sorted(golden)
    assert tuple(cases) == CASES


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CASES)
def test_every_case_scores_as_in_the_toolkit(shared: Path, name: str, rule: str) -> None:
    cases, golden = load_reference(shared)
    case, expected = cases[name], golden[KEYS.get(rule, rule)][name]
    flags = ("absent", "full_occlusion", "out_of_view", "cover", "image_size")
    arguments = {key: case[key] for key in flags}
    if "raises" in expected:
        with pytest.raises((ResultsError, AnnotationError), match="row"):
            score(case["gt"], case["pred"], rule, **arguments)
        return
    found = score(case["gt"], case["pred"], rule, **arguments)
    assert list(found) == list(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], np.array(value, float), atol=1e-6, err_msg=key)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "lasot"])
def test_datasets_average_as_in_the_toolkit(shared: Path, rule: str) -> None:
    cases, golden = load_reference(shared)
    expected = dict(golden[KEYS.get(rule, rule)]["__all__"])
    names = expected.pop("over")
    truths = {
        name: GroundTruth(
            np.array(cases[name]["gt"], float),
            np.array(cases[name]["absent"]) != 0,
            np.array(cases[name]["cover"]) == 0,
            cases[name]["image_size"],
        )
        for name in names
    }
    results = {name: np.array(cases[name]["pred"], float) for name in names}
    found = score_dataset(truths, results, rule)
    for key, value in expected.items():
        np.testing.assert_allclose(found.scores[key], np.array(value, float), atol=1e-6)


# A target of 10 x 10 pixels; the prediction begins elsewhere, is right, is off by half a target
# (overlap 1/3, 5 pixels), is lost (60 pixels).
TRUTH = [[10, 10, 10, 10]] * 4
TRACK = [[100, 100, 10, 10], [10, 10, 10, 10], [15, 10, 10, 10], [70, 10, 10, 10]]
FIRST_AS_PREDICTED = {
    "success_auc": (20 + 7) / (21 * 4),
    "op50": 1 / 4,
    "op75": 1 / 4,
    "precision_20": 2 / 4,
    "norm_precision_020": 1 / 4,
}
FIRST_GIVEN = {
    "success_auc": (20 + 20 + 7) / (21 * 4),
    "op50": 2 / 4,
    "op75": 2 / 4,
    "precision_20": 3 / 4,
    "norm_precision_020": 2 / 4,
}
FIRST_OF_TOOLKIT = {key: FIRST_GIVEN[key] for key in ("success_auc", "precision_20", "op50")}
BY_HAND: dict[str, dict[str, float]] = {
    "pysot_ope": FIRST_AS_PREDICTED,
    "pysot_ope_absent": FIRST_AS_PREDICTED,
    **{
        rule: {**FIRST_GIVEN, "avg_overlap": (1 + 1 + 1 / 3) / 4}
        for rule in RULES
        if rule.startswith(("pytracking", "slt_fork"))
    },
    "lasot": FIRST_GIVEN,
    "got10k_otb": FIRST_OF_TOOLKIT,
    "got10k_uav123": FIRST_OF_TOOLKIT,
    "got10k_lasot": {**FIRST_OF_TOOLKIT, "norm_precision_auc": (51 + 51 + 1) / (51 * 4)},
    "got10k_val": {"ao": (1 + 1 / 3) / 3, "sr50": 1 / 3, "sr75": 1 / 3},
    "trackingnet": {
        "coverage": 100,
        "success_trapz": 100 * (1 + 6 * 0.75 + 14 * 0.5 - (1 + 0.5) / 2) / 20,
        "precision_trapz": 100 * (2 * 0.5 + 19 * 0.75 - (0.5 + 0.75) / 2) / 20,
        "norm_precision_trapz": 100 * (20 * 0.5 + 0.75 - (0.5 + 0.75) / 2) / 20,
    },
}


@pytest.mark.parametrize("rule", RULES)
def test_a_case_computed_by_hand(rule: str) -> None:
    found = score(TRUTH, TRACK, rule)
    assert set(found) == set(RULES[rule].reports)
    scores = {key: value for key, value in found.items() if not isinstance(value, np.ndarray)}
    assert scores == pytest.approx(BY_HAND[rule])
    curves = {key: value for key, value in found.items() if isinstance(value, np.ndarray)}
    if "success_curve" in curves:
        first = 0.0 if rule.startswith("pysot") else 0.25
        expected = first + np.array([0.5] * 7 + [0.25] * 13 + [-first])
        np.testing.assert_allclose(curves["success_curve"], expected)
        near = np.array([0.25] * 5 + [0.5] * 46)
        np.testing.assert_allclose(curves["precision_curve"], first + near)
    if "norm_precision_curve" in curves:
        assert curves["norm_precision_curve"][[0, 49, 50]] == pytest.approx(
            first + np.array([0.25, 0.25, 0.5])
        )


SQUARE = [10, 10, 10, 10]
HIT, MISS, REFUSED = (1, 1, 1), (0.5, 0.5, 0.5), None
OTB = ("pytracking_otb", "slt_fork_otb")
LASOT = ("pytracking_lasot", "slt_fork_lasot")
TOOLKIT = ("got10k_otb", "got10k_uav123", "got10k_lasot")
# The second of two frames: ground truth, prediction, flag of absence; and what it makes of success
# (overlap above 0), precision (20 pixels) and normalised precision (0.2) under each rule.
EDGES: dict[str, tuple[Any, Any, int, dict[str | tuple[str, ...], Any]]] = {
    "NaN in the ground truth": (
        [NAN] * 4,
        SQUARE,
        0,
        {
            ("pysot_ope", "pysot_ope_absent", "pytracking_uav", "lasot"): (0.5, 1, 1),
            (*OTB, *LASOT, "pytracking_lasot_exclude_invalid"): REFUSED,
            "got10k_otb": MISS,
            ("got10k_uav123", "got10k_lasot"): HIT,
        },
    ),
    "NaN in the ground truth, flagged": (
        [NAN] * 4,
        SQUARE,
        1,
        {("pysot_ope", "pytracking_uav"): (0.5, 1, 1), ("pysot_ope_absent", "lasot"): MISS},
    ),
    "zeros in the ground truth": (
        [0] * 4,
        SQUARE,
        0,
        {
            ("pysot_ope", "pysot_ope_absent", "pytracking_uav", "lasot"): (0.5, 1, 1),
            (*OTB, *LASOT): (0.5, 0.5, 1),
            "pytracking_lasot_exclude_invalid": (1, 1, 2),  # as the toolkit has it: above 1
            TOOLKIT: MISS,
        },
    ),
    "zeros in the ground truth, flagged": (
        [0] * 4,
        SQUARE,
        1,
        {
            ("pysot_ope", "pytracking_uav"): (0.5, 1, 1),
            OTB: (0.5, 0.5, 1),
            ("pysot_ope_absent", *LASOT, "lasot"): MISS,
            "pytracking_lasot_exclude_invalid": HIT,
        },
    ),
    "zeros in the ground truth, close": (
        [0] * 4,
        [1, 1, 2, 2],
        0,
        {TOOLKIT: (0.5, 1, 0.5), OTB: (0.5, 0.5, 1)},
    ),
    "no size in the ground truth, right centre": (
        [14.5, 14.5, 0, 0],
        [9.5, 9.5, 10, 10],
        0,
        {TOOLKIT: (0.5, 1, 1), OTB: (0.5, 0.5, 1), "pytracking_uav": (0.5, 1, 1)},
    ),
    "negative height in the ground truth": (
        [10, 10, 10, -10],
        SQUARE,
        0,
        {
            ("pytracking_uav", "lasot"): (0.5, 1, 1),
            OTB: (0.5, 0.5, 1),
            TOOLKIT: (0.5, 1, 0.5),
        },
    ),
    "flagged with a box": (
        SQUARE,
        SQUARE,
        1,
        {
            ("pysot_ope_absent", *LASOT, "lasot"): MISS,
            ("pysot_ope", *OTB, "pytracking_uav", *TOOLKIT): HIT,
            "pytracking_lasot_exclude_invalid": HIT,
        },
    ),
    "ground truth at the border": (
        [0, 10, 10, 10],
        [0, 10, 10, 10],
        0,
        {
            ("pysot_ope", "pysot_ope_absent", "slt_fork_otb", "slt_fork_lasot", *TOOLKIT): HIT,
            ("pytracking_otb", "pytracking_lasot"): (0.5, 0.5, 1),
            ("pytracking_uav", "lasot"): (0.5, 1, 1),
        },
    ),
    "ground truth whose centre lies outside": (
        [-30, 10, 10, 10],
        [200, 10, 10, 10],
        0,
        {("pysot_ope", "pysot_ope_absent"): (0.5, 1, 1), "slt_fork_otb": MISS, TOOLKIT: MISS},
    ),
    "NaN in the prediction": (
        SQUARE,
        [NAN] * 4,
        0,
        {
            ("pysot_ope", "pysot_ope_absent", *TOOLKIT): MISS,
            (*OTB, *LASOT, "pytracking_uav", "pytracking_lasot_exclude_invalid"): REFUSED,
            "lasot": HIT,
        },
    ),
    "negative width in the prediction": (
        SQUARE,
        [10, 10, -10, 10],
        0,
        {
            ("pysot_ope", "pysot_ope_absent", *TOOLKIT): (0.5, 1, 0.5),
            (*OTB, *LASOT, "pytracking_uav", "pytracking_lasot_exclude_invalid"): REFUSED,
            "lasot": HIT,
        },
    ),
    "zero width in the prediction": (
        SQUARE,
        [200, 200, 0, 10],
        0,
        {
            ("pysot_ope", "pysot_ope_absent", *TOOLKIT): MISS,
            (*OTB, *LASOT, "pytracking_uav", "lasot"): HIT,
            "pytracking_lasot_exclude_invalid": HIT,
        },
    ),
    "too short": (
        SQUARE,
        None,
        0,
        {
            ("pysot_ope", "pysot_ope_absent", *LASOT, "lasot"): REFUSED,
            (*OTB, "pytracking_uav"): MISS,
            TOOLKIT: HIT,
        },
    ),
}
EDGE_ROWS = [
    pytest.param(truth, prediction, flag, rule, verdict, id=f"{edge}-{rule}")
    for edge, (truth, prediction, flag, verdicts) in EDGES.items()
    for rules, verdict in verdicts.items()
    for rule in ((rules,) if isinstance(rules, str) else rules)
]


@pytest.mark.parametrize(("truth", "prediction", "flag", "rule", "verdict"), EDGE_ROWS)
def test_edge_cases(truth: Any, prediction: Any, flag: int, rule: str, verdict: Any) -> None:
    track = [SQUARE] if prediction is None else [SQUARE, prediction]
    if verdict is None:
        with pytest.raises(SltGymError, match=r"row.* rule '"):
            score([SQUARE, truth], track, rule, absent=[0, flag])
        return
    found = score([SQUARE, truth], track, rule, absent=[0, flag])
    values = [found["success_curve"][0], found["precision_20"]]
    assert values == list(verdict[:2])
    norm = found.get("norm_precision_curve")
    assert norm is None or norm[20] == verdict[2]


def test_surplus_rows() -> None:
    for name, rule in RULES.items():
        if rule.long == "error":
            with pytest.raises(ResultsError, match="has 3 rows for 2 frames"):
                score([SQUARE] * 2, [SQUARE] * 3, name)
        else:
            expected, found = (score([SQUARE] * 2, [SQUARE] * n, name) for n in (2, 3))
            assert all(np.array_equal(found[key], expected[key]) for key in expected)
    assert {name for name, rule in RULES.items() if rule.long == "error"} == {
        "pysot_ope",
        "pysot_ope_absent",
        "got10k_val",
    }


def test_flags_may_be_longer_than_what_is_compared() -> None:
    truth, flags = [SQUARE, [NAN] * 4, SQUARE, SQUARE], [0, 1, 0, 0]
    found = score(truth, [SQUARE] * 3, "got10k_uav123", absent=flags, cover=flags)
    assert found["precision_20"] == 1


def test_repaired_rows_take_the_last_good_one() -> None:
    truth = [SQUARE] * 5
    track = [SQUARE, [15, 10, 10, 10], [0, 0, 0, 0], [3, 3, 0, 9], SQUARE]
    expected = score(truth, [SQUARE, *[[15, 10, 10, 10]] * 3, SQUARE], "lasot")
    for rule in ("lasot", "pytracking_otb"):
        assert score(truth, track, rule)["success_auc"] == pytest.approx(expected["success_auc"])
    # The row before the second one is the tracker's own, not the ground truth that replaces it.
    track = [[200, 200, 10, 10], [NAN] * 4, *[SQUARE] * 3]
    assert score(truth, track, "lasot")["success_curve"][0] == pytest.approx(4 / 5)
    track[1] = [0, 0, 0, 0]
    assert score(truth, track, "pytracking_uav")["success_curve"][0] == pytest.approx(4 / 5)


def test_flags_of_absence_add_up() -> None:
    flags = {"absent": [0, 1, 0, 0], "full_occlusion": [0, 0, 1, 0], "out_of_view": [0, 0, 0, 1]}
    for count in (1, 2, 3):
        given = dict(itertools.islice(flags.items(), count))
        found = score(TRUTH, TRUTH, "lasot", **given)
        assert found["precision_20"] == (4 - count) / 4


def test_exclude_invalid_divides_by_the_valid_frames() -> None:
    found = score(TRUTH, TRACK, "pytracking_lasot_exclude_invalid", absent=[0, 0, 0, 1])
    assert found["precision_20"] == 1
    assert found["avg_overlap"] == pytest.approx((1 + 1 + 1 / 3) / 3)


def test_got10k_drops_uncovered_frames_and_clips_boxes() -> None:
    found = score(TRUTH, TRACK, "got10k_val", cover=[8, 3, 8, 0])
    assert found["ao"] == pytest.approx((1 + 1 / 3) / 2)
    # The right half of the prediction lies outside of an image that is 20 pixels wide.
    truth, track = [SQUARE] * 2, [SQUARE, [10, 10, 20, 10]]
    assert score(truth, track, "got10k_val")["ao"] == 0.5
    assert score(truth, track, "got10k_val", image_size=(20, 30))["ao"] == 1
    assert score(truth, track, "got10k_val", image_size=(25, 30))["ao"] == pytest.approx(1 / 1.5)
    # A corner is moved in, the size stays.
    track[1] = [0, 10, 20, 10]
    truth[1] = [-5, 10, 20, 10]
    assert score(truth, track, "got10k_val", image_size=(30, 30))["ao"] == 1
    assert math.isnan(score(truth, [SQUARE, [NAN] * 4], "got10k_val")["ao"])
    assert math.isnan(score([SQUARE], [SQUARE], "got10k_val")["ao"])
    with pytest.raises(ResultsError, match="1 rows for 2 frames"):
        score(truth, [SQUARE], "got10k_val")


def test_trackingnet_rounds_and_counts_what_is_missing() -> None:
    # Halves go to the even neighbour: 10.5 to 10, 11.5 to 12.
    found = score([SQUARE] * 2, [SQUARE, [10.5, 9.5, 9.51, 10.49]], "trackingnet")
    assert found == pytest.approx(dict.fromkeys(found, 100))
    moved = score([SQUARE] * 2, [SQUARE, [11.5, 10, 10, 10]], "trackingnet")
    assert moved == pytest.approx(score([SQUARE] * 2, [SQUARE, [12, 10, 10, 10]], "trackingnet"))
    lost = score([SQUARE] * 2, [SQUARE, [200, 200, 10, 10]], "trackingnet")
    assert lost["success_trapz"] == pytest.approx(50 + 50 * 0.5 / 20)  # 0 is at least 0
    for track in ([SQUARE], [SQUARE, [NAN] * 4]):
        found = score([SQUARE] * 2, track, "trackingnet")
        assert found == pytest.approx(dict.fromkeys(found, 50))


def test_messages_name_the_row() -> None:
    bad = [[10, 10, 10, 10], [10, 10, NAN, 10], [1, 2, -3, 4]]
    with pytest.raises(ResultsError, match=r"row 2 of the prediction is 10, 10, nan, 10 \(NaN; 1"):
        score([SQUARE] * 3, bad, "pytracking_otb")
    bad[1] = SQUARE
    with pytest.raises(ResultsError, match=r"row 3 .* 1, 2, -3, 4 \(negative size; .*refuses"):
        score([SQUARE] * 3, bad, "pytracking_uav")
    with pytest.raises(AnnotationError, match=r"row 2 of the ground truth .*'slt_fork_otb'"):
        score([SQUARE, [NAN] * 4], [SQUARE] * 2, "slt_fork_otb")
    with pytest.raises(ResultsError, match=r"2 rows for 3 frames: rule 'lasot' .*at least as many"):
        score([SQUARE] * 3, [SQUARE] * 2, "lasot")
    with pytest.raises(InvalidArgumentError, match=r"unknown rule 'lasso'.*'lasot'"):
        score([SQUARE], [SQUARE], "lasso")
    with pytest.raises(InvalidArgumentError, match=r"the prediction has shape \(4,\)"):
        score([SQUARE], SQUARE, "lasot")
    with pytest.raises(InvalidArgumentError, match=r"the ground truth has shape \(0,\)"):
        score([], [SQUARE], "lasot")
    with pytest.raises(InvalidArgumentError, match=r"cover has shape \(2,\): .* 1 frames"):
        score([SQUARE], [SQUARE], "lasot", cover=[8, 8])


def test_importing_evaluation_is_light() -> None:
    code = "import sys, slt_gym.evaluation; print({'torch', 'matplotlib'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_score_leaves_its_arguments_alone() -> None:
    truth, track = np.array(TRUTH, float), np.array(TRACK, float)
    track[2] = 0
    copies = truth.copy(), track.copy()
    for rule in RULES:
        score(truth, track, rule, absent=[0, 1, 0, 0], image_size=(50, 50))
    assert np.array_equal(truth, copies[0])
    assert np.array_equal(track, copies[1])


def test_curves_take_other_thresholds_and_divisors() -> None:
    values = [0.0, 0.5, NAN, 1.0]
    thresholds = np.array([0.0, 0.5, 1.0])
    assert success_curve(values, thresholds).tolist() == [0.5, 0.25, 0.0]
    assert success_curve(values, thresholds, at_least=True).tolist() == [0.75, 0.5, 0.25]
    assert success_curve(values, thresholds, frames=2).tolist() == [1.0, 0.5, 0.0]
    assert precision_curve(values, thresholds).tolist() == [0.25, 0.5, 0.75]
    assert precision_curve([], thresholds).tolist() == [0.0] * 3
    assert centre_errors([SQUARE], [[13, 14, 10, 10]]).tolist() == [5.0]
    assert centre_errors([SQUARE], [[13, 14, 10, 10]], [[6, 8]]).tolist() == [np.hypot(0.5, 0.5)]
