"""UAV123 and UAV20L (Mueller et al., ECCV 2016): video from low-flying drones."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from slt_gym.data.annotations import read_boxes, read_optional_text
from slt_gym.data.frames import list_frame_range
from slt_gym.data.roots import find_root, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.data.splits import check_test_only
from slt_gym.errors import DatasetNotFoundError

_LAYOUT = """\
UAV123/                                (the folder that holds data_seq and anno, or one above it)
  data_seq/UAV123/bike1/000001.jpg …
  anno/UAV123/bike1.txt                (anno/UAV20L/ likewise; att/bike1.txt beside them)
"""
# The numbers of the first and the last frame of each part of the folders that are cut up: the
# benchmark's own list, which no file of the download holds.
_PARTS: dict[str, tuple[tuple[int, int], ...]] = {
    "bird1": ((1, 253), (775, 1477), (1573, 2437)),
    "car1": ((1, 751), (751, 1627), (1627, 2629)),
    "car6": ((1, 487), (487, 1807), (1807, 2953), (2953, 3925), (3925, 4861)),
    "car8": ((1, 1357), (1357, 2575)),
    "car16": ((1, 415), (415, 1993)),
    "group1": ((1, 1333), (1333, 2515), (2515, 3925), (3925, 4873)),
    "group2": ((1, 907), (907, 1771), (1771, 2683)),
    "group3": ((1, 1567), (1567, 2827), (2827, 4369), (4369, 5527)),
    "person2": ((1, 1189), (1189, 2623)),
    "person4": ((1, 1501), (1501, 2743)),
    "person5": ((1, 877), (877, 2101)),
    "person7": ((1, 1249), (1249, 2065)),
    "person8": ((1, 1075), (1075, 1525)),
    "person12": ((1, 601), (601, 1621)),
    "person14": ((1, 847), (847, 1813), (1813, 2923)),
    "person17": ((1, 1501), (1501, 2347)),
    "person19": ((1, 1243), (1243, 2791), (2791, 4357)),
    "truck4": ((1, 577), (577, 1261)),
    "uav1": ((1, 1555), (1555, 2377), (2473, 3469)),
}
# How many numbered folders each kind has; those of the kinds with "_s" end in it.
_KINDS = (
    ("bike", 3, ""),
    ("bird", 1, ""),
    ("boat", 9, ""),
    ("building", 5, ""),
    ("car", 18, ""),
    ("car", 4, "_s"),
    ("group", 3, ""),
    ("person", 23, ""),
    ("person", 3, "_s"),
    ("truck", 4, ""),
    ("uav", 8, ""),
    ("wakeboard", 10, ""),
)
_LONG = """
bike1 bird1 car1 car3 car6 car8 car9 car16 group1 group2 group3 person2 person4 person5 person7
person14 person17 person19 person20 uav1
"""
# A sequence's folder, its first frame, and its last one where the folder goes on.
_Range = tuple[str, int, int | None]


def _list_uav123() -> dict[str, _Range]:
    sequences: dict[str, _Range] = {}
    for kind, count, suffix in _KINDS:
        for k in range(1, count + 1):
            folder = f"{kind}{k}{suffix}"
            parts = _PARTS.get(folder)
            if parts is None:
                sequences[folder] = (folder, 1, None)
            else:
                for part, (first, last) in enumerate(parts, 1):
                    sequences[f"{folder}_{part}"] = (folder, first, last)
    return sequences


UAV123_SEQUENCES = _list_uav123()
"""The 123 sequences by name: the folder, the first frame's number, the last one's or None."""

UAV20L_SEQUENCES: dict[str, _Range] = {
    name: (name, 1, None)
    for name in [
        "bike1",
        "bird1",
        "car1",
        "car3",
        "car6",
        "car8",
        "car9",
        "car16",
        "group1",
        "group2",
        "group3",
        "person2",
        "person4",
        "person5",
        "person7",
        "person14",
        "person17",
        "person19",
        "person20",
        "uav1",
    ]
}
"""The 20 sequences, each a whole folder, in the same form."""

_TAGS = (
    "scale_variation",
    "aspect_ratio_change",
    "low_resolution",
    "fast_motion",
    "full_occlusion",
    "partial_occlusion",
    "out_of_view",
    "background_clutter",
    "illumination_variation",
    "viewpoint_change",
    "camera_motion",
    "similar_object",
)
_FLAG_LINE = re.compile(r"[01](?:,[01]){11}")


class UAV123Dataset(SequenceDataset):
    """The 123 sequences of UAV123, cut from 91 folders of frames; for testing only.

    Which frames of a folder are a sequence's comes with the library (``bird1_2`` is frames 775 to
    1477 of ``bird1``). Sequences that the disk does not hold are left out, as in a partial
    download.

    A frame is visible where the file has a box; out-of-view frames hold ``NaN``. The attribute
    ``tags``, where ``att/<sequence>.txt`` is there and holds twelve flags, is a text array of shape
    ``(K,)``: those of ``scale_variation``, ``aspect_ratio_change``, ``low_resolution``,
    ``fast_motion``, ``full_occlusion``, ``partial_occlusion``, ``out_of_view``,
    ``background_clutter``, ``illumination_variation``, ``viewpoint_change``, ``camera_motion`` and
    ``similar_object`` that the whole sequence is marked with.

    Args:
        root: The folder that holds ``data_seq`` and ``anno``, or the one above it; else
            ``$SLT_GYM_UAV123``, else ``$SLT_GYM_DATA/uav123``.
        split: ``"test"``.

    Raises:
        DatasetNotFoundError: There is no such folder, or no sequence in it.
        InvalidArgumentError: The split is another one.
    """

    _title: ClassVar[str] = "UAV123"
    _sequences: ClassVar[dict[str, _Range]] = UAV123_SEQUENCES

    def __init__(self, root: str | os.PathLike[str] | None = None, split: str = "test") -> None:
        name = self._title.lower()
        check_test_only(name, split)
        self.root = find_root(name, root, _LAYOUT)
        if not (self.root / "anno").is_dir() and (self.root / "UAV123" / "anno").is_dir():
            self.root = self.root / "UAV123"
        self._annotations = self.root / "anno" / self._title
        self._frames = self.root / "data_seq" / "UAV123"
        present = [
            sequence
            for sequence, (folder, *_) in self._sequences.items()
            if (self._annotations / f"{sequence}.txt").is_file()
            and (self._frames / folder).is_dir()
        ]
        if not present:
            found = f"holds none of the {len(self._sequences)} sequences"
            raise wrong_root(name, self.root, found, _LAYOUT)
        super().__init__(name, split, present)

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        folder, first, last = self._sequences[name]
        boxes = read_boxes(self._annotations / f"{name}.txt")
        paths = list_frame_range(self._frames / folder, first, last)
        if not paths:
            raise DatasetNotFoundError(
                f"sequence {name!r} has no frames: {self._frames / folder} holds none from number "
                f"{first} on"
            )
        count, notes = match_lengths(images=len(paths), boxes=len(boxes))
        attributes = _read_tags(self._annotations / "att" / f"{name}.txt")
        return ImageSequence(name, paths[:count], boxes[:count], None, attributes, notes)


class UAV20LDataset(UAV123Dataset):
    """The 20 long sequences of UAV20L, whole folders of UAV123; for testing only.

    Everything else is as in :class:`UAV123Dataset`; the boxes come from ``anno/UAV20L``.

    Args:
        root: UAV123's folder, or the one above it; else ``$SLT_GYM_UAV20L``, else
            ``$SLT_GYM_DATA/uav20l``.
        split: ``"test"``.

    Raises:
        DatasetNotFoundError: There is no such folder, or no sequence in it.
        InvalidArgumentError: The split is another one.
    """

    _title = "UAV20L"
    _sequences = UAV20L_SEQUENCES


def _read_tags(path: Path) -> dict[str, Any]:
    """Return the tags of a sequence; none where the file is not there or not of that form."""
    line = (read_optional_text(path) or "").replace(" ", "")
    if not _FLAG_LINE.fullmatch(line):
        return {}
    marked = [tag for tag, flag in zip(_TAGS, line.split(","), strict=True) if flag == "1"]
    return {"tags": np.array(marked, np.str_)}
