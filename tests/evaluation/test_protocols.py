from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slt_gym.data import Sequence, open_dataset
from slt_gym.data.registry import list_datasets
from slt_gym.errors import AnnotationError, InvalidArgumentError, ResultsError
from slt_gym.evaluation import score
from slt_gym.evaluation.dataset_scoring import GroundTruth, read_truths, score_dataset
from slt_gym.evaluation.protocols import DEFAULT_PROTOCOL, PROTOCOLS, find_rule
from slt_gym.evaluation.rules import RULES
from slt_gym.evaluation.scoring import Counts

SQUARE = np.array([10.0, 10, 10, 10])
AWAY = np.array([50.0, 0, 0, 0])


@pytest.mark.parametrize(
    ("dataset", "official", "pysot", "pytracking", "got10k"),
    [
        ("lasot", "lasot", "pysot_ope_absent", "pytracking_lasot", "got10k_lasot"),
        ("lasotext", "lasot", "pysot_ope_absent", "pytracking_lasot", "got10k_lasot"),
        ("tnl2k", "lasot", "pysot_ope", "pytracking_otb", "got10k_otb"),
        ("trackingnet", "trackingnet", "pysot_ope", "pytracking_otb", "got10k_otb"),
        ("got10k", "got10k_val", "pysot_ope", "pytracking_otb", "got10k_val"),
        ("otb100", "pytracking_otb", "pysot_ope", "pytracking_otb", "got10k_otb"),
        ("nfs", "pytracking_otb", "pysot_ope", "pytracking_otb", "got10k_otb"),
        ("uav123", "pytracking_uav", "pysot_ope", "pytracking_uav", "got10k_uav123"),
        ("synthetic", "pysot_ope_absent", "pysot_ope", "pytracking_otb", "got10k_otb"),
    ],
)
def test_rules_by_protocol(
    dataset: str, official: str, pysot: str, pytracking: str, got10k: str
) -> None:
    assert find_rule(dataset) == find_rule(dataset, "official") == official
    assert find_rule(dataset, "pysot") == pysot
    assert find_rule(dataset, "pytracking") == pytracking
    assert find_rule(dataset, "got10k") == got10k


def test_every_dataset_has_a_rule() -> None:
    assert DEFAULT_PROTOCOL == "official"
    for dataset in [*list_datasets(), "something"]:
        for protocol in PROTOCOLS:
            assert find_rule(dataset, protocol) in RULES
    assert find_rule("GOT-10k") == "got10k_val"
    with pytest.raises(InvalidArgumentError, match=r"unknown protocol 'pysott'.*did you mean"):
        find_rule("lasot", "pysott")


class Listed(Sequence):
    """A sequence without images other than a black one."""

    def read(self, t: int) -> NDArray[np.uint8]:
        return np.zeros((30, 20, 3), np.uint8)


def make_truth(frames: int, **fields: Any) -> GroundTruth:
    return GroundTruth(np.tile(SQUARE, (frames, 1)), **fields)


def make_track(hits: str) -> NDArray[np.float64]:
    """A frame for each letter: x hits, o misses."""
    return np.array([SQUARE if letter == "x" else SQUARE + AWAY for letter in hits])


TRUTHS = {"a": make_truth(4), "b": make_truth(8)}
RESULTS = {"a": make_track("xxxx"), "b": make_track("xxoooooo")}


def test_averages_over_sequences_and_over_frames() -> None:
    found = score_dataset(TRUTHS, RESULTS, "pysot_ope")
    assert list(found.sequences) == ["a", "b"]
    assert found.scores["precision_20"] == (1 + 2 / 8) / 2
    for name, truth in TRUTHS.items():
        alone = score(truth.boxes, RESULTS[name], "pysot_ope")
        np.testing.assert_array_equal(found.sequences[name].success, alone["success_curve"])
    pooled = score_dataset(TRUTHS, RESULTS, "got10k_val")
    assert pooled.scores["ao"] == pytest.approx((3 + 1) / (3 + 7))
    assert pooled.scores["sr50"] == pytest.approx((3 + 1) / (3 + 7))
    assert pooled.overall.counts == Counts(frames=12, counted=10)


