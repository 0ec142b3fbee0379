"""What SLT trains on: mixtures, and no test split without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny import ENV_ID, VIDEO, make_slt

from slt_gym.envs import make_sb3_env
from slt_gym.errors import InvalidArgumentError


def test_a_test_split_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"split is 'test'.*'train_on_test': True"):
        make_slt(env_kwargs={"split": "test"})
    kwargs: dict[str, Any] = {"num_frames": 4, "dataset_options": VIDEO, "geometry": "transt-tiny"}
    env = make_sb3_env(ENV_ID, n_envs=4, tracks_per_clip=2, split="test", **kwargs)
    slt = make_slt()
    with pytest.raises(InvalidArgumentError, match="split is 'test'"):
        slt.set_env(env)
    env.close()
    slt.env.close()


def test_a_test_split_may_be_asked_for() -> None:
    slt = make_slt(env_kwargs={"dataset_options": {**VIDEO, "train_on_test": True}})
    assert slt.env.get_attr("split")[0] == "train"
    assert all(name.startswith("test-") for name in slt.env.get_attr("sequence_names")[0])
    slt.env.close()


@pytest.fixture
def base(tmp_path: Path) -> str:
    folder = tmp_path / "folder" / "still-life"
    (folder / "img").mkdir(parents=True)
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    for t in range(12):
        cv2.imwrite(str(folder / "img" / f"{t:04d}.png"), frame)
    (folder / "groundtruth.txt").write_text("40,30,24,20\n" * 12)
    return str(tmp_path)


def test_slt_trains_on_an_augmented_mixture(base: str) -> None:
    slt = make_slt(
        n_clips=4,
        env_kwargs={
            "dataset": "synthetic+folder",
            "root": base,
            "sampler": "pysot",
            "augment": True,
            "dataset_options": {"options": {"synthetic": VIDEO}, "weights": [1, 1]},
        },
    )
    before = {name: p.clone() for name, p in slt.policy.named_parameters()}
    drawn = set()
    for _ in range(3):
        slt.learn(slt.env.num_envs * 3, reset_num_timesteps=False)
        drawn |= {info["sequence"] for info in slt.env.reset_infos}
    assert any(not bool((p == before[name]).all()) for name, p in slt.policy.named_parameters())
    assert {name.split("/")[0] for name in drawn} == {"synthetic", "folder"}
    slt.env.close()
