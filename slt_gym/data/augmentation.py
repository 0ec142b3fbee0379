"""Sequence augmentation: changing clips in time, space and colour.

All that is random is drawn when the clip is: the frames may be read later, in any order and by any
thread, and are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.clip import Clip
from slt_gym.data.jpeg import ReducedFrame
from slt_gym.data.sequence import Sequence
from slt_gym.data.transform import FrameTransform, draw_blur, draw_colour
from slt_gym.errors import InvalidArgumentError, unknown
from slt_gym.geometry import to_corners

_MODES = ("clip", "padding")


@dataclass(frozen=True)
class AugmentationConfig:
    """How clips are changed. Shift, scale, colour and blur are those of SLT-SiamAttn.

    Attributes:
        mode: ``"clip"``: one draw for all frames of a clip, the template's included.
            ``"padding"``, as published: each frame of the padding is drawn anew from the last real
            one, and then counts as real; clips without padding, and those whose last real frame
            shows no target, stay as they are.
        shift: The window moves by up to this share of its mean side, in each direction.
        scale: The window's width and height change by up to this share, each on its own.
        colour_probability: Share of draws with a shift of the colours.
        blur_probability: Share of draws with a blur.
        largest_blur: Largest side of the blur's kernel, pixels.
        flip_probability: Share of clips that are mirrored left to right, every frame and the
            template alike.
        reverse_probability: Share of clips that run backwards in time.
        max_stride: Frames are skipped: a clip is drawn from every k-th frame of the sequence, k
            uniform from 1 to this, or to what leaves as many frames as the clip has.
    """

    mode: str = "clip"
    shift: float = 0.1  # SLT-SiamAttn
    scale: float = 0.2  # SLT-SiamAttn
    colour_probability: float = 0.5  # SLT-SiamAttn
    blur_probability: float = 0.2  # SLT-SiamAttn
    largest_blur: int = 45  # SLT-SiamAttn
    # Differs from SLT, which does none of these.
    flip_probability: float = 0.0
    reverse_probability: float = 0.0
    max_stride: int = 1

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        if self.mode not in _MODES:
            raise unknown("mode of augmentation", self.mode, _MODES)
        for name in ("shift", "scale", *(f.name for f in fields(self) if "prob" in f.name)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise InvalidArgumentError(
                    f"{name}={value!r} of augmentation is out of range: accepted are numbers from "
                    "0 to 1"
                )
        for name, least in (("largest_blur", 5), ("max_stride", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidArgumentError(
                    f"{name}={value!r} of augmentation is out of range: accepted are whole numbers "
                    f"from {least} up"
                )

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> AugmentationConfig:
        """Build a config from some of its fields by name.

        Raises:
            InvalidArgumentError: A name is none of a field, or a value is out of range.
        """
        names = [field.name for field in fields(cls)]
        for name in options:
            if name not in names:
                raise unknown("option of augmentation", name, names)
        return cls(**options)  # type: ignore[arg-type]


def augment_clip(clip: Clip, rng: np.random.Generator, config: AugmentationConfig) -> Clip:
    """Draw a change of a clip's frames, and return the changed clip.

    The window never leaves a target outside: it is at least as large as the box around all the
    visible boxes that share the draw, and its shift stops at that box. One frame is read for its
    size, where that matters.

    Args:
        clip: As it was drawn; without transforms.
        rng: The source of randomness.
        config: What to draw. The fields about time are for :func:`draw_order`.

    Raises:
        FrameError: The frame whose size is needed cannot be read.
    """
    real = clip.real_frames
    padded = config.mode == "padding"
    if padded and (real == len(clip) or not clip.visible[real - 1]):
        return clip
    flip = rng.random() < config.flip_probability
    size = (0, 0)
    if flip or config.shift or config.scale:
        height, width = clip.read(real - 1).shape[:2]
        size = (width, height)
    still = FrameTransform(size, flip=flip)
    everywhere = still if flip else None
    if padded:
        box = clip.boxes[real - 1 : real]
        drawn = [_draw(box, still, rng, config) for _ in range(clip.padding)]
        transforms = (*[everywhere] * real, *drawn)
        return replace(clip, padding=0, transforms=transforms, template_transform=everywhere)
    boxes = np.concatenate([clip.boxes[clip.visible], clip.template_box[None]])
    shared = _draw(boxes, still, rng, config)
    return replace(clip, transforms=(shared,) * len(clip), template_transform=shared)


def draw_order(
    sequence: Sequence, rng: np.random.Generator, num_frames: int, config: AugmentationConfig
) -> tuple[Sequence, NDArray[np.int64]]:
    """Draw which frames of a sequence a clip may come from, and whether time runs backwards.

    Args:
        sequence: The sequence.
        rng: The source of randomness.
        num_frames: Frames that the clip will have.
        config: ``max_stride`` and ``reverse_probability`` count.

    Returns:
        The sequence as the sampler is to see it, and the numbers of its frames in ``sequence``.
    """
    numbers = np.arange(len(sequence), dtype=np.int64)
    largest = max(1, min(config.max_stride, len(sequence) // num_frames))
    stride = int(rng.integers(1, largest + 1))
    kept = numbers[int(rng.integers(stride)) :: stride]
    # Rarely, the target is hidden in nearly all the frames that are left.
    if sequence.visible[kept].sum() >= 2:
        numbers = kept
    if rng.random() < config.reverse_probability:
        numbers = numbers[::-1]
    if len(numbers) == len(sequence) and not (numbers[:1] > 0).any():
        return sequence, numbers
    return _Reordered(sequence, numbers), numbers


class _Reordered(Sequence):
    """Some frames of a sequence, in another order."""

    def __init__(self, sequence: Sequence, numbers: NDArray[np.int64]) -> None:
        super().__init__(sequence.name, sequence.boxes[numbers], sequence.visible[numbers])
        self._sequence, self._numbers = sequence, numbers

    def read(self, t: int) -> NDArray[np.uint8]:
        """Return frame ``t`` of the new order, RGB uint8, shape ``(H, W, 3)``."""
        return self._sequence.read(int(self._numbers[t]))

    def read_mask(self, t: int) -> NDArray[np.bool_] | None:
        """Return the target's mask in frame ``t`` of the new order, if it is known."""
        return self._sequence.read_mask(int(self._numbers[t]))

    def read_reduced(self, t: int, factor: int = 1, rows: int | None = None) -> ReducedFrame:
        """Return frame ``t`` of the new order, reduced if that is faster."""
        return self._sequence.read_reduced(int(self._numbers[t]), factor, rows)


