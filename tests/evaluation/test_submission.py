"""Submissions: what the servers take, and the name of whatever they would not."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slt_gym.errors import InvalidArgumentError, ResultsError
from slt_gym.evaluation import load_results
from slt_gym.evaluation.results import load_times
from slt_gym.evaluation.submission import SERVERS, check_submission, write_submission

FRAMES = {
    "got10k": {f"GOT-10k_Test_{k:06d}": 2 + k for k in (1, 2, 3)},
    "trackingnet": {"a-_B_0": 4, "zz9_0": 3, "cdE_0": 5},
}


@pytest.fixture(autouse=True)
def three_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, server in SERVERS.items():
        monkeypatch.setitem(SERVERS, name, replace(server, sequences=3))


def write_results(folder: Path, server: str, times: bool = True) -> Path:
    """Write results in this library's layout: rows that count up."""
    (folder / "times").mkdir(parents=True)
    for i, (name, count) in enumerate(FRAMES[server].items()):
        boxes = np.arange(4.0 * count).reshape(count, 4) + i / 8 + 1
        np.savetxt(folder / f"{name}.txt", boxes, fmt="%.4f", delimiter=",")
        if times:
            np.savetxt(folder / "times" / f"{name}_time.txt", np.full(count, 0.25), fmt="%.8f")
    return folder


