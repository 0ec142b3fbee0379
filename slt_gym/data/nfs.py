"""Need for Speed (Kiani Galoogahi et al., ICCV 2017): 100 sequences at 30 frames per second."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.annotations import read_boxes, read_lines
from slt_gym.data.frames import list_frame_range, sort_naturally
from slt_gym.data.roots import find_root, list_folders, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.data.splits import check_test_only
from slt_gym.errors import AnnotationError, DatasetNotFoundError
from slt_gym.geometry import from_corners

_LAYOUT = """\
NFS/
  Gymnastics/30/Gymnastics/00001.jpg …     (as published)
  Gymnastics/30/Gymnastics.txt
or, as repacked for pytracking,
  sequences/Gymnastics/00001.jpg …
  anno/nfs_Gymnastics.txt
"""
_PREFIX = "nfs_"
# Rows as published: id, x1, y1, x2, y2, frame, lost, occluded, generated, and a label.
_FIELDS = 9
_STEP = 8  # From 240 frames per second to 30.


class NFSDataset(SequenceDataset):
    """The 30-fps half of NFS, as published or as repacked for pytracking; for testing only.

    The published text files have a row for each frame at 240 fps, of which every eighth is taken;
    a row or an image too many at the end is left out. Their boxes are corners, and become
    ``(x, y, w, h)`` without a "+1".

    A frame is visible when its box has an area and, in the published form, is not marked as lost.
    Attributes of the published form, booleans of shape ``(T,)``: ``lost`` and ``occluded``.

    Args:
        root: The folder; else ``$SLT_GYM_NFS``, else ``$SLT_GYM_DATA/nfs``.
        split: ``"test"``.

    Raises:
        DatasetNotFoundError: There is no such folder, or no sequence in it.
        InvalidArgumentError: The split is another one.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, split: str = "test") -> None:
        check_test_only("nfs", split)
        self.root = find_root("nfs", root, _LAYOUT)
        self._repacked = (self.root / "sequences").is_dir() and (self.root / "anno").is_dir()
        names = list_folders(self.root / "sequences" if self._repacked else self.root)
        present = [name for name in names if self._find_annotation(name).is_file()]
        if not present:
            found = "holds no sequence with its text file"
            raise wrong_root("nfs", self.root, found, _LAYOUT)
        super().__init__("nfs", split, sort_naturally(present))

    def _find_annotation(self, name: str) -> Path:
        if self._repacked:
            return self.root / "anno" / f"{_PREFIX}{name}.txt"
        return self.root / name / "30" / f"{name}.txt"

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        path = self._find_annotation(name)
        folder = self.root / "sequences" / name if self._repacked else path.with_suffix("")
        paths = list_frame_range(folder)
        if not paths:
            raise DatasetNotFoundError(f"sequence {name!r} has no frames in {folder}")
        flags: dict[str, NDArray[np.bool_]] = {}
        if self._repacked:
            boxes = read_boxes(path)
        else:
            rows = _read_rows(path)
            if len(rows) > len(paths) * _STEP / 2:  # Else it is one row an image already.
                rows = rows[::_STEP]
            boxes = from_corners(rows[:, 1:5])
            flags = {"lost": rows[:, 6] != 0, "occluded": rows[:, 7] != 0}
        count, notes = match_lengths(images=len(paths), boxes=len(boxes))
        attributes = {key: values[:count] for key, values in flags.items()}
        visible = ~attributes["lost"] if flags else None
        return ImageSequence(name, paths[:count], boxes[:count], visible, attributes, notes)


def _read_rows(path: Path) -> NDArray[np.float64]:
    """Return the numbers of a published text file, shape ``(rows, 9)``; labels are passed over."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            rows.append([float(field) for field in line.split(None, _FIELDS)[:_FIELDS]])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != _FIELDS:
            raise AnnotationError(
                f"{path}, line {number}: {line.strip()[:60]!r} does not begin with nine numbers: "
                "id, x1, y1, x2, y2, frame, lost, occluded, generated"
            )
    return np.array(rows)