def _draw(
    boxes: NDArray[np.float64],
    still: FrameTransform,
    rng: np.random.Generator,
    config: AugmentationConfig,
) -> FrameTransform:
    """Draw window, colour and blur for frames whose targets are ``boxes``, shape ``(N, 4)``."""
    window = _draw_window(boxes, still.size, rng, config)
    colour = draw_colour(rng) if rng.random() < config.colour_probability else None
    blur = None
    if rng.random() < config.blur_probability:
        blur = draw_blur(rng, config.largest_blur)
    return replace(still, window=window, colour=colour, blur=blur)


def _draw_window(
    boxes: NDArray[np.float64],
    size: tuple[int, int],
    rng: np.random.Generator,
    config: AugmentationConfig,
) -> tuple[float, float, float, float] | None:
    if not config.shift and not config.scale:
        return None
    frame = np.array(size, np.float64)
    corners = to_corners(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    scale = np.maximum(1 + rng.uniform(-1, 1, 2) * config.scale, (high - low) / frame)
    side = frame * scale
    # The centre stays, then the window moves; SLT-SiamAttn's bounds, the upper one first.
    corner = (frame - side) / 2
    reach = min(config.shift * side.mean(), boxes[:, 2:].sum(axis=1).min())
    shift = rng.uniform(-1, 1, 2) * reach
    shift = np.maximum(np.minimum(shift, low - corner), high - (corner + side))
    corner = corner + shift
    x, y, w, h = (float(number) for number in (*corner, *side))
    return x, y, w, h
