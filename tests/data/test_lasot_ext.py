"""LaSOT's extension, nested and flat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slt_gym.data import open_dataset
from slt_gym.data.lasot_ext import LaSOTExtDataset
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError

NAMES = ["atv-1", "atv-2", "atv-10", "paddle-1"]


@pytest.fixture(params=["nested", "flat", "archive"])
def root(request: pytest.FixtureRequest, tmp_path: Path, write_frames) -> Path:
    base = tmp_path / "LaSOT_extension_subset" if request.param == "archive" else tmp_path
    for name in NAMES:
        folder = base / ("" if request.param == "flat" else name.split("-")[0]) / name
        write_frames(folder / "img", 5, "{:08d}.jpg")
        (folder / "groundtruth.txt").write_text("5,5,4,4\n6,5,4,4\n7,5,4,4\n8,5,0,4\n")
        (folder / "full_occlusion.txt").write_text("0,1,0,0")
        (folder / "out_of_view.txt").write_text("0,0,1,0")
    (folder / "nlp.txt").write_text("a paddle\n")
    return tmp_path


def test_all_that_is_there(root: Path):
    dataset = LaSOTExtDataset(root)
    assert (dataset.name, dataset.split, dataset.names) == ("lasotext", "test", NAMES)
    for sequence in dataset:
        np.testing.assert_array_equal(sequence.boxes[:, 0], [5, 6, 7, 8])
        assert sequence.visible.tolist() == [True, False, False, False]
        assert sequence.attributes["full_occlusion"].tolist() == [False, True, False, False]
        assert sequence.attributes["out_of_view"].tolist() == [False, False, True, False]
        assert sequence.notes == ("5 images for 4 frames: the last 1 are left out",)
        assert round(sequence.read(3).mean() / 10) == 4
    assert str(dataset.get("paddle-1").attributes["nlp"]) == "a paddle"


def test_it_is_for_testing(root: Path):
    assert open_dataset("LaSOT_ext", root, "test").names == NAMES
    with pytest.raises(InvalidArgumentError) as error:
        open_dataset("lasotext", root, "train")
    for part in ("lasotext is a benchmark for testing", 'split="test"', "train_on_test=True"):
        assert part in str(error.value)
    with pytest.raises(InvalidArgumentError, match="split of lasotext 'val': accepted are test"):
        open_dataset("lasotext", root, "val")
    trained = open_dataset("lasotext", root, "train", train_on_test=True)
    assert (trained.names, trained.split) == (NAMES, "train")


def test_a_wrong_folder_shows_the_layout(tmp_path: Path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetNotFoundError, match=r"(?s)holds no sequence folder.*atv-1/img"):
        LaSOTExtDataset(tmp_path)