def write_zip(path: Path, texts: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return path


def make_texts(server: str, folder: str = "") -> dict[str, str]:
    """Return the files of a foreign submission."""
    texts = {}
    for name, count in FRAMES[server].items():
        rows = "1,2,3,4\n" * count
        if server == "got10k":
            texts[f"{folder}{name}/{name}_001.txt"] = rows
            texts[f"{folder}{name}/{name}_time.txt"] = "0.5\n" * count
        else:
            texts[f"{folder}{name}.txt"] = rows
    return texts


def test_the_published_numbers_of_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert {name: server.sequences for name, server in SERVERS.items()} == {
        "got10k": 180,
        "trackingnet": 511,
    }


@pytest.mark.parametrize("server", FRAMES)
def test_what_is_written_is_accepted(server: str, tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", server)
    path = write_submission(server, results, FRAMES[server], tmp_path / "new" / "out.zip")
    check_submission(server, path, FRAMES[server])
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    if server == "got10k":
        assert sorted(names) == sorted(
            f"{name}/{name}{end}.txt" for name in FRAMES[server] for end in ("_001", "_time")
        )
        times = load_times(path)
        assert {name: len(rows) for name, rows in times.items()} == FRAMES[server]
        assert (times["GOT-10k_Test_000002"] == 0.25).all()
    else:
        assert sorted(names) == sorted(f"{name}.txt" for name in FRAMES[server])
    given, packed = load_results(results), load_results(path)
    assert packed.keys() == given.keys()
    for name, boxes in given.items():
        np.testing.assert_allclose(packed[name], boxes, atol=0.0051)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["out.zip"]


def test_repetitions_of_a_tracker_with_randomness(tmp_path: Path) -> None:
    for name, count in FRAMES["got10k"].items():  # The GOT-10k toolkit's layout.
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        for k in (1, 2, 3, 4):
            np.savetxt(folder / f"{name}_{k:03d}.txt", np.full((count, 4), k), "%.3f", ",")
        np.savetxt(folder / f"{name}_time.txt", np.full((count, 4), [1, 2, 3, 4]), "%.8f", ",")
    out = tmp_path / "out.zip"
    path = write_submission("got10k", tmp_path / "results", FRAMES["got10k"], out)
    check_submission("got10k", path, FRAMES["got10k"])
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 3 * 4
        name = "GOT-10k_Test_000001"
        assert archive.read(f"{name}/{name}_003.txt").startswith(b"3.0000,3.0000")
        assert archive.read(f"{name}/{name}_time.txt").startswith(
            b"1.00000000,2.00000000,3.00000000\n"
        )


def test_results_of_another_toolkit(tmp_path: Path) -> None:
    """PyTracking's: tabs, times beside the boxes; what is handed in has commas."""
    for name, count in FRAMES["got10k"].items():
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / f"{name}.txt").write_text("1\t2\t3\t4\n" * count)
        (tmp_path / "results" / f"{name}_time.txt").write_text("0.25\n" * count)
    path = write_submission("got10k", tmp_path / "results", FRAMES["got10k"], tmp_path / "o.zip")
    check_submission("got10k", path, FRAMES["got10k"])
    with zipfile.ZipFile(path) as archive:
        name = "GOT-10k_Test_000001"
        rows = archive.read(f"{name}/{name}_001.txt").decode().splitlines()
    assert rows == ["1.0000,2.0000,3.0000,4.0000"] * 3


FIRST = "GOT-10k_Test_000001"


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        (f"{FIRST}.txt", None, f"{FIRST}/{FIRST}_001.txt: missing"),
        (f"times/{FIRST}_time.txt", None, f"{FIRST}/{FIRST}_time.txt: missing"),
        (f"{FIRST}.txt", "1,2,3,4\n" * 2, r"_001.txt: 2 rows for 3 frames \(the first frame incl"),
        (f"{FIRST}.txt", "1,2,3,4\n" * 4, "_001.txt: 4 rows for 3 frames"),
        (
            f"{FIRST}.txt",
            "1,2,3,4\n1,NaN,3,4\n1,2,3,4\n",
            "_001.txt: row 2 is not finite: '1.0000,",
        ),
        (f"{FIRST}.txt", "1,2,3,4\n1,2,3,4\n1,2,3,-4\n", "_001.txt: row 3 has a negative size"),
        (f"times/{FIRST}_time.txt", "1\n2\n", "_time.txt: 2 rows for 3 frames"),
        (f"times/{FIRST}_time.txt", "1\n-2\n3\n", "_time.txt: row 2 is a negative time"),
        (f"times/{FIRST}_time.txt", "1\nnan\n3\n", "_time.txt: row 2 is not finite"),
        ("GOT-10k_Val_000001.txt", "1,2,3,4\n", "GOT-10k_Val_000001: no sequence of the test part"),
        ("got-10k_test_000001.txt", "1,2,3,4\n", "got-10k_test_000001: no sequence of the test"),
    ],
)
def test_results_that_break_a_rule(file: str, text: str | None, fault: str, tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", "got10k")
    if text is None:
        (results / file).unlink()
    else:
        (results / file).write_text(text)
    with pytest.raises(ResultsError, match=fault) as caught:
        write_submission("got10k", results, FRAMES["got10k"], tmp_path / "new" / "out.zip")
    head, *faults = str(caught.value).splitlines()
    assert head == f"{results} cannot be submitted to got10k:"
    assert len(faults) == 1
    assert not (tmp_path / "new").exists()


def test_trackingnet_wants_no_times_and_no_other_files(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", "trackingnet", times=False)
    path = write_submission("trackingnet", results, FRAMES["trackingnet"], tmp_path / "out.zip")
    check_submission("trackingnet", path, FRAMES["trackingnet"])
    texts = make_texts("trackingnet")
    write_zip(path, {**texts, "zz9_0_time.txt": "1\n"})
    with pytest.raises(ResultsError, match=r"zz9_0_time\.txt: not a file of the submission"):
        check_submission("trackingnet", path, FRAMES["trackingnet"])
    write_zip(path, make_texts("trackingnet", "transt/"))
    with pytest.raises(ResultsError, match=r"zz9_0\.txt: missing"):
        check_submission("trackingnet", path, FRAMES["trackingnet"])


def test_a_file_that_could_be_two_sequences(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", "trackingnet")
    (results / "zz9_0.txt").rename(results / "ZZ9_0.txt")
    (results / "zz9-0.txt").write_text("1,2,3,4\n")
    with pytest.raises(ResultsError, match=r"zz9_0: could be any of zz9-0, ZZ9_0|ZZ9_0, zz9-0"):
        write_submission("trackingnet", results, FRAMES["trackingnet"], tmp_path / "out.zip")


@pytest.mark.parametrize("folder", ["", "transt/"])
def test_both_layouts_of_got10k(folder: str, tmp_path: Path) -> None:
    texts = make_texts("got10k", folder)
    check_submission("got10k", write_zip(tmp_path / "a.zip", texts), FRAMES["got10k"])
    texts[f"{folder}{FIRST}/{FIRST}_002.txt"] = "1,2,3,4\n" * 3
    check_submission("got10k", write_zip(tmp_path / "b.zip", texts), FRAMES["got10k"])
    texts[f"{folder}{FIRST}/{FIRST}_002.txt"] = "1,2,3,4\n" * 2
    with pytest.raises(ResultsError, match=rf"{FIRST}_002.txt: 2 rows for 3 frames"):
        check_submission("got10k", write_zip(tmp_path / "c.zip", texts), FRAMES["got10k"])


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        (
            f"{FIRST}/{FIRST}_001.txt",
            "1 2 3 4\n" * 3,
            "row 1 is not four numbers with commas.*'1 2",
        ),
        (f"{FIRST}/{FIRST}_001.txt", "1\t2\t3\t4\n" * 3, "row 1 is not four numbers with commas"),
        (f"{FIRST}/{FIRST}_001.txt", "1,2,3\n" * 3, "row 1 is not four numbers with commas"),
        (f"{FIRST}/{FIRST}_001.txt", "1,2,3,4\n\n1,2,3,4\n", "row 2 is not four numbers"),
        (f"{FIRST}/{FIRST}_time.txt", "fast\n" * 3, "row 1 is not seconds with commas"),
        (f"{FIRST}/{FIRST}_004.txt", "1,2,3,4\n" * 3, "_004.txt: not a file of the submission"),
        ("readme.md", "TransT", "readme.md: not a file of the submission"),
    ],
)
def test_foreign_zips_that_break_a_rule(file: str, text: str, fault: str, tmp_path: Path) -> None:
    texts = {**make_texts("got10k"), file: text}
    with pytest.raises(ResultsError, match=fault) as caught:
        check_submission("got10k", write_zip(tmp_path / "a.zip", texts), FRAMES["got10k"])
    assert len(str(caught.value).splitlines()) == 2
    assert "a.zip breaks the rules of got10k:" in str(caught.value)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    frames = {f"GOT-10k_Test_{k:06d}": 3 for k in range(1, 9)}
    with pytest.raises(ResultsError) as caught:
        check_submission("got10k", write_zip(tmp_path / "a.zip", {"x.txt": ""}), frames)
    lines = str(caught.value).splitlines()
    assert lines[1] == "  the test part on this disk has 8 sequences, the benchmark 3"
    # 16 missing files and one that is none, besides.
    assert len(lines) == 12
    assert lines[-1] == "  and 8 more"


def test_what_is_no_zip(tmp_path: Path) -> None:
    frames = FRAMES["trackingnet"]
    with pytest.raises(ResultsError, match=r"there is no submission .*none\.zip"):
        check_submission("trackingnet", tmp_path / "none.zip", frames)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ResultsError, match=r"text\.zip is not a whole zip file"):
        check_submission("trackingnet", tmp_path / "text.zip", frames)
    damaged = write_zip(tmp_path / "damaged.zip", make_texts("trackingnet"))
    damaged.write_bytes(damaged.read_bytes().replace(b"1,2,3,4", b"1,2,3,5"))
    with pytest.raises(ResultsError, match=r"damaged\.zip is not a whole zip file: Bad CRC"):
        check_submission("trackingnet", damaged, frames)
    with pytest.raises(InvalidArgumentError, match="unknown server 'got-10k': accepted are got10k"):
        check_submission("got-10k", damaged, frames)
    with pytest.raises(ResultsError, match="there are no results at"):
        write_submission("got10k", tmp_path / "nowhere", FRAMES["got10k"], tmp_path / "out.zip")
