"""Random processes that move things: smooth, bounded, and computed a whole sequence at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.data.synthetic.config import SyntheticConfig

FloatArray = NDArray[np.float64]

# Roundness of the turning points of `bounce`: 1 is a sharp triangle wave.
_SHARPNESS = 0.98


def ornstein_uhlenbeck(
    rng: np.random.Generator, n: int, stds: ArrayLike, taus: ArrayLike
) -> FloatArray:
    """Draw stationary, independent Ornstein-Uhlenbeck processes.

    Args:
        rng: Source of randomness.
        n: Number of frames.
        stds: Standard deviation of each process at any frame, shape ``(k,)``.
        taus: Correlation time of each, frames, shape ``(k,)``.

    Returns:
        Shape ``(k, n)``.
    """
    keep = np.exp(-1.0 / np.asarray(taus, np.float64))[:, None]
    paths = np.asarray(stds, np.float64)[:, None] * rng.standard_normal((len(keep), n))
    paths[:, 1:] *= np.sqrt(1.0 - keep * keep)
    # x[t] = kick[t] + keep * x[t - 1], for all t at once: each pass doubles the memory's reach.
    reach = 1
    while reach < n and keep.max() > 1e-12:
        paths[:, reach:] += keep * paths[:, :-reach].copy()
        reach, keep = 2 * reach, keep * keep
    return paths


def bounce(x: FloatArray | float) -> FloatArray:
    """Fold a line into [-1, 1], like a ball between two walls but with smooth turns.

    The slope is 1 at 0 and never above, so that a speed limit survives the folding.
    """
    scale = math.asin(_SHARPNESS)
    return np.arcsin(_SHARPNESS * np.sin(np.asarray(x) * scale / _SHARPNESS)) / scale


def unbounce(y: float) -> float:
    """Return the ``x`` next to 0 with ``bounce(x) == y``; ``y`` in [-1, 1]."""
    scale = math.asin(_SHARPNESS)
    return math.asin(math.sin(y * scale) / _SHARPNESS) * _SHARPNESS / scale


def wander(start: float, steps: FloatArray, low: float, high: float) -> FloatArray:
    """Walk from ``start`` and turn smoothly at ``low`` and ``high``.

    Args:
        start: Value at frame 0; brought inside the limits.
        steps: Step before each frame, shape ``(n,)``; the first is not taken.
        low: Lower limit.
        high: Upper limit, above ``low``, or equal to it for a constant.

    Returns:
        Values within the limits, shape ``(n,)``.
    """
    half, middle = (high - low) / 2, (high + low) / 2
    if half <= 0:
        return np.full(len(steps), middle)
    origin = unbounce(min(max((start - middle) / half, -1.0), 1.0))
    travelled = np.cumsum(steps) - steps[0]
    return middle + half * bounce(origin + travelled / half)


@dataclass(frozen=True)
class Track:
    """An object's pose in every frame.

    Attributes:
        centre: ``(x, y)``, frame pixels, shape ``(n, 2)``.
        size: Width and height in the object's own axes, pixels, shape ``(n, 2)``.
        angle: Rotation from the object's axes to the frame's, radians, shape ``(n,)``.
        wobble: Amplitudes of the outline's modes, relative to the radius, shape ``(n, modes)``.
    """

    centre: FloatArray
    size: FloatArray
    angle: FloatArray
    wobble: FloatArray


@dataclass(frozen=True)
class Motion:
    """What drives an object, before any limits.

    Attributes:
        velocity: Displacement before each frame, object sizes, shape ``(n, 2)``.
        growth: Change of log size before each frame, shape ``(n,)``.
        stretching: Change of log aspect ratio before each frame, shape ``(n,)``.
        turning: Rotation before each frame, radians, shape ``(n,)``.
        wobble: Amplitudes of the outline's modes, shape ``(n, modes)``.
    """

    velocity: FloatArray
    growth: FloatArray
    stretching: FloatArray
    turning: FloatArray
    wobble: FloatArray


def draw_motion(rng: np.random.Generator, config: SyntheticConfig, modes: int) -> Motion:
    """Draw what drives an object, with its own temperament: calm in one respect, lively in another.

    Args:
        rng: Source of randomness.
        config: The typical rates.
        modes: Number of modes of its outline.
    """
    paces = np.exp(0.5 * rng.standard_normal(4))
    rates = (config.scale_change, config.aspect_change, math.radians(config.rotation))
    stds = [0.5, 1.0, 1.0, *(paces[1:] * rates), *[config.deformation] * modes]
    taus = [12.0, 10.0, 10.0, 8.0, 8.0, 10.0, *[6.0] * modes]
    paths = ornstein_uhlenbeck(rng, config.num_frames, stds, taus)
    return Motion(
        velocity=burst(paths[:3], config.speed, paces[0]),
        growth=paths[3],
        stretching=paths[4],
        turning=paths[5],
        wobble=np.minimum(np.maximum(paths[6:].T, -0.25), 0.25),
    )


def burst(paths: FloatArray, median_speed: float, pace: float) -> FloatArray:
    """Make velocities with calm spells and bursts.

    Args:
        paths: Logarithm of the activity, and two processes of unit variance; shape ``(3, n)``.
        median_speed: Median length over many sequences, any unit.
        pace: This sequence's factor.

    Returns:
        Velocities, in the unit of ``median_speed``, shape ``(n, 2)``.
    """
    # The median length of a standard normal 2-vector is 1.18.
    velocity = (paths[1:] * np.exp(paths[0])).T * (median_speed * pace / 1.18)
    # A soft ceiling, so that nothing jumps farther than a search window reaches.
    ceiling = max(8.0 * median_speed, 1e-9)
    speed = np.hypot(velocity[:, 0], velocity[:, 1])[:, None]
    return velocity / np.sqrt(1.0 + (speed / ceiling) ** 2)
