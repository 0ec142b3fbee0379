"""NFS, as published and as repacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slt_gym.data import ImageSequence, open_dataset
from slt_gym.data.nfs import NFSDataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError

LOST, OCCLUDED = {2}, {1, 3}


def write_raw(root: Path, name: str, write_frames, images: int, rows: int) -> None:
    """Write rows at 240 fps of a box that is ``j + 1, 3 j, 10, j % 8 + 1`` in row ``j``."""
    write_frames(root / name / "30" / name, images, "{:05d}.jpg")
    lines = [
        f"0 {j + 1} {3 * j} {j + 11} {3 * j + j % 8 + 1} {j} {int(j // 8 in LOST)} "
        f'{int(j // 8 in OCCLUDED)} {int(j % 8 != 0)} "a {name}"'
        for j in range(rows)
    ]
    (root / name / "30" / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_as_published(tmp_path: Path, write_frames):
    write_raw(tmp_path, "car_10", write_frames, 5, 40)
    write_raw(tmp_path, "car_2", write_frames, 5, 40)
    (tmp_path / "readme").mkdir()
    dataset = NFSDataset(tmp_path)
    assert dataset.names == ["car_2", "car_10"]
    sequence = dataset[0]
    np.testing.assert_array_equal(sequence.boxes, [[j + 1, 3 * j, 10, 1] for j in range(0, 40, 8)])
    assert sequence.visible.tolist() == [t not in LOST for t in range(5)]
    assert sequence.attributes["lost"].tolist() == [t in LOST for t in range(5)]
    assert sequence.attributes["occluded"].tolist() == [t in OCCLUDED for t in range(5)]
    assert [round(sequence.read(t).mean() / 10) for t in range(5)] == [1, 2, 3, 4, 5]
    assert sequence.notes == ()


@pytest.mark.parametrize(
    ("images", "rows", "length", "note"),
    [
        (5, 33, 5, ()),
        (5, 41, 5, ("6 boxes for 5 frames: the last 1 are left out",)),
        (5, 32, 4, ("5 images for 4 frames: the last 1 are left out",)),
        (5, 5, 5, ()),
        (5, 6, 5, ("6 boxes for 5 frames: the last 1 are left out",)),
    ],
)
def test_lengths_and_ratios(
    tmp_path: Path, write_frames, images: int, rows: int, length: int, note: tuple
):
    write_raw(tmp_path, "dog", write_frames, images, rows)
    (sequence,) = NFSDataset(tmp_path)
    assert len(sequence) == len(sequence.attributes["lost"]) == length
    assert sequence.notes == note
    step = 8 if rows > 8 else 1
    assert sequence.boxes[:, 0].tolist() == [1 + step * t for t in range(length)]


def test_as_repacked(tmp_path: Path, write_frames):
    for name in ("dog", "no_text"):
        write_frames(tmp_path / "sequences" / name, 3, "{:05d}.jpg")
    (tmp_path / "anno").mkdir()
    (tmp_path / "anno" / "nfs_dog.txt").write_text(
        "1\t2\t3\t4\n2\t2\t3\t4\n0\t0\t0\t0\n5\t5\t5\t5\n"
    )
    (tmp_path / "anno" / "nfs_missing.txt").write_text("1\t2\t3\t4\n")
    dataset = NFSDataset(tmp_path)
    assert dataset.names == ["dog"]
    sequence = dataset[0]
    np.testing.assert_array_equal(sequence.boxes, [[1, 2, 3, 4], [2, 2, 3, 4], [0, 0, 0, 0]])
    assert sequence.visible.tolist() == [True, True, False]
    assert sequence.attributes == {}
    assert sequence.notes == ("4 boxes for 3 frames: the last 1 are left out",)


def test_bad_sequences_are_named(tmp_path: Path, write_frames):
    for name in ("a", "b", "c"):
        write_raw(tmp_path, name, write_frames, 3, 24)
    (tmp_path / "a" / "30" / "a.txt").write_text('0 1 2 3 4 0 0 0 0 "a"\n0 1 2 3 x 0 0 0 0 "a"\n')
    (tmp_path / "b" / "30" / "b" / "00002.jpg").unlink()
    for path in (tmp_path / "c" / "30" / "c").iterdir():
        path.unlink()
    a, b, c = range(3)
    dataset = NFSDataset(tmp_path)
    with pytest.raises(AnnotationError, match=r"a\.txt, line 2: .* nine numbers"):
        dataset[a]
    with pytest.raises(FrameError, match=r"'00003\.jpg' where '00002\.jpg' is expected"):
        dataset[b]
    with pytest.raises(DatasetNotFoundError, match="'c' has no frames"):
        dataset[c]
    (tmp_path / "a" / "30" / "a.txt").write_text("1,2,3,4\n")
    with pytest.raises(AnnotationError, match="line 1: '1,2,3,4' does not begin"):
        dataset[a]


def test_wrong_roots_and_splits(tmp_path: Path):
    (tmp_path / "dog" / "30" / "dog").mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match=r"(?s)holds no sequence.*anno/nfs_"):
        NFSDataset(tmp_path)
    with pytest.raises(InvalidArgumentError, match="nfs is a benchmark for testing"):
        NFSDataset(tmp_path, "train")


def test_the_published_layouts(layouts: Path):
    repacked = open_dataset("nfs", layouts / "NFS", "test")
    raw = open_dataset("nfs", layouts / "NFS" / "raw", "test")
    assert repacked.names == raw.names == ["car_camaro", "car_jumping"]
    for one, other in zip(repacked, raw, strict=True):
        text = (layouts / "NFS" / "anno" / f"nfs_{one.name}.txt").read_text()
        rows = [[float(v) for v in line.split("\t")] for line in text.splitlines()]
        np.testing.assert_array_equal(one.boxes, rows)
        lines = (layouts / "NFS" / "raw" / one.name / "30" / f"{one.name}.txt").read_text()
        corners = np.array([line.split()[1:5] for line in lines.splitlines()], float)[::8]
        np.testing.assert_array_equal(other.boxes[:, :2], corners[:, :2])
        np.testing.assert_array_equal(other.boxes[:, 2:], corners[:, 2:] - corners[:, :2])
        np.testing.assert_array_equal(one.boxes, other.boxes)
        assert one.notes == other.notes == ()
        assert not other.attributes["lost"].any()
        for sequence in (one, other):
            assert isinstance(sequence, ImageSequence)
            assert [p.name for p in sequence.paths] == [
                f"{t + 1:05d}.jpg" for t in range(len(rows))
            ]
        np.testing.assert_array_equal(one.read(3), other.read(3))
