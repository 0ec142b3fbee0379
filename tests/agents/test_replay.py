"""The replay buffer of references, beside Stable-Baselines3's buffer of images."""

from __future__ import annotations

import pickle
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

import slt_gym.data.synthetic.dataset
from slt_gym.agents import ReferenceReplayBuffer
from slt_gym.data import Clip
from slt_gym.data.samples import Source, write_sample
from slt_gym.envs import make_sb3_env
from slt_gym.envs.references import View, pack_reference
from slt_gym.errors import InvalidArgumentError

FILL = np.array([7, 8, 255], np.uint8)
ID = "slt_gym:SLTTrack-Synthetic-v0"
VIDEO = {"num_sequences": 6, "num_frames": 30, "width": 160, "height": 120}
SMALL = {"geometry": "transt-tiny", "num_frames": 6, "dataset_options": VIDEO}


def make_env(n_envs: int = 2, **kwargs: Any) -> VecEnv:
    return make_sb3_env(ID, n_envs=n_envs, seed=1, **{**SMALL, "threads": 1, **kwargs})


def make_buffer(venv: VecEnv, rows: int = 20, **kwargs: Any) -> ReferenceReplayBuffer:
    spaces = venv.observation_space, venv.action_space
    options = {"env": venv, "threads": 2, **kwargs}
    return ReferenceReplayBuffer(rows * venv.num_envs, *spaces, "cpu", venv.num_envs, **options)


def make_peer(venv: VecEnv, rows: int = 20) -> DictReplayBuffer:
    spaces = venv.observation_space, venv.action_space
    return DictReplayBuffer(rows * venv.num_envs, *spaces, "cpu", venv.num_envs)


def collect(env: VecEnv, steps: int, *buffers: Any, reset_at: int = -1) -> int:
    """Fill buffers as SB3's algorithms do; return how many episodes ended."""
    rng = np.random.default_rng(0)
    obs, ended = env.reset(), 0
    for step in range(steps):
        if step == reset_at:
            obs = env.reset()
        if isinstance(env.action_space, gym.spaces.Discrete):
            actions = rng.integers(env.action_space.n, size=env.num_envs)
        else:
            actions = rng.uniform(-0.4, 0.4, (env.num_envs, 4)).astype(np.float32)
        new_obs, rewards, dones, infos = env.step(actions)
        next_obs = {key: array.copy() for key, array in new_obs.items()}
        for j in np.flatnonzero(dones):
            for key, array in infos[j]["terminal_observation"].items():
                next_obs[key][j] = array
        for buffer in buffers:
            buffer.add(obs, next_obs, actions, rewards, dones, infos)
        obs = new_obs
        ended += int(dones.sum())
    return ended


def sample(buffer: Any, seed: int = 0, size: int = 64, env: Any = None) -> dict[str, torch.Tensor]:
    """Sample with a seed; return the batch's tensors by name."""
    np.random.seed(seed)  # noqa: NPY002  (what SB3's buffers draw from)
    batch = buffer.sample(size, env)._asdict()
    tensors = {}
    for name, value in batch.items():
        parts = value if isinstance(value, dict) else {"": value}
        tensors.update({f"{name} {key}": part for key, part in parts.items()})
    return tensors


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        if expected is not None:
            assert (ours[name].dtype, ours[name].shape) == (expected.dtype, expected.shape), name
            assert torch.equal(ours[name], expected), name


