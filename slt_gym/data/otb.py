"""OTB-100 (Wu et al., TPAMI 2015): 100 short sequences in 98 folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from slt_gym.data.annotations import read_boxes, read_optional_text
from slt_gym.data.frames import list_frame_range
from slt_gym.data.roots import find_root, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.data.splits import check_test_only
from slt_gym.errors import DatasetNotFoundError

_LAYOUT = """\
OTB100/
  Basketball/img/0001.jpg …
  Basketball/groundtruth_rect.txt
  Jogging/groundtruth_rect.1.txt  groundtruth_rect.2.txt   (two targets: Jogging-1, Jogging-2)
"""
_NAMES = """
Basketball Biker Bird1 Bird2 BlurBody BlurCar1 BlurCar2 BlurCar3 BlurCar4 BlurFace BlurOwl Board
Bolt Bolt2 Box Boy Car1 Car2 Car24 Car4 CarDark CarScale ClifBar Coke Couple Coupon Crossing Crowds
Dancer Dancer2 David David2 David3 Deer Diving Dog Dog1 Doll DragonBaby Dudek FaceOcc1 FaceOcc2
Fish FleetFace Football Football1 Freeman1 Freeman3 Freeman4 Girl Girl2 Gym Human2 Human3 Human4-2
Human5 Human6 Human7 Human8 Human9 Ironman Jogging-1 Jogging-2 Jump Jumping KiteSurf Lemming Liquor
Man Matrix Mhyang MotorRolling MountainBike Panda RedTeam Rubik Shaking Singer1 Singer2 Skater
Skater2 Skating1 Skating2-1 Skating2-2 Skiing Soccer Subway Surfer Suv Sylvester Tiger1 Tiger2 Toy
Trans Trellis Twinnings Vase Walking Walking2 Woman
"""
# Sequences whose folder and whose number in it are not told by a plain groundtruth_rect.txt.
_TARGETS = {
    "Human4-2": ("Human4", 2),
    "Jogging-1": ("Jogging", 1),
    "Jogging-2": ("Jogging", 2),
    "Skating2-1": ("Skating2", 1),
    "Skating2-2": ("Skating2", 2),
}
# Numbers of the first and the last annotated frame, where they are not those of the files.
_RANGES = {
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
}
# Frames at the start that the official evaluation passes over.
_INIT_OMIT = {"Tiger1": 5}
_FRAME_FOLDERS = ("img", "jpg")  # KiteSurf's frames have been published as jpg/0001.png too.

OTB100_NAMES = tuple(_NAMES.split())
"""The 100 sequences, as they are called here."""

OTB_ALIASES = {
    **{f"{folder}{mark}{k}": name for name, (folder, k) in _TARGETS.items() for mark in "-._"},
    "Human4": "Human4-2",
    "Jogging1": "Jogging-1",
    "Jogging2": "Jogging-2",
}
"""Names that toolkits give to the sequences that share a folder, to the names used here.

pytracking writes ``Jogging_1``, got10k ``Jogging.1`` and ``Human4``, PySOT ``Jogging-1``, the VOT
toolkit ``Jogging1`` and ``Skating2_1``. All other sequences have one name everywhere.
"""


class OTB100Dataset(SequenceDataset):
    """The 100 sequences of OTB-100 as they are downloaded; for testing only.

    Sequences are named after their folders; those of the two folders with two targets are
    ``Jogging-1``, ``Jogging-2``, ``Skating2-1`` and ``Skating2-2``, and Human4's is ``Human4-2``
    because its first file is empty, as PySOT names them (:data:`OTB_ALIASES` has the other
    toolkits' names). Folders that are called so, linked or copied for PySOT, are read where
    ``Jogging`` itself is missing. Sequences that the disk does not hold are left out, and further
    folders passed over.

    Where a sequence is annotated in part of its frames (David: 300 to 770), the others are left
    out. Tiger1 keeps its first five frames, which the official evaluation passes over: its
    attribute ``init_omit`` (an integer of shape ``()``) tells how many.

    Args:
        root: The folder; else ``$SLT_GYM_OTB100``, else ``$SLT_GYM_DATA/otb100``.
        split: ``"test"``.

    Raises:
        DatasetNotFoundError: There is no such folder, or no sequence in it.
        InvalidArgumentError: The split is another one.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, split: str = "test") -> None:
        check_test_only("otb100", split)
        self.root = find_root("otb100", root, _LAYOUT)
        found = {name: _find_annotation(self.root, name) for name in OTB100_NAMES}
        self._files = {name: path for name, path in found.items() if path is not None}
        if not self._files:
            raise wrong_root("otb100", self.root, "holds none of the 100 sequences", _LAYOUT)
        super().__init__("otb100", split, list(self._files))

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        path = self._files[name]
        boxes = read_boxes(path)
        first, last = _RANGES.get(name, (1, None))
        folders = [path.parent / sub for sub in _FRAME_FOLDERS if (path.parent / sub).is_dir()]
        listed = (list_frame_range(folder, first, last) for folder in folders)
        paths = next(filter(None, listed), None)
        if paths is None:
            raise DatasetNotFoundError(f"sequence {name!r} has no frames in {path.parent / 'img'}")
        count, notes = match_lengths(images=len(paths), boxes=len(boxes))
        attributes: dict[str, Any] = {}
        if name in _INIT_OMIT:
            attributes["init_omit"] = np.array(_INIT_OMIT[name])
        return ImageSequence(name, paths[:count], boxes[:count], None, attributes, notes)


def _find_annotation(root: Path, name: str) -> Path | None:
    """Return a sequence's file of boxes, or None where the disk does not hold it."""
    if name not in _TARGETS:
        path = root / name / "groundtruth_rect.txt"
        return path if path.is_file() else None
    folder, k = _TARGETS[name]
    candidates = (
        root / folder / f"groundtruth_rect.{k}.txt",
        root / name / f"groundtruth_rect.{k}.txt",
        root / name / "groundtruth_rect.txt",
    )
    return next(filter(read_optional_text, candidates), None)
