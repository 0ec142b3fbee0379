"""TrackingNet (Müller et al., ECCV 2018): 30,132 training and 511 test sequences."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from itertools import compress
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.annotations import read_boxes
from slt_gym.data.frames import list_numbered_frames
from slt_gym.data.index import cached_index, fingerprint
from slt_gym.data.roots import find_root, list_files, list_folders, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError, unknown

_LAYOUT = """\
TrackingNet/
  TRAIN_0/anno/<youtubeid>_<k>.txt         (TRAIN_1/ to TRAIN_11/ and TEST/ likewise)
  TRAIN_0/frames/<youtubeid>_<k>/0.jpg  1.jpg …
"""
_SPLITS = ("train", "test")
_CHUNKS = 12
_ALL_FRAMES = 10**8


class TrackingNetDataset(SequenceDataset):
    """TrackingNet as its development kit unpacks it, or some of its twelve training chunks.

    A sequence has an annotation file and a folder of frames; those of which only the former is on
    the disk are left out, as in a partial download. (Where there are no frames at all, the names
    are listed all the same.) Zips that are left over are passed over.

    A frame is visible when its box has an area: there are no flags. The boxes of the training part
    were drawn once a second and interpolated by a tracker, so that some are wrong. The test part
    publishes the first box only: there the other rows are NaN and the other frames not visible,
    and the length is the number of frames.

    Args:
        root: The folder; else ``$SLT_GYM_TRACKINGNET``, else ``$SLT_GYM_DATA/trackingnet``.
        split: ``"train"`` or ``"test"``.
        chunks: Numbers of the training chunks to take, 0 to 11, such as SLT's ``[0, 1, 2, 3]``;
            missing ones are passed over with a warning. None takes all that are there.

    Raises:
        DatasetNotFoundError: There is no such folder, or no sequence of the split in it.
        InvalidArgumentError: The split or a chunk is unknown.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        *,
        chunks: Iterable[int] | None = None,
    ) -> None:
        if split not in _SPLITS:
            raise unknown("split of trackingnet", split, _SPLITS)
        wanted = _check_chunks(split, chunks)
        self.root = find_root("trackingnet", root, _LAYOUT)
        present = [part for part in wanted if (self.root / part / "anno").is_dir()]
        if not present:
            asked = wanted[0] if len(wanted) == 1 else f"{wanted[0]} to {wanted[-1]}"
            raise wrong_root("trackingnet", self.root, f"holds no {asked} with anno/", _LAYOUT)
        if chunks is not None and len(present) < len(wanted):
            missing = ", ".join(part for part in wanted if part not in present)
            warnings.warn(
                f"{self.root} holds no {missing}: read are {', '.join(present)}", stacklevel=2
            )
        parts: dict[str, str] = {}
        complete: set[str] = set()
        for part in present:
            names, have_frames = _list_part(self.root, part)
            parts.update(dict.fromkeys(names, part))
            complete.update(have_frames)
        if not parts:
            found = f"holds no annotation file in {', '.join(present)}"
            raise wrong_root("trackingnet", self.root, found, _LAYOUT)
        self._parts = parts
        names = [name for name in parts if name in complete or not complete]
        super().__init__("trackingnet", split, names)

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        part = self.root / self._parts[name]
        boxes = read_boxes(part / "anno" / f"{name}.txt")
        rows = {} if self.split == "test" else {"boxes": len(boxes)}
        folder = part / "frames" / name
        if not folder.is_dir():
            raise DatasetNotFoundError(f"sequence {name!r} has no frames: {folder} is missing")
        paths = list_numbered_frames(folder, "{}.jpg", rows.get("boxes", _ALL_FRAMES), first=0)
        if not paths:
            raise DatasetNotFoundError(f"sequence {name!r} has no frames in {folder}")
        count, notes = match_lengths(images=len(paths), **rows)
        boxes = boxes[:count]
        if len(boxes) < count:  # test: only the first row is published
            boxes = np.concatenate([boxes, np.full((count - len(boxes), 4), np.nan)])
        return ImageSequence(name, cast("list[Path]", paths[:count]), boxes, notes=notes)


def _check_chunks(split: str, chunks: Iterable[int] | None) -> list[str]:
    """Return the names of the split's folders."""
    if chunks is None:
        return ["TEST"] if split == "test" else [f"TRAIN_{k}" for k in range(_CHUNKS)]
    if split == "test":
        raise InvalidArgumentError("split 'test' of trackingnet has no chunks, but some were given")
    numbers = list(chunks) if isinstance(chunks, Iterable) else []
    if not numbers or any(type(k) is not int or not 0 <= k < _CHUNKS for k in numbers):
        raise InvalidArgumentError(
            f"chunks={chunks!r} of trackingnet: accepted are lists of numbers from 0 to "
            f"{_CHUNKS - 1}"
        )
    return [f"TRAIN_{k}" for k in sorted(set(numbers))]


def _list_part(root: Path, part: str) -> tuple[list[str], list[str]]:
    """Return the names of one chunk, or of the test part, sorted, and those that have frames."""
    annotations, frames = root / part / "anno", root / part / "frames"

    def build() -> dict[str, NDArray[Any]]:
        files = list_files(annotations, ".txt")
        names = sorted(file.removesuffix(".txt") for file in files)
        folders = set(list_folders(frames)) if frames.is_dir() else set()
        return {
            "names": np.array([os.fsencode(name) for name in names], np.bytes_),
            "has_frames": np.array([name in folders for name in names], bool),
        }

    index = cached_index(f"trackingnet-{part}", root, fingerprint([annotations, frames]), build)
    names = [os.fsdecode(name) for name in index["names"].tolist()]
    return names, list(compress(names, index["has_frames"].tolist()))