PADDED = {
    "augment": {"mode": "padding", "flip_probability": 0.5},
    "sampler": "pysot",
    "num_frames": 35,
}


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"n_envs": 4, "tracks_per_clip": 2, "action": "delta"},
        {"lost_after": 1},
        {"restart": 2},
        {"action": "moves", "num_frames": 2},
        {"action": "proposals"},
        {"augment": True},
        PADDED,
        {"geometry": "trdimp-tiny"},
        {"geometry": "siamattn-tiny", "num_frames": 2},
    ],
    ids=str,
)
def test_batches_are_those_of_dict_replay_buffer(kwargs: dict) -> None:
    env = make_env(**kwargs)
    rows = 36 if kwargs is PADDED else 12
    ours, theirs = make_buffer(env, rows, cache_bytes=0), make_peer(env, rows)
    # Before the ring is full, and after it has gone round, with a reset in the middle.
    ended = collect(env, rows - 3, ours, theirs)
    assert_same(sample(ours), sample(theirs))
    ended += collect(env, 2 * rows, ours, theirs, reset_at=3)
    assert ended > 0
    assert ours.full
    assert ours.size() == theirs.size() == rows
    assert_same(sample(ours, size=100), sample(theirs, size=100))
    env.close()


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("height", [360, 900])
def test_frames_that_were_decoded_in_part_are_so_again(
    tmp_path: Path, reduced: bool, height: int
) -> None:
    write_sample("folder", tmp_path / "folder", Source(2, 12, 480, height, seed=3))
    options = {"geometry": "transt-tiny", "num_frames": 6, "reduced_decode": reduced}
    root = str(tmp_path / "folder")
    env = make_sb3_env("SLTTrack-Folder-v0", 2, seed=1, root=root, **options)
    buffers = make_buffer(env, 12, cache_bytes=0), make_peer(env, 12)
    collect(env, 20, *buffers)
    assert_same(*(sample(buffer) for buffer in buffers))
    env.close()


@pytest.mark.parametrize("cache_bytes", [0, 200_000, 2**30])
def test_cache_changes_nothing(cache_bytes: int) -> None:
    env = make_env()
    ours, theirs = make_buffer(env, 15, cache_bytes=cache_bytes), make_peer(env, 15)
    for seed in range(3):
        collect(env, 11, ours, theirs)
        assert_same(sample(ours, seed), sample(theirs, seed))
        cache = ours._cache
        crops = [*cache._searches.values(), *(t.crop for t in cache._templates.values())]
        kept = sum(crop.nbytes for crop in crops)
        assert kept <= cache_bytes
        if cache_bytes == 200_000:
            assert kept > 170_000
        # At most the observation before each step, and after each episode's end or break.
        assert len(cache._searches) <= 2 * 15 * 2
        if cache_bytes == 2**30:
            assert len(cache._searches) > 2 * ours.size()
    env.close()


def test_reads_each_frame_of_a_batch_once_and_no_cached_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = make_env(1, num_frames=12, prefetch=False)
    cold, warm = make_buffer(env, cache_bytes=0), make_buffer(env, 100, cache_bytes=2**30)
    collect(env, 10, cold, warm)
    reads: list[int] = []
    read = slt_gym.data.synthetic.dataset.SyntheticSequence.read

    def count(self: Any, t: int) -> np.ndarray:
        reads.append(t)
        return read(self, t)

    monkeypatch.setattr(slt_gym.data.synthetic.dataset.SyntheticSequence, "read", count)
    sample(cold, size=200)  # All ten transitions of one clip: eleven frames, and the template's.
    assert len(reads) == 12
    collect(env, 35, warm)  # Three whole clips, and a part of one.
    reads.clear()
    sample(warm, size=500)  # Only what is seen after the two last steps has not been seen before.
    assert len(reads) == 2
    reads.clear()
    sample(warm, seed=1, size=200)
    assert reads == []
    env.close()


def test_a_transition_takes_64_bytes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReferenceReplayBuffer, "_begin", lambda *args: None)
    env = make_env(1)
    rows, clip = 3_000, Clip(None, np.arange(24), 90)  # type: ignore[arg-type]
    obs: Any = {"search": np.zeros((1, 3, 96, 96), np.uint8)}
    action, reward = np.zeros((1, 4), np.float32), np.zeros(1, np.float32)
    infos = []
    for step in range(2 * rows):
        number = step % 23
        before = View(number, (1280, 720), (float(step), 0.1, 2.0, 3.0), b"")
        after = View(min(number + 1, 22), (1280, 720), (float(step + 1), 0.1, 2.0, 3.0), b"")
        info = {"sequence": "one", "reference": pack_reference(clip, before, after, FILL)}
        infos.append([info])

    def fill(buffer: ReferenceReplayBuffer, first: int) -> None:
        for step in range(first, first + buffer.buffer_size):
            buffer.add(obs, obs, action, reward, np.array([step % 23 == 22]), infos[step])

    fill(make_buffer(env, 50), 0)  # What is made once in a process does not count.
    tracemalloc.start()
    try:
        buffer = make_buffer(env, rows, cache_bytes=0)
        fill(buffer, 0)
        filled = tracemalloc.get_traced_memory()[0]
        fill(buffer, rows)
        gone_round = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert buffer._log._boxes.nbytes + buffer._log._frames.nbytes == 36 * rows
    assert buffer.actions.nbytes + buffer.rewards.nbytes + buffer.dones.nbytes == 21 * rows
    assert 59 * rows < filled < 64 * rows
    assert gone_round < 64 * rows
    env.close()


