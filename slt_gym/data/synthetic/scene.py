"""The script of a synthetic sequence: what is in it, and where everything is in every frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.synthetic.config import SyntheticConfig
from slt_gym.data.synthetic.motion import (
    FloatArray,
    Motion,
    Track,
    burst,
    draw_motion,
    ornstein_uhlenbeck,
    wander,
)
from slt_gym.data.synthetic.shapes import (
    NUM_MODES,
    Shape,
    blend_shapes,
    bounding_boxes,
    draw_shape,
    hidden_fractions,
)

# A target of which less is left counts as absent.
MIN_VISIBLE_FRACTION = 0.15
_MAX_LOG_ASPECT = 0.7
# What the background's canvas extends beyond the frame, as a fraction of the shorter side.
CANVAS_MARGIN = 0.25
# What the noise extends beyond the frame, pixels.
NOISE_MARGIN = 64
# Typical change of the weight of the target's second texture, a frame.
_DRIFT = 0.012


@dataclass(frozen=True)
class Thing:
    """A moving object.

    Attributes:
        shape: Its outline.
        track: Its poses.
        similarity: How much of its looks it takes from the target; 1 for the target itself.
    """

    shape: Shape
    track: Track
    similarity: float


@dataclass(frozen=True)
class Camera:
    """What the camera does to the whole picture, frame by frame.

    Attributes:
        offset: Shift of the background, pixels, shape ``(n, 2)``.
        angle: Rotation of the background, radians, shape ``(n,)``.
        zoom: Magnification of the background, shape ``(n,)``.
        gain: Factor on grey levels, shape ``(n,)``.
        bias: Grey levels added, shape ``(n,)``.
        blur: Width of the blur, pixels (0: none), shape ``(n,)``.
        blur_angle: Direction of motion blur, radians; NaN for defocus; shape ``(n,)``.
        noise_at: Where the frame's noise is cut, pixels, shape ``(n, 2)``.
    """

    offset: FloatArray
    angle: FloatArray
    zoom: FloatArray
    gain: FloatArray
    bias: FloatArray
    blur: FloatArray
    blur_angle: FloatArray
    noise_at: NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """Everything that happens in a sequence, without any pixels.

    Attributes:
        things: Objects, from back to front.
        target: Index of the target in ``things``.
        camera: What the camera does.
        drift: Weight of the target's second texture, shape ``(n,)``.
        boxes: The target's ``(x, y, w, h)``, frame pixels, shape ``(n, 4)``.
        occlusion: Fraction of the target covered by things in front, shape ``(n,)``.
        hidden: Fraction of the target covered or outside the frame, shape ``(n,)``.
    """

    things: tuple[Thing, ...]
    target: int
    camera: Camera
    drift: FloatArray
    boxes: FloatArray
    occlusion: FloatArray
    hidden: FloatArray


def write_scene(rng: np.random.Generator, config: SyntheticConfig) -> Scene:
    """Draw a sequence's script.

    The target's centre stays inside the frame; in frame 0 the whole target is in view.
    """
    camera, shake = _move_camera(rng, config)
    shape = draw_shape(rng)
    target = Thing(shape, _move_target(rng, config, shape, shake), 1.0)

    behind: list[Thing] = []
    front: list[Thing] = []
    outlines = shape.pose(target.track)
    first = outlines[:1]
    low = (config.distractors + 1) // 2
    for k in range(int(rng.integers(low, config.distractors + 1))):
        thing = _move_distractor(rng, config, target, near=k % 2 == 0, shake=shake)
        blocked = _covers(thing, first, config)
        (behind if blocked or rng.random() < 0.6 else front).append(thing)
    for _ in range(int(rng.integers(0, config.occluders + 1))):
        for _attempt in range(4):
            thing = _move_occluder(rng, config, target, shake)
            if not _covers(thing, first, config):
                front.append(thing)
                break

    boxes = bounding_boxes(outlines)
    occlusion, hidden = _measure_hidden(outlines, front, boxes, config)
    drift = ornstein_uhlenbeck(rng, config.num_frames, [_DRIFT], [8.0])[0]
    return Scene(
        things=(*behind, target, *front),
        target=len(behind),
        camera=camera,
        drift=wander(0.0, drift, 0.0, config.appearance_change),
        boxes=boxes,
        occlusion=occlusion,
        hidden=hidden,
    )


def _follow(
    rng: np.random.Generator, config: SyntheticConfig, motion: Motion, first_size: float
) -> Track:
    """Draw an object's poses but for its place: all centres are zero."""
    low, high = math.log(config.min_size * config.side), math.log(config.max_size * config.side)
    log_size = wander(math.log(first_size), motion.growth, low, high)
    start = 0.3 * rng.standard_normal()
    log_aspect = wander(start, motion.stretching, -_MAX_LOG_ASPECT, _MAX_LOG_ASPECT)
    return Track(
        centre=np.zeros((config.num_frames, 2)),
        size=np.exp(log_size[:, None] + log_aspect[:, None] * (0.5, -0.5)),
        angle=rng.uniform(-math.pi, math.pi) + np.cumsum(motion.turning),
        wobble=motion.wobble,
    )