def test_repetitions_are_averaged_or_pooled() -> None:
    results = {"a": [make_track("xxxx"), make_track("xoox")], "b": make_track("xxoooooo")}
    found = score_dataset(TRUTHS, results, "pytracking_otb")
    assert found.sequences["a"].scores["precision_20"] == 0.75
    assert found.scores["precision_20"] == (0.75 + 0.25) / 2
    pooled = score_dataset(TRUTHS, results, "got10k_val")
    assert pooled.scores["ao"] == pytest.approx((3 + 1 + 1) / (3 + 3 + 7))


def test_lasot_drops_sequences_without_any_hit() -> None:
    absent_first = np.array([True, False, False, False])
    truths = {"a": make_truth(4, absent=absent_first), "b": make_truth(4)}
    near = make_track("xooo")
    near[1:, 0] = 25  # No overlap, but within 20 pixels.
    found = score_dataset(truths, {"a": near, "b": make_track("xxxx")}, "lasot")
    assert found.sequences["a"].success_auc == 0
    assert found.scores["success_auc"] == pytest.approx(20 / 21)
    assert found.scores["precision_20"] == pytest.approx((3 / 4 + 1) / 2)
    kept = score_dataset(truths, {"a": near, "b": make_track("xxxx")}, "pysot_ope_absent")
    assert kept.scores["success_auc"] == pytest.approx(20 / 21 / 2)
    lost = score_dataset({"a": truths["a"]}, {"a": make_track("xooo")}, "lasot")
    assert lost.scores["success_auc"] == 0


def test_coverage_of_trackingnet_is_over_all_frames() -> None:
    found = score_dataset(TRUTHS, {**RESULTS, "a": RESULTS["a"][:2]}, "trackingnet")
    assert found.scores["coverage"] == pytest.approx(100 * 10 / 12)
    assert found.overall.counts.missing == 2


def test_frames_are_counted_by_kind() -> None:
    boxes = np.tile(SQUARE, (6, 1))
    boxes[1] = 0
    boxes[2] = np.nan
    absent = np.array([0, 0, 1, 1, 0, 0], bool)
    track = np.array([SQUARE, SQUARE, [np.nan] * 4, [1, 1, 0, 2], SQUARE, SQUARE, SQUARE])
    track[0] = np.nan  # Given, so that there is nothing to repair.
    found = score_dataset({"a": GroundTruth(boxes, absent)}, {"a": track}, "lasot")
    counts = found.overall.counts
    assert counts == Counts(frames=6, counted=6, invalid=2, absent=2, repaired=2, surplus=1)
    truth = GroundTruth(np.tile(SQUARE, (6, 1)), absent, uncovered=absent)
    found = score_dataset({"a": truth}, {"a": make_track("xxxxx")}, "pytracking_otb")
    assert found.overall.counts == Counts(frames=6, counted=6, absent=2, missing=1)
    found = score_dataset({"a": truth}, {"a": make_track("xxxxxx")}, "got10k_val")
    assert found.overall.counts == Counts(frames=6, counted=3, absent=2)


def test_a_sequence_without_covered_frames_weighs_nothing() -> None:
    truths = {"a": make_truth(4, uncovered=np.ones(4, bool)), "b": make_truth(4)}
    results = dict.fromkeys(truths, make_track("xxxx"))
    found = score_dataset(truths, results, "got10k_val")
    assert math.isnan(found.sequences["a"].scores["ao"])
    assert found.scores["ao"] == 1


def test_results_go_by_any_toolkits_names() -> None:
    truths = {"Jogging-1": TRUTHS["a"], "Human4-2": TRUTHS["b"]}
    results = {"Human4": RESULTS["b"], "Jogging_1": RESULTS["a"], "times": RESULTS["a"]}
    found = score_dataset(truths, results, "pysot_ope")
    assert found.sequences["Jogging-1"].scores["precision_20"] == 1
    assert found.unknown == ("times",)