def test_saves_without_frames_and_loads(tmp_path: Path) -> None:
    env = make_env()
    model = make_model(SAC, env)
    empty = len(pickle.dumps(model.replay_buffer))
    model.learn(40)
    model.save_replay_buffer(tmp_path / "replay")
    expected = sample(model.replay_buffer)
    assert (tmp_path / "replay.pkl").stat().st_size < empty + 10_000  # a search crop has 27,648
    other = make_model(SAC, env)
    other.load_replay_buffer(tmp_path / "replay")
    assert_same(sample(other.replay_buffer), expected)
    other.replay_buffer.set_env(make_env())
    assert_same(sample(other.replay_buffer), expected)
    # It goes on with another episode, in the middle of one.
    loaded, peer = other.replay_buffer, make_peer(env)
    loaded.reset()
    collect(env, 3, loaded, peer)
    loaded = pickle.loads(pickle.dumps(loaded))
    collect(env, 6, loaded, peer)
    assert_same(sample(loaded), sample(peer))
    env.close()


def make_model(algorithm: Any, env: VecEnv, **kwargs: Any) -> Any:
    small = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 8}}
    options = {
        "replay_buffer_class": ReferenceReplayBuffer,
        "replay_buffer_kwargs": {"env": env},
        "buffer_size": 40,
        "batch_size": 8,
        "learning_starts": 10,
        "train_freq": 8,
        "policy_kwargs": small,
        "seed": 0,
        "device": "cpu",
    }
    return algorithm("MultiInputPolicy", env, **{**options, **kwargs})


@pytest.mark.parametrize(
    ("algorithm", "action"), [(SAC, "box"), (TD3, "delta"), (DQN, "proposals"), (DQN, "moves")]
)
def test_learns_what_it_learns_from_images(algorithm: Any, action: str) -> None:
    weights = []
    for buffer in ({}, {"replay_buffer_class": None, "replay_buffer_kwargs": None}):
        env = make_env(action=action)
        model = make_model(algorithm, env, **buffer)
        first = {key: value.clone() for key, value in model.policy.state_dict().items()}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.learn(60)
        weights.append(model.policy.state_dict())
        env.close()
    assert any(not torch.equal(weights[0][key], value) for key, value in first.items())
    for key, value in weights[1].items():
        assert torch.equal(weights[0][key], value), key


@pytest.mark.parametrize(("name", "action"), [("TQC", "box"), ("QRDQN", "proposals")])
def test_serves_sb3_contrib(name: str, action: str) -> None:
    contrib = pytest.importorskip("sb3_contrib", reason="needs the extra 'rl' (sb3-contrib)")
    env = make_env(action=action)
    model = make_model(getattr(contrib, name), env)
    model.learn(40)
    assert model._n_updates > 0
    assert isinstance(model.replay_buffer, ReferenceReplayBuffer)
    env.close()


def test_model_that_holds_the_environment_is_saved(tmp_path: Path) -> None:
    env = make_env()
    model = make_model(SAC, env)
    model.learn(20)
    model.save(tmp_path / "model")
    loaded = SAC.load(tmp_path / "model", env=env)
    obs = env.reset()
    np.testing.assert_array_equal(
        loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0]
    )
    loaded.learn(20)
    assert loaded.replay_buffer.size() >= 10
    env.close()


