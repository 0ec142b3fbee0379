"""LaSOT, nested and flat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slt_gym.data import ImageSequence, open_dataset
from slt_gym.data.lasot import LaSOTDataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError

NAMES = ["cat-1", "cat-2", "cat-10", "dog-1", "dog-3"]
TEST = ["dog-1", "cat-10"]
TRAIN = ["cat-1", "cat-2", "dog-3"]
BOXES = "5,5,4,4\n6,5,4,4\n7,5,4,4\n8,5,4,4\n0,0,0,0\n9,5,4,-1\n"


def write_sequence(folder: Path, write_frames, frames: int = 6) -> Path:
    write_frames(folder / "img", frames, "{:08d}.jpg")
    (folder / "groundtruth.txt").write_text(BOXES)
    (folder / "full_occlusion.txt").write_text("0,1,0,0,0,0")
    (folder / "out_of_view.txt").write_text("0,0,1,0,1,0")
    return folder


@pytest.fixture(params=["nested", "flat", "benchmark"])
def root(request: pytest.FixtureRequest, tmp_path: Path, write_frames) -> Path:
    base = tmp_path / "LaSOTBenchmark" if request.param == "benchmark" else tmp_path
    for name in NAMES:
        group = "" if request.param == "flat" else name.split("-")[0]
        write_sequence(base / group / name, write_frames)
    (tmp_path / "testing_set.txt").write_text("\n".join(TEST))  # no final newline, as published
    (base / "training_set.txt").write_text("\n".join(TRAIN) + "\n")
    (tmp_path / "readme.txt").touch()
    return tmp_path


def test_splits_are_the_lists_in_their_order(root: Path):
    assert LaSOTDataset(root, "train").names == TRAIN
    assert LaSOTDataset(root, "test").names == TEST
    assert LaSOTDataset(root, "all").names == NAMES


def test_boxes_flags_and_frames(root: Path):
    sequence = LaSOTDataset(root, "all").get("cat-10")
    rows = [[float(v) for v in line.split(",")] for line in BOXES.split()]
    np.testing.assert_array_equal(sequence.boxes, rows)
    assert sequence.visible.tolist() == [True, False, False, True, False, False]
    assert sequence.attributes["full_occlusion"].tolist() == [False, True] + [False] * 4
    assert sequence.attributes["out_of_view"].tolist() == [False, False, True, False, True, False]
    assert sequence.attributes["full_occlusion"].dtype == bool
    assert "nlp" not in sequence.attributes
    assert [round(sequence.read(t).mean() / 10) for t in range(6)] == [1, 2, 3, 4, 5, 6]


def test_one_list_is_enough(root: Path):
    for path in root.rglob("training_set.txt"):
        path.unlink()
    assert LaSOTDataset(root, "train").names == TRAIN
    (root / "testing_set.txt").rename(root / "training_set.txt")
    assert LaSOTDataset(root, "train").names == TEST
    assert LaSOTDataset(root, "test").names == TRAIN


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_without_lists_the_error_says_where_they_come_from(root: Path, split: str):
    for path in list(root.rglob("t*ing_set.txt")):
        path.unlink()
    with pytest.raises(DatasetNotFoundError) as error:
        LaSOTDataset(root, split)
    for part in (str(root), "testing_set.txt", "official LaSOT", 'split="all"'):
        assert part in str(error.value)
    assert LaSOTDataset(root, "all").names == NAMES


def test_validation_is_a_fixed_tenth_of_train(tmp_path: Path):
    names = [f"{group}-{k}" for group in ("cat", "dog", "fox") for k in range(1, 17)]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "training_set.txt").write_text("\n".join(names))
    held = LaSOTDataset(tmp_path, "val").names
    assert len(held) == 5
    assert len({name.split("-")[0] for name in held}) > 1
    assert LaSOTDataset(tmp_path, "train").names == names
    rest = LaSOTDataset(tmp_path, "train", holdout=True).names
    assert rest == [name for name in names if name not in held]
    # The order of the list does not matter, nor which part of it was downloaded.
    (tmp_path / "training_set.txt").write_text("\n".join(names[::-1]))
    (tmp_path / held[0]).rmdir()
    assert sorted(LaSOTDataset(tmp_path, "val").names) == sorted(held[1:])


def test_a_partial_download(root: Path, tmp_path: Path):
    (root / "testing_set.txt").write_text("dog-1\nfox-7\ncat-10\n")
    assert LaSOTDataset(root, "test").names == TEST
    (root / "testing_set.txt").write_text("fox-7\nfox-8\n")
    with pytest.raises(
        DatasetNotFoundError, match=r"holds 5 sequences but none of the 2 .*'fox-7'"
    ):
        LaSOTDataset(root, "test")


def test_the_shortest_of_frames_rows_and_flags_counts(tmp_path: Path, write_frames):
    few = write_sequence(tmp_path / "bus-4", write_frames, frames=4)
    more = write_sequence(tmp_path / "monkey-17", write_frames, frames=9)
    dataset = LaSOTDataset(tmp_path, "all")
    assert [len(sequence) for sequence in dataset] == [4, 6]
    (more / "out_of_view.txt").write_text("0,0,1,0,1")
    (few / "nlp.txt").write_text("a red bus\n")
    dataset = LaSOTDataset(tmp_path, "all")
    assert [len(sequence) for sequence in dataset] == [4, 5]
    assert {len(dataset[1].attributes[k]) for k in ("full_occlusion", "out_of_view")} == {5}
    assert str(dataset[0].attributes["nlp"]) == "a red bus"
    assert dataset[0].attributes["nlp"].shape == ()


def test_bad_sequences_are_named(tmp_path: Path, write_frames):
    folder = write_sequence(tmp_path / "bus-4", write_frames)
    (folder / "img" / "00000003.jpg").unlink()
    with pytest.raises(FrameError, match=r"'00000003\.jpg' is expected"):
        LaSOTDataset(tmp_path, "all")[0]
    (folder / "out_of_view.txt").unlink()
    with pytest.raises(AnnotationError, match=r"cannot read .*bus-4.out_of_view\.txt"):
        LaSOTDataset(tmp_path, "all")[0]
    (folder / "groundtruth.txt").write_text("1,2,3,4\n1,2,3\n")
    with pytest.raises(
        AnnotationError, match=r"bus-4.groundtruth\.txt, line 2: '1,2,3' is not four"
    ):
        LaSOTDataset(tmp_path, "all")[0]


def test_no_frames(tmp_path: Path, write_frames):
    folder = write_sequence(tmp_path / "bus-4", write_frames, frames=0)
    with pytest.raises(DatasetNotFoundError, match="'bus-4' has no frames"):
        LaSOTDataset(tmp_path, "all")[0]
    (folder / "img").rmdir()
    with pytest.raises(FrameError, match="cannot list"):
        LaSOTDataset(tmp_path, "all")[0]


def test_a_wrong_folder_shows_the_layout(tmp_path: Path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetNotFoundError) as error:
        LaSOTDataset(tmp_path)
    assert f"{tmp_path} holds no sequence folder" in str(error.value)
    assert "airplane-1/groundtruth.txt" in str(error.value)


def test_an_unknown_split(tmp_path: Path):
    with pytest.raises(InvalidArgumentError, match="'dev': accepted are all, test, train, val"):
        LaSOTDataset(tmp_path, "dev")


@pytest.mark.parametrize("tree", ["LaSOT", "LaSOT_flat"])
def test_the_published_layout(layouts: Path, tree: str):
    root = layouts / tree
    split = "test" if tree == "LaSOT" else "all"
    dataset = open_dataset("lasot", root, split)
    expected = ["person-1", "basketball-1"] if tree == "LaSOT" else ["basketball-1", "person-1"]
    assert dataset.names == expected
    if tree == "LaSOT":
        assert open_dataset("LaSOT", root, "train").names == ["person-2", "book-1"]
        assert len(open_dataset("LaSOT", root, "val")) == 1
    for sequence in dataset:
        folder = layouts / "LaSOT" / sequence.name.split("-")[0] / sequence.name
        boxes = np.loadtxt(folder / "groundtruth.txt", delimiter=",")
        np.testing.assert_array_equal(sequence.boxes, boxes)
        flags = {
            key: np.array((folder / f"{key}.txt").read_text().split(",")) == "1"
            for key in ("full_occlusion", "out_of_view")
        }
        for key, values in flags.items():
            np.testing.assert_array_equal(sequence.attributes[key], values)
        absent = flags["full_occlusion"] | flags["out_of_view"]
        assert absent.any()
        np.testing.assert_array_equal(sequence.visible, ~absent & (boxes[:, 2] > 0))
        assert "sample sequence made from" in str(sequence.attributes["nlp"])
        assert isinstance(sequence, ImageSequence)
        assert [p.name for p in sequence.paths] == [f"{t + 1:08d}.jpg" for t in range(24)]
        assert sequence.read(23).ndim == 3
