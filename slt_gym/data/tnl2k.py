"""TNL2K (Wang et al., CVPR 2021): 2,000 sequences with a sentence each, 1,300 of them to train."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from slt_gym.data.annotations import read_boxes, read_names, read_optional_text
from slt_gym.data.frames import list_frames, sort_naturally
from slt_gym.data.roots import find_root, list_folders, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.errors import DatasetNotFoundError, unknown

_LAYOUT = """\
TNL2K/
  <sequence>/imgs/00001.png …        (or in folders called like train and test)
  <sequence>/groundtruth.txt         (also language.txt)
  TNL2K_testing_set.txt              (where train and test are not folders of their own)
"""
_SPLITS = ("train", "test", "all")
_LIST = "TNL2K_testing_set.txt"
_PART = re.compile("train|test", re.IGNORECASE)
# Parts of the download lie in each other: TNL2K_train/TNL2K_train_subset_p1/<sequence>.
_DEPTH = 2
# Programs that could not cope with them have taken these characters out of folders' names.
_LOST_CHARACTERS = re.compile("[ &]")


class TNL2KDataset(SequenceDataset):
    """TNL2K as it is downloaded: sequences in the root, or in folders of the parts.

    ``TNL2K_testing_set.txt`` in the root, from the official evaluation toolkit, decides what is
    ``test``, the rest being ``train``. Without it, folders in the root whose names hold "train" or
    "test" do, and sequences outside of them belong to ``all`` only. Names are in natural order.

    A frame is visible when its box has an area. Attributes: ``absent``, booleans of shape
    ``(T,)``, true where the row is ``0,0,0,0`` (how TNL2K marks an absent target); ``language``,
    the describing sentence as a text array of shape ``()``, where there is one.

    Args:
        root: The folder; else ``$SLT_GYM_TNL2K``, else ``$SLT_GYM_DATA/tnl2k``.
        split: ``"train"``, ``"test"`` or ``"all"``.

    Raises:
        DatasetNotFoundError: There is no such folder, nothing that divides it, or no sequence of
            the split.
        InvalidArgumentError: The split is unknown.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, split: str = "train") -> None:
        if split not in _SPLITS:
            raise unknown("split of tnl2k", split, _SPLITS)
        self.root = find_root("tnl2k", root, _LAYOUT)
        found = _find_sequences(self.root)
        if not found:
            raise wrong_root("tnl2k", self.root, "holds no sequence folder", _LAYOUT)
        if (self.root / _LIST).is_file():
            tests = {_squeeze(name) for name in read_names(self.root / _LIST)}
            found = {
                name: (folder, "test" if _squeeze(name) in tests else "train")
                for name, (folder, _) in found.items()
            }
        self._folders = {
            name: folder for name, (folder, part) in found.items() if split in ("all", part)
        }
        if not self._folders:
            divided = any(part for _, part in found.values())
            raise DatasetNotFoundError(
                f"cannot read tnl2k: {self.root} holds {len(found)} sequences, none of them of "
                f"split {split!r}"
                if divided
                else f"cannot divide tnl2k: {self.root} holds neither {_LIST}, which comes with "
                'the official evaluation toolkit, nor folders called train and test; split="all" '
                "opens all of it"
            )
        super().__init__("tnl2k", split, sort_naturally(list(self._folders)))

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        folder = self._folders[name]
        boxes = read_boxes(folder / "groundtruth.txt")
        paths = list_frames(folder / "imgs")
        if not paths:
            raise DatasetNotFoundError(f"sequence {name!r} has no frames in {folder / 'imgs'}")
        count, notes = match_lengths(images=len(paths), boxes=len(boxes))
        boxes = boxes[:count]
        attributes: dict[str, Any] = {"absent": (boxes == 0).all(axis=1)}
        sentence = read_optional_text(folder / "language.txt")
        if sentence:
            attributes["language"] = np.array(sentence)
        return ImageSequence(name, paths[:count], boxes, None, attributes, notes)


def _find_sequences(folder: Path, part: str = "", depth: int = 0) -> dict[str, tuple[Path, str]]:
    """Return the sequences' folders by name, each with the part that it lies in, or ``""``."""
    found: dict[str, tuple[Path, str]] = {}
    for name in list_folders(folder):
        # Sequences are called "test_015_…" too, so that the name alone does not make a part.
        if (folder / name / "groundtruth.txt").is_file():
            found[name] = folder / name, part
        elif depth < _DEPTH:
            match = _PART.search(name)
            inner = part or (match[0].lower() if match else "")
            if inner:
                found |= _find_sequences(folder / name, inner, depth + 1)
    return found


def _squeeze(name: str) -> str:
    return _LOST_CHARACTERS.sub("", name)
