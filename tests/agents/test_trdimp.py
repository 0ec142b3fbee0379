"""trdimp-tiny as network, policy and tracker, and its two trainings."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_for_sb3

from slt_gym import create_tracker
from slt_gym.agents import SLT, TrDiMPPolicy, pretrain
from slt_gym.agents.network import Proposals
from slt_gym.agents.policy_tracker import load_policy_tracker
from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.agents.trdimp import TrDiMP, trdimp_tiny
from slt_gym.data import Sequence, SequenceDataset, open_dataset
from slt_gym.data.pairs import PairConfig, PairSampler
from slt_gym.envs import TrackingEnv
from slt_gym.envs.episode import EpisodeRules
from slt_gym.errors import InvalidArgumentError, SltGymError
from slt_gym.geometry import get_geometry

VIDEO = {"num_frames": 12, "width": 160, "height": 120, "num_sequences": 4}


def make_network(**overrides: Any) -> TrDiMP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trdimp_tiny(**overrides).eval()


def draw_observation(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "template": rng.integers(0, 256, (count, 3, 192, 192), np.uint8),
        "template_box": np.tile(np.float32([0.44, 0.42, 0.12, 0.16]), (count, 1)),
        "search": rng.integers(0, 256, (count, 3, 96, 96), np.uint8),
        "box": rng.uniform(0.2, 0.4, (count, 4)).astype(np.float32),
    }


def make_policy(**kwargs: Any) -> TrDiMPPolicy:
    rules = EpisodeRules(get_geometry("trdimp-tiny"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TrDiMPPolicy(
            rules.observation_space, rules.action_space, tracker="trdimp-tiny", **kwargs
        )


class TestNetwork:
    def test_an_encoding_is_a_function_of_the_template(self) -> None:
        network, obs = make_network(), draw_observation(2)
        template, box = (torch.from_numpy(obs[k]) for k in ("template", "template_box"))
        with torch.no_grad():
            both = network.encode(template, box)
            alone = network.encode(template[1:], box[1:])
        for name, value in both.items():
            torch.testing.assert_close(value[1:], alone[name], rtol=1e-3, atol=1e-5)

    def test_logits_span_the_range(self) -> None:
        network = make_network()
        scores = torch.randn(2, 169)
        logits = network.action_logits(Proposals(scores, torch.zeros(2, 169, 4)), None)
        torch.testing.assert_close(logits.amax(dim=1), torch.full((2,), 7.0))
        torch.testing.assert_close(logits.mean(dim=1), torch.full((2,), -7.0), atol=1e-4, rtol=0)
        constant = Proposals(torch.full((1, 169), 0.25), torch.zeros(1, 169, 4))
        logits = network.action_logits(constant, None)
        assert torch.isfinite(logits).all()
        assert (logits == logits[0, 0]).all()

    def test_cells_lie_a_stride_apart_around_the_middle(self) -> None:
        network, obs = make_network(), draw_observation(1)
        with torch.no_grad():
            features = network.encode(torch.from_numpy(obs["template"]))
            boxes = network.propose(features, torch.from_numpy(obs["search"])).boxes[0]
        centre = (boxes[:, :2] + boxes[:, 2:] / 2).view(13, 13, 2)
        torch.testing.assert_close(centre[6, 6], torch.tensor([0.5, 0.5]))
        torch.testing.assert_close(centre[2, 9], torch.tensor([0.5 + 3 / 12, 0.5 - 4 / 12]))
        torch.testing.assert_close(boxes[:, 2:], torch.full((169, 2), 0.25))  # area scale 4

    def test_every_parameter_learns(self) -> None:
        network, obs = make_network(), draw_observation(2)
        given = (torch.from_numpy(obs[k]) for k in ("template", "template_box"))
        proposals = network.propose(network.encode(*given), torch.from_numpy(obs["search"]))
        gt = torch.tensor([[0.4, 0.3, 0.2, 0.25], [0.0, 0.0, 0.0, 0.0]])
        losses = network.losses(proposals, gt)
        sum(losses.values()).backward()
        learning = {n for n, p in network.named_parameters() if p.requires_grad}
        idle = {n for n in learning if not network.get_parameter(n).grad.abs().max() > 0}
        assert idle == set()
        assert {n for n, _ in network.named_parameters()} - learning == {
            f"classifier.transformer.{part}.head.0.WV.{kind}"
            for part in ("encoder.layers.0.self_attn", "decoder.layers.0.cross_attn")
            for kind in ("weight", "bias")
        }

    def test_absent_targets_teach_nothing(self) -> None:
        network, obs = make_network(), draw_observation(1)
        proposals = network.propose(
            network.encode(torch.from_numpy(obs["template"])), torch.from_numpy(obs["search"])
        )
        losses = network.losses(proposals, torch.zeros(1, 4))
        assert {name: float(v.detach()) for name, v in losses.items()} == {
            "classification": 0.0,
            "bb_ce": 0.0,
        }

    def test_groups_hold_what_learns_once(self) -> None:
        for quirks in (False, True):
            network = make_network(official_quirks=quirks, frozen_layers=1)
            groups = network.parameter_groups()
            grouped = [id(p) for group in groups for p in group["params"]]
            assert len(grouped) == len(set(grouped))
            assert set(grouped) == {id(p) for p in network.parameters() if p.requires_grad}
            frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
            assert any(n.startswith("bb_regressor") for n in frozen) == quirks
            assert any(n.startswith("feature_extractor.layer1") for n in frozen)
            assert not any(n.startswith("feature_extractor.layer2") for n in frozen)


class TestPolicy:
    def test_state_is_kept_and_renewed_where_an_episode_starts(self) -> None:
        policy = make_policy()
        first, second = draw_observation(3), draw_observation(3, seed=1)
        _, state = policy.predict(first, deterministic=True)
        kept = {name: value.clone() for name, value in state.features.items()}
        start = np.array([False, True, False])
        _, renewed = policy.predict(second, state, start, deterministic=True)
        with torch.no_grad():
            fresh = policy.encode(second["template"][1:2], second["template_box"][1:2])
        for name, value in renewed.features.items():
            torch.testing.assert_close(value[[0, 2]], kept[name][[0, 2]])
            torch.testing.assert_close(value[1:2], fresh[name], rtol=1e-3, atol=1e-5)
            assert name == "size" or not torch.equal(value[1], kept[name][1])

    def test_the_same_seed_gives_the_same_actions(self) -> None:
        obs = draw_observation(2)
        policies = [make_policy(seed=4), make_policy(seed=4), make_policy(seed=5)]
        actions = [policy.predict(obs, deterministic=True)[0] for policy in policies]
        np.testing.assert_array_equal(actions[0], actions[1])
        assert not np.array_equal(actions[0], actions[2])  # other jitter of the refinement

    def test_a_chosen_cell_is_refined_with_the_previous_size(self) -> None:
        network = make_network(box_refinement_iter=1, num_init_random_boxes=0)
        obs = draw_observation(1)
        with torch.no_grad():
            features = network.encode(torch.from_numpy(obs["template"]))
            proposals = network.propose(features, torch.from_numpy(obs["search"]))
            box = torch.from_numpy(obs["box"])
            refined = network.resolve(proposals, torch.tensor([3 * 13 + 8]), box)[0]
        centre = refined[:2] + refined[2:] / 2
        expected = torch.tensor([0.5 + 2 / 12, 0.5 - 3 / 12]) + 0.5 / 96
        torch.testing.assert_close(centre, expected, atol=2e-2, rtol=0)
        torch.testing.assert_close(refined[2:], box[0, 2:], atol=2e-2, rtol=0)


@pytest.mark.parametrize("geometry", ["trdimp-tiny", "transt-tiny"])
def test_observations_show_the_template_box_where_it_is_needed(geometry: str) -> None:
    shown = {"template_box"} if geometry == "trdimp-tiny" else set()
    kwargs = {"geometry": geometry, "dataset_options": VIDEO, "num_frames": 4}
    env = TrackingEnv("synthetic", **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
        check_for_sb3(env, skip_render_check=True)
    obs, info = env.reset(seed=0)
    assert set(obs) == {"box", "search", "template"} | shown
    for name in shown:
        x, y, w, h = obs[name]
        assert np.sqrt(w * h) == pytest.approx(1 / 8)  # a patch is eight targets wide
        assert w / h == pytest.approx(info["box"][2] / info["box"][3], rel=1e-5)
        np.testing.assert_allclose([x + w / 2, y + h / 2], 0.5, atol=0.02)
        following = env.step(env.action_space.sample())[0]
        np.testing.assert_array_equal(following[name], obs[name])
        assert following[name] is not obs[name]
    env.close()


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_pairs_hold_the_template_box(flip: float) -> None:
    geometry = get_geometry("trdimp-tiny")
    config = PairConfig(
        flip_probability=flip, grey_probability=0, brightness_jitter=0, samples_per_pair=1
    )

    class Square(Sequence):
        """A red target, left of which lies a green mark."""

        def read(self, t: int) -> np.ndarray:
            frame = np.zeros((120, 160, 3), np.uint8)
            x, y, w, h = self.boxes[t].astype(int)
            frame[y : y + h, x : x + w, 0] = 255
            frame[y : y + h, x - 6 : x, 1] = 255
            return frame

    class One(SequenceDataset):
        def _load(self, index: int) -> Sequence:
            rng = np.random.default_rng(0)
            corners = rng.integers((30, 20), (100, 70), (12, 2))
            return Square("one", np.column_stack([corners, rng.integers(16, 30, (12, 2))]))

    batch = PairSampler(One("one", "train", ["one"]), geometry, 12, 0, config).batch(0)
    for template, box in zip(batch.template, batch.template_box, strict=True):
        rows, columns = np.nonzero(template[0] > 128)
        low = np.array([columns.min(), rows.min()]) / 192
        size = np.array([np.ptp(columns) + 1, np.ptp(rows) + 1]) / 192
        np.testing.assert_allclose(np.concatenate([low, size]), box, atol=0.012)
        mark = np.nonzero(template[1] > 128)[1].mean() / 192
        assert (mark > box[0] + box[2] / 2) == bool(flip)


def test_a_saved_model_tracks_as_in_its_environment(tmp_path: Path) -> None:
    make_slt().save(tmp_path / "model.zip")
    env = TrackingEnv(
        "synthetic", split="test", geometry="trdimp-tiny", dataset_options=VIDEO, num_frames=4
    )
    obs, info = env.reset()
    policy, state, boxes = SLT.load(tmp_path / "model.zip", device="cpu").policy, None, []
    for _ in range(3):
        action, state = policy.predict(obs, state, deterministic=True)
        obs, _, _, _, info = env.step(action)
        boxes.append(info["box"])
    tracker = load_policy_tracker(tmp_path / "model.zip", "SLT")
    sequence = open_dataset("synthetic", split="test", **VIDEO)[0]
    tracker.init(sequence.read(0), sequence.boxes[0])
    found = [tracker.update(sequence.read(t)) for t in (1, 2, 3)]
    np.testing.assert_allclose(found, boxes, atol=1e-3)


def make_slt() -> SLT:
    return SLT(
        "TrDiMPPolicy",
        "slt_gym:SLTTrack-Synthetic-v0",
        n_clips=2,
        env_kwargs={"num_frames": 3, "threads": 1, "dataset_options": VIDEO},
        policy_kwargs={"tracker": "trdimp-tiny"},
        seed=0,
        device="cpu",
    )


def test_slt_trains_the_policy() -> None:
    model = make_slt()
    before = {n: p.clone() for n, p in model.policy.network.named_parameters()}
    model.learn(8)
    changed = {n for n, p in model.policy.network.named_parameters() if not p.equal(before[n])}
    for part in ("bb_regressor.", "classifier.filter_optimizer.", "feature_extractor.layer3."):
        assert any(n.startswith(part) for n in changed)
    assert model.lr_schedule(1.0) == pytest.approx(4e-5)
    assert isinstance(model.policy.optimizer, torch.optim.Adam)


def test_pretraining_learns_a_batch_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = PairSampler.batch
    monkeypatch.setattr(PairSampler, "batch", lambda sampler, index: draw(sampler, 0))
    logged: list[dict[str, float]] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pretrain(
            trdimp_tiny(),
            open_dataset("synthetic", **VIDEO),
            get_geometry("trdimp-tiny"),
            PretrainingConfig(
                steps=12, batch_size=2, learning_rate=3e-3, max_grad_norm=10.0, threads=1
            ),
            log=lambda step, means: logged.append(means),
            log_interval=4,
        )
    for name in ("classification", "bb_ce"):
        assert logged[-1][name] < 0.6 * logged[0][name], name


def test_frozen_layers_keep_their_statistics() -> None:
    network = make_network(frozen_layers=1).train()
    backbone = network.feature_extractor
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone(torch.rand(2, 3, 96, 96))
    changed = {key for key, value in backbone.state_dict().items() if not value.equal(before[key])}
    assert {key.split(".")[0] for key in changed} == {"layer2", "layer3"}


def draw_moving_frame(t: int) -> np.ndarray:
    texture = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    frame = cv2.resize(texture, (160, 120), interpolation=cv2.INTER_CUBIC) // 3
    frame[40:64, 50 + 3 * t : 70 + 3 * t] = (250, 40, 40)
    return frame


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"filter_size": 3}, "filter_size is 3: it must be even"),
        ({"frozen_layers": 4}, "numbers from 0 to 3"),
        (
            {"train_skipping": 0},
            "train_skipping of TrDiMPConfig is 0: accepted are numbers from 1 on",
        ),
        ({"num_dropout_samples": -1}, "numbers from 0 on"),
        ({"score_range": 7}, "must be a tuple"),
        ({"planes": (8, 16)}, "three layers, or four"),
    ],
)
def test_a_network_that_cannot_be_is_refused(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        create_tracker("trdimp-tiny", **overrides)


class TestTracker:
    overrides: ClassVar[dict[str, Any]] = {
        "target_not_found_threshold": -9.0,
        "train_skipping": 2,
        "transformer_skipping": 2,
    }

    def track(self, frames: int = 5, **overrides: Any) -> np.ndarray:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            tracker = create_tracker("trdimp-tiny", **{**self.overrides, **overrides})
        tracker.init(draw_moving_frame(0), (50, 40, 20, 24))
        return np.stack([tracker.update(draw_moving_frame(t)) for t in range(1, frames)])

    def test_a_seed_decides_everything(self) -> None:
        boxes = self.track(seed=1)
        assert np.isfinite(boxes).all()
        np.testing.assert_array_equal(boxes, self.track(seed=1))
        assert not np.array_equal(boxes, self.track(seed=2))

    def test_a_second_sequence_is_tracked_like_the_first(self) -> None:
        tracker = create_tracker("trdimp-tiny", **self.overrides)
        runs = []
        for _ in range(2):
            tracker.init(draw_moving_frame(0), (50, 40, 20, 24))
            runs.append([tracker.update(draw_moving_frame(t)) for t in (1, 2, 3)])
        np.testing.assert_array_equal(*runs)

    def test_a_lost_target_stays_where_it_was(self) -> None:
        boxes = self.track(target_not_found_threshold=99.0)
        np.testing.assert_array_equal(boxes, np.tile([50.0, 40.0, 20.0, 24.0], (4, 1)))

    def test_update_needs_init(self) -> None:
        tracker = create_tracker("trdimp-tiny")
        with pytest.raises(SltGymError, match="before init"):
            tracker.update(draw_moving_frame(0))
