"""Policies of any algorithm as trackers, outside the environment that they were trained in."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from slt_gym.agents.tracker import Tracker, check_frame, check_start
from slt_gym.envs.actions import action_to_box, check_action
from slt_gym.envs.episode import BOX_BOUNDS
from slt_gym.errors import CheckpointError, InvalidArgumentError, SltGymError, unknown
from slt_gym.geometry import Geometry, get_geometry, list_geometries

# Where an algorithm's class is looked for, in this order.
_LIBRARIES = ("slt_gym.agents", "stable_baselines3", "sb3_contrib")


class PolicyTracker(Tracker):
    """A policy that was trained with ``action="box"``, in the environment's own dynamics.

    Args:
        model: Has Stable-Baselines3's ``predict(observation, state, episode_start,
            deterministic)``: an algorithm or a policy.
        geometry: That of the environment it was trained in.
        name: The tracker's name.
    """

    def __init__(self, model: Any, geometry: Geometry, name: str = "policy") -> None:
        self.model = model
        self.geometry = geometry
        self.name = name
        self._template: NDArray[np.uint8] | None = None

    def init(self, frame: NDArray[np.uint8], box: ArrayLike) -> None:
        """Start on ``frame`` with the target at ``box``, see :class:`Tracker`."""
        self._box = check_start(frame, box)
        geometry = self.geometry
        self._fill = geometry.fill_colour(frame)
        window = geometry.template_window(self._box)
        self._template = geometry.crop(frame, window, geometry.template_size, self._fill)
        template_box = np.clip(geometry.template_box(self._box), *BOX_BOUNDS)
        self._template_box = template_box.astype(np.float32)
        self._state: Any = None
        self._first = True

    def update(self, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Find the target in the next frame, see :class:`Tracker`."""
        if self._template is None:
            raise SltGymError("update was called before init: give the first frame and its box")
        check_frame(frame)
        geometry, size = self.geometry, (frame.shape[1], frame.shape[0])
        window = geometry.search_window(self._box, size)
        observation = {
            "box": np.clip(window.to_crop(self._box), *BOX_BOUNDS).astype(np.float32)[None],
            "search": geometry.crop(frame, window, geometry.search_size, self._fill)[None],
            "template": self._template[None],
        }
        if geometry.shows_template_box:
            observation["template_box"] = self._template_box[None]
        start = np.array([self._first])
        action, self._state = self.model.predict(
            observation, state=self._state, episode_start=start, deterministic=True
        )
        self._first = False
        box = action_to_box(check_action(np.asarray(action).reshape(-1)))
        self._box = np.asarray(geometry.limit(window.to_frame(box), size), np.float64)
        return self._box.copy()


def load_policy_tracker(
    path: str | Path, algorithm: str, geometry: str | None = None, device: str = "cpu"
) -> PolicyTracker:
    """Load a model that Stable-Baselines3 saved, as a tracker.

    Args:
        path: The model's ``.zip``.
        algorithm: Its class: ``"SLT"``, ``"PPO"``, … of this library, Stable-Baselines3 or
            sb3-contrib, or ``"module:Class"``.
        geometry: That of the environment it was trained in; None takes a tracker's policy's own.
        device: PyTorch's.

    Raises:
        CheckpointError: The file cannot be read.
        InvalidArgumentError: There is no such algorithm or geometry, or the model was trained with
            other observations or actions.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"there is no model {path}: expected is a .zip that SB3's save wrote")
    cls = _find_algorithm(algorithm)
    try:
        model = cls.load(path, device=device)
    except (ValueError, KeyError, AttributeError, RuntimeError, AssertionError) as error:
        raise CheckpointError(f"cannot load {path} as a model of {algorithm}: {error}") from None
    chosen = geometry or getattr(model.policy, "tracker", None)
    if chosen is None:
        raise InvalidArgumentError(
            f"give the geometry that {path} was trained with: one of {', '.join(list_geometries())}"
        )
    _check_spaces(model, chosen, path)
    return PolicyTracker(model, get_geometry(chosen), path.stem)


def _find_algorithm(name: str) -> Any:
    if ":" in name:
        module, _, attribute = name.partition(":")
        places = ((module, attribute),)
    else:
        places = tuple((library, name) for library in _LIBRARIES)
    for module, attribute in places:
        try:
            cls = getattr(import_module(module), attribute, None)
        except ImportError:
            continue
        if cls is not None and hasattr(cls, "load"):
            return cls
    raise unknown("algorithm", name, ["SLT", "PPO", "A2C", "SAC", "…", "module:Class"])


def _check_spaces(model: Any, geometry: str, path: Path) -> None:
    sizes = get_geometry(geometry)
    space, action = model.observation_space, model.action_space
    needed = {
        "search": (3, sizes.search_size, sizes.search_size),
        "template": (3, sizes.template_size, sizes.template_size),
    }
    boxes = {"box", "template_box"} if sizes.shows_template_box else {"box"}
    if not isinstance(space, spaces.Dict) or set(space) != {*boxes, *needed}:
        raise InvalidArgumentError(f"{path} was not trained in a tracking environment: {space}")
    for key, shape in needed.items():
        if space[key].shape != shape:
            raise InvalidArgumentError(
                f"{path} was trained with {key} crops of shape {space[key].shape}, and geometry "
                f"{geometry!r} makes {shape}: give the geometry it was trained with"
            )
    if not isinstance(action, spaces.Box) or action.shape != (4,):
        raise InvalidArgumentError(
            f"{path} was not trained with action='box' (its actions are {action})"
        )
