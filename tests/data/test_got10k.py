"""GOT-10k's three parts."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import slt_gym  # noqa: F401 (registers the environments)
from slt_gym.data import ImageSequence, open_dataset, whole_clip
from slt_gym.data.got10k import GOT10kDataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError

META = """[METAINFO]
url: https://youtu.be/b0ZnfLI8YPw
begin: 00:00:01
anno_fps: 10Hz
object_class: ctenophore
motion_class: swimming
resolution: (1920, 1080)
"""


def write_sequence(folder: Path, write_frames, frames: int = 5, rows: int = 5) -> Path:
    write_frames(folder, frames, "{:08d}.jpg")
    lines = [f"{t + 1}.5000,2.0000,30.2500,4.0000" for t in range(rows)]
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_labels(folder: Path) -> None:
    for label, values in (("absence", "01000"), ("cover", "80308"), ("cut_by_image", "00110")):
        (folder / f"{label}.label").write_text("\n".join(values) + "\n")


@pytest.fixture
def root(tmp_path: Path, write_frames) -> Path:
    base = tmp_path / "GOT-10k"
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        names = [f"GOT-10k_{split.capitalize()}_{k:06d}" for k in range(1, count + 1)]
        for name in names:
            folder = write_sequence(
                base / split / name, write_frames, rows=1 if split == "test" else 5
            )
            if split != "test":
                write_labels(folder)
        (base / split / "list.txt").write_text("\n".join(names))
    return base


def test_parts_and_both_kinds_of_root(root: Path):
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        names = [f"GOT-10k_{split.capitalize()}_{k:06d}" for k in range(1, count + 1)]
        for given in (root, root / "train", root / split):
            dataset = GOT10kDataset(given, split)
            assert dataset.names == names
            assert dataset.root == root / split


def test_a_single_part_does_not_pass_for_another(root: Path, tmp_path: Path):
    alone = tmp_path / "alone"
    (root / "train").rename(alone)
    assert len(GOT10kDataset(alone, "train")) == 2
    with pytest.raises(DatasetNotFoundError, match=r"is the train part, and no val/list\.txt"):
        GOT10kDataset(alone, "val")


def test_labels_decide_visibility(root: Path):
    sequence = GOT10kDataset(root, "train")[1]
    np.testing.assert_array_equal(sequence.boxes[1], [2.5, 2, 30.25, 4])
    assert sequence.visible.tolist() == [True, False, True, False, True]
    assert sequence.attributes["absence"].tolist() == [False, True, False, False, False]
    assert sequence.attributes["cover"].tolist() == [8, 0, 3, 0, 8]
    assert sequence.attributes["cut_by_image"].tolist() == [False, False, True, True, False]
    assert "object_class" not in sequence.attributes
    assert [round(sequence.read(t).mean() / 10) for t in range(5)] == [1, 2, 3, 4, 5]


def test_the_meta_file_is_optional_text(root: Path):
    (root / "train" / "GOT-10k_Train_000001" / "meta_info.ini").write_text(META)
    attributes = GOT10kDataset(root, "train")[0].attributes
    assert str(attributes["object_class"]) == "ctenophore"
    assert str(attributes["motion_class"]) == "swimming"
    assert attributes["object_class"].shape == ()
    assert "root_class" not in attributes


def test_the_test_part_has_one_box_and_all_frames(root: Path):
    sequence = GOT10kDataset(root, "test")[0]
    assert len(sequence) == 5
    np.testing.assert_array_equal(sequence.boxes[0], [1.5, 2, 30.25, 4])
    assert np.isnan(sequence.boxes[1:]).all()
    assert sequence.visible.tolist() == [True, False, False, False, False]
    assert sequence.attributes == {}
    assert whole_clip(sequence).frames.tolist() == [0, 1, 2, 3, 4]


def test_split_archives_and_partial_downloads(root: Path):
    part = root / "train" / "GOT-10k_Train_split_01"
    part.mkdir()
    (root / "train" / "GOT-10k_Train_000002").rename(part / "GOT-10k_Train_000002")
    listing = root / "train" / "list.txt"
    listing.write_text("GOT-10k_Train_000002\nGOT-10k_Train_000003\nGOT-10k_Train_000001\n")
    dataset = GOT10kDataset(root, "train")
    assert dataset.names == ["GOT-10k_Train_000002", "GOT-10k_Train_000001"]
    assert len(dataset[0]) == 5
    listing.write_text("GOT-10k_Train_000007\n")
    with pytest.raises(
        DatasetNotFoundError, match=r"holds none of the 1 sequences of its list\.txt"
    ):
        GOT10kDataset(root, "train")


def test_the_shortest_of_frames_rows_and_labels_counts(root: Path):
    folder = root / "val" / "GOT-10k_Val_000001"
    (folder / "cover.label").write_text("8\n8\n8\n8\n")
    sequence = GOT10kDataset(root, "val")[0]
    assert len(sequence) == len(sequence.attributes["absence"]) == 4
    (folder / "00000004.jpg").unlink()
    (folder / "00000005.jpg").unlink()
    assert len(GOT10kDataset(root, "val")[0]) == 3


def test_bad_sequences_are_named(root: Path):
    folder = root / "val" / "GOT-10k_Val_000001"
    (folder / "absence.label").write_text("0\n0\nno\n0\n0\n")
    with pytest.raises(AnnotationError, match=r"absence\.label, line 3: 'no' does not consist"):
        GOT10kDataset(root, "val")[0]
    (folder / "absence.label").unlink()
    with pytest.raises(AnnotationError, match=r"cannot read .*absence\.label"):
        GOT10kDataset(root, "val")[0]
    write_labels(folder)
    (folder / "00000002.jpg").unlink()
    with pytest.raises(FrameError, match=r"'00000002\.jpg' is expected"):
        GOT10kDataset(root, "val")[0]
    for path in folder.glob("*.jpg"):
        path.unlink()
    with pytest.raises(DatasetNotFoundError, match="'GOT-10k_Val_000001' has no frames"):
        GOT10kDataset(root, "val")[0]


def test_a_wrong_folder_shows_the_layout(tmp_path: Path):
    with pytest.raises(DatasetNotFoundError) as error:
        GOT10kDataset(tmp_path, "val")
    assert f"{tmp_path} holds neither val/list.txt nor list.txt" in str(error.value)
    assert "GOT-10k_Train_000001/groundtruth.txt" in str(error.value)


def test_an_unknown_split(tmp_path: Path):
    with pytest.raises(InvalidArgumentError, match=r"'votrain': accepted are .*mean 'vottrain'"):
        GOT10kDataset(tmp_path, "votrain")


FILES = {
    "pytracking_train": "got10k_train_split.txt",
    "pytracking_val": "got10k_val_split.txt",
    "vottrain": "got10k_vot_train_split.txt",
    "votval": "got10k_vot_val_split.txt",
}


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Ten training sequences of which nothing but the folder is there."""
    names = [f"GOT-10k_Train_{k:06d}" for k in range(1, 11)]
    for name in names:
        (tmp_path / "ten" / "train" / name).mkdir(parents=True)
    (tmp_path / "ten" / "train" / "list.txt").write_text("\n".join(names))
    return tmp_path / "ten"


