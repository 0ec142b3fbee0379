"""Any folder of sequences in OTB's manner."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import cast

from slt_gym.data.annotations import read_boxes, read_optional_text
from slt_gym.data.frames import FramePaths, list_frames, sort_naturally
from slt_gym.data.roots import find_root, list_folders, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.errors import DatasetNotFoundError, unknown

_LAYOUT = """\
root/
  <sequence>/img/0001.jpg …            (or in imgs/, color/, or beside the text file; png, bmp too)
  <sequence>/groundtruth_rect.txt      (or groundtruth.txt; one row "x,y,w,h" per frame)
"""
_SPLITS = ("train", "val", "test")
_FRAME_FOLDERS = ("img", "imgs", "color", "")
_ANNOTATION = re.compile(r"groundtruth(?:_rect)?(?:\.(\d+))?\.txt")


class FolderDataset(SequenceDataset):
    """Sequences that each have a folder of frames and a text file of boxes, as in OTB.

    A folder with several targets has ``groundtruth_rect.1.txt``, ``groundtruth_rect.2.txt``, …,
    and gives one sequence each, called ``<folder>-1``, ``<folder>-2``; empty files of that kind are
    passed over. Rows of eight numbers are corners of polygons and become their axis-aligned hulls.
    Frames are sorted by number and go with the rows in order; what one has more than the other is
    left out. Sub-folders without a ground truth file are no sequences.

    The root may also be one sequence's own folder. There is nothing in such a folder that would
    divide it, so that every split gives all sequences.

    Args:
        root: The folder; else ``$SLT_GYM_FOLDER``, else ``$SLT_GYM_DATA/folder``.
        split: ``"train"``, ``"val"`` or ``"test"``, all alike.

    Raises:
        DatasetNotFoundError: There is no such folder, or no sequence in it.
        InvalidArgumentError: The split is unknown.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, split: str = "train") -> None:
        if split not in _SPLITS:
            raise unknown("split of folder", split, _SPLITS)
        self.root = find_root("folder", root, _LAYOUT)
        self._files = _find_targets(self.root)
        if not self._files:
            for name in sort_naturally(list_folders(self.root)):
                for target, path in _find_targets(self.root / name).items():
                    # pysot's users link or copy Jogging to Jogging-1: the same sequence twice.
                    self._files.setdefault(target, path)
        if not self._files:
            raise wrong_root(
                "folder", self.root, "holds no folder with a ground truth file", _LAYOUT
            )
        super().__init__("folder", split, list(self._files))

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        path = self._files[name]
        boxes = read_boxes(path, polygons=True)
        paths = _find_frames(name, path.parent)
        count, notes = match_lengths(images=len(paths), boxes=len(boxes))
        return ImageSequence(name, cast("list[Path]", paths[:count]), boxes[:count], notes=notes)


def _find_targets(folder: Path) -> dict[str, Path]:
    """Return the annotation files of a sequence's folder by the names of the sequences."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetNotFoundError(f"cannot list {folder}: {reason}") from None
    matches = sorted(filter(None, map(_ANNOTATION.fullmatch, names)), key=lambda m: m.group())
    sequence = folder.resolve().name if folder.name in ("", "..") else folder.name
    plain = [match.group() for match in matches if match[1] is None]
    if plain:
        return {sequence: folder / plain[-1]}  # groundtruth_rect.txt rather than groundtruth.txt
    numbered = {
        f"-{match[1]}": folder / match.group()
        for match in sorted(matches, key=lambda m: int(m[1]))
        if read_optional_text(folder / match.group())
    }
    for suffix, path in numbered.items():
        if sequence.endswith(suffix):  # The folder is already named after one of its targets.
            return {sequence: path}
    return {sequence + suffix: path for suffix, path in numbered.items()}


def _find_frames(name: str, folder: Path) -> FramePaths:
    for candidate in _FRAME_FOLDERS:
        if (folder / candidate).is_dir():
            frames = list_frames(folder / candidate)
            if frames:
                return frames
    raise DatasetNotFoundError(
        f"sequence {name!r} has no frames: expected are jpg, jpeg, png or bmp files in "
        f"{folder}, or in its img, imgs or color"
    )
