"""Folders of sequences in OTB's manner."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from slt_gym.data import ImageSequence, open_dataset
from slt_gym.data.folder import FolderDataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError


def write_boxes(path: Path, count: int, separator: str = ",", shift: int = 0) -> np.ndarray:
    boxes = np.array([[t + shift, 2 * t, 5 + t, 6] for t in range(1, count + 1)])
    path.write_text("\n".join(separator.join(map(str, row)) for row in boxes) + "\n")
    return boxes


def place(frame: np.ndarray) -> int:
    return round(float(frame.mean()) / 10) - 1


@pytest.mark.parametrize("sub", ["img", "imgs", "color", ""])
@pytest.mark.parametrize("name", ["groundtruth_rect.txt", "groundtruth.txt"])
@pytest.mark.parametrize("pattern", ["{:04d}.jpg", "{}.PNG", "frame{}.bmp", "{:05d}.jpeg"])
def test_places_of_frames_and_boxes(
    tmp_path: Path, write_frames, sub: str, name: str, pattern: str
):
    write_frames(tmp_path / "Box" / sub, 12, pattern)
    boxes = write_boxes(tmp_path / "Box" / name, 12)
    dataset = FolderDataset(tmp_path)
    assert dataset.names == ["Box"]
    sequence = dataset[0]
    np.testing.assert_array_equal(sequence.boxes, boxes)
    assert sequence.visible.all()
    assert [place(sequence.read(t)) for t in range(12)] == list(range(12))
    assert sequence.read(0).shape == (12, 16, 3)


def test_the_shorter_of_frames_and_rows_counts(tmp_path: Path, write_frames):
    write_frames(tmp_path / "David" / "img", 9)
    write_boxes(tmp_path / "David" / "groundtruth_rect.txt", 6)
    write_frames(tmp_path / "Mike" / "img", 4)
    write_boxes(tmp_path / "Mike" / "groundtruth_rect.txt", 6)
    dataset = FolderDataset(tmp_path)
    assert [(s.name, len(s)) for s in dataset] == [("David", 6), ("Mike", 4)]


def test_two_targets_in_one_folder(tmp_path: Path, write_frames):
    write_frames(tmp_path / "Jogging" / "img", 5)
    first = write_boxes(tmp_path / "Jogging" / "groundtruth_rect.1.txt", 5)
    second = write_boxes(tmp_path / "Jogging" / "groundtruth_rect.2.txt", 5, "\t", shift=7)
    write_frames(tmp_path / "Human4" / "img", 5)
    (tmp_path / "Human4" / "groundtruth_rect.1.txt").write_text("\n")
    human = write_boxes(tmp_path / "Human4" / "groundtruth_rect.2.txt", 5, " ")
    dataset = FolderDataset(tmp_path)
    assert dataset.names == ["Human4-2", "Jogging-1", "Jogging-2"]
    for sequence, boxes in zip(dataset, (human, first, second), strict=True):
        np.testing.assert_array_equal(sequence.boxes, boxes)


def test_linked_and_copied_targets_come_once(tmp_path: Path, write_frames):
    write_frames(tmp_path / "Jogging" / "img", 3)
    write_boxes(tmp_path / "Jogging" / "groundtruth_rect.1.txt", 3)
    second = write_boxes(tmp_path / "Jogging" / "groundtruth_rect.2.txt", 3, shift=7)
    (tmp_path / "Jogging-1").symlink_to("Jogging")
    shutil.copytree(tmp_path / "Jogging", tmp_path / "Jogging-2")
    assert FolderDataset(tmp_path).names == ["Jogging-1", "Jogging-2"]
    shutil.rmtree(tmp_path / "Jogging")
    (tmp_path / "Jogging-1").unlink()
    dataset = FolderDataset(tmp_path)
    assert dataset.names == ["Jogging-2"]
    np.testing.assert_array_equal(dataset[0].boxes, second)


def test_the_root_may_be_one_sequence(tmp_path: Path, write_frames, monkeypatch):
    folder = tmp_path / "Crossing"
    write_frames(folder / "img", 3)
    write_boxes(folder / "groundtruth_rect.txt", 3)
    assert FolderDataset(folder).names == ["Crossing"]
    monkeypatch.chdir(folder)
    assert FolderDataset(".").names == ["Crossing"]


def test_polygons(tmp_path: Path, write_frames):
    write_frames(tmp_path / "ball" / "color", 1)
    (tmp_path / "ball" / "groundtruth.txt").write_text("10,20,4,26,8,30,14,24\n")
    np.testing.assert_array_equal(FolderDataset(tmp_path)[0].boxes, [[4, 20, 10, 10]])


def test_boxes_without_area_are_invisible(tmp_path: Path, write_frames):
    write_frames(tmp_path / "a" / "img", 4)
    (tmp_path / "a" / "groundtruth.txt").write_text("1,1,5,5\nNaN,NaN,NaN,NaN\n0,0,0,0\n1,1,5,-5\n")
    assert FolderDataset(tmp_path)[0].visible.tolist() == [True, False, False, False]


def test_splits_are_alike_and_others_unknown(tmp_path: Path, write_frames):
    for name in ("a-10", "a-2"):
        write_frames(tmp_path / name / "img", 2)
        write_boxes(tmp_path / name / "groundtruth.txt", 2)
    (tmp_path / "notes").mkdir()
    for split in ("train", "val", "test"):
        dataset = FolderDataset(tmp_path, split)
        assert (dataset.names, dataset.split) == (["a-2", "a-10"], split)
    with pytest.raises(InvalidArgumentError, match=r"'tests': accepted are test, train, val"):
        FolderDataset(tmp_path, "tests")


def test_listing_reads_no_annotation_and_no_frame(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "groundtruth.txt").write_text("1,2,3\n")
    dataset = FolderDataset(tmp_path)
    assert dataset.names == ["a"]
    with pytest.raises(AnnotationError, match=r"groundtruth\.txt, line 1: '1,2,3' is not four"):
        dataset[0]


def test_missing_frames_are_named(tmp_path: Path):
    (tmp_path / "a").mkdir()
    write_boxes(tmp_path / "a" / "groundtruth.txt", 2)
    with pytest.raises(DatasetNotFoundError, match="sequence 'a' has no frames: expected are jpg"):
        FolderDataset(tmp_path).get("a")


def test_an_unreadable_image_is_named(tmp_path: Path, write_frames):
    paths = write_frames(tmp_path / "a" / "img", 2)
    write_boxes(tmp_path / "a" / "groundtruth.txt", 2)
    paths[1].write_bytes(b"not an image")
    sequence = FolderDataset(tmp_path)[0]
    assert place(sequence.read(0)) == 0
    with pytest.raises(FrameError, match=r"cannot decode frame 1 of 'a', .*0002\.jpg"):
        sequence.read(1)
    paths[1].unlink()
    with pytest.raises(FrameError, match=r"cannot read frame 1 of 'a', .*0002\.jpg: No such file"):
        sequence.read(1)


@pytest.mark.parametrize("content", [None, "file", "folder"])
def test_a_folder_without_sequences(tmp_path: Path, content: str | None):
    if content == "file":
        (tmp_path / "a.txt").touch()
    elif content == "folder":
        (tmp_path / "a").mkdir()
    with pytest.raises(DatasetNotFoundError) as error:
        FolderDataset(tmp_path)
    assert f"{tmp_path} holds no folder with a ground truth file" in str(error.value)
    assert "groundtruth_rect.txt" in str(error.value)


def test_the_real_sequences(real_sequences: Path):
    dataset = open_dataset("folder", real_sequences, "test")
    assert dataset.names == ["Crossing", "Man", "bag", "ball1"]
    assert [len(sequence) for sequence in dataset] == [120, 134, 196, 105]
    crossing = dataset.get("Crossing")
    np.testing.assert_array_equal(crossing.boxes[:2], [[205, 151, 17, 50], [202, 150, 19, 49]])
    assert crossing.visible.all()
    assert crossing.read(0).shape == (240, 360, 3)


def test_the_otb_layout(layouts: Path):
    dataset = open_dataset("folder", layouts / "OTB100")
    plain = ["BlurCar3", "Board", "Crossing", "David"]
    assert dataset.names == [*plain, "Human4-2", "Jogging-1", "Jogging-2", "Man"]
    # The folder reader knows nothing of the frames that are annotated in OTB-100.
    for sequence in map(dataset.get, ("Crossing", "Man")):
        lines = (
            (layouts / "OTB100" / sequence.name / "groundtruth_rect.txt").read_text().split("\n")
        )
        rows = [line.replace(",", "\t").split("\t") for line in lines if line]
        np.testing.assert_array_equal(sequence.boxes, np.array(rows, float))
        assert isinstance(sequence, ImageSequence)
        assert [p.name for p in sequence.paths] == [f"{t + 1:04d}.jpg" for t in range(len(rows))]


def test_other_layouts_open_as_folders(layouts: Path):
    vot = open_dataset("folder", layouts / "VOT2018")
    assert [(s.name, len(s)) for s in vot] == [("bag", 24), ("ball1", 24)]
    corners = np.loadtxt(layouts / "VOT2018" / "bag" / "groundtruth.txt", delimiter=",")
    np.testing.assert_allclose(vot[0].boxes[:, 0], corners[:, 0::2].min(axis=1))
    np.testing.assert_allclose(vot[0].boxes[:, 3], np.ptp(corners[:, 1::2], axis=1))
    assert [len(s) for s in open_dataset("folder", layouts / "TNL2K")] == [24, 24]
