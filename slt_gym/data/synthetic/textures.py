"""Procedural textures: sprites, backgrounds and the sensor's noise."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from slt_gym.data.synthetic.shapes import POINTS, Shape

# Mostly uint8; OpenCV's stubs do not tell.
Image = NDArray[Any]

# Side of a sprite's texture in pixels, and what it spans in the object's own axes.
SPRITE_SIDE = 96
SPRITE_SPAN = 1.6
# Sizes at which a sprite is kept, each half the one before.
LEVELS = 3

_RAMP = np.linspace(-1.0, 1.0, SPRITE_SIDE, dtype=np.float32)
# Directions of red, green and blue on the hue circle, radians.
_PRIMARIES = np.array([0.0, 2.0, 4.0]) * math.pi / 3

NOISE_STD = 32.0


def draw_sprite(rng: np.random.Generator, shape: Shape) -> Image:
    """Draw an object's texture: RGB uint8, shape ``(SPRITE_SIDE, SPRITE_SIDE, 3)``.

    A few colours in blotches, stripes or tiles; some drawn details; grain; light from one side;
    darker towards the outline.
    """
    side = SPRITE_SIDE
    colours = draw_colours(rng, int(rng.integers(2, 5)), chroma=rng.uniform(10.0, 80.0))
    colours[1:] += rng.uniform(0.0, 0.6) * (colours[0] - colours[1:])  # some things are plain
    pattern = _fractal(rng, (side, side), int(rng.integers(2, 6)), rng.uniform(0.3, 0.8))
    if rng.random() < 0.5:
        pattern = cv2.addWeighted(pattern, 0.35, _stripes(rng, side), 0.65, 0.0)
    image = _colourise(pattern, colours, rng.uniform(0.0, 1.0))
    _draw_details(rng, image, shape)

    angle = rng.uniform(0.0, 2 * math.pi)
    light = 1.0 + 0.3 * (math.cos(angle) * _RAMP[None] + math.sin(angle) * _RAMP[:, None])
    inside = np.zeros((side, side), np.uint8)
    cv2.fillPoly(inside, [np.rint(_to_texture(shape.points)).astype(np.int32)], 255)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    light *= 1.0 - rng.uniform(0.2, 0.6) * cv2.exp(depth * (-1.0 / rng.uniform(2.0, 7.0)))
    light *= 1.0 + rng.uniform(0.05, 0.25) * (rng.random((side, side), dtype=np.float32) - 0.5)
    return cv2.multiply(image, cv2.cvtColor(light, cv2.COLOR_GRAY2RGB), dtype=cv2.CV_8U)


def _to_texture(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return (points / SPRITE_SPAN + 0.5) * SPRITE_SIDE


def draw_colours(
    rng: np.random.Generator, n: int, chroma: float = 50.0, spread: float = 1.0
) -> NDArray[np.float32]:
    """Draw related hues of very different lightness, RGB float32 in [5, 250], shape ``(n, 3)``.

    Args:
        rng: Source of randomness.
        n: How many.
        chroma: Typical distance from grey, grey levels.
        spread: Hues differ by about this many radians.
    """
    hue = rng.uniform(0.0, 2 * math.pi) + spread * rng.standard_normal((n, 1))
    lightness = np.argsort(rng.random(n))[:, None] + rng.random((n, 1))
    strength = chroma * np.exp(0.4 * rng.standard_normal((n, 1)))
    colours = 45.0 + lightness * (180.0 / n) + strength * np.cos(hue - _PRIMARIES)
    return np.minimum(np.maximum(colours, 5.0), 250.0).astype(np.float32)


def _fractal(
    rng: np.random.Generator,
    size: tuple[int, int],
    cells: int,
    roughness: float,
    stretch: float = 1.0,
) -> Image:
    """Draw noise with detail at every scale down to two pixels: uint8, mean 128, std 50.

    Args:
        rng: Source of randomness.
        size: ``(W, H)``, pixels.
        cells: Number of the largest blotches along a column.
        roughness: Amplitude of each octave relative to the coarser one before it.
        stretch: How much wider than high the blotches are.
    """
    width, height = size
    rows = cells
    columns = max(2, round(cells * width / (height * stretch)))
    noise: Image = rng.random((rows, columns), dtype=np.float32)
    amplitude = 1.0
    while 4 * rows <= height and 2 * columns <= width:
        rows, columns, amplitude = 2 * rows, 2 * columns, amplitude * roughness
        noise = cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_LINEAR)
        noise = noise + amplitude * rng.random((rows, columns), dtype=np.float32)
    mean, std = (float(x[0, 0]) for x in cv2.meanStdDev(noise))
    scale = 50.0 / max(std, 1e-6)
    scaled = cv2.addWeighted(noise, scale, noise, 0.0, 128.0 - mean * scale, dtype=cv2.CV_8U)
    return cv2.resize(scaled, (width, height), interpolation=cv2.INTER_LINEAR)


def _colourise(grey: Image, colours: NDArray[np.float32], hardness: float) -> Image:
    """Map grey levels to a gradient of colours; ``hardness`` 1 gives flat steps."""
    entries = 4 * len(colours)
    steps = np.arange(entries) * (len(colours) / entries)
    flat = colours[steps.astype(int)][None]
    smooth = cv2.resize(colours[None], (entries, 1), interpolation=cv2.INTER_LINEAR)
    table = (hardness * flat + (1.0 - hardness) * smooth).astype(np.float32)
    table = cv2.resize(table, (256, 1), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    return cv2.applyColorMap(grey, table.reshape(256, 1, 3))  # 5 times as fast as cv2.LUT


def _stripes(rng: np.random.Generator, side: int) -> Image:
    """Draw stripes or tiles, uint8, shape ``(side, side)``."""
    angle, period = rng.uniform(0.0, math.pi), rng.uniform(0.1, 0.45)
    along, across = math.cos(angle) * math.pi / period, math.sin(angle) * math.pi / period
    bend = rng.random((3, 3), dtype=np.float32) * rng.uniform(0.0, 3.0)
    phase = cv2.resize(bend, (side, side), interpolation=cv2.INTER_CUBIC)
    wave = np.sin(along * _RAMP[None] + across * _RAMP[:, None] + phase)
    if rng.random() < 0.5:
        wave *= np.sin(along * _RAMP[:, None] - across * _RAMP[None])
    return np.minimum(np.maximum(wave * 220.0 + 128.0, 0.0), 255.0).astype(np.uint8)


def _draw_details(rng: np.random.Generator, image: Image, shape: Shape) -> None:
    """Draw a few dots, tiles and bars somewhere inside the outline."""
    count = int(rng.integers(1, 6))
    where = shape.points[rng.integers(0, POINTS, count)] * rng.uniform(0.0, 0.8, (count, 1))
    ends = _to_texture(where + rng.uniform(-0.5, 0.5, (count, 2))).astype(int).tolist()
    sizes = rng.integers(3, 10, (count, 3)).tolist()
    kinds = rng.integers(0, 3, count).tolist()
    colours = draw_colours(rng, count).tolist()
    for k, (x, y) in enumerate(_to_texture(where).astype(int).tolist()):
        a, b, thickness = sizes[k]
        if kinds[k] == 0:
            cv2.circle(image, (x, y), a, colours[k], -1, cv2.LINE_AA)
        elif kinds[k] == 1:
            cv2.rectangle(image, (x - a, y - b), (x + a, y + b), colours[k], -1)
        else:
            cv2.line(image, (x, y), ends[k], colours[k], thickness // 2 + 1, cv2.LINE_AA)


def pyramid(image: Image) -> list[Image]:
    """Return a texture at full, half and quarter size (``LEVELS`` of them), RGBA."""
    levels = [cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)]
    for _ in range(LEVELS - 1):
        height, width = levels[-1].shape[:2]
        levels.append(
            cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        )
    return levels


def draw_background(rng: np.random.Generator, width: int, height: int) -> Image:
    """Draw a cluttered scene: RGB uint8, shape ``(height, width, 3)``.

    One to four surfaces behind each other, with rough upper borders; solid things of all sizes;
    slow changes of colour; grain.
    """
    surfaces = int(rng.integers(1, 5))
    top = height * rng.uniform(0.1, 0.3)
    chroma = rng.uniform(5.0, 30.0)
    for k in range(surfaces):
        if k % 2 == 0:
            cells, stretch = int(rng.integers(2, 7)), math.exp(rng.uniform(-0.5, 1.5))
            grey = _fractal(rng, (width, height), cells, rng.uniform(0.45, 0.85), stretch)
        else:
            grey = cv2.flip(grey, 1)
        colours = draw_colours(rng, int(rng.integers(2, 5)), chroma, 0.4)
        colours += rng.uniform(0.2, 0.85) * (colours.mean(axis=0) - colours)
        surface = _colourise(grey, colours, rng.uniform(0.0, 0.6))
        if k == 0:
            canvas = surface
        else:
            cv2.copyTo(surface, _ground(rng, width, height, top), canvas)
            top += (height - top) * rng.uniform(0.2, 0.6)
    _scatter(rng, canvas)

    shades = 128.0 + rng.normal(0.0, 22.0, (3, 4, 1)) + rng.normal(0.0, 8.0, (3, 4, 3))
    tint = cv2.resize(shades.clip(0, 255).astype(np.uint8), (width // 8, height // 8))
    tint = cv2.resize(tint, (width, height))
    rows = int(height / rng.uniform(1.2, 3.0))
    grain: Image = rng.integers(0, 256, (rows, width // 2), np.uint8)
    grain = cv2.cvtColor(cv2.resize(grain, (width, height)), cv2.COLOR_GRAY2RGB)
    strength = rng.uniform(0.04, 0.2)
    canvas = cv2.addWeighted(canvas, 1.0, tint, 1.0, -128.0)
    return cv2.addWeighted(canvas, 1.0, grain, strength, -128.0 * strength)


def _ground(rng: np.random.Generator, width: int, height: int, top: float) -> Image:
    """Draw the mask of everything under a rough line around row ``top``."""
    knots = int(rng.choice((3, 6, 12, 40)))
    rise = rng.normal(0.0, 0.05 * height, (1, knots)) + np.linspace(-1, 1, knots) * rng.normal(
        0.0, 0.1 * height
    )
    line = cv2.resize(rise, (64, 1), interpolation=cv2.INTER_LINEAR)[0] + top
    points = np.stack([np.linspace(0, width, 64), line], axis=-1)
    points = np.concatenate([points, [(width, height), (0, height)]])
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 255)
    return mask


def _scatter(rng: np.random.Generator, canvas: Image) -> None:
    """Draw solid things over a canvas, far to near: the later are larger on average."""
    height, width = canvas.shape[:2]
    unit = min(width, height)
    count = int(rng.integers(6, 36))
    colours = draw_colours(rng, 2 * count, rng.uniform(5.0, 50.0), 1.5) * rng.uniform(0.6, 1.0)
    local = canvas[rng.integers(0, height, 2 * count), rng.integers(0, width, 2 * count)]
    colours += rng.uniform(0.0, 0.8) * (local - colours)
    largest = 0.1 + 0.008 * np.arange(count)
    sizes = unit * np.exp(rng.uniform(math.log(0.02), np.log(largest)))
    places = rng.uniform((0, 0), (width, height), (count, 2))
    kinds = rng.choice(4, count, p=(0.4, 0.15, 0.25, 0.2)).tolist()
    stretches = np.exp(rng.normal(0.0, 0.35, (count, 2)))
    spans = rng.normal(0.0, 0.4 * unit, (count, 2)).astype(int).tolist()
    corners = rng.integers(3, 14, count).tolist()
    jitter = rng.random((count, 14))
    radii = rng.uniform(0.5, 1.2, (count, 14))
    for k in range(count):
        fill, edge = colours[2 * k].tolist(), colours[2 * k + 1].tolist()
        x, y = places[k].astype(int).tolist()
        extent = sizes[k] * stretches[k]
        if kinds[k] == 0:
            n = corners[k]
            turns = (np.arange(n) + jitter[k, :n]) * (2 * math.pi / n)
            points = np.stack([np.cos(turns), np.sin(turns)], axis=-1) * radii[k, :n, None]
            fixed = [np.rint((points * extent + places[k]) * 16).astype(np.int32)]
            cv2.fillPoly(canvas, fixed, fill, cv2.LINE_AA, shift=4)
            if k % 3 == 0:
                cv2.polylines(canvas, fixed, True, edge, 1, cv2.LINE_AA, shift=4)
        elif kinds[k] == 1:
            axes = (np.rint(0.7 * extent).astype(int) + 1).tolist()
            cv2.ellipse(canvas, (x, y), axes, 180.0 * jitter[k, 0], 0, 360, fill, -1, cv2.LINE_AA)
        elif kinds[k] == 2:
            w, h = (1.2 * extent).astype(int).tolist()
            _draw_building(rng, canvas, (x, y, w + 3, h + 3), fill, edge)
        else:
            end = (x + spans[k][0], y + spans[k][1])
            cv2.line(canvas, (x, y), end, fill, 1 + k % 4, cv2.LINE_AA)


def _draw_building(
    rng: np.random.Generator,
    canvas: Image,
    box: tuple[int, int, int, int],
    wall: list[float],
    window: list[float],
) -> None:
    x, y, w, h = box
    cv2.rectangle(canvas, (x, y), (x + w, y + h), wall, -1)
    pitch = int(rng.integers(5, 14))
    if min(w, h) < 2 * pitch or rng.random() < 0.4:
        return
    for top in range(y + 3, y + h - pitch // 2, pitch):
        for left in range(x + 3, x + w - pitch // 2, pitch):
            cv2.rectangle(canvas, (left, top), (left + pitch // 3, top + pitch // 2), window, -1)


@lru_cache(maxsize=4)
def noise_tile(width: int, height: int) -> Image:
    """Return sensor noise around 128, to be cut at a random offset; the same in every process.

    Returns:
        RGB uint8 of standard deviation ``NOISE_STD``, shape ``(height, width, 3)``, read-only.
    """
    rng = np.random.default_rng(20220801)
    shape = (height, width, 3)
    noise: Image = rng.standard_normal(shape, dtype=np.float32)
    # Compression and demosaicing leave a sensor's noise correlated over neighbouring pixels.
    noise = cv2.GaussianBlur(noise, (3, 3), 0.6)
    tile = np.clip(128.0 + noise * (NOISE_STD / noise.std()), 0, 255).astype(np.uint8)
    tile.setflags(write=False)
    return tile
