"""Reports: every format holds what score_dataset gives; the page stands alone and is whole."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery import (
    LENGTHS,
    Gallery,
    Page,
    Painted,
    make_gallery,
    paint,
    read_markdown,
    track,
    write_results,
)
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from slt_gym.errors import AnnotationError, InvalidArgumentError, ResultsError
from slt_gym.evaluation import load_results
from slt_gym.evaluation.dataset_scoring import average, read_truths, score_dataset
from slt_gym.evaluation.metrics import paired_interval
from slt_gym.evaluation.report import Report, build_report, write_report
from slt_gym.evaluation.report.scores import main_score
from slt_gym.evaluation.report.tables import make_tables
from slt_gym.geometry import iou


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three trackers: the second one is best, the first one second."""
    root, dataset = tmp_path_factory.mktemp("results"), make_gallery()
    return {
        "drifting": write_results(root / "drifting", track(dataset, 0.4), fps=8),
        "exact": write_results(root / "exact", track(dataset, 0.3, late=60), fps=2),
        "lost": write_results(root / "lost", track(dataset, 9.0)),
    }


@pytest.fixture(scope="module")
def report(results: dict[str, Path]) -> Report:
    return build_report(results, make_gallery())


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new"
    assert write_report(report, make_gallery(), folder, clips=2) == folder / "report.html"
    return folder


def test_best_first(report: Report) -> None:
    assert [result.name for result in report.trackers] == ["exact", "drifting", "lost"]
    assert (report.dataset, report.split, report.protocol) == ("otb100", "test", "official")
    assert report.rule.name == "pytracking_otb"
    assert report["exact"].fps == pytest.approx(2)
    assert report["drifting"].fps == pytest.approx(8)
    assert math.isnan(report["lost"].fps)
    with pytest.raises(InvalidArgumentError, match=r"tracker of this report 'exakt'.*did you"):
        report["exakt"]


def test_the_json_file_holds_what_score_dataset_gives(
    results: dict[str, Path], folder: Path
) -> None:
    data = json.loads((folder / "report.json").read_text("utf-8"))
    assert (data["dataset"], data["rule"]) == ("otb100", "pytracking_otb")
    truths = read_truths(make_gallery(), "pytracking_otb")
    for name, path in results.items():
        found = score_dataset(truths, load_results(path), "pytracking_otb")
        kept = data["trackers"][name]
        assert kept["scores"].keys() == found.scores.keys()
        for key, value in found.scores.items():
            np.testing.assert_array_equal(kept["scores"][key], value)
        assert list(kept["sequences"]) == list(LENGTHS)
        for sequence, measured in found.sequences.items():
            row = kept["sequences"][sequence]
            assert row["success_auc"] == measured.success_auc
            assert row["precision_20"] == measured.scores["precision_20"]
            assert row["frames"]["frames"] == LENGTHS[sequence]
        assert kept["frames"]["frames"] == sum(LENGTHS.values())
    assert data["trackers"]["lost"]["frames_per_second"] is None


def test_the_csv_file_has_a_row_for_each_tracker_and_sequence(report: Report, folder: Path) -> None:
    rows = list(csv.DictReader((folder / "report.csv").open(newline="")))
    assert len(rows) == 9
    for row in rows:
        measured = report[row["tracker"]].score.sequences[row["sequence"]]
        assert float(row["success_auc"]) == measured.success_auc
        assert float(row["norm_precision_020"]) == measured.scores["norm_precision_020"]
        assert int(row["frames"]) == LENGTHS[row["sequence"]]
    assert "success_curve" not in rows[0]


