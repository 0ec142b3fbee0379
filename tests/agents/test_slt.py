"""Sequence-level training as an algorithm of Stable-Baselines3: its life cycle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.logger import KVWriter, Logger
from tiny import ENV_ID, VIDEO, draw_observation, make_network, make_slt

from slt_gym.agents import SLT, Proposals, TrackerNetwork, register_tracker, registry, save_weights
from slt_gym.agents.network import normalise
from slt_gym.envs import make_sb3_env
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.metrics import success_auc
from slt_gym.geometry import TransTGeometry, base

STEPS = 2 * 2 * 3  # environment steps of an iteration: 2 clips, 2 tracks, 3 tracked frames


class Records(KVWriter):
    """Keeps what the logger writes."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.rows.append({**key_values, "step": step})

    def close(self) -> None:
        pass


class StopAfter(BaseCallback):
    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def _on_step(self) -> bool:
        return self.n_calls < self.calls


def clone_weights(model: SLT) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.policy.state_dict().items()}


def equal_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_saved_model_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder = save_weights(
        make_network(seed=1, epsilon=0.02), tmp_path / "base", "transt-tiny", {"epsilon": 0.02}
    )
    model = make_slt(policy_kwargs={"weights": str(folder)})
    model.learn(2 * STEPS)
    obs = draw_observation(3)
    action, _ = model.predict(obs, deterministic=True)
    model.save(tmp_path / "run")
    for file in folder.iterdir():
        file.unlink()  # the weights' own path is not needed any more

    loaded = SLT.load(tmp_path / "run", device="cpu")
    assert loaded.num_timesteps == 2 * STEPS
    assert loaded.policy.network.config.epsilon == 0.02
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], action)
    ours, theirs = model.policy.optimizer.state_dict(), loaded.policy.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert theirs["state"].keys() == ours["state"].keys()
    for i, state in ours["state"].items():
        assert state["step"] == 2
        for key, value in state.items():
            assert torch.equal(theirs["state"][i][key], value)

    before = clone_weights(loaded)
    loaded.learn(STEPS, reset_num_timesteps=False)
    assert loaded.num_timesteps == 3 * STEPS
    assert loaded.policy.optimizer.state_dict()["state"][0]["step"] == 3
    assert not equal_weights(clone_weights(loaded), before)
    # The environment that it built for itself is seeded: another one learns the same.
    again = SLT.load(tmp_path / "run", device="cpu")
    again.learn(STEPS, reset_num_timesteps=False)
    assert equal_weights(clone_weights(again), clone_weights(loaded))


def test_the_same_seed_learns_the_same_weights() -> None:
    models = [make_slt(seed=seed, n_samples=2, frame_fraction=0.7) for seed in (7, 7, 8)]
    start = clone_weights(models[0])
    for model in models:
        model.learn(2 * model.env.num_envs * 3)
    first, second, other = map(clone_weights, models)
    assert equal_weights(first, second)
    assert not equal_weights(first, other)
    assert not equal_weights(first, start)


def test_batch_norm_statistics_are_left_alone_and_every_weight_moves() -> None:
    model = make_slt()
    before = clone_weights(model)
    model.learn(STEPS)
    for name, value in model.policy.state_dict().items():
        still = torch.equal(value, before[name])
        assert still == ("running_" in name or "num_batches" in name), name
    assert not any(module.training for module in model.policy.modules())


def test_the_steps_of_all_tracks_count() -> None:
    model = make_slt()
    model.learn(STEPS + 1)
    assert model.num_timesteps == 2 * STEPS
    assert model._n_updates == 2


def test_the_greedy_track_runs_only_where_the_baseline_needs_it() -> None:
    assert make_slt(n_samples=3).env.num_envs == 8
    model = make_slt(n_samples=3, baseline="leave_one_out")
    assert model.env.num_envs == 6
    model.learn(1)
    assert model.num_timesteps == 6 * 3


