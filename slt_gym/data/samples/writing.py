"""What the writers of sample datasets share: the sequences, their frames, and rows of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.data.registry import open_dataset
from slt_gym.data.sequence import SequenceDataset
from slt_gym.data.synthetic import SyntheticSequence
from slt_gym.data.synthetic.config import check_number
from slt_gym.errors import InvalidArgumentError

# By split, the written sequences by the names that the dataset's reader gives them.
Written = dict[str, dict[str, SyntheticSequence]]

# Sequences are looked through for one in which the target disappears; every fifth is such a one.
_CANDIDATES = 50


@dataclass(frozen=True)
class Source:
    """Synthetic sequences to be written, and their frames.

    Attributes:
        sequences: How many in each split.
        frames: Length of each.
        width: Frame width, pixels.
        height: Frame height, pixels.
        seed: Chooses another collection.
        progress: Called after each frame that is written.

    Raises:
        InvalidArgumentError: A number is not accepted.
    """

    sequences: int
    frames: int
    width: int
    height: int
    seed: int
    progress: Callable[[], object] = field(default=lambda: None)

    def __post_init__(self) -> None:
        check_number("sequences", self.sequences, 1, 1_000_000, whole=True)
        self._open("train", self.sequences)

    def _open(self, split: str, sequences: int) -> SequenceDataset:
        return open_dataset(
            "synthetic",
            split=split,
            seed=self.seed,
            num_sequences=sequences,
            num_frames=self.frames,
            width=self.width,
            height=self.height,
        )

    def draw(self, split: str) -> list[SyntheticSequence]:
        """Return the sequences of a split; in the first one the target disappears for a while.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
        """
        dataset = self._open(split, max(self.sequences, _CANDIDATES))
        first = next((k for k in range(len(dataset)) if not dataset[k].visible.all()), 0)
        order = [first, *(k for k in range(self.sequences) if k != first)][: self.sequences]
        return [cast("SyntheticSequence", dataset[k]) for k in order]

    def name(self, split: str, names: Iterable[str]) -> dict[str, SyntheticSequence]:
        """Return the sequences of a split by name.

        Args:
            split: The split.
            names: At least as many as there are sequences; the first ones are taken.

        Raises:
            InvalidArgumentError: There are fewer names.
        """
        chosen = [name for name, _ in zip(names, range(self.sequences), strict=False)]
        if len(chosen) < self.sequences:
            raise InvalidArgumentError(
                f"sequences is {self.sequences}: accepted are 1 to {len(chosen)}, as many as this "
                "dataset has names for"
            )
        return dict(zip(chosen, self.draw(split), strict=True))

    def write_frames(
        self, sequence: SyntheticSequence, folder: Path, pattern: str, first: int = 1
    ) -> None:
        """Write a sequence's frames as images.

        Args:
            sequence: The sequence.
            folder: Where to, made if it is missing.
            pattern: A format of the frame's number, such as ``"{:08d}.jpg"``.
            first: The number of the first frame.
        """
        for t in range(len(sequence)):
            self.write_image(folder / pattern.format(first + t), sequence.read(t))

    def write_image(self, path: Path, frame: NDArray[np.uint8]) -> None:
        """Write one RGB frame ``(H, W, 3)``, encoded after the path's suffix."""
        # Not imwrite, which fails without a word where the disk is full.
        _, data = cv2.imencode(path.suffix, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
        self.progress()


def write_text(path: Path, text: str) -> None:
    """Write a text file with Unix newlines, its folder made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_lines(path: Path, lines: Iterable[object]) -> None:
    """Write one line per item."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_rows(path: Path, rows: ArrayLike, decimals: int = 0, separator: str = ",") -> None:
    """Write one line per row of numbers; NaN becomes ``NaN``.

    Args:
        path: The file.
        rows: Shape ``(T, n)``.
        decimals: Digits after the point; 0 writes whole numbers.
        separator: What stands between two numbers.
    """
    table = np.asarray(rows, np.float64).tolist()
    texts = (["NaN" if math.isnan(x) else f"{x:.{decimals}f}" for x in row] for row in table)
    write_lines(path, (separator.join(row) for row in texts))


def round_boxes(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round boxes ``(T, 4)`` to whole pixels, each at least one pixel wide and high."""
    rounded = np.rint(boxes) + 0.0  # no minus zero, which would be written as "-0"
    rounded[:, 2:] = np.maximum(rounded[:, 2:], 1.0)
    return rounded


def clip_boxes(boxes: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Cut boxes ``(T, 4)`` at the frame's border, as datasets do whose boxes stay inside."""
    low = np.clip(boxes[:, :2], 0.0, [width, height])
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0.0, [width, height])
    return np.concatenate([low, high - low], axis=1)