def test_the_pages_hold_the_same_tables(report: Report, folder: Path) -> None:
    page = Page((folder / "report.html").read_text("utf-8"))
    text = (folder / "report.md").read_text("utf-8")
    tables = read_markdown(text)
    assert [*tables] == ["Scores", "Frames", "Differences", "Attributes", "Sequences"]
    for title, rows in tables.items():
        assert page.tables[title] == rows
    head, *rows = tables["Scores"]
    assert head[:4] == ["tracker", "AUC", "OP50", "OP75"]
    for row, result in zip(rows, report.trackers, strict=True):
        scores = result.score.scores
        assert row[:2] == [result.name, f"{100 * scores['success_auc']:.1f}"]
        assert row[head.index("precision (20 px)")] == f"{100 * scores['precision_20']:.1f}"
    assert [row[-1] for row in rows] == ["2.0", "8.0", "-"]
    head, *rows = tables["Sequences"]
    assert head == ["sequence", "frames", "exact", "drifting", "lost"]
    for name, frames, *cells in rows:
        assert int(frames) == LENGTHS[name]
        for tracker, cell in zip(head[2:], cells, strict=True):
            auc = report[tracker].score.sequences[name].success_auc
            assert cell == f"{100 * auc:.1f}"
    for each in (text, page.text):
        assert "Scored on otb100 test by the rule 'pytracking_otb'" in each
    # Of all sequences and attributes the exact one is best alone; ties are not marked.
    auc = {row[0]: row[2] for row in rows}
    assert auc["long"] in page.best
    assert len(page.best) == 6
    for plot in ("success", "precision", "norm_precision"):
        assert f"![{plot}]({plot}.png)" in text


def test_differences_are_paired(report: Report) -> None:
    aucs = {
        result.name: [m.success_auc for m in result.score.sequences.values()]
        for result in report.trackers
    }
    expected = paired_interval(aucs["exact"], aucs["lost"])
    assert report.difference("exact", "lost") == expected
    rows = next(table for table in make_tables(report) if table.title == "Differences").rows
    mean, low, high = (100 * value for value in expected)
    last = ("exact - lost", "3", f"{mean:+.2f}", f"{low:+.2f} … {high:+.2f}")
    assert rows[1] == last
    gaps = np.abs(np.subtract(aucs["exact"], aucs["lost"]))
    assert report.rank_by_difference("exact", "lost")[0] == [*LENGTHS][int(gaps.argmax())]


def test_attributes_are_flags_of_any_frame_and_tags(report: Report) -> None:
    assert report.attributes == {
        "Camera": ("short",),
        "Scale": ("short",),
        "fast_motion": ("long", "short"),
    }
    table = next(table for table in make_tables(report) if table.title == "Attributes")
    rows = {row[0]: row[1:] for row in table.rows}
    parts = report["drifting"].score.sequences
    mean = average([parts["long"], parts["short"]])
    assert rows["fast motion"][0] == "2"
    assert rows["fast motion"][2] == f"{main_score(mean):.1f}"
    assert rows["Scale"][2] == f"{main_score(parts['short']):.1f}"


def test_missing_results_are_said(results: dict[str, Path], tmp_path: Path) -> None:
    for part, kept in (("one", "long"), ("two", "short")):
        (tmp_path / part).mkdir()
        shutil.copy(results["drifting"] / f"{kept}.txt", tmp_path / part)
    paths = {"one": tmp_path / "one", "two": tmp_path / "two"}
    with pytest.raises(ResultsError, match=r"one: 2 of 3 sequences have no result: 'middle'"):
        build_report(paths, make_gallery())
    report = build_report({**paths, "all": results["exact"]}, make_gallery(), allow_missing=True)
    assert report["one"].score.missing == ("middle", "short")
    tables = {table.title: table for table in make_tables(report)}
    missing = {row[0]: row[-1] for row in tables["Frames"].rows}
    assert missing == {"all": "0", "one": "2", "two": "2"}
    assert "those of 3 sequences that a tracker has results for" in tables["Scores"].note
    cells = {row[0]: row for row in tables["Sequences"].rows}
    two = tables["Sequences"].head.index("two")
    assert cells["long"][two] == cells["middle"][two] == "-"
    # Two trackers with nothing in common are still a report, without a clip.
    report = build_report(paths, make_gallery(), allow_missing=True)
    page = Page(write_report(report, make_gallery(), tmp_path / "out").read_text("utf-8"))
    assert page.tables["Differences"][1][1:] == ["0", "-", "-"]
    assert "Clips" not in page.tables
    with pytest.raises(InvalidArgumentError, match="have no sequence in common"):
        report.difference("one", "two")


def test_a_part_of_the_sequences(results: dict[str, Path]) -> None:
    report = build_report(results, make_gallery(), sequences=["short", "long"])
    assert list(report["exact"].score.sequences) == ["short", "long"]
    with pytest.raises(InvalidArgumentError, match="sequence of otb100 test 'tall'"):
        build_report(results, make_gallery(), sequences=["tall"])


