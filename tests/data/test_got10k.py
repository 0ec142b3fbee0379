"""GOT-10k's three parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
    with pytest.raises(InvalidArgumentError, match=r"'vottrain': accepted are test, train, val"):
        GOT10kDataset(tmp_path, "vottrain")


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
