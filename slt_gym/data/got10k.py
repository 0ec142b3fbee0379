"""GOT-10k (Huang et al., TPAMI 2021): 10,000 short sequences, classes disjoint between splits."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.annotations import read_boxes, read_flags, read_names, read_optional_text
from slt_gym.data.frames import list_numbered_frames
from slt_gym.data.roots import find_root, list_folders, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.errors import DatasetNotFoundError, unknown

_LAYOUT = """\
GOT-10k/
  train/list.txt                     (val/ and test/ likewise; one sequence per line)
  train/GOT-10k_Train_000001/00000001.jpg …
  train/GOT-10k_Train_000001/groundtruth.txt
  train/GOT-10k_Train_000001/absence.label  cover.label  cut_by_image.label
"""
_SPLITS = ("train", "val", "test")
_PART = re.compile(r"GOT-10k_(Train|Val|Test)_", re.IGNORECASE)
_TEXTS = ("object_class", "motion_class", "major_class", "root_class", "motion_adverb")
_ALL_FRAMES = 10**8


class GOT10kDataset(SequenceDataset):
    """GOT-10k's official train, val and test parts.

    The root is the folder that holds ``train``, ``val`` and ``test``, or one of these. Sequences
    that ``list.txt`` names and the disk does not hold are left out, as in a partial download;
    those still inside the folders of the split archives (``GOT-10k_Train_split_01``) are found.

    A frame is visible when the target is not absent, some of it is uncovered and its box has an
    area. The test part publishes the first box only: there the other rows are NaN and the other
    frames not visible, and the length is the number of frames.

    Attributes of train and val, of shape ``(T,)``: ``absence`` and ``cut_by_image``, booleans;
    ``cover``, the visible eighths (0 to 8). Where ``meta_info.ini`` is there: ``object_class``,
    ``motion_class``, ``major_class``, ``root_class`` and ``motion_adverb``, text of shape ``()``.

    Args:
        root: The folder; else ``$SLT_GYM_GOT10K``, else ``$SLT_GYM_DATA/got10k``.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        DatasetNotFoundError: There is no such folder, no list of the split, or none of its
            sequences.
        InvalidArgumentError: The split is unknown.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, split: str = "train") -> None:
        if split not in _SPLITS:
            raise unknown("split of got10k", split, _SPLITS)
        self.root = _find_part(find_root("got10k", root, _LAYOUT), split)
        listed = read_names(self.root / "list.txt")
        self._folders = _find_sequences(self.root)
        present = [name for name in listed if name in self._folders]
        if not present:
            found = f"holds none of the {len(listed)} sequences of its list.txt"
            raise wrong_root("got10k", self.root, found, _LAYOUT)
        super().__init__("got10k", split, present)

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        folder = self._folders[name]
        boxes = read_boxes(folder / "groundtruth.txt")
        flags: dict[str, NDArray[np.int64]] = {}
        if self.split != "test":
            for label in ("absence", "cover", "cut_by_image"):
                flags[label] = read_flags(folder / f"{label}.label")
        rows = {f"{label} flags": len(values) for label, values in flags.items()}
        if self.split != "test":
            rows["boxes"] = len(boxes)
        paths = list_numbered_frames(folder, "{:08d}.jpg", min(rows.values(), default=_ALL_FRAMES))
        if not paths:
            raise DatasetNotFoundError(f"sequence {name!r} has no frames in {folder}")
        count, notes = match_lengths(images=len(paths), **rows)
        boxes = boxes[:count]
        if len(boxes) < count:  # test: only the first row is published
            boxes = np.concatenate([boxes, np.full((count - len(boxes), 4), np.nan)])
        visible = None
        attributes: dict[str, Any] = {}
        if flags:
            cover = flags["cover"][:count]
            absence = flags["absence"][:count] != 0
            visible = ~absence & (cover > 0)
            cut = flags["cut_by_image"][:count] != 0
            attributes = {"absence": absence, "cover": cover, "cut_by_image": cut}
        attributes |= _read_texts(folder / "meta_info.ini")
        return ImageSequence(
            name, cast("list[Path]", paths[:count]), boxes, visible, attributes, notes
        )


def _find_part(root: Path, split: str) -> Path:
    """Return the folder of a split, given the folder of the dataset or of any split."""
    if (root / split / "list.txt").is_file():
        return root / split
    if not (root / "list.txt").is_file():
        raise wrong_root("got10k", root, f"holds neither {split}/list.txt nor list.txt", _LAYOUT)
    part = _PART.match(read_names(root / "list.txt")[0])
    if part is None or part[1].lower() == split:
        return root
    if (root.parent / split / "list.txt").is_file():
        return root.parent / split
    found = f"is the {part[1].lower()} part, and no {split}/list.txt lies beside it"
    raise wrong_root("got10k", root, found, _LAYOUT)


def _find_sequences(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in list_folders(folder):
        if "_split_" in name:
            for child in list_folders(folder / name):
                found.setdefault(child, folder / name / child)
        else:
            found[name] = folder / name
    return found


def _read_texts(path: Path) -> dict[str, Any]:
    """Return the descriptions in a ``meta_info.ini``; none without the file."""
    pairs = (line.partition(":") for line in (read_optional_text(path) or "").splitlines())
    values = {key.strip(): value.strip() for key, _, value in pairs}
    return {key: np.array(values[key]) for key in _TEXTS if key in values}
