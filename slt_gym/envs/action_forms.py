"""Forms of actions: what an agent says about a frame, and the box that it means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from slt_gym.envs.actions import action_to_box, box_to_action, check_action, check_choice
from slt_gym.errors import InvalidArgumentError, unknown
from slt_gym.geometry import from_cxcywh, iou, to_cxcywh

# ADNet's moves: steps to the right, steps down, steps in size. Each is followed by its opposite,
# and the last one stops.
_MOVES = (
    *((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0)),  # left, right, up, down
    *((-2, 0, 0), (2, 0, 0), (0, -2, 0), (0, 2, 0)),  # the same, twice as far
    *((0, 0, 1), (0, 0, -1)),  # bigger, smaller
    (0, 0, 0),  # stop
)
_STOP = len(_MOVES) - 1
_LEAST_GAIN = 1e-9  # in IoU; less is rounding


class ActionForm(ABC):
    """How an agent's actions name boxes.

    A form holds constants only and serves any number of tracks. Boxes are ``(x, y, w, h)`` in crop
    units of the search window, unlimited: the geometry's rule is applied afterwards.

    Attributes:
        steps_per_frame: The largest number of actions that one frame takes.
    """

    steps_per_frame: int = 1

    @property
    def choices(self) -> int | None:
        """The number of actions to choose from; None where an action is four numbers."""
        return None

    @property
    def space(self) -> spaces.Box | spaces.Discrete:
        """The space of one track's actions."""
        if self.choices is None:
            return spaces.Box(-1.0, 1.0, (4,), np.float32)
        return spaces.Discrete(self.choices)

    def check(self, actions: ArrayLike, batch: tuple[int, ...] = ()) -> NDArray[Any]:
        """Return an action, or those of ``batch[0]`` tracks, checked and ready for :meth:`decode`.

        Raises:
            InvalidArgumentError: The shape or the type is another one, a number is not finite or a
                choice is none of the space's.
        """
        if self.choices is None:
            return check_action(actions, (*batch, 4))
        return check_choice(actions, self.choices, batch)

    @abstractmethod
    def decode(self, action: Any, box_crop: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the box that an action names.

        Args:
            action: Checked already.
            box_crop: The previous estimate.
        """

    @abstractmethod
    def encode(
        self, target_crop: NDArray[np.float64], box_crop: NDArray[np.float64]
    ) -> NDArray[np.float32] | int:
        """Return the action that comes nearest to a box: what :meth:`decode` undoes.

        Args:
            target_crop: The box that is wanted, with an area.
            box_crop: The previous estimate.
        """

    def ends_frame(self, taken: Sequence[Any]) -> bool:
        """Tell whether the frame is done after the actions ``taken`` in it, at least one."""
        del taken
        return True

    def propose(self, box_crop: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return the boxes ``(N, 4)`` that the observation lists, None if it lists none."""
        del box_crop
        return None


@dataclass(frozen=True)
class BoxForm(ActionForm):
    """``action="box"``: the box itself, see :func:`slt_gym.envs.action_to_box`."""

    def decode(self, action: Any, box_crop: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the box that an action ``(4,)`` is."""
        del box_crop
        return action_to_box(action)

    def encode(
        self, target_crop: NDArray[np.float64], box_crop: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return the box itself, see :func:`slt_gym.envs.box_to_action`."""
        del box_crop
        return box_to_action(target_crop)


@dataclass(frozen=True)
class DeltaForm(ActionForm):
    """``action="delta"``: how the previous estimate moves and grows.

    ``a[:2]`` shifts it, in its own widths and heights; ``a[2:]`` is log2 of the factors of its
    width and height. All zeros keep it.
    """

    def decode(self, action: Any, box_crop: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the previous estimate, moved by an action ``(4,)``."""
        return _move(box_crop, action[:2], np.exp2(action[2:]))

    def encode(
        self, target_crop: NDArray[np.float64], box_crop: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return the shift and the growth ``(4,)``, each cut to [-1, 1]."""
        target, box = to_cxcywh(target_crop), to_cxcywh(box_crop)
        shift = (target[:2] - box[:2]) / box[2:]
        growth = np.log2(target[2:] / box[2:])
        return np.clip(np.concatenate([shift, growth]), -1.0, 1.0).astype(np.float32)


@dataclass(frozen=True)
class MovesForm(ActionForm):
    """``action="moves"``: the eleven moves of ADNet (Yun et al., CVPR 2017), several a frame.

    0 left, 1 right, 2 up, 3 down; 4 to 7 the same, twice as far; 8 bigger, 9 smaller; 10 stop.

    Besides "stop", a frame ends after ``max_moves`` moves, or when the agent oscillates: when it
    makes a move, its opposite and the same move again, as in left, right, left.

    Attributes:
        step: Length of a move, in the box's widths or heights, and by how much "bigger" enlarges.
            Differs from ADNet: "smaller" divides by ``1 + step``, so that it undoes "bigger".
        max_moves: The largest number of moves in a frame, "stop" included.
    """

    step: float = 0.03  # ADNet
    max_moves: int = 20  # ADNet

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        _require(_is_number(self.step) and 0 < self.step < 1, self, "step", "numbers from 0 to 1")
        whole = isinstance(self.max_moves, int) and not isinstance(self.max_moves, bool)
        _require(whole and self.max_moves > 0, self, "max_moves", "whole numbers from 1 up")

    @property
    def steps_per_frame(self) -> int:  # type: ignore[override]
        """``max_moves``."""
        return self.max_moves

    @property
    def choices(self) -> int:
        """Eleven."""
        return len(_MOVES)

    def decode(self, action: Any, box_crop: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the estimate after one move."""
        right, down, bigger = _MOVES[action]
        shift = self.step * np.array([right, down])
        return _move(box_crop, shift, np.full(2, (1 + self.step) ** bigger))

    def encode(self, target_crop: NDArray[np.float64], box_crop: NDArray[np.float64]) -> int:
        """Return the best next move, or "stop" where none comes nearer."""
        moved = np.stack([self.decode(action, box_crop) for action in range(self.choices)])
        nearness = _nearness(moved, target_crop)
        best = int(nearness.argmax())
        # Every move gains, so that none is ever undone.
        return best if nearness[best] > nearness[_STOP] + _LEAST_GAIN else _STOP

    def ends_frame(self, taken: Sequence[Any]) -> bool:
        """Tell whether the frame's moves so far end it."""
        if taken[-1] == _STOP or len(taken) >= self.max_moves:
            return True
        # Opposite moves are neighbours in the table: their numbers differ in the last bit.
        return len(taken) > 2 and taken[-3] == taken[-1] == taken[-2] ^ 1


@dataclass(frozen=True)
class ProposalsForm(ActionForm):
    """``action="proposals"``: one of N boxes around the previous estimate.

    Their centres form a square grid, denser in its middle: with u going from -1 to 1 in ``grid``
    equal steps, they are ``reach * u * |u|`` previous widths (heights) to the right (below).
    At each centre stand all combinations of ``scales`` and ``ratios``:
    ``N = grid^2 * len(scales) * len(ratios)``, 729 by default. The last index changes fastest in
    (row, column, scale, ratio). With the default values the middle one, N // 2, is the previous
    estimate.

    Attributes:
        grid: Centres in a row and in a column.
        reach: From the middle to the outermost centre, in previous widths or heights.
        scales: Factors of the size.
        ratios: Factors of the aspect ratio, width over height; the area stays.
    """

    grid: int = 9
    reach: float = 1.0
    scales: Sequence[float] = (1 / 1.1, 1.0, 1.1)
    ratios: Sequence[float] = (1 / 1.1, 1.0, 1.1)

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        whole = isinstance(self.grid, int) and not isinstance(self.grid, bool)
        _require(whole and self.grid > 1, self, "grid", "whole numbers from 2 up")
        _require(_is_number(self.reach) and self.reach > 0, self, "reach", "numbers above 0")
        for name in ("scales", "ratios"):
            values = getattr(self, name)
            listed = isinstance(values, (list, tuple)) and len(values) > 0
            positive = listed and all(_is_number(value) and value > 0 for value in values)
            _require(positive, self, name, "lists of numbers above 0")

    @property
    def choices(self) -> int:
        """N."""
        return self.grid**2 * len(self.scales) * len(self.ratios)

    def decode(self, action: Any, box_crop: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the box of that number."""
        return self.propose(box_crop)[action]

    def encode(self, target_crop: NDArray[np.float64], box_crop: NDArray[np.float64]) -> int:
        """Return the number of the best box."""
        return int(_nearness(self.propose(box_crop), target_crop).argmax())

    def propose(self, box_crop: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the boxes to choose from, shape ``(N, 4)``."""
        u = np.linspace(-1.0, 1.0, self.grid)
        shifts = self.reach * u * np.abs(u)
        down, right, scale, ratio = (
            axis.reshape(-1)
            for axis in np.meshgrid(
                shifts, shifts, self.scales, np.sqrt(self.ratios), indexing="ij"
            )
        )
        return _move(
            box_crop,
            np.stack([right, down], axis=-1),
            np.stack([scale * ratio, scale / ratio], axis=-1),
        )


# What the environments' argument ``action`` accepts.
ACTIONS: dict[str, type[ActionForm]] = {
    "box": BoxForm,
    "delta": DeltaForm,
    "moves": MovesForm,
    "proposals": ProposalsForm,
}


def make_form(action: str, options: Mapping[str, Any] | None = None) -> ActionForm:
    """Return the form of actions of that name.

    Args:
        action: One of :data:`ACTIONS`.
        options: Values of the form's attributes, by name.

    Raises:
        InvalidArgumentError: There is no such form or option, or a value is out of range.
    """
    if not isinstance(action, str) or action not in ACTIONS:
        raise unknown("action", action, ACTIONS)
    if options is not None and not isinstance(options, Mapping):
        raise InvalidArgumentError(
            f"argument 'action_options' is {options!r}: accepted are None or a dict of options"
        )
    form = ACTIONS[action]
    names = [field.name for field in fields(form)]  # type: ignore[arg-type]
    for name in options or {}:
        if not names:
            raise InvalidArgumentError(
                f"argument 'action_options' holds {name!r}, and action {action!r} has no options"
            )
        if name not in names:
            raise unknown(f"option of action {action!r}", name, names)
    return form(**(options or {}))


def _move(
    box: NDArray[np.float64], shift: NDArray[np.floating], factor: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Shift a box by ``shift`` of its sizes, multiply these by ``factor``; both ``(..., 2)``."""
    cxcywh = to_cxcywh(box)
    centre, size = cxcywh[:2], cxcywh[2:]
    return from_cxcywh(np.concatenate([centre + shift * size, size * factor], axis=-1))


def _nearness(boxes: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what boxes ``(N, 4)`` are compared by, ``(N,)``.

    It is the IoU with ``target``; of boxes beside it, the centres' distance, as a negative number.
    """
    overlap = iou(boxes, target)
    between = np.linalg.norm(to_cxcywh(boxes)[:, :2] - to_cxcywh(target)[:2], axis=-1)
    return np.where(overlap > 0, overlap, -between)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)


def _require(holds: bool, form: ActionForm, option: str, accepted: str) -> None:
    if not holds:
        action = next(name for name, cls in ACTIONS.items() if cls is type(form))
        raise InvalidArgumentError(
            f"option {option!r} of action {action!r} is {getattr(form, option)!r}: accepted are "
            f"{accepted}"
        )
