"""VOT2018 and VOT2020 (Kristan et al.): the short-term challenges, 60 sequences each."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import abc
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.annotations import (
    find_hulls,
    read_flags,
    read_lines,
    read_names,
    read_optional_text,
    read_polygons,
)
from slt_gym.data.frames import list_frame_range
from slt_gym.data.masks import decode_runs
from slt_gym.data.roots import find_root, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.data.splits import check_test_only
from slt_gym.errors import AnnotationError, DatasetNotFoundError, unknown

_LAYOUT = """\
VOT2018/
  list.txt                           (one sequence per line; also in sequences/ below the root)
  ants1/color/00000001.jpg …         (or beside the text files)
  ants1/groundtruth.txt
  ants1/sequence  ants1/camera_motion.tag …
"""
_TAGS = ("camera_motion", "illum_change", "motion_change", "occlusion", "size_change")
_RECTANGLES = ("minmax", "area")


class _Mask(NamedTuple):
    """A window of the frame, pixels, and runs of pixels through it, by turns out- and inside."""

    x: int
    y: int
    width: int
    height: int
    runs: NDArray[np.int32]

    def decode(self) -> NDArray[np.bool_]:
        """Return the window's pixels, shape ``(height, width)``."""
        inside = decode_runs(self.runs, self.width * self.height)
        return inside.reshape(self.height, self.width)


class _Regions(NamedTuple):
    """What is annotated: boxes ``(T, 4)``, further arrays with T rows, T masks or none."""

    boxes: NDArray[np.float64]
    arrays: dict[str, Any]
    masks: list[_Mask] | None = None


class _VOTSequence(ImageSequence):
    """Frames with masks, if there are any."""

    def __init__(
        self,
        name: str,
        paths: abc.Sequence[Path],
        boxes: NDArray[np.float64],
        attributes: dict[str, Any],
        notes: list[str],
        masks: list[_Mask] | None,
    ) -> None:
        super().__init__(name, paths, boxes, None, attributes, notes)
        self._masks = masks

    def read_mask(self, t: int) -> NDArray[np.bool_] | None:
        """Return the target's mask in frame ``t``, whose size is read from its file."""
        if self._masks is None:
            return None
        mask = np.zeros(self.read(t).shape[:2], bool)
        x, y, width, height, _ = self._masks[t]
        left, top = max(x, 0), max(y, 0)
        inside = self._masks[t].decode()[top - y :, left - x :]
        part = mask[top : max(y + height, 0), left : max(x + width, 0)]
        part[:] = inside[: part.shape[0], : part.shape[1]]
        return mask


class _VOTDataset(SequenceDataset):
    """What both years share: the list, the frames, the tags and the file ``sequence``."""

    _title: ClassVar[str]

    def __init__(self, root: str | os.PathLike[str] | None, split: str) -> None:
        check_test_only(self._title, split)
        self.root = find_root(self._title, root, _LAYOUT)
        if not (self.root / "list.txt").is_file() and (self.root / "sequences").is_dir():
            self.root = self.root / "sequences"
        if not (self.root / "list.txt").is_file():
            raise wrong_root(self._title, self.root, "holds no list.txt", _LAYOUT)
        listed = read_names(self.root / "list.txt")
        present = [name for name in listed if (self.root / name / "groundtruth.txt").is_file()]
        if not present:
            found = f"holds none of the {len(listed)} sequences of its list.txt"
            raise wrong_root(self._title, self.root, found, _LAYOUT)
        super().__init__(self._title, split, present)

    @abstractmethod
    def _read_regions(self, folder: Path) -> _Regions:
        """Return what is annotated in the frames."""

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        folder = self.root / name
        boxes, regions, masks = self._read_regions(folder)
        frames = folder / "color" if (folder / "color").is_dir() else folder
        paths = list_frame_range(frames)
        if not paths:
            raise DatasetNotFoundError(f"sequence {name!r} has no frames in {frames}")
        count, notes = match_lengths(images=len(paths), boxes=len(boxes))
        attributes = {key: values[:count] for key, values in regions.items()}
        for tag in _TAGS:
            attributes[tag] = _read_tag(folder / f"{tag}.tag", count)
        attributes |= _read_sequence_file(folder / "sequence")
        return _VOTSequence(
            name, paths[:count], boxes[:count], attributes, notes, masks and masks[:count]
        )


class VOT2018Dataset(_VOTDataset):
    """VOT2018's short-term challenge, annotated with rotated rectangles; for testing only.

    The sequences are those of ``list.txt`` that the disk holds, in its order. A frame is visible
    when its box has an area.

    Attributes, of shape ``(T,)``: ``camera_motion``, ``illum_change``, ``motion_change``,
    ``occlusion`` and ``size_change``, booleans (false past a tag file's end). ``polygon``, float64
    of shape ``(T, 8)``: the corners ``x1, y1, … x4, y4`` as in the file. Of shape ``()``, where
    the file ``sequence`` has them: ``fps``, ``width`` and ``height``.

    Args:
        root: The folder; else ``$SLT_GYM_VOT2018``, else ``$SLT_GYM_DATA/vot2018``.
        split: ``"test"``.
        rectangle: How a rotated rectangle becomes a box: ``"minmax"``, its axis-aligned hull (as
            in pytracking), or ``"area"``, the hull shrunk about the corners' mean to the rotated
            rectangle's area, plus one pixel each way (what PySOT starts its trackers with).

    Raises:
        DatasetNotFoundError: There is no such folder, no ``list.txt``, or none of its sequences.
        InvalidArgumentError: The split or ``rectangle`` is unknown.
    """

    _title = "vot2018"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "test",
        *,
        rectangle: str = "minmax",
    ) -> None:
        if rectangle not in _RECTANGLES:
            raise unknown("rectangle", rectangle, _RECTANGLES)
        self._rectangle = rectangle
        super().__init__(root, split)

    def _read_regions(self, folder: Path) -> _Regions:
        polygons = read_polygons(folder / "groundtruth.txt")
        boxes = find_hulls(polygons)
        if self._rectangle == "area":
            boxes = _shrink_to_area(boxes, polygons)
        return _Regions(boxes, {"polygon": polygons})