def test_the_page_stands_alone(folder: Path) -> None:
    text = (folder / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.outward == []
    assert not re.search(r"https?:|url\(|@import|//\w", re.sub(r"base64,[^\"]*", "", text))
    assert [*page.images] == ["success", "precision", "norm_precision", "long", "middle"]
    for name, (kind, data) in page.images.items():
        image = Image.open(io.BytesIO(data))
        image.load()
        assert min(image.size) >= 240
        clip = name in LENGTHS
        assert kind == ("data:image/webp" if clip else "data:image/png")
        if not clip:
            assert (folder / f"{name}.png").read_bytes() == data
            assert np.asarray(image.convert("L")).std() > 10  # Something is drawn.
    assert sorted(path.name for path in folder.iterdir()) == [
        *("norm_precision.png", "precision.png", "report.csv", "report.html", "report.json"),
        *("report.md", "success.png"),
    ]


def read_frames(data: bytes) -> list[NDArray[np.uint8]]:
    image = Image.open(io.BytesIO(data))
    frames = []
    for t in range(getattr(image, "n_frames", 1)):
        image.seek(t)
        frames.append(np.asarray(image.convert("RGB")))
    return frames


def test_clips_are_animations_of_where_the_trackers_part(report: Report, folder: Path) -> None:
    page = Page((folder / "report.html").read_text("utf-8"))
    frames = read_frames(page.images["long"][1])
    assert len(frames) == 36
    truth, found = make_gallery()[0].boxes, {r.name: r.boxes["long"] for r in report.trackers}
    gaps = np.abs(iou(found["exact"], truth) - iou(found["drifting"], truth))
    start = max(range(90 - 72 + 1), key=lambda k: gaps[k : k + 72].sum())
    assert 0 < start < 90 - 72
    assert f"long, frames {start} to {start + 70}: " in page.text
    # Two panels beside each other, frames of 300x240 under a strip with the name.
    assert frames[0].shape == (276, 604, 3)
    assert np.abs(frames[-1].astype(int) - frames[0]).mean() > 5
    assert len(read_frames(page.images["middle"][1])) == 6
    assert "success AUC of the whole sequence exact" in page.text


def find_colour(frame: NDArray[np.uint8], colour: str) -> NDArray[np.bool_]:
    red, green, blue = (frame[..., i].astype(int) for i in range(3))
    one, other = (red, green) if colour == "red" else (green, red)
    return (one > 150) & (other < 110) & (blue < 110)


def test_a_single_tracker_shows_where_it_fails(results: dict[str, Path], tmp_path: Path) -> None:
    report = build_report({"alone": results["exact"]}, make_gallery())
    page = Page(write_report(report, make_gallery(), tmp_path, clips=1).read_text("utf-8"))
    assert page.tables.keys() - {""} == {"Scores", "Frames", "Attributes", "Sequences", "Clips"}
    assert page.best == []
    frames = read_frames(page.images["long"][1])
    assert frames[0].shape == (240, 300, 3)
    last = frames[-1]
    # The ground truth is at x = 54, the estimate 8.4 pixels to the right of it, three times as big.
    green, red = (np.flatnonzero(find_colour(last, c).any(axis=0)) for c in ("green", "red"))
    assert green.min() == pytest.approx(3 * 54, abs=5)
    assert red.max() == pytest.approx(3 * (54 + 8.4 + 20), abs=5)


@pytest.mark.parametrize("rows", [[np.nan] * 4, [1e12, 1, 1e12, 5], [3, 3, -2, -2]])
def test_boxes_that_cannot_be_drawn(rows: list[float], tmp_path: Path) -> None:
    dataset = make_gallery("folder")
    boxes = track(dataset, 0.5)
    boxes["middle"][4:] = rows
    paths = {"a": write_results(tmp_path / "a", boxes)}
    report = build_report(paths, dataset)
    page = Page(write_report(report, dataset, tmp_path / "out").read_text("utf-8"))
    assert {"long", "middle", "short"} <= page.images.keys()
    assert len(read_frames(page.images["middle"][1])) == 6


def test_frames_that_a_toolkit_omits(tmp_path: Path) -> None:
    sequence = paint("Tiger1", 12, init_omit=np.array(5))
    results = {"late": write_results(tmp_path / "late", {"Tiger1": sequence.boxes[5:]})}
    report = build_report(results, Gallery("otb100", [sequence]))
    assert report["late"].score.scores["precision_20"] == 1
    boxes = report["late"].boxes["Tiger1"]
    assert np.isnan(boxes[:5]).all()
    np.testing.assert_allclose(boxes[5:], sequence.boxes[5:])


def test_special_characters(tmp_path: Path) -> None:
    name = 'a<b>|"&$\\frac$ *é*'
    dataset = Gallery("folder", [paint("se<q>&|uence", 6, tags=np.array(["<i>"]))])
    paths = {}
    for label in (name, "_plain"):
        paths[label] = tmp_path / str(len(paths))
        write_results(paths[label], {"se<q>&|uence": dataset[0].boxes})
    report = build_report(paths, dataset)
    page = Page(write_report(report, dataset, tmp_path / "out", clips=1).read_text("utf-8"))
    tables = read_markdown((tmp_path / "out" / "report.md").read_text("utf-8"))
    for found in (page.tables, tables):
        assert [row[0] for row in found["Scores"][1:]] == [name, "_plain"]
        assert found["Sequences"][1][0] == "se<q>&|uence"
        assert found["Attributes"][1][0] == "<i>"
    assert "se<q>&|uence" in page.images
    data = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert [*data["trackers"]] == [name, "_plain"]


def test_a_tracker_has_one_colour_and_place_in_all_plots(
    results: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_gallery()
    # The best by far in precision, and not by overlap.
    small = {name: np.add(boxes, [9, 7, -18, -14]) for name, boxes in track(dataset, 0).items()}
    drawn = []

    class Kept(Figure):
        def savefig(self, *args: Any, **kwargs: Any) -> None:
            drawn.append(self.axes[0])
            super().savefig(*args, **kwargs)

    monkeypatch.setattr("slt_gym.evaluation.report.figures.Figure", Kept)
    paths = {**results, "small": write_results(tmp_path / "small", small)}
    report = build_report(paths, dataset)
    write_report(report, dataset, tmp_path / "out", clips=0)
    assert len(drawn) == 3
    looks = [
        [(line.get_label().split("] ")[1], line.get_color()) for line in axes.lines]
        for axes in drawn
    ]
    assert looks[0] == looks[1] == looks[2]
    names = [name for name, _ in looks[0]]
    assert names == [result.name for result in report.trackers]
    assert len({colour for _, colour in looks[0]}) == 4
    assert names.index("small") > 0
    legend = drawn[1].get_legend()
    assert legend.get_title().get_text() == "precision (20 px), %"
    assert "[100.0] small" in [text.get_text() for text in legend.get_texts()]
    for axes, curve in zip(drawn, ("success", "precision", "norm_precision"), strict=True):
        values = getattr(report.trackers[0].score.overall, curve)
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), values)


