"""Actions: how four numbers in [-1, 1] name a box of the search crop; checks of what is given."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry import from_cxcywh, to_cxcywh

# The action of a box centred in the crop and as large as the crop is all zeros.
_CENTRE = np.array([0.5, 0.5, 1.0, 1.0])


def box_to_action(box_crop: ArrayLike) -> NDArray[np.float32]:
    """Convert boxes to the actions that choose them (``action="box"``).

    Args:
        box_crop: Shape ``(..., 4)``, ``(x, y, w, h)`` in crop units of the search window.

    Returns:
        Actions, float32 in [-1, 1], shape ``(..., 4)``: centre ``- 0.5`` and size ``- 1``. What
        lies outside that range (a centre more than half a crop beside the crop, a side above
        twice the crop's) is cut to it.
    """
    action = to_cxcywh(np.asarray(box_crop, np.float64)) - _CENTRE
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def action_to_box(action: ArrayLike) -> NDArray[np.float64]:
    """Convert actions (``action="box"``) to the boxes that they choose.

    Args:
        action: Shape ``(..., 4)``: centre ``= 0.5 + a[:2]``, size ``= 1 + a[2:]``.

    Returns:
        Boxes ``(x, y, w, h)`` in crop units of the search window, shape ``(..., 4)``.
    """
    return np.asarray(from_cxcywh(np.asarray(action, np.float64) + _CENTRE), np.float64)


def check_action(action: ArrayLike, shape: tuple[int, ...] = (4,)) -> NDArray[np.float64]:
    """Return an action, or a batch of them, as float64 cut to [-1, 1].

    Raises:
        InvalidArgumentError: The shape is another one, or a number is not finite.
    """
    try:
        values = np.asarray(action, np.float64)
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"action {action!r} is not an array of numbers: needed is the shape {shape}"
        ) from None
    if values.shape != shape:
        raise InvalidArgumentError(f"action has shape {values.shape}: needed is {shape}")
    if not np.isfinite(values).all():
        raise InvalidArgumentError(
            f"action {values.tolist()} is not finite: accepted are numbers from -1 to 1"
        )
    return np.minimum(np.maximum(values, -1.0), 1.0)  # np.clip takes longer


def check_choice(action: ArrayLike, choices: int, shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
    """Return the number of a choice, or a batch of them, as int64.

    Raises:
        InvalidArgumentError: The shape is another one, or a number is no whole one or out of range.
    """
    values = np.asarray(action)
    if values.dtype.kind not in "iu":
        raise InvalidArgumentError(
            f"action {action!r} is no whole number: accepted are 0 to {choices - 1}"
        )
    if values.shape != shape:
        raise InvalidArgumentError(f"action has shape {values.shape}: needed is {shape}")
    if ((values < 0) | (values >= choices)).any():
        raise InvalidArgumentError(
            f"action {values.tolist()} is out of range: accepted are whole numbers from 0 to "
            f"{choices - 1}"
        )
    return values.astype(np.int64)
