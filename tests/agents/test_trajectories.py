"""Trajectories as Minari datasets: what is written, and learning from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import ENV_ID, VIDEO

from slt_gym.agents import BehaviourCloning, TrackerFeaturesExtractor
from slt_gym.agents import trajectories as module
from slt_gym.agents.trajectories import load_trajectories, record_trajectories
from slt_gym.cli import main
from slt_gym.envs import TrackingEnv
from slt_gym.errors import InvalidArgumentError, SltGymError

KWARGS: dict[str, Any] = {
    "geometry": "transt-tiny",
    "action": "delta",
    "num_frames": 6,
    "dataset_options": VIDEO,
}
RECORDING = {"n_envs": 3, "threads": 1}
ID = "slt-gym/synthetic/oracle-v0"


@pytest.fixture
def minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    found = pytest.importorskip("minari", reason='needs Minari: pip install "slt-gym[offline]"')
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return found


def test_a_dataset_holds_what_the_environment_showed(minari: Any) -> None:
    walked = {**KWARGS, "split": "test"}
    record_trajectories(ID, ENV_ID, "oracle", 8, **RECORDING, **walked)
    dataset = minari.load_dataset(ID)
    assert dataset.total_episodes == 8
    assert dataset.total_steps == 8 * 5
    env = dataset.recover_environment()
    assert isinstance(env.unwrapped, TrackingEnv)
    assert env.observation_space == dataset.observation_space
    assert env.action_space == dataset.action_space
    names = set()
    for episode in dataset.iterate_episodes():
        name = episode.infos["sequence"][0].decode()
        names.add(name)
        obs, info = env.reset(options={"sequence": name})
        for t in range(6):
            for key, value in obs.items():
                np.testing.assert_array_equal(episode.observations[key][t], value, strict=True)
            for key in set(module.INFOS) - {"sequence"}:
                np.testing.assert_array_equal(episode.infos[key][t], info[key])
            if t < 5:
                obs, reward, ended, _, info = env.step(episode.actions[t])
                assert episode.rewards[t] == np.float32(reward)
                assert episode.terminations[t] == ended
        assert not episode.truncations.any()
        assert episode.rewards.sum() > 0.9  # the oracle's
    assert len(names) == 8  # each sequence once


def test_discrete_actions_and_other_experts(minari: Any) -> None:
    kwargs = {**KWARGS, "action": "moves", "action_options": {"max_moves": 3}}
    dataset = record_trajectories("moves-v1", ENV_ID, "static", 20, **RECORDING, **kwargs)
    assert dataset.total_episodes == 20  # more than are held in memory
    assert all((episode.actions == 10).all() for episode in dataset)
    assert {len(episode) for episode in dataset} == {5}
    assert dataset.storage.metadata["algorithm_name"] == "static"


def test_the_same_seed_records_the_same(minari: Any) -> None:
    boxes = []
    for name, seed in (("a-v0", 1), ("b-v0", 1), ("c-v0", 2)):
        found = record_trajectories(name, ENV_ID, "oracle", 3, seed=seed, **RECORDING, **KWARGS)
        boxes.append(np.concatenate([episode.infos["gt_box"] for episode in found]))
    np.testing.assert_array_equal(boxes[0], boxes[1])
    assert not np.array_equal(boxes[0], boxes[2])


def test_learning_without_an_environment(minari: Any, tmp_path: Path) -> None:
    dataset = record_trajectories(ID, ENV_ID, "oracle", 20, **RECORDING, **KWARGS)
    policy_kwargs = {
        "features_extractor_class": TrackerFeaturesExtractor,
        "features_extractor_kwargs": {"hidden": 8, "channels": 4},
    }
    model = BehaviourCloning(
        "MultiInputPolicy",
        demonstrations=dataset,
        batch_size=16,
        learning_rate=5e-3,
        policy_kwargs=policy_kwargs,
        seed=0,
        device="cpu",
    )
    losses, read = [], []
    train, load = model.train, dataset.__class__.__getitem__

    def watch(batches: Any) -> None:
        train(batches)
        losses.append(model.logger.name_to_value["train/loss"])

    def count(self: Any, index: int) -> Any:
        read.append(index)
        return load(self, index)

    model.train = watch  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset.__class__, "__getitem__", count)
        model.learn(6 * dataset.total_steps, log_interval=0)
    del model.train
    assert model.num_timesteps == 600
    for epoch in range(6):  # every episode once, in another order
        assert sorted(read[20 * epoch : 20 * (epoch + 1)]) == list(range(20))
    assert read[:20] != read[20:40]
    assert np.mean(losses[-2:]) < losses[0] - 0.3

    # It acts, and goes on, in the dataset's environment.
    model.save(tmp_path / "model")
    env = dataset.recover_environment()
    again = BehaviourCloning.load(tmp_path / "model", env=env, device="cpu")
    again.learn(16, reset_num_timesteps=False)
    assert again.num_timesteps == 616
    with pytest.raises(InvalidArgumentError, match="have the spaces"):
        BehaviourCloning("MultiInputPolicy", "slt_gym:" + ENV_ID[8:], demonstrations=dataset)


def test_an_interrupted_recording_leaves_nothing(
    minari: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = module._run

    def break_off(*args: Any) -> Any:
        for count, buffer in enumerate(run(*args)):
            if count == 17:
                raise KeyboardInterrupt
            yield buffer

    monkeypatch.setattr(module, "_run", break_off)
    with pytest.raises(KeyboardInterrupt):
        record_trajectories(ID, ENV_ID, "oracle", 20, **RECORDING, **KWARGS)
    assert minari.list_local_datasets() == {}
    monkeypatch.setattr(module, "_run", run)
    assert record_trajectories(ID, ENV_ID, "oracle", 1, **KWARGS).total_episodes == 1


def test_the_command(minari: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["trajectories", "SLTTrack-Synthetic-v0", "slt-gym/synthetic/tiny-v0"]
    words += ["--expert", "transt-tiny", "--episodes", "2", "--device", "cpu", "--n-envs", "2"]
    options = (
        '{"geometry": "transt-tiny", "num_frames": 4, "dataset_options": '
        '{"num_frames": 20, "width": 160, "height": 120}}'
    )
    words += ["--env-kwargs", options, "--no-progress-bar"]
    main(words)
    assert "recorded 2 episodes, 6 steps" in capsys.readouterr().out
    dataset = load_trajectories("slt-gym/synthetic/tiny-v0")
    assert dataset.storage.metadata["algorithm_name"] == "transt-tiny"

    for wrong, message in (
        (words, "already: give another version"),
        (["trajectories", "SLTTrack-Lasot-v0", "a-v0"], "did you mean 'SLTTrack-LaSOT-v0'"),
        (["trajectories", "SLTTrack-Synthetic-v0", "a"], "none of Minari's"),
        ([*words[:2], "a-v0", "--env-kwargs", '{"seed": 1}'], "has its own argument"),
        ([*words[:2], "a-v0", "--expert", "orakle"], "did you mean 'oracle'"),
        ([*words[:2], "a-v0", "--episodes", "0"], "argument 'episodes' is 0"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(InvalidArgumentError, match="there is no Minari dataset 'a-v0'"):
        load_trajectories("a-v0")


def test_without_minari_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(SltGymError, match=r'pip install "slt-gym\[offline\]"'):
        record_trajectories(ID, ENV_ID)
