"""Masks in SiamAttn's trainings: aligned with the crops, and learnt from where they are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny import VIDEO, make_slt
from tiny import make_network as make_transt

from slt_gym.agents import SLT, pretrain
from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.agents.rollout import ClipRollout
from slt_gym.agents.siamattn import SiamAttn, siamattn_tiny
from slt_gym.agents.siamattn.tracker import SiamAttnTracker
from slt_gym.agents.target_masks import crop_target_masks
from slt_gym.data import SequenceDataset, open_dataset
from slt_gym.data.synthetic import SyntheticSequence
from slt_gym.envs import TrackingEnv
from slt_gym.geometry import get_geometry

GEOMETRY = get_geometry("siamattn-tiny")


def paint(self: SyntheticSequence, t: int) -> np.ndarray:
    """Show a frame's mask for its pixels."""
    return np.repeat(self.read_mask(t)[..., None], 3, axis=2).astype(np.uint8) * 255


def refuse(self: SyntheticSequence, t: int) -> None:
    raise AssertionError("a mask was read")


@pytest.mark.parametrize("augment", [False, True])
def test_masks_lie_on_the_targets_in_the_crops(
    monkeypatch: pytest.MonkeyPatch, augment: bool
) -> None:
    monkeypatch.setattr(SyntheticSequence, "read", paint)
    options = {"colour_probability": 0.0, "blur_probability": 0.0, "flip_probability": 0.5}
    env = TrackingEnv(
        "synthetic",
        geometry="siamattn-tiny",
        num_frames=12,
        augment=options if augment else False,
        dataset_options={**VIDEO, "min_size": 0.2},
    )
    rng = np.random.default_rng(0)
    checked = 0
    for seed in range(6):
        observation, info = env.reset(seed=seed)
        done = False
        while not done:
            crop = observation["search"][0]
            near = observation["box"] + rng.normal(0, 0.05, 4)
            action = [*(near[:2] + near[2:] / 2 - 0.5), *(near[2:] - 1)]
            observation, _, done, _, info = env.step(np.clip(action, -1, 1).astype(np.float32))
            (mask,), (known,) = crop_target_masks([info], np.ones(1, bool), env.sequences, GEOMETRY)
            assert known == info["visible"]
            if not known:
                continue
            painted = (crop > 127).astype(np.uint8)
            around = cv2.dilate(painted, np.ones((9, 9), np.uint8)) > 0
            assert not (mask & ~around).any()
            if painted.sum() > 50:
                # Where a window leaves the frame, soft edges of moved masks are cut off.
                assert mask[painted > 0].mean() > 0.8
                checked += 1
    assert checked > 30


def test_only_wanted_masks_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyntheticSequence, "read_mask", refuse)
    dataset = open_dataset("synthetic", **VIDEO)
    nothing = np.zeros(2, bool)
    crops, known = crop_target_masks([{}, {}], nothing, dataset, GEOMETRY)
    assert crops.shape == (2, 127, 127)
    assert not crops.any()
    assert not known.any()


def make_siamattn(**kwargs: Any) -> SLT:
    return make_slt(policy="SiamAttnPolicy", policy_kwargs={"tracker": "siamattn-tiny"}, **kwargs)


def explore(model: SLT, monkeypatch: pytest.MonkeyPatch) -> ClipRollout:
    """Track a batch of clips and learn from it."""
    kept: list[ClipRollout] = []
    train = SLT.train

    def keep(self: SLT, rollout: ClipRollout) -> None:
        kept.append(rollout)
        train(self, rollout)

    monkeypatch.setattr(SLT, "train", keep)
    model.learn(1)
    monkeypatch.setattr(SLT, "train", train)
    return kept[0]


def mask_head(network: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.mask_head.parameters()]


def test_slt_learns_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_siamattn()
    before = mask_head(model.policy.network)
    rollout = explore(model, monkeypatch)
    assert rollout.mask is not None
    assert rollout.has_mask is not None
    assert rollout.mask.shape == (3, 2, 1, 127, 127)
    visible = (rollout.gt_box[..., 2:] > 0).all(-1)
    assert visible.any()
    np.testing.assert_array_equal(rollout.has_mask, visible & rollout.alive)
    for mask, (x, y, w, h) in zip(
        rollout.mask[visible], 127 * rollout.gt_box[visible], strict=True
    ):
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert x - 4 < columns.min()
            assert y - 4 < rows.min()
            assert columns.max() < x + w + 4
            assert rows.max() < y + h + 4
    after = mask_head(model.policy.network)
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    model.env.close()


def test_slt_without_a_weight_for_masks_reads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyntheticSequence, "read_mask", refuse)
    for model in (make_siamattn(loss_weights={"regression": 0.5}), make_slt()):
        assert explore(model, monkeypatch).mask is None
        model.env.close()


