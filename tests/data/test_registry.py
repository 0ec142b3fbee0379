"""Opening datasets by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import slt_gym.data
from slt_gym.data import SequenceDataset, list_datasets, open_dataset
from slt_gym.data.registry import _TABLE
from slt_gym.envs.registration import DATASETS
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError


@pytest.fixture
def root(tmp_path: Path, write_frames) -> Path:
    write_frames(tmp_path / "folder" / "a-1" / "img", 2, "{:08d}.jpg")
    for name in ("groundtruth", "full_occlusion", "out_of_view"):
        (tmp_path / "folder" / "a-1" / f"{name}.txt").write_text("1,2,3,4\n1,2,3,4\n")
    return tmp_path / "folder"


def test_the_listed_names():
    assert list_datasets() == sorted(list_datasets())
    assert {"synthetic", "folder", "lasot", "got10k"} <= set(list_datasets())


@pytest.mark.parametrize("name", list_datasets())
def test_every_name_opens_or_says_where_it_looked(name: str):
    if _TABLE[name].has_root:
        with pytest.raises(DatasetNotFoundError) as error:
            open_dataset(name, split="test" if _TABLE[name].test_only else "train")
        message = str(error.value)
        assert f"cannot find {name}: no root is given" in message
        assert f"$SLT_GYM_{name.upper()}" in message
        assert "\n  " in message  # the expected tree
    else:
        dataset = open_dataset(name)
        assert isinstance(dataset, SequenceDataset)
        assert dataset.name == name


@pytest.mark.parametrize("name", ["folder", "Folder", "FOLDER"])
def test_capitals_do_not_matter(root: Path, name: str):
    dataset = open_dataset(name, root, split="val")
    assert (dataset.name, dataset.split, dataset.names) == ("folder", "val", ["a-1"])


def test_roots_from_the_environment(root: Path, monkeypatch):
    monkeypatch.setenv("SLT_GYM_DATA", str(root.parent))
    assert open_dataset("folder").names == ["a-1"]
    monkeypatch.setenv("SLT_GYM_LASOT", str(root))
    assert open_dataset("lasot", split="all").names == ["a-1"]


def test_an_unknown_name():
    with pytest.raises(InvalidArgumentError, match=r"unknown dataset 'lasott': .*mean 'lasot'"):
        open_dataset("lasott")
    with pytest.raises(InvalidArgumentError, match="accepted are " + ", ".join(list_datasets())):
        open_dataset(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list_datasets())
def test_an_unknown_split(root: Path, name: str):
    given = root if _TABLE[name].has_root else None
    accepted = "test$" if _TABLE[name].test_only else ".*train"
    with pytest.raises(
        InvalidArgumentError, match=rf"unknown split .*'dev': accepted are {accepted}"
    ):
        open_dataset(name, given, split="dev")


@pytest.mark.parametrize("name", [name for name, row in _TABLE.items() if row.test_only])
def test_a_benchmark_for_testing_is_not_trained_on_by_accident(root: Path, name: str):
    with pytest.raises(InvalidArgumentError) as error:
        open_dataset(name, root)
    for part in (f"{name} is a benchmark for testing", 'split="test"', "train_on_test=True"):
        assert part in str(error.value)


def test_environments_walk_the_benchmarks_for_testing():
    for _, name, split in DATASETS:
        assert split == ("test" if _TABLE[name].test_only else "train")


def test_an_unknown_option(root: Path):
    with pytest.raises(
        InvalidArgumentError, match=r"folder has no options, but 'chunks' was given"
    ):
        open_dataset("folder", root, chunks=3)
    with pytest.raises(InvalidArgumentError, match=r"unknown option of lasot 'hold': .*holdout"):
        open_dataset("lasot", root, hold=True)
    with pytest.raises(InvalidArgumentError, match="'shapes'"):
        open_dataset("synthetic", shapes=3)


def test_options_reach_the_dataset(root: Path):
    (root / "training_set.txt").write_text("a-1\nb-1\nc-1\n")
    for name in ("b-1", "c-1"):
        (root / name).mkdir()
    assert len(open_dataset("lasot", root)) == 3
    assert len(open_dataset("lasot", root, holdout=True)) == 2


def test_a_root_for_what_is_not_on_disk(root: Path):
    with pytest.raises(InvalidArgumentError, match="synthetic takes no root, but root="):
        open_dataset("synthetic", root)


def test_public_names():
    assert slt_gym.data.__all__ == sorted(slt_gym.data.__all__)
    for name in slt_gym.data.__all__:
        assert getattr(slt_gym.data, name).__doc__


def test_importing_is_light():
    heavy = "torch, stable_baselines3, matplotlib, slt_gym.data.lasot, slt_gym.data.synthetic"
    code = (
        f"import sys, slt_gym.data; sys.exit(any(m in sys.modules for m in '{heavy}'.split(', ')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
