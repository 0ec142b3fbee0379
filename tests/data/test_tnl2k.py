"""TNL2K, divided by its list or by folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slt_gym.data import ImageSequence, open_dataset
from slt_gym.data.tnl2k import TNL2KDataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, FrameError, InvalidArgumentError

TRAIN = ["Arrow_Video_ZZ04_done", "test_free_video_2", "test_free_video_10"]
TEST = ["Cartoon_Robot & Cat_Z01", "test_015_Sord_video_Q01_done"]


def write_sequence(folder: Path, write_frames, rows: str = "1,2,3,4\n0,0,0,0\n-5,2,3,4\n") -> None:
    write_frames(folder / "imgs", 3, "{:05d}.jpg")
    (folder / "groundtruth.txt").write_text(rows)


@pytest.fixture
def listed(tmp_path: Path, write_frames) -> Path:
    for name in TRAIN + TEST:
        write_sequence(tmp_path / name, write_frames)
    (tmp_path / "TNL2K_testing_set.txt").write_text("\n".join([*TEST, "not_downloaded"]))
    (tmp_path / "readme").mkdir()
    return tmp_path


@pytest.fixture
def parted(tmp_path: Path, write_frames) -> Path:
    for name in TEST:
        write_sequence(tmp_path / "TNL2K_test_subset" / name, write_frames)
    for name, part in zip(TRAIN, ("p1", "p1", "p2"), strict=True):
        write_sequence(tmp_path / "TNL2K_train" / f"subset_{part}" / name, write_frames)
    return tmp_path


@pytest.mark.parametrize("tree", ["listed", "parted"])
def test_splits(request: pytest.FixtureRequest, tree: str):
    root = request.getfixturevalue(tree)
    assert TNL2KDataset(root).names == TRAIN
    assert TNL2KDataset(root, "test").names == TEST
    assert TNL2KDataset(root, "all").names == [TRAIN[0], *TEST, *TRAIN[1:]]
    for name in TEST:
        assert len(TNL2KDataset(root, "test").get(name)) == 3


def test_the_list_goes_before_folders_and_without_characters_that_got_lost(parted: Path):
    (parted / "TNL2K_testing_set.txt").write_text(f"{TRAIN[1]}\nCartoon_RobotCat_Z01\n")
    assert TNL2KDataset(parted, "test").names == [TEST[0], TRAIN[1]]
    assert TNL2KDataset(parted, "train").names == [TRAIN[0], TEST[1], TRAIN[2]]


def test_sequences_that_nothing_divides(listed: Path):
    (listed / "TNL2K_testing_set.txt").unlink()
    for split in ("train", "test"):
        with pytest.raises(DatasetNotFoundError, match=r'(?s)cannot divide.*split="all" opens'):
            TNL2KDataset(listed, split)
    assert len(TNL2KDataset(listed, "all")) == 5


def test_a_part_that_is_not_there(listed: Path):
    (listed / "TNL2K_testing_set.txt").write_text("other\n")
    with pytest.raises(DatasetNotFoundError, match="5 sequences, none of them of split 'test'"):
        TNL2KDataset(listed, "test")


def test_boxes_flags_and_the_sentence(listed: Path):
    folder = listed / TRAIN[0]
    (folder / "groundtruth.txt").write_text("-455,2,3,4\n0,0,0,0\n5,2,3,0\n")
    (folder / "language.txt").write_text("the arrow on the left\n")
    sequence = TNL2KDataset(listed).get(TRAIN[0])
    np.testing.assert_array_equal(sequence.boxes, [[-455, 2, 3, 4], [0, 0, 0, 0], [5, 2, 3, 0]])
    assert sequence.visible.tolist() == [True, False, False]
    assert sequence.attributes["absent"].tolist() == [False, True, False]
    assert str(sequence.attributes["language"]) == "the arrow on the left"
    assert sequence.attributes["language"].shape == ()
    assert "language" not in TNL2KDataset(listed).get(TRAIN[1]).attributes


@pytest.mark.parametrize(
    "names", [["img9.png", "img10.png", "img11.png"], ["0.jpg", "00000001.JPG", "2.jpeg"]]
)
def test_names_of_frames_vary(tmp_path: Path, write_frames, names: list[str]):
    write_sequence(tmp_path / "a", write_frames)
    for path, name in zip(sorted((tmp_path / "a" / "imgs").iterdir()), names, strict=True):
        path.rename(path.with_name(name))
    (sequence,) = TNL2KDataset(tmp_path, "all")
    assert isinstance(sequence, ImageSequence)
    assert [path.name for path in sequence.paths] == names
    assert [round(sequence.read(t).mean() / 10) for t in range(3)] == [1, 2, 3]


def test_unequal_lengths_are_cut_and_noted(tmp_path: Path, write_frames):
    write_sequence(tmp_path / "advSamp_monitor_bikeyellow", write_frames, "1,2,3,4\n0,0,0,0\n")
    (sequence,) = TNL2KDataset(tmp_path, "all")
    assert len(sequence) == len(sequence.attributes["absent"]) == 2
    assert sequence.notes == ("3 images for 2 frames: the last 1 are left out",)


def test_a_broken_frame_is_found_when_it_is_read(tmp_path: Path, write_frames):
    write_sequence(tmp_path / "a", write_frames)
    (tmp_path / "a" / "imgs" / "00002.jpg").write_bytes(b"\x89PNG broken")
    (sequence,) = TNL2KDataset(tmp_path, "all")
    assert len(sequence) == 3
    assert sequence.read(2).ndim == 3
    with pytest.raises(FrameError, match=r"cannot decode frame 1 of 'a', .*00002\.jpg"):
        sequence.read(1)


def test_bad_sequences_are_named(tmp_path: Path, write_frames):
    write_sequence(tmp_path / "a", write_frames, "1,2,3,4\n1,2\n")
    (tmp_path / "b" / "imgs").mkdir(parents=True)
    (tmp_path / "b" / "groundtruth.txt").write_text("1,2,3,4\n")
    dataset = TNL2KDataset(tmp_path, "all")
    with pytest.raises(AnnotationError, match=r"groundtruth\.txt, line 2"):
        dataset[0]
    with pytest.raises(DatasetNotFoundError, match="'b' has no frames"):
        dataset[1]


def test_wrong_roots_and_splits(tmp_path: Path):
    (tmp_path / "train" / "nothing").mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match=r"(?s)no sequence folder.*language\.txt"):
        TNL2KDataset(tmp_path)
    with pytest.raises(InvalidArgumentError, match="'val': accepted are all, test, train"):
        TNL2KDataset(tmp_path, "val")


def test_the_published_layout(layouts: Path):
    root = layouts / "TNL2K"
    dataset = open_dataset("TNL2K", root, "all")
    assert dataset.names == ["Assian_video_Z03_done", "advSamp_Baseball_game_002-Done"]
    for sequence in dataset:
        text = (root / sequence.name / "groundtruth.txt").read_text()
        rows = np.array([[float(v) for v in line.split(",")] for line in text.split()])
        np.testing.assert_array_equal(sequence.boxes, rows)
        assert np.flatnonzero(~sequence.visible).tolist() == [10, 11]
        np.testing.assert_array_equal(sequence.attributes["absent"], ~sequence.visible)
        assert "the target made from" in str(sequence.attributes["language"])
        assert isinstance(sequence, ImageSequence)
        assert [p.name for p in sequence.paths] == [f"{t + 1:05d}.jpg" for t in range(24)]
        assert sequence.notes == ()