def _random_size(rng: np.random.Generator, config: SyntheticConfig) -> float:
    low, high = config.min_size * config.side, config.max_size * config.side
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _move_target(
    rng: np.random.Generator, config: SyntheticConfig, shape: Shape, shake: FloatArray
) -> Track:
    motion = draw_motion(rng, config, NUM_MODES)
    track = _follow(rng, config, motion, _random_size(rng, config))
    x, y, w, h = bounding_boxes(shape.pose(track, slice(0, 1)))[0].tolist()
    steps = motion.velocity * np.sqrt(track.size.prod(axis=1))[:, None]
    centre = np.empty_like(steps)
    inset = (0.06 + 0.2 * config.max_size) * config.side
    for axis, (extent, low, length) in enumerate(((config.width, x, w), (config.height, y, h))):
        # Frame 0 holds the whole box, even after the shake.
        room = max(extent - length, 0.0)
        start = rng.uniform(0.05, 0.95) * room - low
        centre[:, axis] = wander(start, steps[:, axis], inset, extent - inset)
    return replace(track, centre=centre + shake)


def _move_distractor(
    rng: np.random.Generator,
    config: SyntheticConfig,
    target: Thing,
    near: bool,
    shake: FloatArray,
) -> Thing:
    similarity = rng.uniform(config.min_similarity, config.max_similarity)
    shape = blend_shapes(draw_shape(rng), target.shape, similarity)
    target_size = np.sqrt(target.track.size.prod(axis=1))
    log_size = (1 - similarity) * math.log(_random_size(rng, config))
    log_size += similarity * math.log(target_size[0])
    motion = draw_motion(rng, config, NUM_MODES)
    track = _follow(rng, config, motion, math.exp(log_size))
    if near:
        # Around the target, passing it now and then.
        heading = rng.uniform(0.0, 2 * math.pi)
        away = rng.uniform(1.4, 2.4) * np.array([math.cos(heading), math.sin(heading)])
        loose = ornstein_uhlenbeck(rng, config.num_frames, [0.8, 0.8], [20.0, 20.0]).T
        offset = away + (loose - loose[0]) * min(1.0, config.speed / 0.05)
        centre = target.track.centre + offset * target_size.mean()
    else:
        steps = motion.velocity * np.sqrt(track.size.prod(axis=1))[:, None]
        centre = np.empty_like(steps)
        for axis, extent in enumerate((config.width, config.height)):
            start = rng.uniform(0.0, extent)
            centre[:, axis] = wander(start, steps[:, axis], 0.0, float(extent))
        centre += shake
    return Thing(shape, replace(track, centre=centre), similarity)