def test_the_rule_of_trackingnet(tmp_path: Path) -> None:
    dataset = make_gallery("trackingnet")
    paths = {"a": write_results(tmp_path / "a", track(dataset, 0.4))}
    report = build_report(paths, dataset)
    assert report.rule.name == "trackingnet"
    scores = report["a"].score.scores
    write_report(report, dataset, tmp_path / "out", clips=0)
    head, row = read_markdown((tmp_path / "out" / "report.md").read_text("utf-8"))["Scores"]
    cells = dict(zip(head, row, strict=True))
    assert cells["success"] == f"{scores['success_trapz']:.1f}"  # In percent already.
    assert cells["norm. precision"] == f"{scores['norm_precision_trapz']:.1f}"
    assert cells["coverage"] == "100.0"
    assert (tmp_path / "out" / "norm_precision.png").is_file()


def test_the_rule_of_got10k(tmp_path: Path) -> None:
    dataset = make_gallery("got10k")
    boxes = track(dataset, 0.4)
    folder = tmp_path / "a"
    for name, rows in boxes.items():  # The toolkit's own layout.
        (folder / name).mkdir(parents=True)
        for k in (1, 2):
            np.savetxt(folder / name / f"{name}_{k:03d}.txt", rows + k, "%.3f", ",")
    report = build_report({"a": folder}, dataset)
    page = Page(write_report(report, dataset, tmp_path / "out", clips=0).read_text("utf-8"))
    assert page.tables["Scores"][0] == ["tracker", "AO", "SR 0.5", "SR 0.75", "frames/s"]
    assert page.tables["Scores"][1][1] == f"{100 * report['a'].score.scores['ao']:.1f}"
    assert report["a"].score.overall.counts.frames == 2 * sum(LENGTHS.values())
    assert [*page.images] == ["success"]


