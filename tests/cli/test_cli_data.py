"""``slt-gym data``: the report, its files and the exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slt_gym.cli import main
from slt_gym.cli.data_report import PartReport, Report
from slt_gym.data.checking import KINDS, Problem
from slt_gym.data.samples import Source, write_sample

LENGTH = 4
SOURCE = Source(2, LENGTH, 96, 64, 1)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "lasot"
    write_sample("lasot", root, SOURCE)
    return root


@pytest.fixture
def broken(sound: Path, tmp_path: Path) -> Path:
    """Three empty frames, and a sequence without boxes."""
    root = Path(shutil.copytree(sound, tmp_path / "lasot"))
    for t in (2, 3):
        (root / "airplane" / "airplane-1" / "img" / f"{t:08d}.jpg").write_bytes(b"")
    (root / "airplane" / "airplane-2" / "img" / "00000001.jpg").write_bytes(b"")
    (root / "basketball" / "basketball-2" / "groundtruth.txt").unlink()
    return root


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return the exit code, and what was printed."""
    code = 0
    try:
        main(["data", *words])
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def row(page: str, start: str) -> list[str]:
    """Return the cells of the first row that starts so."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_sound_dataset(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, page, progress = run(capsys, "LaSOT", str(sound))
    assert code == 0
    assert "Nothing is broken." in page
    assert row(page, "train")[1:4] == ["2", "1120 (a partial download)", "8"]
    assert row(page, "test")[1:4] == ["2", "280 (a partial download)", "8"]
    assert row(page, "test")[5:] == ["8", "0"]
    assert "checking lasot test" in progress
    assert "seq/s" in progress


def test_damage_is_reported(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, page, error = run(capsys, "lasot", str(broken), "--no-progress-bar")
    assert code == 1
    summary = f"{KINDS['sequence']}: 1; {KINDS['unreadable']}: 3"
    assert error == f"error: lasot is not sound: {summary}\n"
    assert f"Broken: {summary}." in page
    assert (row(page, "train")[6], row(page, "test")[6]) == ("2", "2")
    assert f"## Broken, {KINDS['unreadable']}: 3\n" in page
    file = "airplane/airplane-1/img/00000002.jpg"
    assert row(page, "test | airplane-1")[2:3] == ["1 to 2"]
    assert row(page, "test | airplane-1")[4] == file
    assert "basketball-2/groundtruth.txt" in page


@pytest.mark.parametrize("suffix", [".md", ".json"])
def test_report_files(
    suffix: str, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "new" / f"report{suffix}"
    code, page, _ = run(capsys, "lasot", str(broken), "--report", str(report))
    assert code == 1
    assert {path.name for path in report.parent.iterdir()} == {"report.md", "report.json"}
    assert report.with_suffix(".md").read_text() == page
    content = json.loads(report.with_suffix(".json").read_text())
    assert (content["dataset"], content["decode"]) == ("lasot", "all")
    train, test = content["parts"]
    assert (train["split"], train["sequences"], train["published"]) == ("train", 2, 1120)
    assert (test["frames"], test["decoded"]) == (8, 8)
    (problem,) = test["problems"]
    assert (problem["kind"], problem["sequence"]) == ("unreadable", "airplane-1")
    assert (problem["first"], problem["last"], problem["known"]) == (1, 2, False)


def test_one_split_and_less_decoding(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["lasot", str(broken), "--split", "test"]
    assert run(capsys, *words, "--decode", "first")[0] == 0
    assert run(capsys, *words, "--decode", "none", "--workers", "1")[0] == 0
    code, page, _ = run(capsys, *words, "train", "--decode", "none")
    assert code == 1  # basketball-2 has no boxes.
    assert page.index("| test |") < page.index("| train |")
    assert row(page, "train")[5] == "0"


def test_lists_are_cut(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, page, _ = run(capsys, "lasot", str(broken), "--show", "1")
    assert "… and 1 more" in page
    assert f"## Broken, {KINDS['unreadable']}: 3\n" in page


def test_parts_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "got10k"
    write_sample("got10k", root, SOURCE)
    shutil.rmtree(root / "train")
    monkeypatch.setenv("SLT_GYM_GOT10K", str(root))
    code, page, _ = run(capsys, "got10k")
    assert code == 0
    assert row(page, "train")[1] == "not there"
    assert "train is not checked: cannot read got10k: " in page
    assert row(page, "val")[1] == "2"
    code, page, error = run(capsys, "got10k", "--split", "train")
    assert (code, page) == (2, "")
    assert error.startswith("error: cannot read got10k: ")


def test_parts_that_cannot_be_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLT_GYM_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "coco"
    write_sample("coco", root, SOURCE)
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text()[:-100])
    code, page, _ = run(capsys, "coco", str(root))
    assert code == 1
    assert f"## Broken, {KINDS['part']}: 1\n" in page
    assert "instances_val2017.json is not a whole COCO annotation file" in page
    assert row(page, "train")[1] == "2"


def test_packs_are_checked(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (broken / "basketball" / "basketball-2" / "groundtruth.txt").write_text("1,2,3,4\n" * LENGTH)
    for path in broken.rglob("img/*.jpg"):
        if not path.stat().st_size:
            shutil.copy(path.with_name("00000004.jpg"), path)
    cut = broken / "airplane" / "airplane-1" / "img" / "00000003.jpg"
    cut.write_bytes(cut.read_bytes()[:-2])
    pack = tmp_path / "pack"
    main(["pack", "lasot", str(broken), str(pack), "--no-progress-bar"])
    capsys.readouterr()
    code, page, error = run(capsys, "lasot", str(pack), "--no-progress-bar")
    assert code == 1
    assert error == f"error: lasot is not sound: {KINDS['truncated']}: 1\n"
    assert row(page, "test | airplane-1")[1:3] == ["airplane-1", "2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lasott", "."], "unknown dataset 'lasott'"),
        (["synthetic"], "unknown dataset to check 'synthetic'"),
        (["lasot", "nowhere"], "cannot find lasot"),
        (["lasot", ".", "--split", "tset"], "unknown split of lasot 'tset'"),
        (["lasot", ".", "--report", "report.txt"], "must end in .md or .json"),
        (["lasot", ".", "--show", "-1"], "--show is -1"),
        (["lasot", ".", "--workers", "0"], "workers is 0"),
        (["lasot", ".", "--decode", "some"], "some"),
    ],
)
def test_refusals(
    words: list[str],
    message: str,
    sound: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(sound)
    code, page, error = run(capsys, *words, "--no-progress-bar")
    assert (code, page) == (2, "")
    assert message in error
    assert not list(sound.glob("report*"))


def test_what_is_known_is_listed_apart() -> None:
    problems = [
        Problem("area", "lion-5", "box 1, 2, 3, -4", 7, 7, "/data/lion|5.jpg", known=True),
        Problem("note", "a", "the reader did\nsomething", known=True),
    ]
    parts = [PartReport("test", 1, 280, 10, 9, 10, problems)]
    report = Report("lasot", "/data", "slt-gym data lasot /data", "all", 1.0, parts)
    assert report.summarise() == ""
    page = report.to_markdown(show=20)
    assert "Nothing is broken." in page
    assert f"## Known, not broken, {KINDS['area']}: 1\n" in page
    assert "| test | lion-5 | 7 | box 1, 2, 3, -4 | lion\\|5.jpg |" in page
    assert "| test | a |  | the reader did something |  |" in page