def test_the_logger_gets_the_promised_keys() -> None:
    model, records = make_slt(), Records()
    model.set_logger(Logger(None, [records]))
    model.learn(2 * STEPS)
    assert [row["step"] for row in records.rows] == [STEPS, 2 * STEPS]
    row = records.rows[-1]
    assert row.keys() >= {
        "rollout/greedy_auc",
        "rollout/sampled_auc",
        "rollout/auc_gap",
        "rollout/positive_advantage",
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "train/entropy",
        "train/loss",
        "train/policy_gradient_loss",
        "train/l1",
        "train/giou",
        "train/grad_norm",
        "train/learning_rate",
        "train/n_updates",
        "time/fps",
        "time/iterations",
        "time/total_timesteps",
        "time/network_seconds",
        "time/environment_seconds",
        "time/update_seconds",
    }
    assert row["rollout/auc_gap"] == pytest.approx(
        row["rollout/sampled_auc"] - row["rollout/greedy_auc"]
    )
    assert row["rollout/ep_len_mean"] == 3
    assert row["time/total_timesteps"] == 2 * STEPS
    # 144 proposals.
    assert 0 < row["train/entropy"] < np.log(144)
    assert row["train/loss"] == pytest.approx(
        15 * row["train/policy_gradient_loss"] + 5 * row["train/l1"] + 2 * row["train/giou"],
        rel=1e-5,
    )


