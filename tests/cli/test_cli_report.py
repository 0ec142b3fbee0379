"""``slt-gym report``: results of any toolkit side by side, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slt_gym.cli import main
from slt_gym.cli.report import name_results
from slt_gym.data import SequenceDataset, open_dataset
from slt_gym.data.samples import Source, write_sample
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.dataset_scoring import read_truths, score_dataset

FRAMES = 6
SOURCE = Source(2, FRAMES, 96, 80, 1)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_tracks(
    folder: Path, dataset: SequenceDataset, prefix: str = "", shift: float = 2.7
) -> dict[str, np.ndarray]:
    """Write results as PyTracking does: whole pixels, tabs, times beside them."""
    folder.mkdir(parents=True)
    written = {}
    for sequence in dataset:
        boxes = np.add(np.nan_to_num(sequence.boxes, nan=20), [shift, 0, 0, 0])
        boxes = np.maximum(boxes.astype(int), 1)
        np.savetxt(folder / f"{prefix}{sequence.name}.txt", boxes, "%d", "\t")
        np.savetxt(folder / f"{prefix}{sequence.name}_time.txt", np.full(len(boxes), 0.05), "%f")
        written[sequence.name] = boxes.astype(float)
    return written


@pytest.mark.parametrize(
    ("name", "prefix", "rule"),
    [("uav123", "uav_", "pytracking_uav"), ("nfs", "nfs_", "pytracking_otb")],
)
def test_results_of_pytracking(
    name: str, prefix: str, rule: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample(name, "data", SOURCE)
    dataset = open_dataset(name, "data", "test")
    near = write_tracks(here / "tracking_results" / "transt" / "default", dataset, prefix)
    far = write_tracks(here / "tracking_results" / "far", dataset, prefix, shift=9)
    main(
        [
            *("report", "far=tracking_results/far", "tracking_results/transt/default"),
            *("--dataset", name, "--root", "data", "--out", "out", "--clips", "1"),
        ]
    )
    data = json.loads((here / "out" / "report.json").read_text("utf-8"))
    assert data["rule"] == rule
    truths = read_truths(dataset, rule)
    for tracker, boxes in (("default", near), ("far", far)):
        expected = score_dataset(truths, boxes, rule).scores
        kept = data["trackers"][tracker]
        assert kept["scores"]["success_auc"] == expected["success_auc"]
        assert kept["unknown"] == []
        assert kept["frames_per_second"] == pytest.approx(20)
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| default", "| far"]
    assert f"by the rule {rule!r}" in printed
    assert "report: out/report.html" in printed
    if name == "uav123":
        page = (here / "out" / "report.html").read_text("utf-8")
        assert "<td>camera motion</td>" in page


def evaluate(tracker: str, *words: str) -> None:
    main(
        ["evaluate", tracker, "otb100", "--root", "data", "--workers", "1", "--clips", "0", *words]
    )


def test_what_evaluate_wrote_needs_no_more_words(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample("otb100", "data", SOURCE)
    evaluate("static")
    evaluate("random-walk")
    capsys.readouterr()
    main(["report", "results/otb100-test/static", "results/otb100-test/random-walk"])
    first = json.loads((here / "report" / "report.json").read_text("utf-8"))
    assert (first["dataset"], first["split"]) == ("otb100", "test")
    assert set(first["trackers"]) == {"static", "random-walk"}
    printed = capsys.readouterr().out
    assert "Scored on otb100 test by the rule 'pytracking_otb'" in printed
    # Another place, another rule; a dataset that was moved must be named.
    Path("data").rename("moved")
    with pytest.raises(SystemExit):
        main(["report", "results/otb100-test/static"])
    assert "otb100" in capsys.readouterr().err
    words = ["report", "results/otb100-test/static", "--root", "moved", "--clips", "0"]
    main([*words, "--protocol", "got10k", "--out", "b"])
    assert "by the rule 'got10k_otb'" in capsys.readouterr().out
    main([*words, "--rule", "slt_fork_otb", "--dataset", "OTB100", "--out", "c"])
    assert "by the rule 'slt_fork_otb'" in capsys.readouterr().out
    assert json.loads((here / "c" / "report.json").read_text())["protocol"] is None


def test_what_is_noted_of_another_dataset_is_not_used(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"num_sequences": 2, "num_frames": FRAMES, "width": 96, "height": 80}
    words = ["--dataset-options", json.dumps(options), "--workers", "1", "--clips", "0"]
    main(["evaluate", "static", "synthetic", "--split", "val", *words])
    folder = "results/synthetic-val/static"
    main(["report", folder, "--clips", "1"])
    data = json.loads((here / "report" / "report.json").read_text("utf-8"))
    assert (data["split"], len(data["trackers"]["static"]["sequences"])) == ("val", 2)
    write_sample("otb100", "data", SOURCE)
    with pytest.raises(SystemExit) as stop:
        main(["report", folder, "--dataset", "otb100", "--root", "data"])
    assert stop.value.code == 2
    assert f"{folder}: 2 of 2 sequences have no result" in capsys.readouterr().err
    options["num_sequences"] = 1
    main(["report", folder, "--dataset-options", json.dumps(options), "--clips", "0"])
    data = json.loads((here / "report" / "report.json").read_text("utf-8"))
    assert len(data["trackers"]["static"]["sequences"]) == 1


def test_missing_results(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sample("otb100", "data", SOURCE)
    first = open_dataset("otb100", "data", "test").names[0]
    evaluate("static", "--sequences", first)
    with pytest.raises(SystemExit) as stop:
        main(["report", "results/otb100-test/static"])
    assert stop.value.code == 2
    assert "1 of 2 sequences have no result" in capsys.readouterr().err
    assert not (here / "report").exists()
    main(["report", "results/otb100-test/static", "--allow-missing", "--clips", "0"])
    text = (here / "report" / "report.md").read_text("utf-8")
    assert "those of 2 sequences that a tracker has results for" in text


def test_names_of_results(here: Path) -> None:
    (here / "a=b").mkdir()
    assert name_results(("x=some/where", "some/transt.zip", "a=b")) == {
        "x": Path("some/where"),
        "transt": Path("some/transt.zip"),
        "a=b": Path("a=b"),
    }
    with pytest.raises(InvalidArgumentError, match=r"two results are called 'b'.* b-2=c/b"):
        name_results(("a/b", "c/b"))
    with pytest.raises(InvalidArgumentError, match="give the results of a tracker"):
        name_results(())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "give --dataset: the first results do not say what they are of"),
        (["nowhere", "--dataset", "synthetic"], "there are no results at nowhere"),
        (["empty", "--dataset", "synthetic"], "empty holds no result"),
        (["empty", "--dataset", "synthetik"], "unknown dataset 'synthetik'"),
        (["empty", "--dataset", "synthetic", "--protocol", "x"], "unknown protocol 'x'"),
        (["empty", "--dataset", "synthetic", "--rule", "x"], "unknown rule 'x'"),
        (["empty", "--dataset", "synthetic", "--dataset-options", "[]"], "is not a JSON object"),
        (["empty", "empty"], "two results are called 'empty'"),
        (["damaged"], "config.json is damaged"),
    ],
)
def test_wrong_input(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty").mkdir()
    (here / "damaged").mkdir()
    (here / "damaged" / "config.json").write_text("{")
    with pytest.raises(SystemExit) as stop:
        main(["report", *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (here / "report").exists()