@pytest.fixture
def boxes_alone(tmp_path: Path) -> Path:
    """A folder of sequences that knows no masks."""
    dataset = open_dataset("synthetic", **VIDEO)
    for sequence in (dataset[0], dataset[1]):
        (tmp_path / sequence.name / "img").mkdir(parents=True)
        for t in range(6):
            path = tmp_path / sequence.name / "img" / f"{t:04d}.png"
            cv2.imwrite(str(path), sequence.read(t)[..., ::-1])
        rows = (",".join(map(str, box)) for box in sequence.boxes[:6].tolist())
        (tmp_path / sequence.name / "groundtruth.txt").write_text("\n".join(rows))
    return tmp_path


def test_slt_without_masks_leaves_the_mask_head_alone(
    boxes_alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"dataset": "folder", "root": str(boxes_alone), "dataset_options": None}
    model = make_siamattn(env_kwargs=options)
    before = mask_head(model.policy.network)
    rollout = explore(model, monkeypatch)
    assert rollout.has_mask is not None
    assert not rollout.has_mask.any()
    after = mask_head(model.policy.network)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    model.env.close()


def pretrain_tiny(
    dataset: SequenceDataset, **config: Any
) -> tuple[SiamAttn, list[dict[str, float]]]:
    torch.manual_seed(0)
    network = siamattn_tiny()
    rows: list[dict[str, float]] = []
    defaults = {"batch_size": 8, "threads": 1, "max_grad_norm": 10.0, "learning_rate": 2e-3}
    pretrain(
        network,
        dataset,
        GEOMETRY,
        PretrainingConfig(**{**defaults, **config}),
        log=lambda step, row: rows.append(row),
        log_interval=1,
    )
    return network, rows


def test_pre_training_without_masks_leaves_the_mask_head_alone(boxes_alone: Path) -> None:
    torch.manual_seed(0)
    before = mask_head(siamattn_tiny())
    network, rows = pretrain_tiny(open_dataset("folder", boxes_alone), steps=1, batch_size=4)
    assert [row["mask"] for row in rows] == [0.0]
    assert all(torch.equal(a, b) for a, b in zip(before, mask_head(network), strict=True))


def test_trackers_without_masks_read_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SyntheticSequence, "read_mask", refuse)
    config = PretrainingConfig(steps=1, batch_size=2, threads=1)
    dataset = open_dataset("synthetic", **VIDEO)
    pretrain(make_transt(), dataset, get_geometry("transt-tiny"), config)
    with pytest.raises(AssertionError, match="a mask was read"):
        pretrain(siamattn_tiny(), dataset, GEOMETRY, config)


EASY = {
    "num_frames": 8,
    "width": 128,
    "height": 96,
    "min_size": 0.25,
    "max_size": 0.4,
    "distractors": 0,
    "occluders": 0,
    "illumination": 0.0,
    "blur": 0.0,
}


def mask_overlaps(network: SiamAttn) -> list[float]:
    """Track one frame of held-out sequences, segment it, and return the masks' mean IoUs.

    Those of the tracked boxes first, then those that the network finds in the true boxes, and
    those of the true boxes themselves.
    """
    tracker = SiamAttnTracker("siamattn-tiny", network, GEOMETRY, "cpu")
    rows = []
    for sequence in open_dataset("synthetic", split="val", num_sequences=8, **EASY):
        truth, box = sequence.read_mask(1), sequence.boxes[1]
        tracker.init(sequence.read(0), sequence.boxes[0])
        tracker.update(sequence.read(1))
        tracked = tracker.segment()
        tracker._box = box
        filled = np.zeros_like(truth)
        left, top, right, bottom = np.rint([*box[:2], *(box[:2] + box[2:])]).clip(0).astype(int)
        filled[top:bottom, left:right] = True
        masks = np.stack([tracked, tracker.segment(), filled])
        rows.append((masks & truth).sum((1, 2)) / (masks | truth).sum((1, 2)))
    return np.mean(rows, axis=0).tolist()


@pytest.mark.slow
def test_pre_training_learns_masks() -> None:
    torch.manual_seed(0)
    before = mask_overlaps(siamattn_tiny().eval())
    dataset = open_dataset("synthetic", num_sequences=16, **EASY)
    rates = {"learning_rate": 3e-3, "final_learning_rate": 1e-3}
    network, rows = pretrain_tiny(dataset, steps=40, **rates)
    losses = [row["mask"] for row in rows]
    assert np.mean(losses[-10:]) < 0.92 * np.mean(losses[:10])
    tracked, in_truth, filled = mask_overlaps(network)
    assert tracked > before[0] + 0.1
    # Masks are more than filled boxes.
    assert in_truth > max(before[1], filled) + 0.02
