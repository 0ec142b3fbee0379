"""From a scene to pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from slt_gym.data.masks import fill_outlines, find_extent
from slt_gym.data.synthetic.config import SyntheticConfig
from slt_gym.data.synthetic.motion import FloatArray
from slt_gym.data.synthetic.scene import CANVAS_MARGIN, NOISE_MARGIN, Scene, Thing
from slt_gym.data.synthetic.textures import (
    LEVELS,
    NOISE_STD,
    SPRITE_SIDE,
    SPRITE_SPAN,
    Image,
    draw_background,
    draw_sprite,
    noise_tile,
    pyramid,
)


@dataclass(frozen=True)
class Textures:
    """The pixels that a sequence is made of; about 1 MB at 320×240. Never written to.

    Attributes:
        background: RGBA uint8, the frame with a margin all around. (OpenCV warps four channels
            2.5 times as fast as three.)
        sprites: For each thing its texture at several sizes, RGBA uint8.
        second: The texture that the target drifts towards, at the same sizes.
    """

    background: Image
    sprites: tuple[list[Image], ...]
    second: list[Image]


def draw_textures(rng: np.random.Generator, scene: Scene, config: SyntheticConfig) -> Textures:
    """Draw all textures of a scene."""
    margin = 2 * math.ceil(CANVAS_MARGIN * config.side)
    background = draw_background(rng, config.width + margin, config.height + margin)
    background = cv2.cvtColor(background, cv2.COLOR_RGB2RGBA)
    target_shape = scene.things[scene.target].shape
    target = draw_sprite(rng, target_shape)
    second = draw_sprite(rng, target_shape)
    sprites = []
    for k, thing in enumerate(scene.things):
        image = target
        if k != scene.target:
            image = draw_sprite(rng, thing.shape)
            if thing.similarity > 0:
                image = cv2.addWeighted(
                    target, thing.similarity, image, 1.0 - thing.similarity, 0.0
                )
        sprites.append(pyramid(image))
    return Textures(background, tuple(sprites), pyramid(second))


def render(scene: Scene, textures: Textures, config: SyntheticConfig, t: int) -> Image:
    """Draw frame ``t``: RGB uint8, shape ``(height, width, 3)``, a fresh array."""
    frame = _background(scene, textures.background, config, t)
    for k, thing in enumerate(scene.things):
        level = _level(thing, t)
        texture = textures.sprites[k][level]
        if k == scene.target:
            weight = float(scene.drift[t])
            texture = cv2.addWeighted(texture, 1.0 - weight, textures.second[level], weight, 0.0)
        _paste(frame, thing, t, texture)
    frame = _blur(frame, float(scene.camera.blur[t]), float(scene.camera.blur_angle[t]))
    return _expose(frame, scene, config, t)


def render_mask(thing: Thing, config: SyntheticConfig, t: int) -> Image:
    """Draw an object's silhouette alone: uint8, 255 inside, shape ``(height, width)``."""
    return fill_outlines([_outline(thing, t)], (0, 0, config.width, config.height))


def render_target_mask(scene: Scene, config: SyntheticConfig, t: int) -> NDArray[np.bool_]:
    """Mark the pixels of frame ``t`` that the target makes at least half of: ``(height, width)``.

    Things in front take their share of a pixel, as in :func:`render`; the blur counts for nothing.
    """
    mask = np.zeros((config.height, config.width), bool)
    target = _outline(scene.things[scene.target], t)
    region = find_extent([target], (config.width, config.height))
    if region is None:
        return mask
    x0, y0, x1, y1 = region
    share = fill_outlines([target], region).astype(np.float32)
    for thing in scene.things[scene.target + 1 :]:
        cover = _outline(thing, t)
        if (cover.max(axis=0) > (x0, y0)).all() and (cover.min(axis=0) < (x1, y1)).all():
            share *= 1 - fill_outlines([cover], region) / np.float32(255)
    mask[y0:y1, x0:x1] = share >= 127.5
    return mask


def _outline(thing: Thing, t: int) -> FloatArray:
    return thing.shape.pose(thing.track, slice(t, t + 1))[0]


