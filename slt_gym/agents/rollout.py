"""What exploration leaves for an update: sampled tracks of a batch of clips, and their returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from slt_gym.agents.graphs import KeptGraphs
from slt_gym.errors import InvalidArgumentError, unknown

Array: TypeAlias = NDArray


@dataclass
class ClipRollout:
    """``C`` clips, ``S`` sampled tracks of each, up to ``T`` tracked frames.

    Attributes:
        template: RGB uint8, shape ``(C, 3, Z, Z)``.
        search: RGB uint8, shape ``(T, C, S, 3, s, s)``, the crops that the sampled tracks saw.
        box: Float32, shape ``(T, C, S, 4)``, the previous estimates, crop units.
        index: Int64, shape ``(T, C, S)``, the proposals that were sampled.
        gt_box: Float32, shape ``(T, C, S, 4)``, ground truth in units of the same crops.
        alive: Booleans, shape ``(T, C, S)``, the frames before a track's end.
        rewards: Float64, shape ``(T, C, S)``, zero after the end.
        greedy_rewards: Float64, shape ``(T, C)``; None without a greedy track.
        template_box: Float32, shape ``(C, 4)``, the target in the template, crop units; None where
            the observations do not hold it.
        log_prob: Float64, shape ``(T, C, S)``, log-probabilities of ``index`` when it was sampled.
        values: Float64, shape ``(T, C, S)``, what the critic expected; None without one.
        mask: Booleans, shape ``(T, C, S, s, s)``, the target's pixels in ``search``; None where no
            loss learns from them.
        has_mask: Booleans, shape ``(T, C, S)``, where they are known; None without ``mask``.
        graphs: The graphs of exploration, for one update; None where none are kept.
    """

    template: Array
    search: Array
    box: Array
    index: Array
    gt_box: Array
    alive: Array
    rewards: Array
    greedy_rewards: Array | None = None
    template_box: Array | None = None
    log_prob: Array | None = None
    values: Array | None = None
    mask: Array | None = None
    has_mask: Array | None = None
    graphs: KeptGraphs | None = None


class RolloutRecorder:
    """Keeps what an update needs of each step, and stacks it at the end.

    Args:
        observation: What the environment shows at the clips' start.
        tracks_per_clip: Number of tracks that lie side by side for each clip.
        greedy: Which of the ``B`` tracks are greedy, shape ``(B,)``.

    Attributes:
        template: As in :class:`ClipRollout`.
        template_box: As in :class:`ClipRollout`.
    """

    def __init__(
        self, observation: dict[str, Array], tracks_per_clip: int, greedy: NDArray[np.bool_]
    ) -> None:
        k = self._tracks_per_clip = tracks_per_clip
        self._greedy = greedy
        self._steps: list[dict[str, Array]] = []
        self.template = observation["template"][::k].copy()
        box = observation.get("template_box")
        self.template_box = None if box is None else box[::k].copy()

    def add_observation(self, observation: dict[str, Array], alive: NDArray[np.bool_]) -> None:
        """Keep what the tracks saw in a step.

        Args:
            observation: Of all tracks.
            alive: Which tracks have not ended, shape ``(B,)``.
        """
        kept = {"search": observation["search"], "box": observation["box"], "alive": alive}
        self._steps.append({name: array[~self._greedy] for name, array in kept.items()})
        self._alive = alive.copy()

    def add_outcome(self, rewards: Array, infos: list[dict[str, Any]]) -> None:
        """Keep what came of the step's actions.

        Args:
            rewards: Shape ``(B,)``.
            infos: One for each track.

        Raises:
            InvalidArgumentError: Tracks of a group follow different clips.
        """
        self._check_clips(infos)
        greedy, step = self._greedy, self._steps[-1]
        gt_box = np.stack([info["gt_box_crop"] * info["visible"] for info in infos])
        step["gt_box"] = gt_box[~greedy]  # zeros, which teach nothing, where it is absent
        step["rewards"] = (rewards * self._alive)[~greedy]
        step["greedy_rewards"] = (rewards * self._alive)[greedy]

    def add_masks(self, mask: NDArray[np.bool_], has_mask: NDArray[np.bool_]) -> None:
        """Keep the masks of what the tracks saw in the step.

        Args:
            mask: Shape ``(B, s, s)``.
            has_mask: Shape ``(B,)``.
        """
        self._steps[-1] |= {"mask": mask[~self._greedy], "has_mask": has_mask[~self._greedy]}

    def _check_clips(self, infos: list[dict[str, Any]]) -> None:
        k = self._tracks_per_clip
        for start in range(0, len(infos), k):
            group = [infos[i] for i in range(start, start + k) if self._alive[i]]
            if len({(info["sequence"], info["frame"]) for info in group}) > 1:
                raise InvalidArgumentError(
                    f"tracks {start} to {start + k - 1} follow different clips: make the "
                    f"environment with tracks_per_clip={k}"
                )

    def rollout(self, graphs: KeptGraphs | None = None, **chosen: Array) -> ClipRollout:
        """Return all steps.

        Args:
            graphs: Those of what the sampled tracks met, where they are kept.
            **chosen: ``index``, ``log_prob`` and, of a critic, ``values``: what the ``B`` tracks
                did in each step, shape ``(T, B)``.
        """
        steps, clips = self._steps, len(self.template)

        def stack(name: str, dtype: Any = None) -> Array:
            if name in chosen:
                array = chosen[name][:, ~self._greedy]  # (T, C * S, ...)
            else:
                array = np.stack([step[name] for step in steps])
            shape = (len(steps), clips, array.shape[1] // clips, *array.shape[2:])
            return array.reshape(shape).astype(dtype or array.dtype, copy=False)

        greedy = None
        if self._greedy.any():
            greedy = np.stack([step["greedy_rewards"] for step in steps]).astype(np.float64)
        return ClipRollout(
            template=self.template,
            template_box=self.template_box,
            search=stack("search"),
            box=stack("box"),
            index=stack("index"),
            gt_box=stack("gt_box", np.float32),
            alive=stack("alive"),
            rewards=stack("rewards", np.float64),
            greedy_rewards=greedy,
            log_prob=stack("log_prob", np.float64),
            values=stack("values", np.float64) if "values" in chosen else None,
            mask=stack("mask") if "mask" in steps[0] else None,
            has_mask=stack("has_mask") if "mask" in steps[0] else None,
            graphs=graphs,
        )


def greedy_baseline(returns: Array, greedy: Array | None) -> Array:
    """Subtract the greedy track's return (SLT, section 3.2).

    Args:
        returns: Shape ``(..., C, S)``.
        greedy: Shape ``(..., C)``.
    """
    if greedy is None:
        raise InvalidArgumentError("baseline 'greedy' needs a rollout with a greedy track")
    return returns - greedy[..., None]


def leave_one_out_baseline(returns: Array, greedy: Array | None) -> Array:
    """Subtract the mean return of the clip's other sampled tracks (Kool et al., 2019).

    Args:
        returns: Shape ``(..., C, S)`` with ``S`` of at least two.
        greedy: Not used.
    """
    del greedy
    count = returns.shape[-1]
    others = (returns.sum(axis=-1, keepdims=True) - returns) / (count - 1)
    return returns - others


def group_baseline(returns: Array, greedy: Array | None) -> Array:
    """Subtract the clip's mean return, divide by its standard deviation.

    The group-relative advantage of GRPO (Shao et al., "DeepSeekMath", 2024, section 4.1).

    Args:
        returns: Shape ``(..., C, S)`` with ``S`` of at least two.
        greedy: Not used.
    """
    del greedy
    deviation = returns - returns.mean(axis=-1, keepdims=True)
    # Tracks that did alike up to rounding teach nothing.
    return deviation / (returns.std(axis=-1, keepdims=True) + 1e-6)


BASELINES: dict[str, Callable[[Array, Array | None], Array]] = {
    "greedy": greedy_baseline,
    "leave_one_out": leave_one_out_baseline,
    "group": group_baseline,
}
CRITIC = "critic"


def check_baseline(baseline: str, n_samples: int) -> None:
    """Raise unless the baseline exists and works with that many sampled tracks."""
    if baseline not in BASELINES and baseline != CRITIC:
        raise unknown("baseline", baseline, [*BASELINES, CRITIC])
    if baseline in ("leave_one_out", "group") and n_samples < 2:
        raise InvalidArgumentError(
            f"baseline {baseline!r} compares the sampled tracks of a clip: n_samples is "
            f"{n_samples}, it must be at least 2"
        )


def advantages(
    rollout: ClipRollout, baseline: str, reward_to_go: bool = False, gae_lambda: float = 1.0
) -> Array:
    """Compute each action's advantage, float64, shape ``(T, C, S)``.

    Args:
        rollout: The tracks.
        baseline: A key of ``BASELINES``, or ``"critic"``.
        reward_to_go: Count only the rewards from the action's frame on; otherwise every action of
            a track shares the whole return, as published.
        gae_lambda: Of the critic, with ``reward_to_go``: below 1, the critic's values stand in for
            part of the later rewards (see :func:`generalised_advantages`).
    """

    def total(rewards: Array | None) -> Array | None:
        if rewards is None:
            return None
        if reward_to_go:
            return np.flip(np.cumsum(np.flip(rewards, 0), 0), 0)
        return np.broadcast_to(rewards.sum(0), rewards.shape)

    returns = total(rollout.rewards)
    assert returns is not None
    if baseline != CRITIC:
        return BASELINES[baseline](returns, total(rollout.greedy_rewards))
    if rollout.values is None:
        raise InvalidArgumentError("baseline 'critic' needs a rollout with the critic's values")
    if reward_to_go and gae_lambda < 1:
        return generalised_advantages(rollout, gae_lambda)
    return returns - rollout.values


def generalised_advantages(rollout: ClipRollout, gae_lambda: float) -> Array:
    """Compute generalised advantage estimates without a discount (Schulman et al., ICLR 2016).

    Args:
        rollout: The tracks, with values.
        gae_lambda: 1: rewards to go less the value; 0: the one-step error of the critic.
    """
    assert rollout.values is not None
    values = rollout.values * rollout.alive  # nothing is to come after the end
    following = np.concatenate([values[1:], np.zeros_like(values[:1])])
    advantage = rollout.rewards + following - values
    for t in reversed(range(len(advantage) - 1)):
        advantage[t] += gae_lambda * advantage[t + 1]
    return advantage
