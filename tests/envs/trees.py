"""Small sequences on disk and in memory."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from slt_gym.data import Sequence, SequenceDataset

SIZE = (96, 72)  # W, H
FRAMES = 14


def draw_boxes(index: int, frames: int = FRAMES) -> np.ndarray:
    """Boxes of a target that moves and grows; another way for each ``index``."""
    t = np.arange(frames)
    x = 30 + 8 * index + 1.5 * t
    y = 20 + 10 * np.sin(0.3 * t + index)
    w = 18 + 0.3 * t
    return np.round(np.stack([x, y, w, 0.8 * w], axis=1), 2)


def draw_frame(box: np.ndarray, t: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """An RGB frame with a striped target at ``box`` over noise that ``t`` decides."""
    rng = np.random.default_rng(t)
    frame = rng.integers(0, 120, (size[1], size[0], 3), np.uint8)
    if np.isfinite(box).all():
        x, y, w, h = np.rint(box).astype(int)
        frame[max(y, 0) : y + h, max(x, 0) : x + w] = (230, 60, 20 + 7 * (t % 30))
        frame[max(y, 0) : y + h : 3, max(x, 0) : x + w] = (20, 240, 90)
    return frame


def write_folder(root: Path, count: int = 3) -> Path:
    """Write ``count`` sequences as the Folder dataset reads them."""
    for i in range(count):
        folder = root / f"video{i}"
        boxes = draw_boxes(i)
        _write_frames(folder / "img", boxes, "{:04d}.png")
        np.savetxt(folder / "groundtruth_rect.txt", boxes, fmt="%.2f", delimiter=",")
    return root


class MemorySequence(Sequence):
    """A sequence that draws its frames; counts how often each is read."""

    def __init__(self, name: str, boxes: np.ndarray, visible: np.ndarray | None = None) -> None:
        super().__init__(name, boxes, visible)
        self.reads: list[int] = []

    def read(self, t: int) -> np.ndarray:
        self.reads.append(t)
        return draw_frame(self.boxes[t], t)


class MemoryDataset(SequenceDataset):
    """Sequences that are there already."""

    def __init__(self, sequences: list[MemorySequence], split: str = "train") -> None:
        self.sequences = sequences
        super().__init__("memory", split, [sequence.name for sequence in sequences])

    def _load(self, index: int) -> Sequence:
        return self.sequences[index]


def _write_frames(folder: Path, boxes: np.ndarray, pattern: str) -> None:
    folder.mkdir(parents=True)
    for t, box in enumerate(boxes):
        frame = cv2.cvtColor(draw_frame(box, t), cv2.COLOR_RGB2BGR)
        (folder / pattern.format(t + 1)).write_bytes(cv2.imencode(pattern[-4:], frame)[1])