def test_tensorboard_and_the_progress_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    make_slt(tensorboard_log=str(tmp_path)).learn(2 * STEPS, progress_bar=True)
    assert "24/24" in capsys.readouterr().out
    events = EventAccumulator(str(tmp_path / "SLT_1")).Reload()
    assert {"rollout/greedy_auc", "train/loss", "time/fps"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == [STEPS, 2 * STEPS]


def test_callbacks_see_the_training(tmp_path: Path) -> None:
    evaluation_env = make_sb3_env(
        ENV_ID,
        n_envs=2,
        geometry="transt-tiny",
        split="val",
        num_frames=4,
        threads=1,
        dataset_options={**VIDEO, "num_sequences": 2},
    )
    evaluation = EvalCallback(
        evaluation_env, n_eval_episodes=2, eval_freq=3, log_path=str(tmp_path), verbose=0
    )
    checkpoints = CheckpointCallback(save_freq=3, save_path=str(tmp_path), name_prefix="slt")
    make_slt().learn(2 * STEPS, callback=[evaluation, checkpoints])
    results = np.load(tmp_path / "evaluations.npz")
    assert results["timesteps"].tolist() == [STEPS, 2 * STEPS]
    assert ((results["results"] >= 0) & (results["results"] <= 1)).all()
    saved = sorted(path.name for path in tmp_path.glob("slt_*.zip"))
    assert saved == ["slt_12_steps.zip", "slt_24_steps.zip"]
    assert SLT.load(tmp_path / saved[1], device="cpu").num_timesteps == 2 * STEPS


def test_a_callback_can_stop_and_training_can_go_on() -> None:
    model = make_slt()
    before = clone_weights(model)
    model.learn(10 * STEPS, callback=StopAfter(5))
    assert model.num_timesteps == 5 * 4
    assert model._n_updates == 1  # the second batch of clips was not tracked to its end
    assert not equal_weights(clone_weights(model), before)

    # The next batch starts with new clips, not in the middle of the abandoned ones.
    seen: list[Any] = []
    train = model.train
    model.train = lambda rollout: (seen.append(rollout), train(rollout))[1]  # type: ignore[method-assign]
    model.learn(STEPS, reset_num_timesteps=False)
    assert model.num_timesteps == 5 * 4 + STEPS
    assert len(seen) == 1
    # On a clip's first frame the previous estimate is the true box, in the middle of the crop.
    centre = seen[0].box[0, ..., :2] + seen[0].box[0, ..., 2:] / 2
    np.testing.assert_allclose(centre, 0.5, atol=1e-6)


def test_learning_rates_follow_schedule_and_groups() -> None:
    model = make_slt(
        learning_rate=lambda left: 1e-3 * left, policy_kwargs={"backbone_lr_scale": 0.1}
    )
    rates: list[list[float]] = []
    step = model.policy.optimizer.step
    model.policy.optimizer.step = lambda: (  # type: ignore[method-assign]
        rates.append([group["lr"] for group in model.policy.optimizer.param_groups]),
        step(),
    )
    model.learn(4 * STEPS)
    # The rate of an iteration is that of its start.
    expected = [[1e-3 * left, 1e-4 * left] for left in (1.0, 0.75, 0.5, 0.25)]
    np.testing.assert_allclose(rates, expected)


@pytest.mark.parametrize("reward", ["overlap", "auc", "final_auc"])
def test_returns_are_the_metrics_of_the_same_boxes(reward: str) -> None:
    model = make_slt(env_kwargs={"reward": reward}, n_samples=2, n_clips=2)
    ious: list[list[float]] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            ious.append(
                [info["iou"] if info["visible"] else np.nan for info in self.locals["infos"]]
            )
            return True

    seen: list[Any] = []
    model.train = seen.append  # type: ignore[method-assign]
    model.learn(6 * 3, callback=Watch())
    tracks = np.array(ious).T  # (6, 3)
    metric = np.mean if reward == "overlap" else success_auc
    expected = np.array([metric(track[np.isfinite(track)]) for track in tracks]).reshape(2, 3)
    returns = seen[0].rewards.sum(axis=0)
    np.testing.assert_allclose(returns, expected[:, 1:], rtol=1e-6)
    np.testing.assert_allclose(seen[0].greedy_rewards.sum(axis=0), expected[:, 0], rtol=1e-6)
    assert np.ptp(expected) > 0


def lose_sampled_tracks(model: SLT) -> None:
    """Make greedy tracks stay where they are, and sampled ones jump away from the target."""
    choose = model.policy.choose

    def stand_in(proposals: Any, box: Any, greedy: Any) -> Any:
        actions, index, distribution = choose(proposals, box, greedy)
        actions[:, :2] = np.where(greedy, 0.0, -1.0)[:, None]
        actions[:, 2:] = np.where(greedy[:, None], box[:, 2:] - 1, -0.9)
        return actions, index, distribution

    model.policy.choose = stand_in  # type: ignore[method-assign]


def test_tracks_that_end_early_are_masked_and_rejoin_their_clip() -> None:
    slow = {"speed": 0.0, "scale_change": 0.0, "camera_motion": 0.0, "occluders": 0}
    model = make_slt(
        env_kwargs={"num_frames": 5, "lost_after": 2, "dataset_options": {**VIDEO, **slow}},
        learning_rate=0.0,
    )
    lose_sampled_tracks(model)
    seen: list[Any] = []
    train = model.train
    model.train = lambda rollout: (seen.append(rollout), train(rollout))[1]  # type: ignore[method-assign]
    # The lost tracks end with their second clip when the greedy ones end with their first.
    model.learn(3 * 4 * 4)
    assert len(seen) == 3
    for rollout in seen:
        np.testing.assert_array_equal(
            rollout.alive[..., 0], np.repeat([[True], [True], [False], [False]], 2, axis=1)
        )
        assert (rollout.rewards == 0).all()
        assert (rollout.greedy_rewards > 0).all()
        # All tracks stand on the first frame of a common clip again.
        centre = rollout.box[0, ..., :2] + rollout.box[0, ..., 2:] / 2
        np.testing.assert_allclose(centre, 0.5, atol=1e-6)


def test_absent_targets_teach_no_box() -> None:
    model = make_slt()
    step_wait = model.env.step_wait

    def hide(*args: Any) -> Any:
        obs, rewards, dones, infos = step_wait(*args)
        for info in infos:
            info["visible"] = False
        return obs, rewards, dones, infos

    model.env.step_wait = hide  # type: ignore[method-assign]
    seen: list[Any] = []
    model.train = seen.append  # type: ignore[method-assign]
    model.learn(STEPS)
    assert not seen[0].gt_box.any()


def test_wrong_arguments_are_refused() -> None:
    def env(n_envs: int, **kwargs: Any) -> Any:
        options = {
            "geometry": "transt-tiny",
            "num_frames": 4,
            "threads": 1,
            "dataset_options": VIDEO,
        }
        return make_sb3_env(ENV_ID, n_envs=n_envs, **{**options, **kwargs})

    kwargs: dict[str, Any] = {"policy_kwargs": {"tracker": "transt-tiny"}, "device": "cpu"}
    for wrong, words in (
        ({"n_clips": 0}, "n_clips is 0: it must be at least 1"),
        ({"micro_batch": 0}, "micro_batch is 0"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"frame_fraction": 0.0}, "above 0 and at most 1"),
        ({"frame_fraction": 1.5}, "above 0 and at most 1"),
        ({"baseline": "gready"}, "unknown baseline 'gready'.*did you mean 'greedy'"),
        ({"baseline": "leave_one_out"}, "n_samples is 1"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            make_slt(**wrong)
    with pytest.raises(InvalidArgumentError, match=r"unknown policy 'TransTPolice'.*TransTPolicy"):
        make_slt(policy="TransTPolice")
    with pytest.raises(InvalidArgumentError, match=r"has 4 tracks and SLT needs 6: n_clips=3"):
        SLT("TransTPolicy", env(4), n_clips=3, **kwargs)
    with pytest.raises(InvalidArgumentError, match="env_kwargs go with an environment's id"):
        SLT("TransTPolicy", env(4), n_clips=2, env_kwargs={"num_frames": 4}, **kwargs)
    with pytest.raises(InvalidArgumentError, match=r"geometry='transt-tiny'"):
        SLT("TransTPolicy", env(4, geometry="transt"), n_clips=2, **kwargs)
    model = SLT("TransTPolicy", env(4, tracks_per_clip=2), n_clips=2, **kwargs)
    with pytest.raises(InvalidArgumentError, match=r"has 2 tracks and SLT needs 4"):
        model.set_env(env(2))
    with pytest.raises(InvalidArgumentError, match=r"unknown loss of 'transt-tiny' 'l2'.*l1"):
        make_slt(loss_weights={"l2": 1.0}).learn(1)


def test_tracks_of_different_clips_are_refused() -> None:
    model = SLT(
        "TransTPolicy",
        make_sb3_env(
            ENV_ID,
            n_envs=4,
            seed=0,
            geometry="transt-tiny",
            num_frames=4,
            threads=1,
            dataset_options=VIDEO,
        ),
        n_clips=2,
        policy_kwargs={"tracker": "transt-tiny"},
        seed=0,
        device="cpu",
    )
    with pytest.raises(InvalidArgumentError, match=r"tracks 0 to 1 .*tracks_per_clip=2"):
        model.learn(1)


class Stamp(TrackerNetwork):
    """Compares the template's mean colour with each cell of the search crop."""

    slt_weights = {"policy": 1.0, "distance": 0.5}  # noqa: RUF012

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.look = torch.nn.Conv2d(3, width, 8, stride=8)
        self.head = torch.nn.Conv2d(2 * width, 5, 1)

    def encode(self, template: torch.Tensor) -> torch.Tensor:
        return self.look(normalise(template)).mean(dim=(2, 3))

    def propose(self, features: torch.Tensor, search: torch.Tensor) -> Proposals:
        seen = self.look(normalise(search))  # (B, C, 4, 4)
        both = torch.cat([seen, features[:, :, None, None].expand_as(seen)], dim=1)
        scores, boxes = self.head(both).flatten(2).transpose(1, 2).split([1, 4], dim=2)
        return Proposals(scores[..., 0], boxes.sigmoid() * 0.5)

    def losses(self, proposals: Proposals, gt_box: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"distance": (proposals.boxes - gt_box[:, None]).abs().mean()}


@pytest.fixture
def stamp(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(registry, "_TRACKERS", dict(registry._TRACKERS))
    monkeypatch.setattr(base, "_GEOMETRIES", dict(base._GEOMETRIES))
    register_tracker("stamp", geometry=TransTGeometry(template_size=16, search_size=32))(Stamp)
    return "stamp"


def test_ones_own_tracker_trains_after_one_decorator(stamp: str, tmp_path: Path) -> None:
    model = make_slt(policy="TrackerPolicy", policy_kwargs={"tracker": stamp, "width": 6})
    before = clone_weights(model)
    records = Records()
    model.set_logger(Logger(None, [records]))
    model.learn(2 * STEPS)
    after = clone_weights(model)
    assert after["network.look.weight"].shape == (6, 3, 8, 8)
    assert not any(torch.equal(after[key], before[key]) for key in before)
    row = records.rows[-1]
    assert row["train/loss"] == pytest.approx(
        row["train/policy_gradient_loss"] + 0.5 * row["train/distance"], rel=1e-5
    )
    model.save(tmp_path / "run")
    assert equal_weights(clone_weights(SLT.load(tmp_path / "run", device="cpu")), after)