def test_model_is_loaded_where_the_data_are_not(tmp_path: Path) -> None:
    from slt_gym.data.samples import Source, write_sample

    root = tmp_path / "here"
    write_sample("got10k", root, Source(2, 14, 96, 72, seed=0))
    kwargs = {"geometry": "transt-tiny", "num_frames": 4, "root": str(root)}
    env = make_sb3_env("SLTTrack-GOT10k-v0", **kwargs)
    make_model(SAC, env).save(tmp_path / "model")
    root.rename(tmp_path / "there")
    with pytest.warns(UserWarning, match="environment is left out: .*got10k"):
        model = SAC.load(tmp_path / "model")
    assert model.predict(env.observation_space.sample())[0].shape == (4,)
    env.close()
    kwargs["root"] = str(tmp_path / "there")
    moved = make_sb3_env("SLTTrack-GOT10k-v0", **kwargs)
    model.set_env(moved)
    with pytest.raises(InvalidArgumentError, match=r"no environment to read frames from.*set_env"):
        model.learn(20)
    model.replay_buffer.set_env(moved)
    model.learn(20)
    moved.close()


def test_single_environments_in_dummy_vec_env() -> None:
    env = DummyVecEnv([lambda: gym.make(ID, **SMALL) for _ in range(2)])
    ours, theirs = make_buffer(env), make_peer(env)
    collect(env, 25, ours, theirs)
    assert_same(sample(ours), sample(theirs))
    pickle.loads(pickle.dumps(env)).reset()  # as in a saved model


def test_normalised_observations_and_rewards() -> None:
    env = VecNormalize(make_env(), norm_obs_keys=["box"])
    model = make_model(SAC, env)
    model.learn(30)
    env.norm_reward = env.norm_obs = False
    plain = sample(model.replay_buffer, env=env)
    env.norm_reward = env.norm_obs = True
    changed = {
        key
        for key, part in sample(model.replay_buffer, env=env).items()
        if part is not None and not torch.equal(part, plain[key])
    }
    assert changed == {"observations box", "next_observations box", "rewards "}
    env.close()


def test_time_limits_are_no_terminal_states() -> None:
    env = make_env(1)
    obs = env.reset()
    new_obs, reward, _, infos = env.step(np.zeros((1, 4), np.float32))
    infos[0]["TimeLimit.truncated"] = True
    for handled in (True, False):
        ours = make_buffer(env, handle_timeout_termination=handled)
        ours.add(obs, new_obs, np.zeros((1, 4)), reward, np.array([True]), infos)
        assert bool(sample(ours, size=1)["dones "]) is not handled
    env.close()


def test_forgets_on_request() -> None:
    env = make_env()
    ours, theirs = make_buffer(env), make_peer(env)
    collect(env, 25, ours)
    ours.reset()
    assert ours.size() == 0
    collect(env, 8, ours, theirs)
    assert_same(sample(ours), sample(theirs))
    env.close()


def test_other_environments_observations_are_refused() -> None:
    env, other = make_env(), make_env(dataset_options={**VIDEO, "seed": 5})
    with pytest.raises(InvalidArgumentError, match=r"'search' of track 0, frame \d+ of .* is not"):
        collect(env, 1, make_buffer(other))
    buffer = make_buffer(env)
    collect(env, 3, buffer)
    buffer.set_env(other)
    with pytest.raises(InvalidArgumentError, match="the one that the model is trained in"):
        collect(env, 1, buffer)
    env.close()
    other.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_steps": 3, "gamma": 0.9}, "'n_steps' .* not supported.*no n-step returns"),
        ({"optimize_memory_usage": True}, "'optimize_memory_usage' is True: leave it out"),
        ({"cache_bytes": -1}, "'cache_bytes' is -1: accepted are whole numbers from 0"),
        ({"threads": 1.5}, "'threads' .* is 1.5"),
        ({"env": 3}, "'env' is 3: accepted are tracking environments"),
    ],
)
def test_refuses_wrong_arguments(kwargs: dict, message: str) -> None:
    env = make_env()
    with pytest.raises(InvalidArgumentError, match=message):
        make_buffer(env, **kwargs)
    env.close()


def test_refuses_environments_that_do_not_fit() -> None:
    env = make_env()
    pendulum = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    with pytest.raises(InvalidArgumentError, match="accepted are tracking environments"):
        make_buffer(env, env=pendulum)
    with pytest.raises(InvalidArgumentError, match=r"of the shapes .*needed are the buffer's"):
        make_buffer(env, env=make_env(geometry="trdimp-tiny"))
    obs = env.reset()
    with pytest.raises(InvalidArgumentError, match="holds no 'sequence'"):
        make_buffer(env).add(obs, obs, np.zeros((2, 4)), np.zeros(2), np.zeros(2, bool), [{}, {}])
    env.close()
