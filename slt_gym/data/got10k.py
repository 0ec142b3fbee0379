"""GOT-10k (Huang et al., TPAMI 2021): 10,000 short sequences, classes disjoint between splits."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.annotations import read_boxes, read_flags, read_names, read_optional_text
from slt_gym.data.frames import list_numbered_frames
from slt_gym.data.roots import find_root, list_folders, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.errors import (
    AnnotationError,
    DatasetNotFoundError,
    InvalidArgumentError,
    unknown,
)

_LAYOUT = """\
GOT-10k/
  train/list.txt                     (val/ and test/ likewise; one sequence per line)
  train/GOT-10k_Train_000001/00000001.jpg …
  train/GOT-10k_Train_000001/groundtruth.txt
  train/GOT-10k_Train_000001/absence.label  cover.label  cut_by_image.label
"""


class _Subset(NamedTuple):
    """A published choice of the training part's sequences."""

    split: str  # what environments make of it: "train" is drawn from, others are walked
    file: str


_PARTS = ("train", "val", "test")
_SUBSETS = {
    "pytracking_train": _Subset("train", "got10k_train_split.txt"),
    "pytracking_val": _Subset("val", "got10k_val_split.txt"),
    "vottrain": _Subset("train", "got10k_vot_train_split.txt"),
    "votval": _Subset("val", "got10k_vot_val_split.txt"),
    "vot_clean": _Subset("train", "got10k_vot_exclude.txt"),
}
_PART = re.compile(r"GOT-10k_(Train|Val|Test)_", re.IGNORECASE)
_TEXTS = ("object_class", "motion_class", "major_class", "root_class", "motion_adverb")
_ALL_FRAMES = 10**8


class GOT10kDataset(SequenceDataset):
    """GOT-10k's official train, val and test parts, and PyTracking's choices from the train part.

    The root is the folder that holds ``train``, ``val`` and ``test``, or one of these. Sequences
    that ``list.txt`` names and the disk does not hold are left out, as in a partial download;
    those still inside the folders of the split archives (``GOT-10k_Train_split_01``) are found.

    A frame is visible when the target is not absent, some of it is uncovered and its box has an
    area. The test part publishes the first box only: there the other rows are NaN and the other
    frames not visible, and the length is the number of frames.

    Five more splits choose from the official train part, by files that PyTracking publishes (folder
    ``ltr/data_specs``) and that are not part of this library. A file is looked for beside
    ``train/``, in it, and beside the root; ``split_file`` names another place.

    | split | file | sequences |
    |---|---|---|
    | ``pytracking_train`` | ``got10k_train_split.txt`` | 7934 |
    | ``pytracking_val`` | ``got10k_val_split.txt`` | the other 1401 |
    | ``vottrain`` | ``got10k_vot_train_split.txt`` | 7086 |
    | ``votval`` | ``got10k_vot_val_split.txt`` | 1249 others |
    | ``vot_clean`` | all but the names in ``got10k_vot_exclude.txt`` | 8335 |

    The first four files hold line numbers of ``list.txt``, counted from 0. The VOT challenge
    forbids 1000 sequences, those of ``got10k_vot_exclude.txt``; ``vottrain`` and ``votval`` were
    meant to leave these out, but leave out the *numbers* of their names (4 for
    ``GOT-10k_Train_000004``), which as line numbers are the neighbours (``GOT-10k_Train_000005``),
    so that 890 of the forbidden ones are among the 8335. Take ``vottrain`` to repeat a paper,
    ``vot_clean`` to obey the rule.

    The dataset's attribute ``split`` is ``"train"`` for ``pytracking_train``, ``vottrain`` and
    ``vot_clean``, and ``"val"`` for ``pytracking_val`` and ``votval``; ``subset`` is the name asked
    for.

    Attributes of train and val, of shape ``(T,)``: ``absence`` and ``cut_by_image``, booleans;
    ``cover``, the visible eighths (0 to 8). Where ``meta_info.ini`` is there: ``object_class``,
    ``motion_class``, ``major_class``, ``root_class`` and ``motion_adverb``, text of shape ``()``.

    Args:
        root: The folder; else ``$SLT_GYM_GOT10K``, else ``$SLT_GYM_DATA/got10k``.
        split: ``"train"``, ``"val"``, ``"test"`` or one of the table.
        split_file: The file of a split of the table.

    Raises:
        AnnotationError: The file of the split does not fit ``list.txt``.
        DatasetNotFoundError: There is no such folder, no list or file of the split, or none of its
            sequences.
        InvalidArgumentError: The split is unknown, or takes no ``split_file``.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        *,
        split_file: str | os.PathLike[str] | None = None,
    ) -> None:
        if split not in (*_PARTS, *_SUBSETS):
            raise unknown("split of got10k", split, (*_PARTS, *_SUBSETS))
        if split_file is not None and split not in _SUBSETS:
            raise InvalidArgumentError(
                f"split {split!r} of got10k takes no split_file: it is the official part; "
                f"those that do are {', '.join(_SUBSETS)}"
            )
        folder = find_root("got10k", root, _LAYOUT)
        self.root = _find_part(folder, "train" if split in _SUBSETS else split)
        self.subset = split
        listed = read_names(self.root / "list.txt")
        if split in _SUBSETS:
            places = dict.fromkeys([self.root.parent, self.root, folder, folder.parent])
            path = _find_subset(split, list(places), split_file)
            listed = _exclude(listed, path) if split == "vot_clean" else _pick(listed, path)
        self._folders = _find_sequences(self.root)
        present = [name for name in listed if name in self._folders]
        if not present:
            found = f"holds none of the {len(listed)} sequences of its list.txt"
            if split in _SUBSETS:
                found += f" that split {split!r} takes"
            raise wrong_root("got10k", self.root, found, _LAYOUT)
        super().__init__("got10k", _SUBSETS[split].split if split in _SUBSETS else split, present)

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


def _find_subset(split: str, folders: list[Path], given: str | os.PathLike[str] | None) -> Path:
    """Return the file that says which sequences a split takes."""
    name = _SUBSETS[split].file
    if given is not None:
        path = Path(given).expanduser()
        if path.is_file():
            return path
        places = f"split_file={os.fspath(given)!r} is not a file"
    else:
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
        places = f"it is not in {', '.join(map(str, folders))}"
    raise DatasetNotFoundError(
        f"cannot choose split {split!r} of got10k without {name}: {places}; PyTracking publishes "
        "it in its folder ltr/data_specs: put it into the dataset's folder, or pass split_file=…"
    )


def _pick(listed: list[str], path: Path) -> list[str]:
    """Return the names whose line numbers, counted from 0, a file holds."""
    numbers = read_names(path)
    for line, text in enumerate(numbers, 1):
        if not text.isdecimal() or int(text) >= len(listed):
            raise AnnotationError(
                f"{path}, line {line}: {text!r} is no line of list.txt, which has {len(listed)}: "
                "expected are whole numbers from 0 up, one per line, and the published list.txt "
                "with all 9335 names"
            )
    return [listed[int(text)] for text in numbers]


def _exclude(listed: list[str], path: Path) -> list[str]:
    """Return the names that a file does not hold."""
    names = read_names(path)
    for line, name in enumerate(names, 1):
        if not _PART.match(name):
            raise AnnotationError(
                f"{path}, line {line}: {name!r} is not the name of a sequence such as "
                "'GOT-10k_Train_000004'; split 'vot_clean' of got10k needs got10k_vot_exclude.txt, "
                "which holds the names to leave out"
            )
    forbidden = set(names)
    return [name for name in listed if name not in forbidden]


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
