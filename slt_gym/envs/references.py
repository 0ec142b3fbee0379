"""References to a step's two observations: what it takes to crop them again, packed.

An observation is a function of few things: the template's frame, the frame that is shown, the
estimate that the search window lies around, and, of augmented clips, what was done to the frames.
Each step's info holds these of the observation before and after it (``"reference"``).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slt_gym.data import Clip
from slt_gym.data.transform import FrameTransform

_TEMPLATE = Struct("<i3B")
_VIEW = Struct("<i2I4d")
_ALL_BUT_TRANSFORMS = Struct("<i3B" + 2 * "i2I4d")
# Size, window, flip, colour, blur; all zeros stand for no transform.
_TRANSFORM = Struct("<2I4d?3dHd")
_NOTHING = bytes(_TRANSFORM.size)
_NAN = float("nan")

TRANSFORM_BYTES = _TRANSFORM.size


class View(NamedTuple):
    """What an observation shows of its clip.

    Attributes:
        frame: The frame's number in the sequence.
        size: ``(W, H)`` that the search window was placed for, pixels.
        box: The estimate that it lies around, ``(x, y, w, h)``, frame pixels.
        transform: What was done to the frame, packed; empty for nothing.
    """

    frame: int
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    transform: bytes


class StepReference(NamedTuple):
    """The observations before and after a step.

    Attributes:
        template: Frame number of the template.
        template_transform: What was done to the template's frame, packed; empty for nothing.
        before: What the agent saw.
        after: What it saw next; of an ended episode, its last observation.
        fill: The padding colour, R, G and B. It follows from the template's frame.
    """

    template: int
    template_transform: bytes
    before: View
    after: View
    fill: tuple[int, int, int]


def make_view(clip: Clip, i: int, size: tuple[int, int], box: NDArray[np.float64]) -> View:
    """Describe an observation of frame ``i`` of a clip."""
    transform = clip.transforms[i] if clip.transforms else None
    x, y, w, h = box.tolist()
    return View(int(clip.frames[i]), size, (x, y, w, h), pack_transform(transform))


def pack_reference(
    clip: Clip, before: View, after: View, fill: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Pack a step's reference for its info: uint8, one shape for all clips, a fresh array."""
    first = (clip.template, *fill.tolist())
    views = (before.frame, *before.size, *before.box, after.frame, *after.size, *after.box)
    transforms = pack_transform(clip.template_transform), before.transform, after.transform
    parts = [transform or _NOTHING for transform in transforms]
    packed = b"".join((_ALL_BUT_TRANSFORMS.pack(*first, *views), *parts))
    return np.frombuffer(bytearray(packed), np.uint8)


def unpack_reference(packed: NDArray[np.uint8]) -> StepReference:
    """Undo :func:`pack_reference`."""
    data = packed.tobytes()
    template, *fill = _TEMPLATE.unpack_from(data)
    first = _TEMPLATE.size + 2 * _VIEW.size
    transforms = [
        b"" if part == _NOTHING else part
        for part in (data[first + k * TRANSFORM_BYTES :][:TRANSFORM_BYTES] for k in range(3))
    ]
    views = []
    for k, transform in enumerate(transforms[1:]):
        numbers = _VIEW.unpack_from(data, _TEMPLATE.size + k * _VIEW.size)
        views.append(View(numbers[0], numbers[1:3], numbers[3:], transform))
    return StepReference(template, transforms[0], views[0], views[1], tuple(fill))


def pack_transform(transform: FrameTransform | None) -> bytes:
    """Pack what is done to a frame, exactly; empty for nothing."""
    if transform is None:
        return b""
    window: Sequence[float] = transform.window or (_NAN,) * 4
    colour: Sequence[float] = transform.colour or (_NAN,) * 3
    blur = transform.blur or (0, 0.0)
    return _TRANSFORM.pack(*transform.size, *window, transform.flip, *colour, *blur)


def unpack_transform(packed: bytes) -> FrameTransform | None:
    """Undo :func:`pack_transform`."""
    if not packed:
        return None
    width, height, *numbers = _TRANSFORM.unpack(packed)
    window, flip, colour, blur = numbers[:4], numbers[4], numbers[5:8], numbers[8:]
    return FrameTransform(
        (width, height),
        None if window[0] != window[0] else tuple(window),
        flip,
        None if colour[0] != colour[0] else tuple(colour),
        tuple(blur) if blur[0] else None,
    )
