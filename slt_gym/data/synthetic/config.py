"""The difficulty knobs of synthetic video."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from slt_gym.errors import InvalidArgumentError, unknown

# Accepted values of each knob, both ends included.
_RANGES: dict[str, tuple[float, float]] = {
    "num_frames": (2, 100_000),
    "width": (64, 4096),
    "height": (64, 4096),
    "min_size": (0.04, 0.6),
    "max_size": (0.04, 0.6),
    "speed": (0.0, 0.3),
    "scale_change": (0.0, 0.15),
    "aspect_change": (0.0, 0.15),
    "rotation": (0.0, 30.0),
    "deformation": (0.0, 0.15),
    "appearance_change": (0.0, 1.0),
    "distractors": (0, 16),
    "min_similarity": (0.0, 1.0),
    "max_similarity": (0.0, 1.0),
    "occluders": (0, 16),
    "illumination": (0.0, 0.6),
    "camera_motion": (0.0, 0.1),
    "camera_shake": (0.0, 0.02),
    "blur": (0.0, 1.0),
    "noise": (0.0, 40.0),
}


@dataclass(frozen=True)
class SyntheticConfig:
    """What synthetic video looks like, and how hard it is to track in.

    Each sequence multiplies the rates of change by its own random factor (median 1, two thirds of
    them between 0.6 and 1.6), so that one dataset holds slow and fast sequences.

    Attributes:
        num_frames: Length of a sequence, frames; 2 to 100,000.
        width: Frame width, pixels; 64 to 4096.
        height: Frame height, pixels; 64 to 4096.
        min_size: Smallest target (square root of its area before deformation), as a fraction of
            the frame's shorter side; 0.04 to 0.6.
        max_size: Largest target, likewise; 0.04 to 0.6, not under ``min_size``.
        speed: Median displacement of the target, in target sizes a frame; 0 to 0.3. Bursts reach
            several times as much.
        scale_change: Typical change of the logarithm of the target's size in a frame; 0 to 0.15.
        aspect_change: Typical change of the logarithm of its aspect ratio in a frame; 0 to 0.15.
        rotation: Typical in-plane rotation, degrees a frame; 0 to 30.
        deformation: Standard deviation of each mode of the outline's wobble, relative to the
            radius; 0 to 0.15.
        appearance_change: How far the target's texture drifts towards a second one; 0 (fixed)
            to 1 (all the way).
        distractors: Largest number of look-alikes; 0 to 16. Each sequence has at least half as
            many; every second one stays near the target.
        min_similarity: Least similarity of a distractor to the target; 0 to 1.
        max_similarity: Greatest similarity; 0 (unrelated) to 1 (same shape and texture), not under
            ``min_similarity``.
        occluders: Largest number of objects that cross in front of the target; 0 to 16.
        illumination: Standard deviation of the logarithm of the frame's gain; 0 to 0.6.
        camera_motion: Typical motion of the background, as a fraction of the frame's shorter side
            a frame; 0 to 0.1.
        camera_shake: Standard deviation of the jitter that moves the whole picture, as a fraction
            of the frame's shorter side; 0 to 0.02.
        blur: Probability that a frame is blurred (out of focus, or by motion); 0 to 1.
        noise: Standard deviation of the sensor's noise, grey levels of 255; 0 to 40.
    """

    num_frames: int = 64
    width: int = 320
    height: int = 240
    min_size: float = 0.09
    max_size: float = 0.36
    speed: float = 0.05
    scale_change: float = 0.02
    aspect_change: float = 0.02
    rotation: float = 3.0
    deformation: float = 0.04
    appearance_change: float = 0.6
    distractors: int = 2
    min_similarity: float = 0.3
    max_similarity: float = 0.9
    occluders: int = 2
    illumination: float = 0.12
    camera_motion: float = 0.006
    camera_shake: float = 0.002
    blur: float = 0.1
    noise: float = 4.0

    def __post_init__(self) -> None:
        for field in fields(self):
            check_number(
                field.name,
                getattr(self, field.name),
                *_RANGES[field.name],
                whole=isinstance(field.default, int),
            )
        for low, high in (("min_size", "max_size"), ("min_similarity", "max_similarity")):
            if getattr(self, low) > getattr(self, high):
                raise InvalidArgumentError(
                    f"{low} {getattr(self, low)} is above {high} {getattr(self, high)}: "
                    f"accepted are values up to it"
                )

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> SyntheticConfig:
        """Build a config from keywords.

        Raises:
            InvalidArgumentError: A keyword is unknown, or its value is not accepted.
        """
        names = [field.name for field in fields(cls)]
        for name in options:
            if name not in names:
                raise unknown("option of synthetic video", name, names)
        return cls(**options)

    @property
    def side(self) -> int:
        """The frame's shorter side, pixels."""
        return min(self.width, self.height)


def check_number(name: str, value: Any, low: float, high: float, whole: bool) -> None:
    """Refuse a value that is not a number of the accepted kind and range.

    Raises:
        InvalidArgumentError: The value is not accepted.
    """
    kinds = int if whole else (int, float)
    if (
        isinstance(value, bool)
        or not isinstance(value, kinds)
        or not math.isfinite(value)
        or not low <= value <= high
    ):
        kind = "whole numbers" if whole else "numbers"
        raise InvalidArgumentError(f"{name} is {value!r}: accepted are {kind} from {low} to {high}")