def numbers(dataset: GOT10kDataset) -> list[int]:
    return [int(name[-6:]) for name in dataset.names]


@pytest.mark.parametrize("split", FILES)
def test_line_numbers_choose_from_the_training_list(ten: Path, split: str):
    (ten / FILES[split]).write_text("7\n0\n9\n")
    dataset = GOT10kDataset(ten, split)
    assert numbers(dataset) == [8, 1, 10]  # counted from 0, in the file's order
    assert dataset.split == ("train" if "train" in split else "val")
    assert dataset.subset == split
    assert dataset.root == ten / "train"
    (ten / "train" / dataset.names[0]).rmdir()
    assert numbers(GOT10kDataset(ten, split)) == [1, 10]


def test_vot_clean_leaves_out_by_name(ten: Path):
    names = ["GOT-10k_Train_000004", "GOT-10k_Train_000009", "GOT-10k_Train_000777"]
    (ten / "got10k_vot_exclude.txt").write_text("\n".join(names))
    dataset = GOT10kDataset(ten, "vot_clean")
    assert numbers(dataset) == [1, 2, 3, 5, 6, 7, 8, 10]
    assert (dataset.split, dataset.subset) == ("train", "vot_clean")
    # The published numbers leave out the neighbours, and keep the forbidden ones.
    (ten / FILES["vottrain"]).write_text("\n".join(str(k) for k in range(10) if k not in (4, 9)))
    assert numbers(GOT10kDataset(ten, "vottrain")) == [1, 2, 3, 4, 6, 7, 8, 9]


@pytest.mark.parametrize("place", [".", "train", ".."])
@pytest.mark.parametrize("given", [".", "train"])
def test_where_a_split_file_is_looked_for(ten: Path, place: str, given: str):
    (ten / place / FILES["votval"]).write_text("2\n")
    if (given, place) == ("train", ".."):
        given = "."
    assert numbers(GOT10kDataset(ten / given, "votval")) == [3]


def test_a_split_file_can_be_given(ten: Path, tmp_path: Path):
    path = tmp_path / "elsewhere" / "mine.txt"
    path.parent.mkdir()
    path.write_text("5\n")
    (ten / FILES["votval"]).write_text("2\n")
    dataset = open_dataset("got10k", ten, "votval", split_file=str(path))
    assert dataset.names == ["GOT-10k_Train_000006"]
    with pytest.raises(DatasetNotFoundError, match=r"split_file='nowhere\.txt' is not a file"):
        GOT10kDataset(ten, "votval", split_file="nowhere.txt")
    with pytest.raises(InvalidArgumentError, match=r"'train' of got10k takes no split_file"):
        GOT10kDataset(ten, "train", split_file=path)