def _move_occluder(
    rng: np.random.Generator, config: SyntheticConfig, target: Thing, shake: FloatArray
) -> Thing:
    n = config.num_frames
    meeting = int(rng.integers(n // 5, n))
    target_size = float(np.sqrt(target.track.size[meeting].prod()))
    stretch = math.exp(rng.normal(0.0, 0.5))
    size = target_size * rng.uniform(0.7, 1.5) * np.array([stretch, 1.0 / stretch])
    heading = rng.uniform(0.0, 2 * math.pi)
    pace = target_size * rng.uniform(0.08, 0.25)
    velocity = pace * np.array([math.cos(heading), math.sin(heading)])
    miss = rng.normal(0.0, 0.25, 2) * target_size
    at = target.track.centre[meeting] - shake[meeting] + miss
    times = np.arange(n)[:, None] - meeting
    centre = at + velocity * times + shake
    motion = draw_motion(rng, config, NUM_MODES)
    angle = rng.uniform(-math.pi, math.pi) + 0.3 * np.cumsum(motion.turning)
    track = Track(centre, np.tile(size, (n, 1)), angle, 0.5 * motion.wobble)
    return Thing(draw_shape(rng), track, 0.0)


def _covers(thing: Thing, outline: FloatArray, config: SyntheticConfig) -> bool:
    """Tell whether ``thing`` covers any of ``outline`` ``(1, POINTS, 2)`` in frame 0."""
    cover = thing.shape.pose(thing.track, slice(0, 1))
    return bool(hidden_fractions(outline, [cover], (config.width, config.height))[0] > 0)


def _measure_hidden(
    outlines: FloatArray, front: list[Thing], boxes: FloatArray, config: SyntheticConfig
) -> tuple[FloatArray, FloatArray]:
    """Measure ``occlusion`` and ``hidden`` of :class:`Scene` for the target's outlines."""
    frame_size = (config.width, config.height)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    touched = ((low < 0) | (high > frame_size)).any(axis=1)
    covers = [thing.shape.pose(thing.track) for thing in front]
    for cover in covers:
        touched |= ((cover.min(axis=1) < high) & (cover.max(axis=1) > low)).all(axis=1)
    frames = np.flatnonzero(touched)
    occlusion, hidden = np.zeros((2, config.num_frames))
    if len(frames):
        occlusion[frames], hidden[frames] = hidden_fractions(
            outlines[frames], [cover[frames] for cover in covers], frame_size
        )
    return occlusion, hidden


def _move_camera(rng: np.random.Generator, config: SyntheticConfig) -> tuple[Camera, FloatArray]:
    """Draw what the camera does, and its shake, pixels, shape ``(n, 2)``."""
    n, side, pace = config.num_frames, config.side, config.camera_motion
    stds = [0.5, 1.0, 1.0, 0.3 * pace, 0.5 * pace]
    stds += [config.illumination, 60.0 * config.illumination, 1.0, 1.0]
    paths = ornstein_uhlenbeck(rng, n, stds, [12.0, 10.0, 10.0, 8.0, 8.0, 25.0, 25.0, 1.0, 1.0])
    shake = np.minimum(np.maximum(paths[7:].T, -3.0), 3.0) * (config.camera_shake * side)
    steps = burst(paths[:3], pace * side, math.exp(0.5 * rng.standard_normal()))
    limit = (CANVAS_MARGIN - 0.06) * side
    start = rng.uniform(-limit, limit, 2).tolist()
    offset = [wander(start[axis], steps[:, axis], -limit, limit) for axis in (0, 1)]
    blurred = rng.random(n) < config.blur
    by_motion = rng.random(n) < 0.5
    camera = Camera(
        offset=np.stack(offset, axis=-1) + shake,
        angle=wander(0.0, paths[3], -0.08, 0.08),
        zoom=np.exp(wander(0.1, paths[4], 0.0, 0.2)),
        gain=np.exp(np.minimum(np.maximum(paths[5], -1.0), 1.0)),
        bias=paths[6],
        blur=np.where(blurred, rng.uniform(0.004, 0.016, n) * side, 0.0),
        blur_angle=np.where(by_motion, rng.uniform(0.0, math.pi, n), np.nan),
        noise_at=rng.integers(0, NOISE_MARGIN, (n, 2)),
    )
    return camera, shake
