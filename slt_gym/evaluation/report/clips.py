"""Short overlay clips of the sequences that tell most about the trackers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slt_gym.data import Sequence as TrackedSequence
from slt_gym.data import SequenceDataset
from slt_gym.envs import draw_overlay
from slt_gym.evaluation.report.build import Boxes, Report, TrackerResult
from slt_gym.evaluation.video import side_by_side
from slt_gym.geometry import iou, is_valid

Frame = NDArray[np.uint8]
_SHOWN_FRAMES = 36
_STRIDE = 2
_SIDE = 240  # of a panel, the shorter one; draw_overlay enlarges what is smaller
_FAR = 1e6  # pixels
_MILLISECONDS = 80


@dataclass(frozen=True)
class OverlayClip:
    """An animation for a page.

    Attributes:
        sequence: The sequence's name.
        caption: What it shows.
        webp: The file's bytes: an animated WebP, which browsers play.
    """

    sequence: str
    caption: str
    webp: bytes


def draw_clips(report: Report, dataset: SequenceDataset, count: int) -> list[OverlayClip]:
    """Draw the sequences in which the two best trackers differ most, around where they part.

    Of a single tracker those in which it scores least are drawn.

    Args:
        report: The report.
        dataset: Where its sequences' frames come from.
        count: Clips at most.

    Raises:
        FrameError: A frame cannot be read.
    """
    shown = report.trackers[:2]
    if len(shown) == 2:
        names = report.rank_by_difference(shown[0].name, shown[1].name)
    else:
        scored = shown[0].score.sequences
        names = sorted(scored, key=lambda name: scored[name].success_auc)
    return [_draw(dataset.get(name), shown) for name in names[:count]]


def _draw(sequence: TrackedSequence, shown: tuple[TrackerResult, ...]) -> OverlayClip:
    overlaps = [_overlap(sequence, result.boxes[sequence.name]) for result in shown]
    gap = np.abs(overlaps[0] - overlaps[1]) if len(shown) == 2 else 1 - overlaps[0]
    frames = _choose_frames(gap)
    images = [Image.fromarray(frame) for frame in _overlay(sequence, shown, overlaps, frames)]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=_MILLISECONDS,
        loop=0,
        quality=60,
    )
    scores = " and ".join(
        f"{result.name} {100 * result.score.sequences[sequence.name].success_auc:.1f}"
        for result in shown
    )
    caption = (
        f"{sequence.name}, frames {frames[0]} to {frames[-1]}: success AUC of the whole sequence "
        f"{scores}; ground truth green, {'estimates' if len(shown) == 2 else 'estimate'} red"
    )
    return OverlayClip(sequence.name, caption, buffer.getvalue())


def _overlap(sequence: TrackedSequence, boxes: Boxes) -> NDArray[np.float64]:
    """Return overlaps, 0 where the target is not visible or the tracker has no box."""
    return np.where(sequence.visible, iou(boxes, sequence.boxes), 0.0)


def _choose_frames(gap: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the frames of the span in which the mean gap is largest."""
    span = min(_SHOWN_FRAMES * _STRIDE, len(gap))
    sums = np.convolve(gap, np.ones(span), "valid")
    start = int(np.argmax(sums))
    return np.arange(start, start + span, _STRIDE)


def _overlay(
    sequence: TrackedSequence,
    shown: tuple[TrackerResult, ...],
    overlaps: list[NDArray[np.float64]],
    frames: NDArray[np.int64],
) -> Iterator[Frame]:
    for t in frames.tolist():
        frame, scale = _resize(sequence.read(t))
        truth = sequence.boxes[t] * scale if sequence.visible[t] else None
        panels = []
        for result, overlap in zip(shown, overlaps, strict=True):
            box = result.boxes[sequence.name][t]
            text = f"{t}  overlap {overlap[t]:.2f}" if sequence.visible[t] else f"{t}  absent"
            # Lost trackers' boxes may be larger than a drawing takes.
            drawn = np.clip(box * scale, -_FAR, _FAR) if is_valid(box) else None
            panels.append(draw_overlay(frame, truth, drawn, text=text))
        if len(panels) == 2:
            yield side_by_side(panels[0], panels[1], (shown[0].name, shown[1].name))
        else:
            yield panels[0]


def _resize(frame: Frame) -> tuple[Frame, float]:
    """Give a frame the size of a panel, so that its text can be read; return the scale too."""
    height, width = frame.shape[:2]
    scale = _SIDE / min(height, width)
    size = max(_SIDE, round(width * scale)), max(_SIDE, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, size, interpolation=method), np.uint8), scale