def test_missing_results() -> None:
    only = {"a": RESULTS["a"]}
    with pytest.raises(ResultsError, match="1 of 2 sequences have no result: 'b'"):
        score_dataset(TRUTHS, only, "pysot_ope")
    found = score_dataset(TRUTHS, only, "pysot_ope", allow_missing=True)
    assert found.missing == ("b",)
    assert found.scores["precision_20"] == 1
    with pytest.raises(ResultsError, match="2 of 2 sequences have no result"):
        score_dataset(TRUTHS, {"c": RESULTS["a"]}, "pysot_ope", allow_missing=True)
    with pytest.raises(ResultsError, match="'a-1' could have any of the results 'A-1', 'a_1'"):
        results = dict.fromkeys(("A-1", "a_1"), RESULTS["a"])
        score_dataset({"a-1": TRUTHS["a"]}, results, "pysot_ope")


def test_errors_name_the_sequence() -> None:
    with pytest.raises(ResultsError, match=r"sequence 'b': the prediction has 3 rows for 8 frames"):
        score_dataset(TRUTHS, {**RESULTS, "b": make_track("xxx")}, "lasot")


def test_results_that_begin_after_the_omitted_frames() -> None:
    boxes = np.cumsum(np.full((8, 4), 20.0), axis=0)
    truth = {"Tiger1": GroundTruth(boxes, np.arange(8) < 3, omitted=3)}
    for track in (boxes, boxes[3:]):
        found = score_dataset(truth, {"Tiger1": track}, "pytracking_otb")
        assert found.scores["precision_20"] == 1
        assert found.overall.counts.frames == len(track)
    found = score_dataset(truth, {"Tiger1": boxes[2:]}, "pytracking_otb")
    assert found.overall.counts.missing == 2


def test_what_is_read_of_sequences() -> None:
    boxes = np.tile(SQUARE, (3, 1))
    boxes[2] = np.nan
    flags = {"full_occlusion": np.array([0, 1, 0]), "out_of_view": np.array([0, 0, 1])}
    plain = Listed("plain", boxes, [True, False, True])
    flagged = Listed("flagged", boxes, attributes=flags)
    covered = Listed("covered", boxes, attributes={"cover": np.array([8, 0, 3])})
    omitting = Listed("omitting", boxes, attributes={"init_omit": np.array(1)})
    truths = read_truths([plain, flagged, covered, omitting], "got10k_val")
    assert truths["plain"].absent is not None
    assert truths["plain"].absent.tolist() == [False, True, True]
    assert truths["flagged"].absent is not None
    assert truths["flagged"].absent.tolist() == [False, True, True]
    assert truths["covered"].uncovered is not None
    assert truths["covered"].uncovered.tolist() == [False, True, False]
    assert [truth.omitted for truth in truths.values()] == [0, 0, 0, 1]
    assert {truth.image_size for truth in truths.values()} == {(20, 30)}
    assert read_truths([plain], "lasot")["plain"].image_size is None
    first_only = Listed("hidden", np.vstack([SQUARE, np.full((3, 4), np.nan)]))
    with pytest.raises(AnnotationError, match="'hidden' has a ground truth for its first frame"):
        read_truths([first_only], "got10k_val")


def test_a_dataset_from_end_to_end() -> None:
    dataset = open_dataset("synthetic", split="test", num_sequences=2, num_frames=6)
    truths = read_truths(dataset, find_rule(dataset.name))
    results = {sequence.name: sequence.boxes + AWAY / 25 for sequence in dataset}
    found = score_dataset(truths, results, find_rule(dataset.name))
    assert found.scores["precision_20"] == 1 - found.overall.counts.absent / 12
    assert 0.2 < found.scores["success_auc"] < 20 / 21


def test_the_documented_example_prints_what_the_page_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text("utf-8")
    code, output = (page.split(f"```{kind}\n")[1].split("```")[0] for kind in ("python", "text"))
    exec(compile(code, "evaluation.md", "exec"), {})
    assert capsys.readouterr().out == output


def test_the_documented_table_of_protocols() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text("utf-8")
    table = page.split("## Protocols")[1].split("## What")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")]
    assert [cell.strip("` ") for cell in rows[0][1:]] == list(PROTOCOLS)
    datasets = {"OTB": "otb100", "all others": "folder"}
    for names, *rules in rows[1:]:
        for name in names.strip().split(", "):
            for protocol, rule in zip(PROTOCOLS, rules, strict=True):
                assert find_rule(datasets.get(name, name), protocol) == rule.strip("` ")