def test_an_undefined_score_comes_last(tmp_path: Path) -> None:
    dataset = make_gallery("got10k")
    broken = track(dataset, 0)
    broken["short"][2] = np.nan
    paths = {
        "broken": write_results(tmp_path / "broken", broken),
        "poor": write_results(tmp_path / "poor", track(dataset, 9.0)),
    }
    report = build_report(paths, dataset)
    assert [result.name for result in report.trackers] == ["poor", "broken"]
    folder = tmp_path / "out"
    write_report(report, dataset, folder, clips=1)
    data = json.loads((folder / "report.json").read_text("utf-8"))
    assert data["trackers"]["broken"]["scores"]["ao"] is None


def test_a_rule_instead_of_a_protocol(results: dict[str, Path]) -> None:
    report = build_report(results, make_gallery(), rule="slt_fork_otb")
    assert (report.rule.name, report.protocol) == ("slt_fork_otb", None)
    report = build_report(results, make_gallery(), "pysot")
    assert (report.rule.name, report.protocol) == ("pysot_ope", "pysot")
    with pytest.raises(InvalidArgumentError, match="unknown rule 'lasott'"):
        build_report(results, make_gallery(), rule="lasott")


def test_wrong_input(results: dict[str, Path], report: Report, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="nothing to report"):
        build_report({}, make_gallery())
    with pytest.raises(InvalidArgumentError, match="clips is -1"):
        write_report(report, make_gallery(), tmp_path / "out", clips=-1)
    assert not (tmp_path / "out").exists()
    hidden = Painted("long", np.vstack([[10, 20, 20, 16], np.full((89, 4), np.nan)]))
    with pytest.raises(AnnotationError, match="the benchmark's server scores it"):
        build_report(results, Gallery("got10k", [hidden]))


def test_long_tables_are_folded(tmp_path: Path) -> None:
    dataset = Gallery("otb100", [paint(f"s{k}", 3) for k in range(31)])
    paths = {"a": write_results(tmp_path / "a", track(dataset, 0.2))}
    report = build_report(paths, dataset)
    text = write_report(report, dataset, tmp_path / "out", clips=0).read_text("utf-8")
    assert "<details><summary>31 rows</summary>" in text
    assert len(Page(text).tables["Sequences"]) == 32


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# Appended to the page: what the browser made of its images, and whether three plots fit in a row.
LOOK = """<script>addEventListener("load", () => {
  const images = [...document.images].map(i => [i.alt, i.naturalWidth, i.naturalHeight]);
  const tops = [...document.querySelectorAll(".figures img")].map(i => i.offsetTop);
  document.title = JSON.stringify({images, tops});
});</script>"""


def test_a_browser_shows_the_page(folder: Path, tmp_path: Path) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"needs one of the browsers {', '.join(BROWSERS)}")
    page = tmp_path / "page.html"
    page.write_text((folder / "report.html").read_text("utf-8") + LOOK, encoding="utf-8")
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,900"]
    command += ["--virtual-time-budget=10000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    look = json.loads(re.findall(r"<title>(.*?)</title>", done.stdout)[0])
    assert [alt for alt, *_ in look["images"]] == [
        *("success", "precision", "norm_precision", "long", "middle")
    ]
    assert all(width >= 240 and height >= 240 for _, width, height in look["images"])
    assert len(look["tops"]) == 3
    assert len(set(look["tops"])) == 1
    dumped = Page(done.stdout.split("<script>")[0] + "</body></html>")
    original = Page((folder / "report.html").read_text("utf-8"))
    assert dumped.tables == original.tables
