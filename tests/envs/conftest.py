"""Fixtures of the environments' tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from trees import MemoryDataset, MemorySequence, draw_boxes, write_folder

import slt_gym.envs.arguments
from slt_gym.data.samples import Source, write_sample
from slt_gym.envs.registration import DATASETS, list_env_ids


@pytest.fixture(scope="session")
def folder_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three sequences as the Folder dataset reads them."""
    return str(write_folder(tmp_path_factory.mktemp("folder")))


@pytest.fixture(scope="session")
def env_kwargs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Arguments that make each registered id run here, fast."""
    small = {"geometry": "transt-tiny", "num_frames": 6}
    kwargs: dict[str, dict[str, object]] = {}
    for env_id, (_, dataset, _) in zip(list_env_ids(), DATASETS, strict=True):
        if dataset == "synthetic":
            kwargs[env_id] = {**small, "dataset_options": {"num_sequences": 4}}
        else:
            root = tmp_path_factory.mktemp("roots") / dataset
            write_sample(dataset, root, Source(2, 14, 96, 72, seed=0))
            kwargs[env_id] = {**small, "root": str(root)}
    return kwargs


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[MemorySequence]]:
    """Replace every dataset by given sequences; by default, three whose targets never vanish."""

    def install(*sequences: MemorySequence) -> list[MemorySequence]:
        chosen = list(sequences) or [MemorySequence(f"m{i}", draw_boxes(i)) for i in range(3)]
        monkeypatch.setattr(
            slt_gym.envs.arguments,
            "open_dataset",
            lambda name, root=None, split="train", **options: MemoryDataset(chosen, split),
        )
        return chosen

    return install