def _background(scene: Scene, canvas: Image, config: SyntheticConfig, t: int) -> Image:
    camera = scene.camera
    zoom, angle = float(camera.zoom[t]), float(camera.angle[t])
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    # Frame pixel to canvas pixel; the camera turns and zooms around the frame's centre.
    matrix = np.array([[cos, sin, 0.0], [-sin, cos, 0.0]])
    centre = np.array([config.width / 2, config.height / 2])
    canvas_centre = np.array([canvas.shape[1] / 2, canvas.shape[0] / 2])
    matrix[:, 2] = canvas_centre - camera.offset[t] - matrix[:, :2] @ centre
    return _warp(canvas, matrix, config.width, config.height)


def _warp(source: Image, matrix: FloatArray, width: int, height: int) -> Image:
    """Warp RGBA by a matrix from result to source; returns RGB ``(height, width, 3)``."""
    warped = cv2.warpAffine(
        source,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


def _level(thing: Thing, t: int) -> int:
    """Choose the texture that is nearest to an object's size on the screen, against aliasing."""
    density = SPRITE_SIDE / (SPRITE_SPAN * float(thing.track.size[t].min()))
    return min(max(round(math.log2(density)), 0), LEVELS - 1)


def _paste(frame: Image, thing: Thing, t: int, texture: Image) -> None:
    """Draw an object over ``frame``, in place."""
    outline = _outline(thing, t)
    region = find_extent([outline], (frame.shape[1], frame.shape[0]))
    if region is None:
        return
    x0, y0, x1, y1 = region
    colour = _warp_sprite(texture, thing, t, region)
    mask = cv2.cvtColor(fill_outlines([outline], region), cv2.COLOR_GRAY2RGB)
    patch = frame[y0:y1, x0:x1]
    front = cv2.multiply(colour, mask, scale=1 / 255)
    back = cv2.multiply(patch, cv2.bitwise_not(mask), scale=1 / 255)
    cv2.add(front, back, dst=patch)


def _warp_sprite(texture: Image, thing: Thing, t: int, region: tuple[int, int, int, int]) -> Image:
    """Draw the texture under an object's pose in ``region`` (first and end columns and rows)."""
    x0, y0, x1, y1 = region
    side = texture.shape[0]
    angle, (cx, cy) = float(thing.track.angle[t]), thing.track.centre[t].tolist()
    scale: FloatArray = side / (SPRITE_SPAN * thing.track.size[t])
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.empty((2, 3))
    matrix[:, :2] = scale[:, None] * np.array([[cos, sin], [-sin, cos]])
    # Half pixels: OpenCV counts from pixel centres.
    at = np.array([x0 + 0.5 - cx, y0 + 0.5 - cy])
    matrix[:, 2] = matrix[:, :2] @ at + side / 2 - 0.5
    return _warp(texture, matrix, x1 - x0, y1 - y0)


def _blur(frame: Image, width: float, angle: float) -> Image:
    if width <= 0:
        return frame
    if math.isnan(angle):
        return cv2.GaussianBlur(frame, (0, 0), width / 2)
    length = max(3, round(2 * width) | 1)
    kernel = np.zeros((length, length), np.float32)
    half = (length - 1) / 2
    dx, dy = half * math.cos(angle), half * math.sin(angle)
    start = (round(half - dx), round(half - dy))
    cv2.line(kernel, start, (round(half + dx), round(half + dy)), 1.0)
    return cv2.filter2D(frame, -1, kernel / kernel.sum())


def _expose(frame: Image, scene: Scene, config: SyntheticConfig, t: int) -> Image:
    gain, bias = float(scene.camera.gain[t]), float(scene.camera.bias[t])
    strength = config.noise / NOISE_STD
    x, y = scene.camera.noise_at[t].tolist()
    tile = noise_tile(config.width + NOISE_MARGIN, config.height + NOISE_MARGIN)
    noise = tile[y : y + config.height, x : x + config.width]
    return cv2.addWeighted(frame, gain, noise, strength, bias - 128.0 * strength)
