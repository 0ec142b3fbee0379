"""rl-baselines3-zoo's training script, with SLT among its algorithms.

    pip install -e ".[zoo]"
    python examples/zoo/train_slt.py --algo slt --env SLTTrack-Synthetic-v0 \
        --conf-file examples/zoo/slt.yml

All arguments are the zoo's (``--help``). Its own algorithms gain, too: the environments are made by
``make_sb3_env``, which runs the tracks in threads, and evaluations take place in an environment
with the same arguments, on the split ``val`` unless ``--eval-env-kwargs`` says otherwise.
"""

from __future__ import annotations

import rl_zoo3
import rl_zoo3.exp_manager
import rl_zoo3.train
from stable_baselines3.common.vec_env import VecEnv

import slt_gym  # noqa: F401  (registers the environments)
from slt_gym.agents import SLT
from slt_gym.envs import make_sb3_env


class TracksManager(rl_zoo3.exp_manager.ExperimentManager):
    """Makes tracks that share clips, which SLT needs, instead of single environments."""

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """Make an environment for training, or for evaluation."""
        kwargs = dict(self.env_kwargs)
        if eval_env:
            kwargs |= {"split": "val", "tracks_per_clip": 1, **(self._eval_env_kwargs_args or {})}
        env = make_sb3_env(self.env_name.gym_id, n_envs, seed=self.seed, **kwargs)
        return self._maybe_normalize(env, eval_env)


rl_zoo3.ALGOS["slt"] = SLT
rl_zoo3.train.ALGOS = rl_zoo3.ALGOS
rl_zoo3.exp_manager.ALGOS = rl_zoo3.ALGOS
rl_zoo3.train.ExperimentManager = TracksManager

if __name__ == "__main__":
    rl_zoo3.train.train()
