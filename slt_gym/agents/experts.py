"""Experts: whatever can track, acting in an environment and in its form of actions.

What an expert knows is a box in the frame, whoever moved the track to where it is. The form of
actions turns it into the action that comes nearest, so that one expert serves all forms.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from slt_gym.agents.actor_critic import TrackerActorCriticPolicy
from slt_gym.agents.baselines import BASELINES, OracleTracker
from slt_gym.agents.creation import choose_weights, create_tracker, list_trackers
from slt_gym.agents.policy import TrackerPolicy
from slt_gym.agents.registry import get_tracker_entry
from slt_gym.agents.replay import ask_env
from slt_gym.agents.tracker import Tracker
from slt_gym.envs.action_forms import BoxForm
from slt_gym.envs.episode import Episode, EpisodeRules, Observation
from slt_gym.errors import InvalidArgumentError, unknown

Box: TypeAlias = NDArray[np.float64]


class Expert(ABC):
    """Says what to do in every track of an environment."""

    @abstractmethod
    def act(self, observation: Observation, episode_start: NDArray[np.bool_]) -> NDArray[Any]:
        """Choose actions for the environment as it stands.

        Args:
            observation: What the environment shows now, by key, shape ``(n, ...)``.
            episode_start: Shape ``(n,)``, which tracks have begun an episode with it.

        Returns:
            Actions of the environment's form, shape ``(n, 4)`` or ``(n,)``.
        """


# What algorithms and commands take for one.
ExpertLike: TypeAlias = "str | Tracker | BaseAlgorithm | BasePolicy | Expert"


def make_expert(
    expert: ExpertLike, env: VecEnv, weights: str | None = None, device: str = "cpu"
) -> Expert:
    """Let something that tracks act in an environment.

    Args:
        expert: One of

            - ``"oracle"``: the ground truth. Where the target is not visible it stays.
            - another tracker's name, see :func:`slt_gym.list_trackers`. Where the environment has
              its geometry, a network looks at the environment's own crops: it finds the target
              from wherever the track has come to. A baseline, another geometry's network, and
              TrDiMP, which goes on learning, follow the clip's frames by themselves, from its first
              one (and from each new start, with ``restart``).
            - a :class:`Tracker`, which follows the frames, such as
              :class:`~slt_gym.agents.policy_tracker.PolicyTracker`.
            - a model or a policy, which looks at the environment's crops. That of a tracker
              (:class:`TrackerPolicy`, :class:`TrackerActorCriticPolicy`) names boxes; the actions
              of others must be of the environment's own form.
        env: A tracking environment, in this process.
        weights: Of a network named by ``expert``, as :func:`slt_gym.create_tracker` takes them;
            None takes those that ship with the package.
        device: Where that network runs.

    Raises:
        InvalidArgumentError: It is no expert, or acts in other environments.
        CheckpointError: The weights cannot be read.
    """
    if isinstance(expert, Expert):
        return expert
    rules = _ask_rules(env)
    if isinstance(expert, str):
        if expert not in list_trackers():
            raise unknown("expert", expert, list_trackers())
        if expert not in BASELINES:
            entry = get_tracker_entry(expert)
            weights = choose_weights(expert, weights)
            if entry.tracker is None and entry.geometry == rules.geometry:
                network = TrackerPolicy(
                    rules.observation_space, BoxForm().space, tracker=expert, weights=weights
                )
                return _PolicyExpert(network.to(torch.device(device)), env, rules)
        expert = create_tracker(expert, weights, device)
    if isinstance(expert, OracleTracker):
        return _Oracle(env, rules)
    if isinstance(expert, Tracker):
        return _FrameExpert(expert, env, rules)
    if isinstance(expert, (BaseAlgorithm, BasePolicy)):
        policy = expert.policy if isinstance(expert, BaseAlgorithm) else expert
        if isinstance(policy, (TrackerPolicy, TrackerActorCriticPolicy)):
            return _PolicyExpert(policy, env, rules)
        return _Imitated(expert, env)
    raise InvalidArgumentError(
        f"argument 'expert' is {expert!r}: accepted are the name of a tracker, a Tracker, a model, "
        "a policy and an Expert"
    )


class _BoxExpert(Expert):
    """Knows a box, once for each frame, and lets the form of actions say how to come to it."""

    def __init__(self, env: VecEnv, rules: EpisodeRules) -> None:
        self.env = env
        self.rules = rules
        self._found: dict[int, tuple[Episode, Box]] = {}

    def act(self, observation: Observation, episode_start: NDArray[np.bool_]) -> NDArray[Any]:
        """Choose the actions that come nearest to the boxes, see :class:`Expert`."""
        episodes = _ask_episodes(self.env)
        new = [
            i
            for i, episode in enumerate(episodes)
            if episode.at_frame_start or self._found.get(i, (None,))[0] is not episode
        ]
        if new:
            boxes = self.find(new, episodes, observation, episode_start)
            self._found.update({i: (episodes[i], box) for i, box in zip(new, boxes, strict=True)})
        form = self.rules.form
        actions = []
        for i, episode in enumerate(episodes):
            to_crop = episode.window.to_crop
            actions.append(form.encode(to_crop(self._found[i][1]), to_crop(episode.box)))
        return np.array(actions)

    @abstractmethod
    def find(
        self,
        tracks: list[int],
        episodes: list[Episode],
        observation: Observation,
        episode_start: NDArray[np.bool_],
    ) -> list[Box]:
        """Return the boxes of tracks whose next action is the first about its frame."""


class _Oracle(_BoxExpert):
    """Knows the ground truth."""

    def find(
        self,
        tracks: list[int],
        episodes: list[Episode],
        observation: Observation,
        episode_start: NDArray[np.bool_],
    ) -> list[Box]:
        del observation, episode_start
        boxes = []
        for episode in (episodes[i] for i in tracks):
            truth = episode.truth
            boxes.append(episode.box.copy() if truth is None else truth)
        return boxes


class _FrameExpert(_BoxExpert):
    """Copies of a tracker that follow the tracks' frames, each from where its track begins."""

    def __init__(self, tracker: Tracker, env: VecEnv, rules: EpisodeRules) -> None:
        super().__init__(env, rules)
        self._tracker = tracker
        # What each copy follows: the episode, and how often the track began again.
        self._followed: dict[int, tuple[Tracker, Episode, int]] = {}

    def find(
        self,
        tracks: list[int],
        episodes: list[Episode],
        observation: Observation,
        episode_start: NDArray[np.bool_],
    ) -> list[Box]:
        del observation, episode_start
        return [self._follow(i, episodes[i]) for i in tracks]

    def _follow(self, i: int, episode: Episode) -> Box:
        tracker, followed, failures = self._followed.get(i, (None, None, 0))
        if tracker is None or followed is not episode or failures != episode.failures:
            # A shallow copy: the network is shared, and init makes all that belongs to a track.
            tracker = copy.copy(self._tracker)
            start = episode.next_frame - 1
            tracker.init(episode.frames.frame(start), episode.frames.clip.boxes[start])
            self._followed[i] = tracker, episode, episode.failures
        return tracker.update(episode.frames.frame(episode.next_frame))


