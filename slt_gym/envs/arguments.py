"""The arguments that the single and the vector environment share, checked in one place."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slt_gym.data import AugmentationConfig, SequenceDataset, open_dataset
from slt_gym.data.sampling import SAMPLERS
from slt_gym.envs.action_forms import make_form
from slt_gym.envs.episode import EpisodeRules
from slt_gym.envs.rewards import REWARDS
from slt_gym.errors import (
    DatasetNotFoundError,
    InvalidArgumentError,
    unexpected_argument,
    unknown,
)
from slt_gym.geometry import get_geometry

RENDER_MODES = ("rgb_array",)
VOT_RESTART = 5  # frames from a failure to the new start, VOT's supervised experiment
# Keyword arguments of every environment, in the order of the documentation.
ACCEPTED = (
    "dataset",
    "root",
    "split",
    "geometry",
    "action",
    "action_options",
    "reward",
    "num_frames",
    "sampler",
    "augment",
    "lost_after",
    "restart",
    "dataset_options",
    "reduced_decode",
    "render_mode",
)


def check_keywords(given: Mapping[str, Any], *more: str) -> None:
    """Refuse keyword arguments that the environment's signature does not hold.

    Args:
        given: The left-over keyword arguments.
        *more: Names accepted beside those of every environment.

    Raises:
        UnexpectedArgumentError: ``given`` is not empty.
    """
    for key in given:
        raise unexpected_argument(key, (*ACCEPTED, *more))


def check_count(what: str, value: object, least: int) -> int:
    """Return ``value`` as an int that is ``least`` or more.

    Raises:
        InvalidArgumentError: It is not.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]  # NumPy's integers pass too
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or count < least:
        raise InvalidArgumentError(
            f"{what} is {value!r}: accepted are whole numbers from {least} up"
        )
    return count


def check_rules(
    geometry: str,
    action: str,
    action_options: Mapping[str, Any] | None,
    reward: str | Mapping[str, float],
    lost_after: int | None,
    restart: bool | int,
    reduced_decode: bool = False,
) -> EpisodeRules:
    """Return the rules of an episode from the environment's arguments.

    Raises:
        InvalidArgumentError: An argument has a value that is not accepted.
    """
    form = make_form(action, action_options)
    reward = check_reward(reward)
    if lost_after is not None:
        lost_after = check_count("argument 'lost_after'", lost_after, least=1)
    reduced_decode = bool(reduced_decode)
    if restart is False:
        return EpisodeRules(
            get_geometry(geometry), reward, lost_after, form, reduced_decode=reduced_decode
        )
    frames = VOT_RESTART
    if restart is not True:
        frames = check_count("argument 'restart' (False ends the episode)", restart, least=1)
    return EpisodeRules(
        get_geometry(geometry), reward, lost_after or 1, form, frames, reduced_decode
    )


def check_reward(reward: str | Mapping[str, float]) -> str | dict[str, float]:
    """Return the reward: a name, or weights by names.

    Raises:
        InvalidArgumentError: There is no such reward, or a weight is no finite number.
    """
    names = reward if isinstance(reward, Mapping) else [reward]
    for name in names:
        if name not in REWARDS:
            raise unknown("reward", name, REWARDS)
    if not isinstance(reward, Mapping):
        return reward
    if not reward:
        raise InvalidArgumentError(
            f"argument 'reward' is an empty dict: accepted are weights of {', '.join(REWARDS)}"
        )
    for name, weight in reward.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight):
            raise InvalidArgumentError(
                f"argument 'reward' gives {name!r} the weight {weight!r}: accepted are finite "
                "numbers"
            )
    return dict(reward)


def check_sampler(sampler: str) -> str:
    """Return the name of the rule that training clips are drawn by.

    Raises:
        InvalidArgumentError: There is no such rule.
    """
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    return sampler


def check_augment(augment: bool | Mapping[str, Any], sampler: str) -> AugmentationConfig | None:
    """Return how training clips are changed, None for not at all.

    Raises:
        InvalidArgumentError: ``augment`` is neither a bool nor a dict of the config's fields, or
            changes nothing but the padding, which the sampler does not make.
    """
    if isinstance(augment, bool):
        return AugmentationConfig() if augment else None
    if not isinstance(augment, Mapping):
        raise InvalidArgumentError(
            f"argument 'augment' is {augment!r}: accepted are True, False and a dict of options "
            "such as {'scale': 0.1}"
        )
    config = AugmentationConfig.from_options(augment)
    if config.mode == "padding" and sampler != "pysot":
        raise InvalidArgumentError(
            f"argument 'augment' changes the padding, and sampler {sampler!r} makes none: needed "
            "is sampler 'pysot'"
        )
    return config


def check_num_frames(num_frames: int | None) -> int | None:
    """Return the length of clips, None for whole sequences.

    Raises:
        InvalidArgumentError: It leaves no frame to track.
    """
    if num_frames is None:
        return None
    return check_count("argument 'num_frames' (None takes whole sequences)", num_frames, least=2)


def check_render_mode(render_mode: str | None) -> str | None:
    """Return the render mode.

    Raises:
        InvalidArgumentError: It is neither None nor a known one.
    """
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise unknown("render_mode", render_mode, (*RENDER_MODES, "None"))
    return render_mode


def open_sequences(
    dataset: str,
    root: str | Path | Mapping[str, str] | None,
    split: str,
    options: Mapping[str, Any] | None,
) -> SequenceDataset:
    """Open the dataset of an environment.

    Raises:
        InvalidArgumentError: A name or an option is not accepted.
        DatasetNotFoundError: There is nothing to read.
    """
    if options is not None and not isinstance(options, Mapping):
        raise InvalidArgumentError(
            f"argument 'dataset_options' is {options!r}: accepted are None or a dict of options"
        )
    opened = open_dataset(dataset, root=root, split=split, **dict(options or {}))
    if not len(opened):
        raise DatasetNotFoundError(f"split {split!r} of dataset {dataset!r} holds no sequence")
    return opened