class VOT2020Dataset(_VOTDataset):
    """VOT2020's short-term challenge, annotated with masks; for testing only.

    A box is the tight one around its mask's pixels: ``(x, y)`` is the first column and row, ``w``
    and ``h`` their numbers. Masks are text, ``m x0,y0,w,h,run,run,…``: a window of the frame, and
    the lengths of runs of pixels through it row by row, by turns outside and inside of the target,
    beginning outside. What the runs leave of the window is outside. A frame is visible when its
    mask has a pixel. :meth:`Sequence.read_mask` gives the masks.

    Sequences, tags and the file ``sequence`` are as in :class:`VOT2018Dataset`. The attribute
    ``anchor``, int64 of shape ``(T,)``, marks the frames where the challenge starts trackers: 1
    forwards, -1 backwards, 0 not; it is there where ``anchor.value`` is.

    Args:
        root: The folder; else ``$SLT_GYM_VOT2020``, else ``$SLT_GYM_DATA/vot2020``.
        split: ``"test"``.

    Raises:
        DatasetNotFoundError: There is no such folder, no ``list.txt``, or none of its sequences.
        InvalidArgumentError: The split is another one.
    """

    _title = "vot2020"

    def __init__(self, root: str | os.PathLike[str] | None = None, split: str = "test") -> None:
        super().__init__(root, split)

    def _read_regions(self, folder: Path) -> _Regions:
        path = folder / "groundtruth.txt"
        masks = [_parse_mask(path, t, line) for t, line in enumerate(read_lines(path), 1)]
        boxes = np.array([_find_mask_box(mask) for mask in masks])
        regions = {}
        if (folder / "anchor.value").is_file():
            regions["anchor"] = _read_anchors(folder / "anchor.value", len(boxes))
        return _Regions(boxes, regions, masks)


def _shrink_to_area(
    hulls: NDArray[np.float64], polygons: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return PySOT's boxes, ``(T, 4)``; hulls without area stay as they are."""
    corners = polygons.reshape(-1, 4, 2)
    x, y = corners[..., 0], corners[..., 1]
    area = abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)) / 2
    whole = hulls[:, 2] * hulls[:, 3]
    scale = np.sqrt(np.divide(area, whole, out=np.zeros_like(area), where=whole > 0))
    size = hulls[:, 2:] * scale[:, None] + 1
    boxes = np.concatenate([corners.mean(axis=1) - (size - 1) / 2, size], axis=1)
    return np.where(whole[:, None] > 0, boxes, hulls)


def _parse_mask(path: Path, number: int, line: str) -> _Mask:
    """Return the mask in one line of text."""
    try:
        if line[:1] != "m":
            raise ValueError
        x, y, width, height, *runs = map(int, line[1:].split(","))
        if min(width, height, *runs) < 0 or sum(runs) > width * height:
            raise ValueError
    except ValueError:
        shown = line if len(line) <= 60 else line[:59] + "…"
        raise AnnotationError(
            f"{path}, line {number}: {shown!r} is not a mask: expected is m and whole numbers with "
            "commas between them, x, y, w, h of a window and runs that fit into it"
        ) from None
    return _Mask(x, y, width, height, np.array(runs, np.int32))


def _find_mask_box(mask: _Mask) -> tuple[float, float, float, float]:
    """Return the tight box of a mask; zeros for an empty one."""
    rows, columns = np.nonzero(mask.decode())
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    left, top = columns.min(), rows.min()
    return (
        float(mask.x + left),
        float(mask.y + top),
        float(columns.max() - left + 1),
        float(rows.max() - top + 1),
    )


def _read_anchors(path: Path, count: int) -> NDArray[np.int64]:
    """Return 1, -1 or 0 per frame; 0 where the file ends earlier."""
    anchors = np.zeros(count, np.int64)
    for number, line in enumerate(read_lines(path)[:count], 1):
        try:
            anchors[number - 1] = round(float(line))  # Both "1" and "1.0" are in use.
        except (ValueError, OverflowError):
            raise AnnotationError(
                f"{path}, line {number}: {line.strip()[:60]!r} is not 1, -1 or 0"
            ) from None
    return anchors


def _read_tag(path: Path, count: int) -> NDArray[np.bool_]:
    """Return one flag per frame; false where the file is missing, or ends earlier."""
    flags = np.zeros(count, bool)
    if read_optional_text(path):
        values = read_flags(path)[:count] != 0
        flags[: len(values)] = values
    return flags


def _read_sequence_file(path: Path) -> dict[str, Any]:
    """Return the numbers in a sequence's file of ``key=value`` lines that are of use."""
    pairs = (line.partition("=") for line in (read_optional_text(path) or "").splitlines())
    values = {key.strip(): value.strip() for key, _, value in pairs}
    return {
        key: np.array(kind(values[key]))
        for key, kind in (("fps", float), ("width", int), ("height", int))
        if key in values
    }
