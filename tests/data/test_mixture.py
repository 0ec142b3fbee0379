"""Several datasets as one, and test splits to train on."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from distributions import BoxesDataset

from slt_gym.data import SequenceDataset, draw_clip, open_dataset
from slt_gym.data.mixture import MixtureDataset
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError

VIDEO = {"width": 64, "height": 64, "num_frames": 12}


@pytest.fixture
def base(tmp_path: Path, write_frames) -> Path:
    """A folder with ``lasot`` (a-1 to train on, a-2 to test on) and ``folder`` (b) in it."""
    for name in ("a-1", "a-2"):
        folder = tmp_path / "lasot" / "a" / name
        write_frames(folder / "img", 3, "{:08d}.jpg")
        (folder / "groundtruth.txt").write_text("1,2,3,4\n" * 3)
        for flags in ("full_occlusion.txt", "out_of_view.txt"):
            (folder / flags).write_text("0,0,0")
    (tmp_path / "lasot" / "training_set.txt").write_text("a-1\n")
    (tmp_path / "lasot" / "testing_set.txt").write_text("a-2\n")
    write_frames(tmp_path / "folder" / "b" / "img", 2)
    (tmp_path / "folder" / "b" / "groundtruth.txt").write_text("5,6,7,8\n" * 2)
    return tmp_path


def assert_both(dataset: SequenceDataset) -> None:
    assert dataset.name == "lasot+folder"
    assert dataset.names == ["lasot/a-1", "folder/b"]
    assert [sequence.name for sequence in dataset] == dataset.names
    sequence = dataset.get("folder/b")
    assert sequence.boxes.tolist() == [[5, 6, 7, 8]] * 2
    assert sequence.read(1).shape == (12, 16, 3)


def test_roots_are_told_in_three_ways(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_both(open_dataset("lasot+folder", base))
    assert_both(open_dataset("LaSOT+folder", str(base)))
    roots = {"LaSOT": base / "lasot", "folder": base / "folder"}
    assert_both(open_dataset("lasot+folder", roots))
    monkeypatch.setenv("SLT_GYM_DATA", str(base))
    assert_both(open_dataset("lasot+folder"))
    # A dict may leave some to the environment.
    monkeypatch.setenv("SLT_GYM_FOLDER", str(base / "folder"))
    monkeypatch.delenv("SLT_GYM_DATA")
    assert_both(open_dataset("lasot+folder", {"lasot": base / "lasot"}))


def test_parts_that_are_not_on_disk_need_no_root(base: Path) -> None:
    dataset = open_dataset(
        "lasot+synthetic",
        base,
        weights=[1, 3],
        options={"synthetic": {**VIDEO, "num_sequences": 2}},
    )
    assert dataset.names == ["lasot/a-1", "synthetic/train-000000", "synthetic/train-000001"]
    assert dataset.parts == ((0.25, range(1)), (0.75, range(1, 3)))
    assert dataset[2].read(0).shape == (64, 64, 3)
    assert dataset[2].attributes.keys() == open_dataset("synthetic", **VIDEO)[1].attributes.keys()


def test_options_reach_the_parts(base: Path) -> None:
    dataset = open_dataset("lasot+folder", base, options={"lasot": {"split": "all"}})
    assert dataset.names == ["lasot/a-1", "lasot/a-2", "folder/b"]
    assert dataset.split == "train"


def test_a_walk_goes_through_all_parts(base: Path) -> None:
    dataset = open_dataset("lasot+folder", base, "test")
    assert (dataset.split, dataset.names) == ("test", ["lasot/a-2", "folder/b"])


def test_a_mixture_survives_pickle(base: Path) -> None:
    assert_both(pickle.loads(pickle.dumps(open_dataset("lasot+folder", base))))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lasot+folders", {}, "unknown dataset 'folders': .*mean 'folder'"),
        ("lasot+", {}, "unknown dataset ''"),
        ("lasot+lasot", {}, r"mixture lasot\+lasot names lasot twice"),
        ("lasot+folder", {"weights": [1]}, r"weights=\[1\] .*accepted are 2 numbers"),
        ("lasot+folder", {"weights": [0, 0]}, "not all 0"),
        ("lasot+folder", {"weights": [1, -1]}, "0 or more"),
        ("lasot+folder", {"weights": [1, float("nan")]}, "2 numbers"),
        ("lasot+folder", {"weights": "ab"}, "2 numbers"),
        (
            "lasot+folder",
            {"holdout": True},
            r"option of the mixture lasot\+folder 'holdout'",
        ),
        ("lasot+folder", {"options": {"got10k": {}}}, "in options of the mixture 'got10k'"),
        ("lasot+folder", {"options": [1]}, r"options=\[1\] of a mixture: accepted are dicts"),
        ("lasot+folder", {"root": {"got10k": "x"}}, "in root of the mixture 'got10k'"),
        ("lasot", {"root": {"lasot": "x"}}, "root=.* is a dict, which a mixture takes"),
    ],
)
def test_wrong_mixtures(base: Path, name: str, options: dict, message: str) -> None:
    options = {"root": base, **options}
    with pytest.raises(InvalidArgumentError, match=message):
        open_dataset(name, **options)


def test_an_empty_part() -> None:
    with pytest.raises(DatasetNotFoundError, match=r"'train' of b, a part of the mixture a\+b, ho"):
        MixtureDataset([BoxesDataset("a", 9), BoxesDataset("b")])


def test_training_on_a_test_split_takes_a_word(base: Path) -> None:
    root = base / "lasot"
    dataset = open_dataset("lasot", root, train_on_test=True)
    assert (dataset.name, dataset.split, dataset.names) == ("lasot", "train", ["a-2"])
    assert dataset[0].read(0).shape == (12, 16, 3)
    # The sequences are those of the test split, not others that the new name stands for.
    test = open_dataset("synthetic", split="test", **VIDEO)
    shown = open_dataset("synthetic", train_on_test=True, **VIDEO)
    assert shown.names == test.names
    np.testing.assert_array_equal(shown[3].boxes, test[3].boxes)
    assert draw_clip(shown, np.random.default_rng(0), 4).sequence.name in test.names
    with pytest.raises(InvalidArgumentError, match="goes with split='train' alone"):
        open_dataset("lasot", root, "test", train_on_test=True)


def test_a_test_split_in_a_training_mixture_takes_a_word(base: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="has the test split of lasot in it: 'train_on_"):
        open_dataset("lasot+folder", base, options={"lasot": {"split": "test"}})
    dataset = open_dataset("lasot+folder", base, options={"lasot": {"train_on_test": True}})
    assert dataset.names == ["lasot/a-2", "folder/b"]
    whole = open_dataset("lasot+folder", base, train_on_test=True, weights=[1, 4])
    assert (whole.split, whole.names) == ("train", ["lasot/a-2", "folder/b"])
    assert whole.parts == ((0.2, range(1)), (0.8, range(1, 2)))
