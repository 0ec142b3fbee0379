"""OTB-100 with all its irregular sequences."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from slt_gym.data import ImageSequence, SequenceDataset, open_dataset
from slt_gym.data.folder import FolderDataset
from slt_gym.data.otb import OTB100_NAMES, OTB_ALIASES, OTB100Dataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError


def write_boxes(path: Path, count: int, separator: str = ",", shift: int = 0) -> np.ndarray:
    boxes = np.array([[t + shift, 2 * t, 5 + t, 6] for t in range(1, count + 1)])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(separator.join(map(str, row)) for row in boxes) + "\n")
    return boxes


def list_files(dataset: SequenceDataset, name: str) -> list[str]:
    sequence = dataset.get(name)
    assert isinstance(sequence, ImageSequence)
    assert len(sequence.paths) == len(sequence)
    return [path.name for path in sequence.paths]


def test_the_hundred_names():
    assert len(OTB100_NAMES) == len(set(OTB100_NAMES)) == 100
    folders = {name.split("-")[0] for name in OTB100_NAMES}
    assert len(folders) == 98
    assert {"Jogging", "Skating2"} == {
        folder for folder in folders if sum(n.split("-")[0] == folder for n in OTB100_NAMES) == 2
    }


def test_the_toolkits_names():
    toolkits = {
        "pytracking": ["Jogging_1", "Jogging_2", "Skating2_1", "Skating2_2", "Human4_2"],
        "got10k": ["Jogging.1", "Jogging.2", "Skating2.1", "Skating2.2", "Human4"],
        "pysot": ["Jogging-1", "Jogging-2", "Skating2-1", "Skating2-2", "Human4-2"],
        "vot": ["Jogging1", "Jogging2", "Skating2_1", "Skating2_2", "Human4"],
    }
    expected = ["Jogging-1", "Jogging-2", "Skating2-1", "Skating2-2", "Human4-2"]
    for names in toolkits.values():
        assert [OTB_ALIASES[name] for name in names] == expected
    assert set(OTB_ALIASES.values()) <= set(OTB100_NAMES)
    assert not (set(OTB_ALIASES) - set(OTB_ALIASES.values())) & set(OTB100_NAMES)


@pytest.mark.parametrize("separator", [",", "\t", " ", ", "])
def test_separators(tmp_path: Path, write_frames, separator: str):
    write_frames(tmp_path / "Crossing" / "img", 5)
    boxes = write_boxes(tmp_path / "Crossing" / "groundtruth_rect.txt", 5, separator)
    (sequence,) = OTB100Dataset(tmp_path)
    np.testing.assert_array_equal(sequence.boxes, boxes)
    assert sequence.visible.all()
    assert [round(sequence.read(t).mean() / 10) for t in range(5)] == [1, 2, 3, 4, 5]
    assert (sequence.attributes, sequence.notes) == ({}, ())


def test_two_targets_and_an_empty_file(tmp_path: Path, write_frames):
    for folder in ("Jogging", "Skating2", "Human4"):
        write_frames(tmp_path / folder / "img", 4)
    first = write_boxes(tmp_path / "Jogging" / "groundtruth_rect.1.txt", 4)
    second = write_boxes(tmp_path / "Jogging" / "groundtruth_rect.2.txt", 4, "\t", shift=7)
    write_boxes(tmp_path / "Skating2" / "groundtruth_rect.2.txt", 4)
    (tmp_path / "Human4" / "groundtruth_rect.1.txt").write_text("")
    human = write_boxes(tmp_path / "Human4" / "groundtruth_rect.2.txt", 4, shift=3)
    dataset = OTB100Dataset(tmp_path)
    assert dataset.names == ["Human4-2", "Jogging-1", "Jogging-2", "Skating2-2"]
    for name, boxes in (("Human4-2", human), ("Jogging-1", first), ("Jogging-2", second)):
        np.testing.assert_array_equal(dataset.get(name).boxes, boxes)
    # The plain folder reader calls them the same.
    assert FolderDataset(tmp_path).names == dataset.names


def test_linked_and_copied_targets_come_once(tmp_path: Path, write_frames):
    write_frames(tmp_path / "Jogging" / "img", 3)
    write_boxes(tmp_path / "Jogging" / "groundtruth_rect.1.txt", 3)
    second = write_boxes(tmp_path / "Jogging" / "groundtruth_rect.2.txt", 3, shift=7)
    (tmp_path / "Jogging-1").symlink_to("Jogging")
    shutil.copytree(tmp_path / "Jogging", tmp_path / "Jogging-2")
    assert OTB100Dataset(tmp_path).names == ["Jogging-1", "Jogging-2"]
    # Only the copy is left, and then only its own file, called like everybody else's.
    shutil.rmtree(tmp_path / "Jogging")
    for path in (tmp_path / "Jogging-2").glob("*.txt"):
        dataset = OTB100Dataset(tmp_path)
        assert dataset.names == ["Jogging-2"]
        np.testing.assert_array_equal(dataset[0].boxes, second)
        if path.name == "groundtruth_rect.2.txt":
            path.rename(path.with_name("groundtruth_rect.txt"))


@pytest.mark.parametrize(
    ("name", "files", "rows", "first"),
    [
        ("BlurCar1", (247, 988), 742, 247),
        ("BlurCar3", (3, 359), 357, 3),
        ("BlurCar4", (18, 397), 380, 18),
        ("David", (1, 770), 471, 300),
        ("Diving", (1, 231), 215, 1),
        ("Football1", (1, 80), 74, 1),
        ("Freeman3", (1, 470), 460, 1),
        ("Freeman4", (1, 297), 283, 1),
    ],
)
def test_annotated_ranges(tmp_path: Path, name: str, files: tuple, rows: int, first: int):
    folder = tmp_path / name / "img"
    folder.mkdir(parents=True)
    for number in range(files[0], files[1] + 1):
        (folder / f"{number:04d}.jpg").touch()
    write_boxes(tmp_path / name / "groundtruth_rect.txt", rows)
    dataset = OTB100Dataset(tmp_path)
    names = list_files(dataset, name)
    assert len(names) == rows
    assert (names[0], names[-1]) == (f"{first:04d}.jpg", f"{first + rows - 1:04d}.jpg")
    assert dataset[0].notes == ()


def test_board_has_five_digits_and_kitesurf_two_homes(tmp_path: Path, write_frames):
    write_frames(tmp_path / "Board" / "img", 3, "{:05d}.jpg")
    write_frames(tmp_path / "KiteSurf" / "jpg", 3, "{:04d}.png")
    (tmp_path / "KiteSurf" / "img").mkdir()
    for name in ("Board", "KiteSurf"):
        write_boxes(tmp_path / name / "groundtruth_rect.txt", 3)
    dataset = OTB100Dataset(tmp_path)
    assert list_files(dataset, "Board") == ["00001.jpg", "00002.jpg", "00003.jpg"]
    assert list_files(dataset, "KiteSurf") == ["0001.png", "0002.png", "0003.png"]
    write_frames(tmp_path / "KiteSurf" / "img", 3)
    assert list_files(OTB100Dataset(tmp_path), "KiteSurf") == ["0001.jpg", "0002.jpg", "0003.jpg"]


def test_tiger1_tells_the_frames_that_are_passed_over(tmp_path: Path, write_frames):
    write_frames(tmp_path / "Tiger1" / "img", 8)
    write_boxes(tmp_path / "Tiger1" / "groundtruth_rect.txt", 8)
    (sequence,) = OTB100Dataset(tmp_path)
    assert len(sequence) == 8
    assert sequence.attributes["init_omit"] == 5
    assert sequence.attributes["init_omit"].shape == ()


def test_unequal_lengths_are_cut_and_noted(tmp_path: Path, write_frames):
    write_frames(tmp_path / "Toy" / "img", 5)
    write_boxes(tmp_path / "Toy" / "groundtruth_rect.txt", 4)
    write_frames(tmp_path / "Vase" / "img", 4)
    write_boxes(tmp_path / "Vase" / "groundtruth_rect.txt", 6)
    toy, vase = OTB100Dataset(tmp_path)
    assert (len(toy), toy.notes) == (4, ("5 images for 4 frames: the last 1 are left out",))
    assert (len(vase), vase.notes) == (4, ("6 boxes for 4 frames: the last 2 are left out",))


def test_bad_sequences_are_named(tmp_path: Path, write_frames):
    for name, count in (("Toy", 3), ("Vase", 0), ("Man", 0), ("Gym", 3), ("Coke", 3)):
        write_frames(tmp_path / name / "img", count)
        write_boxes(tmp_path / name / "groundtruth_rect.txt", 3)
    (tmp_path / "Toy" / "img" / "0002.jpg").unlink()
    (tmp_path / "Man" / "img").rmdir()
    (tmp_path / "Gym" / "groundtruth_rect.txt").write_text("1,2,3,4\n1,2\n")
    (tmp_path / "Coke" / "img" / "0001.jpg").unlink()
    dataset = OTB100Dataset(tmp_path)
    with pytest.raises(FrameError, match=r"'0003\.jpg' where '0002\.jpg' is expected"):
        dataset.get("Toy")
    with pytest.raises(FrameError, match=r"begins with '0002\.jpg'.* 1 among them"):
        dataset.get("Coke")
    for name in ("Vase", "Man"):
        with pytest.raises(DatasetNotFoundError, match=f"'{name}' has no frames"):
            dataset.get(name)
    with pytest.raises(AnnotationError, match=r"Gym.groundtruth_rect\.txt, line 2"):
        dataset.get("Gym")


def test_partial_downloads_and_further_folders(tmp_path: Path, write_frames):
    for name in ("Woman", "Basketball", "MyOwn", "Suv"):
        write_frames(tmp_path / name / "img", 2)
        write_boxes(tmp_path / name / "groundtruth_rect.txt", 2)
    (tmp_path / "Suv" / "groundtruth_rect.txt").unlink()
    (tmp_path / "cfg.mat").touch()
    dataset = OTB100Dataset(tmp_path)
    assert dataset.names == ["Basketball", "Woman"]
    with pytest.raises(InvalidArgumentError, match=r"benchmark for testing.*train_on_test=True"):
        OTB100Dataset(tmp_path, "train")
    shutil.rmtree(tmp_path / "Woman")
    shutil.rmtree(tmp_path / "Basketball")
    with pytest.raises(DatasetNotFoundError, match=r"(?s)none of the 100 .*Basketball/img"):
        OTB100Dataset(tmp_path)


def test_the_published_layout(layouts: Path):
    root = layouts / "OTB100"
    dataset = open_dataset("OTB-100", root, "test")
    counts = {
        "BlurCar3": ("groundtruth_rect.txt", 357, 3),
        "Board": ("groundtruth_rect.txt", 698, 1),
        "Crossing": ("groundtruth_rect.txt", 120, 1),
        "David": ("groundtruth_rect.txt", 471, 300),
        "Human4-2": ("groundtruth_rect.2.txt", 667, 1),
        "Jogging-1": ("groundtruth_rect.1.txt", 307, 1),
        "Jogging-2": ("groundtruth_rect.2.txt", 307, 1),
        "Man": ("groundtruth_rect.txt", 134, 1),
    }
    assert dataset.names == list(counts)
    for name, (file, count, first) in counts.items():
        text = (root / name.split("-")[0] / file).read_text()
        rows = [[float(v) for v in line.replace(",", " ").split()] for line in text.splitlines()]
        sequence = dataset.get(name)
        np.testing.assert_array_equal(sequence.boxes, rows)
        assert len(sequence) == count
        assert sequence.visible.all()
        assert sequence.notes == ()
        width = 5 if name == "Board" else 4
        assert list_files(dataset, name) == [f"{first + t:0{width}d}.jpg" for t in range(count)]
        assert sequence.read(count - 1).ndim == 3
    assert dataset.get("Crossing").boxes[0].tolist() == [205, 151, 17, 50]
    assert not np.array_equal(dataset.get("Jogging-1").boxes, dataset.get("Jogging-2").boxes)
