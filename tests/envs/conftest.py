"""Fixtures of the environments' tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from trees import MemoryDataset, MemorySequence, draw_boxes, write_folder, write_got10k, write_lasot

import slt_gym.envs.arguments


@pytest.fixture(scope="session")
def folder_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three sequences as the Folder dataset reads them."""
    return str(write_folder(tmp_path_factory.mktemp("folder")))


@pytest.fixture(scope="session")
def env_kwargs(
    tmp_path_factory: pytest.TempPathFactory, folder_root: str
) -> dict[str, dict[str, object]]:
    """Arguments that make each registered id run here, fast."""
    small = {"geometry": "transt-tiny", "num_frames": 6}
    make = tmp_path_factory.mktemp
    return {
        "SLTTrack-LaSOT-v0": {**small, "root": str(write_lasot(make("lasot")))},
        "SLTTrack-GOT10k-v0": {**small, "root": str(write_got10k(make("got10k")))},
        "SLTTrack-Folder-v0": {**small, "root": folder_root},
        "SLTTrack-Synthetic-v0": {
            **small,
            "dataset_options": {"num_sequences": 4},
        },
    }


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