@pytest.mark.parametrize("split", [*FILES, "vot_clean"])
def test_a_missing_split_file_says_where_it_comes_from(ten: Path, split: str):
    with pytest.raises(DatasetNotFoundError) as error:
        GOT10kDataset(ten, split)
    message = str(error.value)
    assert f"'{split}' of got10k without {FILES.get(split, 'got10k_vot_exclude.txt')}" in message
    assert f"{ten}, {ten / 'train'}, {ten.parent}" in message
    assert "PyTracking publishes it in its folder ltr/data_specs" in message


@pytest.mark.parametrize("text", ["10", "-1", "1.5", "GOT-10k_Train_000003"])
def test_a_wrong_line_number_is_named(ten: Path, text: str):
    (ten / FILES["vottrain"]).write_text(f"0\n{text}\n")
    with pytest.raises(AnnotationError) as error:
        GOT10kDataset(ten, "vottrain")
    message = str(error.value)
    assert f"{FILES['vottrain']}, line 2: '{text}' is no line of list.txt, which has 10" in message
    assert "the published list.txt with all 9335 names" in message


def test_files_are_not_taken_for_each_other(ten: Path):
    (ten / "got10k_vot_exclude.txt").write_text("GOT-10k_Train_000003\n4\n")
    with pytest.raises(AnnotationError, match=r"exclude\.txt, line 2: '4' is not the name"):
        GOT10kDataset(ten, "vot_clean")
    (ten / FILES["votval"]).write_text("")
    with pytest.raises(AnnotationError, match="is empty"):
        GOT10kDataset(ten, "votval")
    (ten / FILES["votval"]).write_text("3\n")
    (ten / "train" / "GOT-10k_Train_000004").rmdir()
    with pytest.raises(DatasetNotFoundError, match=r"none of the 1 .* that split 'votval' takes"):
        GOT10kDataset(ten, "votval")


@pytest.mark.parametrize(("split", "drawn"), [("vottrain", True), ("votval", False)])
def test_environments_take_the_split(root: Path, split: str, drawn: bool):
    (root / FILES[split]).write_text("1\n0\n")
    env = gym.make("SLTTrack-GOT10k-v0", root=str(root), split=split, geometry="transt-tiny")
    assert env.unwrapped.split == ("train" if drawn else "val")
    for folder in (root / "train").glob("GOT-10k_*"):
        (folder / "absence.label").write_text("0\n0\n0\n0\n0\n")
        (folder / "cover.label").write_text("8\n8\n8\n8\n8\n")
    names = [env.reset(seed=1 if k == 0 else None)[1]["sequence"] for k in range(4)]
    if not drawn:
        assert names == ["GOT-10k_Train_000002", "GOT-10k_Train_000001"] * 2
    with pytest.raises(InvalidArgumentError, match=r"unknown split of got10k 'dev': .*vottrain"):
        gym.make("SLTTrack-GOT10k-v0", root=str(root), split="dev")


@pytest.mark.parametrize(("split", "count"), [("train", 3), ("val", 2), ("test", 2)])
def test_the_published_layout(layouts: Path, split: str, count: int):
    root = layouts / "GOT-10k"
    dataset = open_dataset("GOT-10k", root, split)
    assert dataset.names == (root / split / "list.txt").read_text().split()
    assert len(dataset) == count
    for sequence in dataset:
        folder = root / split / sequence.name
        rows = np.loadtxt(folder / "groundtruth.txt", delimiter=",", ndmin=2)
        assert len(sequence) == 24
        assert isinstance(sequence, ImageSequence)
        assert [p.name for p in sequence.paths] == [f"{t + 1:08d}.jpg" for t in range(24)]
        assert sequence.read(23).ndim == 3
        np.testing.assert_array_equal(sequence.boxes[: len(rows)], rows)
        if split == "test":
            assert sequence.visible.tolist() == [True] + [False] * 23
            continue
        absence, cover, cut = (
            np.loadtxt(folder / f"{label}.label", int)
            for label in ("absence", "cover", "cut_by_image")
        )
        np.testing.assert_array_equal(sequence.attributes["absence"], absence)
        np.testing.assert_array_equal(sequence.attributes["cover"], cover)
        np.testing.assert_array_equal(sequence.attributes["cut_by_image"], cut)
        np.testing.assert_array_equal(sequence.visible, (absence == 0) & (cover > 0))
        assert str(sequence.attributes["root_class"]) in ("person", "object")