class _PolicyExpert(_BoxExpert):
    """A tracker's policy, which names a box of the crop that the environment shows."""

    def __init__(
        self, policy: TrackerPolicy | TrackerActorCriticPolicy, env: VecEnv, rules: EpisodeRules
    ) -> None:
        super().__init__(env, rules)
        self.policy = policy
        seen, shown = (_shapes(space) for space in (policy.observation_space, rules))
        for key, shape in seen.items():
            if shown.get(key) != shape:
                raise InvalidArgumentError(
                    f"the expert looks at {key!r} of shape {shape}, and the environment shows "
                    f"{shown.get(key)}: make the environment with geometry={policy.tracker!r}, or "
                    "give the tracker, which follows frames"
                )
        self._keys = list(seen)
        self._state: Any = None

    def find(
        self,
        tracks: list[int],
        episodes: list[Episode],
        observation: Observation,
        episode_start: NDArray[np.bool_],
    ) -> list[Box]:
        seen = {key: observation[key] for key in self._keys}
        actions, self._state = self.policy.predict(
            seen, state=self._state, episode_start=episode_start, deterministic=True
        )
        form = BoxForm()
        named = []
        for i in tracks:
            window = episodes[i].window
            box = form.decode(form.check(actions[i]), window.to_crop(episodes[i].box))
            named.append(np.asarray(window.to_frame(box)))
        return named


class _Imitated(Expert):
    """A model that was trained with the environment's own form of actions."""

    def __init__(self, model: BaseAlgorithm | BasePolicy, env: VecEnv) -> None:
        for name in ("observation_space", "action_space"):
            trained, here = getattr(model, name), getattr(env, name)
            if trained != here:
                raise InvalidArgumentError(
                    f"the expert's {name} is {trained}, and the environment's is {here}: make the "
                    "environment as the expert's was, or give a PolicyTracker, which follows frames"
                )
        self.model = model
        self._state: Any = None

    def act(self, observation: Observation, episode_start: NDArray[np.bool_]) -> NDArray[Any]:
        actions, self._state = self.model.predict(
            observation,
            state=self._state,
            episode_start=episode_start,
            deterministic=True,
        )
        return actions


def _ask_rules(env: VecEnv) -> EpisodeRules:
    try:
        return ask_env(env, "rules")
    except AttributeError:
        raise InvalidArgumentError(
            f"the environment is {env!r}: experts act in tracking environments, such as "
            "slt_gym.envs.make_sb3_env returns"
        ) from None


def _ask_episodes(env: VecEnv) -> list[Episode]:
    """Return the tracks' episodes, whether one environment holds them all or each holds one."""
    held = env.get_attr("episodes")
    episodes = held[0] if len(held[0]) == env.num_envs else [one for (one,) in held]
    if None in episodes:
        raise InvalidArgumentError("the environment's episodes have not begun: reset it first")
    return episodes


def _shapes(shown: Any) -> dict[str, Any]:
    space = shown.observation_space if isinstance(shown, EpisodeRules) else shown
    return {key: part.shape for key, part in space.items()}
