"""LaSOT (Fan et al., CVPR 2019): 1,400 long sequences of 70 classes."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np

from slt_gym.data.annotations import read_boxes, read_flags, read_names, read_optional_text
from slt_gym.data.frames import list_numbered_frames, sort_naturally
from slt_gym.data.roots import find_root, list_folders, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.errors import DatasetNotFoundError, unknown

_LAYOUT = """\
LaSOT/
  airplane/airplane-1/img/00000001.jpg …   (or airplane-1/ directly in the root)
  airplane/airplane-1/groundtruth.txt      (also full_occlusion.txt, out_of_view.txt)
  training_set.txt  testing_set.txt
"""
_SPLITS = ("train", "val", "test", "all")
_LISTS = {"train": "training_set.txt", "test": "testing_set.txt"}
_SEQUENCE = re.compile(r".+-\d+")


class LaSOTDataset(SequenceDataset):
    """The LaSOT benchmark as it is downloaded, class folders or all sequences side by side.

    Splits come from ``training_set.txt`` and ``testing_set.txt`` in the root (or in
    ``LaSOTBenchmark`` below it). One of them is enough, the other part being the rest; sequences
    that a list names and the disk does not hold are left out, as in a partial download.

    LaSOT has no validation part. Here ``val`` is the tenth of the training list whose names have
    the smallest CRC-32, which mixes the classes and is the same everywhere; ``train`` still holds
    them unless ``holdout`` is set. ``all`` is every sequence on the disk and needs no list.

    A frame is visible when the target is neither fully occluded nor out of view and its box has an
    area. Attributes: ``full_occlusion`` and ``out_of_view``, booleans of shape ``(T,)``; ``nlp``,
    the describing sentence as a text array of shape ``()``, where there is one.

    Args:
        root: The folder; else ``$SLT_GYM_LASOT``, else ``$SLT_GYM_DATA/lasot``.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        holdout: Leave the sequences of ``val`` out of ``train``.

    Raises:
        DatasetNotFoundError: There is no such folder, no list of the split, or none of its
            sequences.
        InvalidArgumentError: The split is unknown.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        *,
        holdout: bool = False,
    ) -> None:
        if split not in _SPLITS:
            raise unknown("split of lasot", split, _SPLITS)
        self.root = find_root("lasot", root, _LAYOUT)
        self._folders = find_sequences(self.root, "LaSOTBenchmark")
        if not self._folders:
            raise wrong_root("lasot", self.root, "holds no sequence folder", _LAYOUT)
        names = self._choose(split, holdout)
        present = [name for name in names if name in self._folders]
        if not present:
            raise DatasetNotFoundError(
                f"cannot read lasot: {self.root} holds {len(self._folders)} sequences but none of "
                f"the {len(names)} of split {split!r}, such as {(names or ['none'])[0]!r}"
            )
        super().__init__("lasot", split, present)

    def _choose(self, split: str, holdout: bool) -> list[str]:
        if split == "all":
            return list(self._folders)
        if split == "test":
            return self._read_list("test")
        names = self._read_list("train")
        ranked = sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))
        held = set(ranked[: -(-len(names) // 10)])
        if split == "val":
            return [name for name in names if name in held]
        return [name for name in names if not (holdout and name in held)]

    def _read_list(self, part: str) -> list[str]:
        """Return the published names of ``train`` or ``test``."""
        own, other = _LISTS[part], _LISTS["test" if part == "train" else "train"]
        for folder in (self.root, self.root / "LaSOTBenchmark"):
            if (folder / own).is_file():
                return read_names(folder / own)
        for folder in (self.root, self.root / "LaSOTBenchmark"):
            if (folder / other).is_file():
                rest = set(read_names(folder / other))
                return [name for name in self._folders if name not in rest]
        raise DatasetNotFoundError(
            f"cannot divide lasot: {self.root} holds neither {own} nor {other}, which come with "
            "the full download; put testing_set.txt of the official LaSOT evaluation toolkit "
            'there, or open split="all"'
        )

    def _load(self, index: int) -> Sequence:
        name = self.names[index]
        return read_sequence(name, self._folders[name])


def read_sequence(name: str, folder: Path) -> ImageSequence:
    """Read one sequence of LaSOT or of its extension.

    Args:
        name: The sequence's name.
        folder: Holds ``img`` and the text files.

    Raises:
        AnnotationError: A text file is missing or garbled.
        DatasetNotFoundError: There are no frames.
        FrameError: A frame is missing in between.
    """
    boxes = read_boxes(folder / "groundtruth.txt")
    occlusion = read_flags(folder / "full_occlusion.txt") != 0
    out_of_view = read_flags(folder / "out_of_view.txt") != 0
    # Some published sequences have more images than rows, or rows than flags.
    rows = {
        "boxes": len(boxes),
        "occlusion flags": len(occlusion),
        "out-of-view flags": len(out_of_view),
    }
    paths = list_numbered_frames(folder / "img", "{:08d}.jpg", min(rows.values()))
    if not paths:
        raise DatasetNotFoundError(f"sequence {name!r} has no frames in {folder / 'img'}")
    count, notes = match_lengths(images=len(paths), **rows)
    occlusion, out_of_view = occlusion[:count], out_of_view[:count]
    attributes: dict[str, Any] = {"full_occlusion": occlusion, "out_of_view": out_of_view}
    sentence = read_optional_text(folder / "nlp.txt")
    if sentence:
        attributes["nlp"] = np.array(sentence)
    return ImageSequence(
        name,
        cast("list[Path]", paths[:count]),
        boxes[:count],
        ~(occlusion | out_of_view),
        attributes,
        notes,
    )


def find_sequences(root: Path, archive: str) -> dict[str, Path]:
    """Return the sequences' folders by name, in natural order, nested ones before flat ones.

    Args:
        root: The dataset's folder.
        archive: The folder that the download unpacks to; searched instead where ``root`` holds it.
    """
    if (root / archive).is_dir():
        root = root / archive
    nested: dict[str, Path] = {}
    flat: dict[str, Path] = {}
    # No class has a dash in its name, every sequence ends in a dash and a number.
    for name in list_folders(root):
        if _SEQUENCE.fullmatch(name):
            flat[name] = root / name
        else:
            for child in list_folders(root / name):
                if child.rpartition("-")[0] == name and _SEQUENCE.fullmatch(child):
                    nested[child] = root / name / child
    found = flat | nested
    return {name: found[name] for name in sort_naturally(list(found))}
