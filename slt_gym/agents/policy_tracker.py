"""Policies of any algorithm as trackers, outside the environment that they were trained in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from slt_gym.agents.tracker import Tracker, check_frame, check_start
from slt_gym.envs.action_forms import make_form
from slt_gym.envs.episode import EpisodeRules, write_boxes
from slt_gym.errors import CheckpointError, InvalidArgumentError, SltGymError, unknown
from slt_gym.geometry import get_geometry, list_geometries

# Where an algorithm's class is looked for, in this order.
_LIBRARIES = ("slt_gym.agents", "stable_baselines3", "sb3_contrib")


class PolicyTracker(Tracker):
    """A policy in the dynamics of the environment that it was trained in.

    Args:
        model: Has Stable-Baselines3's ``predict(observation, state, episode_start,
            deterministic)``: an algorithm or a policy.
        rules: The environment's; its geometry and its form of actions matter.
        name: The tracker's name.
    """

    def __init__(self, model: Any, rules: EpisodeRules, name: str = "policy") -> None:
        self.model = model
        self.rules = rules
        self.name = name
        self._template: NDArray[np.uint8] | None = None

    def init(self, frame: NDArray[np.uint8], box: ArrayLike) -> None:
        """Start on ``frame`` with the target at ``box``, see :class:`Tracker`."""
        self._first_box = self._box = check_start(frame, box)
        geometry = self.rules.geometry
        self._fill = geometry.fill_colour(frame)
        window = geometry.template_window(self._box)
        self._template = geometry.crop(frame, window, geometry.template_size, self._fill)
        self._state: Any = None
        self._starts = True

    def update(self, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Find the target in the next frame, see :class:`Tracker`."""
        if self._template is None:
            raise SltGymError("update was called before init: give the first frame and its box")
        check_frame(frame)
        geometry, form = self.rules.geometry, self.rules.form
        size = frame.shape[1], frame.shape[0]
        taken: list[Any] = []
        while not taken or not form.ends_frame(taken):
            window = geometry.search_window(self._box, size)
            observation = {
                key: np.empty(space.shape or (), space.dtype)
                for key, space in self.rules.observation_space.items()
            }
            observation["template"][:] = self._template
            geometry.crop(frame, window, geometry.search_size, self._fill, observation["search"])
            write_boxes(observation, self.rules, self._box, window, self._first_box)
            actions, self._state = self.model.predict(
                {key: value[None] for key, value in observation.items()},
                state=self._state,
                episode_start=np.array([self._starts]),
                deterministic=True,
            )
            self._starts = False
            taken.append(form.check(np.asarray(actions)[0]))
            chosen = window.to_frame(form.decode(taken[-1], window.to_crop(self._box)))
            self._box = np.asarray(geometry.limit(chosen, size), np.float64)
        return self._box.copy()


def load_policy_tracker(
    path: str | Path,
    algorithm: str,
    geometry: str | None = None,
    device: str = "cpu",
    action: str = "box",
    action_options: Mapping[str, Any] | None = None,
) -> PolicyTracker:
    """Load a model that Stable-Baselines3 saved, as a tracker.

    Such files hold pickled objects: load only those that you trust.

    Args:
        path: The model's ``.zip``.
        algorithm: Its class: ``"SLT"``, ``"PPO"``, … of this library, Stable-Baselines3 or
            sb3-contrib, or ``"module:Class"``.
        geometry: That of the environment it was trained in; None takes a tracker's policy's own.
        device: PyTorch's.
        action: The environment's.
        action_options: The same.

    Raises:
        CheckpointError: The file cannot be read.
        InvalidArgumentError: There is no such algorithm, geometry or action, or the model was
            trained with other observations or actions.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"there is no model {path}: expected is a .zip that SB3's save wrote")
    cls = find_algorithm(algorithm)
    try:
        model = cls.load(path, device=device)
    except (ValueError, KeyError, AttributeError, RuntimeError, AssertionError) as error:
        raise CheckpointError(f"cannot load {path} as a model of {algorithm}: {error}") from None
    chosen = geometry or getattr(model.policy, "tracker", None)
    if chosen is None:
        raise InvalidArgumentError(
            f"give the geometry that {path} was trained with: one of {', '.join(list_geometries())}"
        )
    rules = EpisodeRules(get_geometry(chosen), form=make_form(action, action_options))
    if not isinstance(model.observation_space, spaces.Dict):
        raise InvalidArgumentError(
            f"{path} was not trained in a tracking environment: it observes "
            f"{model.observation_space}"
        )
    _compare(path, "action", {"action": model.action_space}, {"action": rules.action_space})
    _compare(path, "geometry", model.observation_space.spaces, rules.observation_space.spaces)
    return PolicyTracker(model, rules, path.stem)


def find_algorithm(name: str) -> Any:
    """Return the class of an algorithm: of this library, Stable-Baselines3 or sb3-contrib.

    Args:
        name: The class's name, or ``"module:Class"`` of another one.

    Raises:
        InvalidArgumentError: There is none.
    """
    module, colon, attribute = name.partition(":")
    places = [(module, attribute)] if colon else [(library, name) for library in _LIBRARIES]
    for module, attribute in places:
        try:
            cls = getattr(import_module(module), attribute, None)
        except ImportError:
            continue
        if cls is not None and hasattr(cls, "load"):
            return cls
    raise unknown("algorithm", name, ["SLT", "PPO", "A2C", "SAC", "…", "module:Class"])


def _compare(
    path: Path,
    argument: str,
    trained: Mapping[str, spaces.Space[Any]],
    given: Mapping[str, spaces.Space[Any]],
) -> None:
    """Refuse a model whose spaces are not those of the environment that was named."""
    for key in sorted({*trained, *given}):
        if trained.get(key) != given.get(key):
            raise InvalidArgumentError(
                f"{path} was trained with {key} {_show(trained.get(key))}, and the {argument} that "
                f"was given makes {_show(given.get(key))}: give the one it was trained with"
            )


def _show(space: spaces.Space[Any] | None) -> str:
    return "none" if space is None else str(space)
