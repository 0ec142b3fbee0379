"""UAV123 and UAV20L: sequences cut from shared folders of frames."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from slt_gym.data import ImageSequence, open_dataset
from slt_gym.data.uav import UAV20L_SEQUENCES, UAV123_SEQUENCES, UAV20LDataset, UAV123Dataset
from slt_gym.errors import DatasetNotFoundError, FrameError, InvalidArgumentError


def write_boxes(root: Path, part: str, name: str, count: int, absent: slice | None = None) -> None:
    boxes = np.array([[t, 2 * t, 5 + t, 6] for t in range(1, count + 1)], float)
    if absent is not None:
        boxes[absent] = np.nan
    rows = [",".join("NaN" if np.isnan(v) else f"{v:.0f}" for v in row) for row in boxes]
    path = root / "anno" / part / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def touch_frames(root: Path, folder: str, count: int) -> None:
    path = root / "data_seq" / "UAV123" / folder
    path.mkdir(parents=True)
    for t in range(count):
        (path / f"{t + 1:06d}.jpg").touch()


def numbers(sequence: object) -> list[int]:
    assert isinstance(sequence, ImageSequence)
    return [int(path.stem) for path in sequence.paths]


def test_the_published_numbers():
    assert len(UAV123_SEQUENCES) == 123
    assert len({folder for folder, *_ in UAV123_SEQUENCES.values()}) == 91
    assert len(UAV20L_SEQUENCES) == 20
    folders = {folder for folder, *_ in UAV123_SEQUENCES.values()}
    for name, (folder, first, last) in UAV20L_SEQUENCES.items():
        assert (folder, first, last) == (name, 1, None)
        assert folder in folders


def test_parts_follow_each_other():
    cut: dict[str, list[tuple[int, int]]] = {}
    for name, (folder, first, last) in UAV123_SEQUENCES.items():
        if last is None:
            assert (name, first) == (folder, 1)
        else:
            cut.setdefault(folder, []).append((first, last))
            assert name == f"{folder}_{len(cut[folder])}"
    assert len(cut) == 19
    for folder, parts in cut.items():
        assert len(parts) > 1
        assert parts[0][0] == 1
        for (_, end), (start, _) in pairwise(parts):
            # Neighbours share a frame, but for two folders that have gaps.
            assert start == end or (folder in ("bird1", "uav1") and start > end)
    assert UAV123_SEQUENCES["bird1_2"] == ("bird1", 775, 1477)
    assert UAV123_SEQUENCES["car6_5"] == ("car6", 3925, 4861)
    assert UAV123_SEQUENCES["uav1_3"] == ("uav1", 2473, 3469)
    assert UAV123_SEQUENCES["car1_s"] == ("car1_s", 1, None)


@pytest.mark.parametrize("below", ["", "UAV123"])
def test_a_cut_folder_and_a_whole_one(tmp_path: Path, write_frames, below: str):
    base = tmp_path / below
    touch_frames(base, "truck4", 1261)
    write_boxes(base, "UAV123", "truck4_1", 577)
    write_boxes(base, "UAV123", "truck4_2", 685)
    write_frames(base / "data_seq" / "UAV123" / "bike1", 6, "{:06d}.jpg")
    write_boxes(base, "UAV123", "bike1", 6, absent=slice(2, 4))
    dataset = UAV123Dataset(tmp_path)
    assert dataset.names == ["bike1", "truck4_1", "truck4_2"]
    bike, first, second = dataset
    assert numbers(bike) == [1, 2, 3, 4, 5, 6]
    assert bike.visible.tolist() == [True, True, False, False, True, True]
    assert np.isnan(bike.boxes[2:4]).all()
    assert [round(bike.read(t).mean() / 10) for t in range(6)] == [1, 2, 3, 4, 5, 6]
    assert numbers(first) == list(range(1, 578))
    assert numbers(second) == list(range(577, 1262))
    assert [s.notes for s in dataset] == [(), (), ()]


def test_uav20l_takes_whole_folders(tmp_path: Path):
    touch_frames(tmp_path, "uav1", 30)
    write_boxes(tmp_path, "UAV20L", "uav1", 30)
    write_boxes(tmp_path, "UAV123", "uav1_1", 20)
    dataset = UAV20LDataset(tmp_path)
    assert (dataset.name, dataset.names) == ("uav20l", ["uav1"])
    assert numbers(dataset[0]) == list(range(1, 31))
    assert open_dataset("UAV20L", tmp_path, "test").names == ["uav1"]
    assert open_dataset("UAV123", tmp_path, "test").names == ["uav1_1"]


def test_unequal_lengths_are_cut_and_noted(tmp_path: Path):
    touch_frames(tmp_path, "car16", 500)
    write_boxes(tmp_path, "UAV123", "car16_1", 410)
    write_boxes(tmp_path, "UAV123", "car16_2", 1579)
    first, second = UAV123Dataset(tmp_path)
    assert numbers(first) == list(range(1, 411))
    assert first.notes == ("415 images for 410 frames: the last 5 are left out",)
    assert numbers(second) == list(range(415, 501))
    assert second.notes == ("1579 boxes for 86 frames: the last 1493 are left out",)


def test_attributes(tmp_path: Path):
    for name, text in (("boat1", "1,0,0,1,0,0,0,0,0,0,1,1\n"), ("boat2", "1,0\n")):
        touch_frames(tmp_path, name, 1)
        write_boxes(tmp_path, "UAV123", name, 1)
        path = tmp_path / "anno" / "UAV123" / "att" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    touch_frames(tmp_path, "boat3", 1)
    write_boxes(tmp_path, "UAV123", "boat3", 1)
    marked, garbled, without = UAV123Dataset(tmp_path)
    assert marked.attributes["tags"].tolist() == [
        "scale_variation",
        "fast_motion",
        "camera_motion",
        "similar_object",
    ]
    assert (garbled.attributes, without.attributes) == ({}, {})


def test_bad_sequences_are_named(tmp_path: Path):
    touch_frames(tmp_path, "person7", 900)
    write_boxes(tmp_path, "UAV123", "person7_1", 1249)
    write_boxes(tmp_path, "UAV123", "person7_2", 817)
    touch_frames(tmp_path, "person1", 5)
    write_boxes(tmp_path, "UAV123", "person1", 5)
    (tmp_path / "data_seq" / "UAV123" / "person1" / "000003.jpg").unlink()
    dataset = UAV123Dataset(tmp_path)
    assert len(dataset.get("person7_1")) == 900
    with pytest.raises(DatasetNotFoundError, match=r"'person7_2' has no frames.* number 1249"):
        dataset.get("person7_2")
    with pytest.raises(FrameError, match=r"'000004\.jpg' where '000003\.jpg' is expected"):
        dataset.get("person1")


@pytest.mark.parametrize("name", ["uav123", "uav20l"])
def test_wrong_roots_and_splits(tmp_path: Path, name: str):
    # A text file without its folder of frames is no sequence.
    write_boxes(tmp_path, name.upper(), "bike1", 3)
    with pytest.raises(DatasetNotFoundError, match=r"(?s)none of the \d+ sequences.*data_seq"):
        open_dataset(name, tmp_path, "test")
    with pytest.raises(InvalidArgumentError, match=f"{name} is a benchmark for testing"):
        open_dataset(name, tmp_path, "train")


def test_the_published_layout(layouts: Path):
    root = layouts / "UAV123"
    dataset = open_dataset("uav123", root, "test")
    firsts = {"bird1_1": 1, "bird1_2": 775, "bird1_3": 1573, "uav2": 1, "uav6": 1}
    assert dataset.names == list(firsts)
    for sequence in dataset:
        text = (root / "anno" / "UAV123" / f"{sequence.name}.txt").read_text()
        rows = np.array([[float(v) for v in line.split(",")] for line in text.split()])
        np.testing.assert_array_equal(sequence.boxes, rows)
        np.testing.assert_array_equal(sequence.visible, ~np.isnan(rows[:, 0]))
        first = firsts[sequence.name]
        assert numbers(sequence) == list(range(first, first + len(rows)))
        assert sequence.notes == ()
        assert sequence.read(len(rows) - 1).ndim == 3
    assert (~dataset.get("uav6").visible).sum() == 10
    assert len(dataset.get("bird1_3")) == 865
    with pytest.raises(DatasetNotFoundError, match="none of the 20"):
        open_dataset("uav20l", root, "test")
