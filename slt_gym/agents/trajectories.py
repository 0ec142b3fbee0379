"""Episodes of an expert as a Minari dataset, for learning without an environment.

Minari (https://minari.farama.org) is the format of offline reinforcement learning around Gymnasium.
It is an optional dependency: ``pip install "slt-gym[offline]"``.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from slt_gym.agents.experts import Expert, ExpertLike, make_expert
from slt_gym.envs import make_sb3_env
from slt_gym.envs.arguments import check_count
from slt_gym.errors import InvalidArgumentError, SltGymError

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

# What of the infos is recorded: what every info holds, the reset's too.
INFOS = ("iou", "frame", "box", "gt_box", "gt_box_crop", "visible", "sequence")
_EPISODES_AT_ONCE = 16  # in memory, until they are written


def record_trajectories(
    dataset_id: str,
    env_id: str,
    expert: ExpertLike = "oracle",
    episodes: int = 100,
    *,
    n_envs: int = 8,
    threads: int = 0,
    seed: int = 0,
    weights: str | None = None,
    device: str = "cpu",
    progress_bar: bool = False,
    **env_kwargs: Any,
) -> MinariDataset:
    """Let an expert act, and write what it saw and did where Minari keeps its datasets.

    That is ``$MINARI_DATASETS_PATH``, else ``~/.minari/datasets``. Observations are written as they
    are, without loss. Each step's info is recorded in part (:data:`INFOS`).
    ``dataset.recover_environment()`` makes the environment again.

    Args:
        dataset_id: ``"slt-gym/synthetic/oracle-v0"``, say: a namespace, a name and a version.
        env_id: A tracking environment's id.
        expert: Who acts, see :func:`slt_gym.agents.experts.make_expert`.
        episodes: How many to record, the same number in each of ``n_envs`` tracks, or one more. Of
            the splits that are walked, as many as there are sequences records each of them once.
        n_envs: Tracks that run side by side.
        threads: Threads that decode and crop; 0 takes one for each core.
        seed: Of the environment; the same one records the same episodes.
        weights: Of a network named by ``expert``.
        device: Where that network runs.
        progress_bar: Show one.
        **env_kwargs: The environment's arguments.

    Raises:
        SltGymError: Minari is not installed.
        InvalidArgumentError: An argument is not accepted, or there is such a dataset; nothing is
            written.
        DatasetNotFoundError: There is nothing to track.
    """
    minari = import_minari()
    episodes = check_count("argument 'episodes'", episodes, least=1)
    n_envs = min(check_count("argument 'n_envs'", n_envs, least=1), episodes)
    _check_id(minari, dataset_id)
    env = make_sb3_env(env_id, n_envs, seed, threads=threads, **env_kwargs)
    dataset = None
    try:
        teacher = make_expert(expert, env, weights, device)
        name = expert if isinstance(expert, str) else type(expert).__name__
        about = {
            "env": gym.make(env_id, **env_kwargs),
            "algorithm_name": name,
            "author": "slt-gym",
            "description": f"Single-object tracking: {episodes} episodes of {name} in {env_id}.",
            "data_format": "hdf5",
        }
        bar = tqdm(total=episodes, unit="episode", disable=not progress_bar)
        waiting: list[EpisodeBuffer] = []
        with bar:
            for done, buffer in enumerate(_run(env, teacher, episodes), 1):
                waiting.append(buffer)
                bar.update()
                if len(waiting) == _EPISODES_AT_ONCE or done == episodes:
                    if dataset is None:
                        with warnings.catch_warnings():  # of what else could be said about it
                            warnings.simplefilter("ignore", UserWarning)
                            dataset = minari.create_dataset_from_buffers(
                                dataset_id, waiting, **about
                            )
                    else:
                        dataset.update_dataset_from_buffer(waiting)
                    waiting = []
    except BaseException:
        if dataset is not None:  # Half a dataset would pass for a whole one.
            shutil.rmtree(dataset.storage.data_path.parent)
        raise
    finally:
        env.close()
    assert dataset is not None
    return dataset


def load_trajectories(dataset_id: str) -> MinariDataset:
    """Open a dataset where Minari keeps them.

    Raises:
        SltGymError: Minari is not installed.
        InvalidArgumentError: There is none of that id.
    """
    minari = import_minari()
    here = minari.list_local_datasets()
    if dataset_id not in here:
        raise InvalidArgumentError(
            f"there is no Minari dataset {dataset_id!r} here: accepted are "
            f"{', '.join(sorted(here)) or 'those that slt-gym trajectories has recorded, none yet'}"
        )
    return minari.load_dataset(dataset_id)


def import_minari() -> Any:
    """Return the module.

    Raises:
        SltGymError: It is not installed.
    """
    try:
        import minari  # noqa: PLC0415  (optional)
    except ImportError:
        raise SltGymError(
            "trajectories are kept by Minari, which is not installed: "
            'pip install "slt-gym[offline]"'
        ) from None
    return minari


def _check_id(minari: Any, dataset_id: str) -> None:
    if dataset_id in minari.list_local_datasets():
        raise InvalidArgumentError(
            f"there is a Minari dataset {dataset_id!r} already: give another version, or remove it "
            f"with: minari delete {dataset_id}"
        )
    space, _, name = dataset_id.rpartition("/")
    stem, dash, version = name.rpartition("-v")
    if not (stem and dash and version.isdecimal()) or dataset_id.startswith("/") or "//" in space:
        raise InvalidArgumentError(
            f"dataset id {dataset_id!r} is none of Minari's: accepted are a name and a version, "
            "such as slt-gym/synthetic/oracle-v0"
        )


def _run(env: VecEnv, teacher: Expert, episodes: int) -> Iterator[EpisodeBuffer]:
    """Yield episodes as they end, the same number from every track, or one more."""
    count = env.num_envs
    # Were those taken that end first, short ones would be too many.
    left = np.array([episodes // count + (i < episodes % count) for i in range(count)])
    obs: Any = env.reset()
    records = [_Record(_row(obs, i), env.reset_infos[i]) for i in range(count)]
    start = np.ones(count, np.bool_)
    while left.any():
        actions = teacher.act(obs, start)
        obs, rewards, start, infos = env.step(actions)
        for i in np.flatnonzero(left).tolist():
            seen = infos[i]["terminal_observation"] if start[i] else _row(obs, i)
            records[i].add(seen, actions[i], float(rewards[i]), bool(start[i]), infos[i])
            if start[i]:
                yield records[i].finish()
                records[i] = _Record(_row(obs, i), env.reset_infos[i])
                left[i] -= 1


def _row(obs: dict[str, NDArray], i: int) -> dict[str, NDArray]:
    return {key: array[i] for key, array in obs.items()}


class _Record:
    """An episode so far: what was seen, T + 1 times, and what was done, T times."""

    def __init__(self, obs: dict[str, NDArray], info: dict[str, Any]) -> None:
        self._seen, self._infos = [obs], [info]
        self._actions: list[Any] = []
        self._rewards: list[float] = []
        self._ends: list[bool] = []

    def add(
        self, obs: dict[str, NDArray], action: Any, reward: float, ended: bool, info: dict[str, Any]
    ) -> None:
        self._seen.append(obs)
        self._infos.append(info)
        self._actions.append(action)
        self._rewards.append(reward)
        self._ends.append(ended)

    def finish(self) -> EpisodeBuffer:
        from minari.data_collector import EpisodeBuffer  # noqa: PLC0415  (optional)

        return EpisodeBuffer(
            observations={key: np.stack([obs[key] for obs in self._seen]) for key in self._seen[0]},
            actions=np.stack(self._actions),
            rewards=self._rewards,
            terminations=self._ends,
            truncations=[False] * len(self._ends),
            infos={key: [info[key] for info in self._infos] for key in INFOS},
        )
