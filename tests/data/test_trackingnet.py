"""TrackingNet's chunks and its test part."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from slt_gym.data import ImageSequence, open_dataset
from slt_gym.data.trackingnet import TrackingNetDataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError


def write_sequence(part: Path, name: str, write_frames, frames: int = 12, rows: int = 12) -> None:
    write_frames(part / "frames" / name, frames, "{}.jpg", first=0)
    (part / "anno").mkdir(exist_ok=True)
    lines = [f" {t + 1}.25,2.00, 30.50,4.00" for t in range(rows)]
    (part / "anno" / f"{name}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path: Path, write_frames) -> Path:
    base = tmp_path / "TrackingNet"
    names = {"TRAIN_0": ["b_0", "-3TIfnTSM6c_2"], "TRAIN_2": ["c_1"], "TRAIN_10": ["_x__3"]}
    for part, ids in names.items():
        for name in ids:
            write_sequence(base / part, name, write_frames)
    write_sequence(base / "TEST", "y-DH0Xn9Bg0_0", write_frames, rows=1)
    return base


def tree(root: Path) -> list[str]:
    return sorted(f"{path} {path.lstat().st_mtime_ns}" for path in root.rglob("*"))


def test_chunks_go_by_number_and_names_by_letter(root: Path):
    dataset = TrackingNetDataset(root)
    assert (dataset.name, dataset.split) == ("trackingnet", "train")
    assert dataset.names == ["-3TIfnTSM6c_2", "b_0", "c_1", "_x__3"]
    assert TrackingNetDataset(root, chunks=[10, 0, 0]).names == ["-3TIfnTSM6c_2", "b_0", "_x__3"]


def test_frames_go_by_number_from_zero(root: Path):
    sequence = TrackingNetDataset(root).get("-3TIfnTSM6c_2")
    assert isinstance(sequence, ImageSequence)
    assert [path.name for path in sequence.paths] == [f"{t}.jpg" for t in range(12)]
    assert [round(sequence.read(t).mean() / 10) for t in range(12)] == list(range(1, 13))
    np.testing.assert_array_equal(
        sequence.boxes[[0, 11]], [[1.25, 2, 30.5, 4], [12.25, 2, 30.5, 4]]
    )
    assert sequence.visible.all()
    assert sequence.notes == ()


def test_a_box_without_area_is_not_visible(root: Path):
    path = root / "TRAIN_2" / "anno" / "c_1.txt"
    rows = path.read_text().splitlines()
    rows[3:5] = ["5.00,5.00,0.00,4.00", "-9.00,5.00,3.00,4.00"]
    path.write_text("\n".join(rows))
    assert np.flatnonzero(~TrackingNetDataset(root).get("c_1").visible).tolist() == [3]


def test_the_test_part_has_one_box_and_all_frames(root: Path):
    dataset = open_dataset("TrackingNet", root, "test")
    assert dataset.names == ["y-DH0Xn9Bg0_0"]
    sequence = dataset[0]
    assert len(sequence) == 12
    np.testing.assert_array_equal(sequence.boxes[0], [1.25, 2, 30.5, 4])
    assert np.isnan(sequence.boxes[1:]).all()
    assert sequence.visible.tolist() == [True] + [False] * 11


def test_missing_chunks_are_named(root: Path):
    with pytest.warns(UserWarning) as caught:
        dataset = TrackingNetDataset(root, chunks=range(4))
    assert dataset.names == ["-3TIfnTSM6c_2", "b_0", "c_1"]
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message == f"{root} holds no TRAIN_1, TRAIN_3: read are TRAIN_0, TRAIN_2"
    with pytest.raises(DatasetNotFoundError, match=r"holds no TRAIN_5 with anno/"):
        TrackingNetDataset(root, chunks=[5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TrackingNetDataset(root, chunks=[2])
        TrackingNetDataset(root)


@pytest.mark.parametrize("chunks", [[12], [-1], [], 3, ["0"], [True], "01", [1.0]])
def test_wrong_chunks(root: Path, chunks):
    with pytest.raises(InvalidArgumentError, match="accepted are lists of numbers from 0 to 11"):
        TrackingNetDataset(root, chunks=chunks)


def test_chunks_of_the_test_part(root: Path):
    with pytest.raises(InvalidArgumentError, match="split 'test' of trackingnet has no chunks"):
        TrackingNetDataset(root, "test", chunks=[0])


def test_leftovers_are_passed_over(root: Path):
    (root / "TRAIN_0" / "zips").mkdir()
    (root / "TRAIN_0" / "zips" / "b_0.zip").write_bytes(b"PK")
    (root / "TRAIN_0" / "anno" / "._b_0.txt").write_bytes(b"\0")
    (root / "TRAIN_0" / "anno" / "notes.md").write_text("")
    (root / "TRAIN_0" / "frames" / "stray.jpg").write_bytes(b"")
    (root / "TRAIN_0" / "frames" / "c_1").mkdir()
    assert len(TrackingNetDataset(root)) == 4


def test_a_name_in_two_chunks_counts_once(root: Path, write_frames):
    write_sequence(root / "TRAIN_10", "b_0", write_frames)
    dataset = TrackingNetDataset(root)
    assert dataset.names.count("b_0") == 1
    assert len(dataset) == 4
    assert len(dataset.get("b_0")) == 12


def test_sequences_without_frames_are_left_out(root: Path):
    (root / "TRAIN_0" / "anno" / "a_0.txt").write_text("1,2,3,4\n")
    (root / "TRAIN_11" / "anno").mkdir(parents=True)
    (root / "TRAIN_11" / "anno" / "d_0.txt").write_text("1,2,3,4\n")
    assert TrackingNetDataset(root).names == ["-3TIfnTSM6c_2", "b_0", "c_1", "_x__3"]
    alone = TrackingNetDataset(root, chunks=[11])  # annotations alone: listed, not read
    assert alone.names == ["d_0"]
    with pytest.raises(DatasetNotFoundError, match="'d_0' has no frames"):
        alone[0]


def test_half_extracted_sequences_say_so(root: Path, write_frames):
    frames = root / "TRAIN_0" / "frames" / "b_0"
    for t in (10, 11):
        (frames / f"{t}.jpg").unlink()
    sequence = TrackingNetDataset(root).get("b_0")
    assert len(sequence) == 10
    assert sequence.notes == ("12 boxes for 10 frames: the last 2 are left out",)
    write_frames(frames, 14, "{}.jpg", first=0)
    sequence = TrackingNetDataset(root).get("b_0")
    assert len(sequence) == 12
    assert sequence.notes == ("14 images for 12 frames: the last 2 are left out",)
    (frames / "4.jpg").unlink()
    with pytest.raises(FrameError, match=r"holds '5\.jpg' where '4\.jpg' is expected"):
        TrackingNetDataset(root).get("b_0")
    for path in frames.iterdir():
        path.unlink()
    with pytest.raises(DatasetNotFoundError, match="'b_0' has no frames"):
        TrackingNetDataset(root).get("b_0")
    (root / "TRAIN_0" / "anno" / "b_0.txt").write_text("1,2,3\n")
    with pytest.raises(AnnotationError, match=r"b_0\.txt, line 1"):
        TrackingNetDataset(root).get("b_0")


def test_opening_lists_folders_only(root: Path, monkeypatch):
    TrackingNetDataset(root)
    listed = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scan(path))
    TrackingNetDataset(root)
    assert listed == []  # the second time, the index says it all


def test_a_changed_folder_is_listed_again(root: Path, write_frames):
    assert len(TrackingNetDataset(root)) == 4
    write_sequence(root / "TRAIN_0", "e_0", write_frames)
    for folder in ("anno", "frames"):
        os.utime(root / "TRAIN_0" / folder, ns=(1, 1))
    assert "e_0" in TrackingNetDataset(root).names
    (root / "TRAIN_0" / "anno" / "b_0.txt").unlink()
    assert "b_0" not in TrackingNetDataset(root).names


def test_nothing_is_written_beside_the_data(root: Path):
    before = tree(root)
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            path.chmod(0o555)
    list(TrackingNetDataset(root))
    list(TrackingNetDataset(root, "test"))
    assert tree(root) == before


def test_a_wrong_folder_shows_the_layout(tmp_path: Path):
    with pytest.raises(DatasetNotFoundError) as error:
        TrackingNetDataset(tmp_path)
    assert f"{tmp_path} holds no TRAIN_0 to TRAIN_11 with anno/" in str(error.value)
    assert "TRAIN_0/frames/<youtubeid>_<k>/0.jpg" in str(error.value)
    (tmp_path / "TEST" / "anno").mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match="holds no annotation file in TEST"):
        TrackingNetDataset(tmp_path, "test")
    with pytest.raises(InvalidArgumentError, match="unknown split of trackingnet 'val'"):
        TrackingNetDataset(tmp_path, "val")


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_published_layout(layouts: Path, split: str):
    root = layouts / "TrackingNet"
    dataset = open_dataset("trackingnet", root, split)
    files = sorted(root.glob("TEST/anno/*.txt" if split == "test" else "TRAIN_*/anno/*.txt"))
    assert sorted(dataset.names) == sorted(path.stem for path in files)
    assert len(dataset) == (2 if split == "test" else 3)
    for path in files:
        sequence = dataset.get(path.stem)
        rows = [[float(x) for x in re.split("[, ]+", line)] for line in path.read_text().split()]
        assert len(sequence) == 24
        assert isinstance(sequence, ImageSequence)
        frames = path.parents[1] / "frames" / path.stem
        assert list(sequence.paths) == [frames / f"{t}.jpg" for t in range(24)]
        assert sequence.read(23).ndim == 3
        assert len(rows) == (1 if split == "test" else 24)
        np.testing.assert_array_equal(sequence.boxes[: len(rows)], rows)
        assert np.flatnonzero(sequence.visible).tolist() == list(range(len(rows)))
