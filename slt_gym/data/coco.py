"""COCO (Lin et al., ECCV 2014): still images, one annotated object each a sequence of one frame."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.coco_masks import COCOMasks
from slt_gym.data.index import cached_index, fingerprint
from slt_gym.data.roots import find_root, list_files, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset
from slt_gym.errors import (
    AnnotationError,
    DatasetNotFoundError,
    FrameError,
    InvalidArgumentError,
    unknown,
)

_LAYOUT = """\
COCO/
  annotations/instances_train2017.json     (instances_val2017.json; or those of 2014)
  images/train2017/000000000009.jpg …      (or train2017/ directly in the root)
"""
_SPLITS = ("train", "val")
_YEARS = (2017, 2014)


class COCODataset(SequenceDataset):
    """COCO's detection annotations of 2017 or 2014, as trackers are trained on them.

    Each annotation that is not a crowd gives one sequence of **one frame**, called
    ``<image id>-<annotation id>``, such as ``000000391895-1768``; in the order of the file.
    Annotations whose image is not on the disk are left out, as in a partial download. Boxes are
    0-based; the few without width or height are there and not visible.

    Masks are the annotations' polygons or run lengths; an annotation with neither has none. A pixel
    is the target's where at least half of it is inside.

    Attributes: ``object_class``, the category's name as a text array of shape ``()``.

    The first opening parses the whole annotation file; what is needed of it is then kept as an
    index in the user's cache folder (see :func:`slt_gym.data.index.cache_folder`). Masks have an
    index of their own, made when the first one is read.

    Args:
        root: The folder; else ``$SLT_GYM_COCO``, else ``$SLT_GYM_DATA/coco``.
        split: ``"train"`` or ``"val"``.
        year: 2017 or 2014; None takes the first of them that is there.

    Raises:
        AnnotationError: The annotation file is broken.
        DatasetNotFoundError: There is no such folder, no annotation file, or no image.
        InvalidArgumentError: The split or the year is unknown.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str = "train",
        *,
        year: int | None = None,
    ) -> None:
        if split not in _SPLITS:
            raise unknown("split of coco", split, _SPLITS)
        if year is not None and year not in _YEARS:
            raise InvalidArgumentError(
                f"year={year!r} of coco: accepted are None, {_YEARS[1]} and {_YEARS[0]}"
            )
        self.root = find_root("coco", root, _LAYOUT)
        path, images = self._find_part(split, _YEARS if year is None else (year,))
        self._images = images

        def build() -> dict[str, NDArray[Any]]:
            return _build_index(path, set(list_files(images, "")))

        label, stamp = f"coco-{images.name}", fingerprint([path, images])
        self._table = cached_index(label, self.root, stamp, build)
        if not len(self._table["annotation"]):
            raise DatasetNotFoundError(
                f"cannot read coco: {images} holds none of the images that {path} describes"
            )
        ids = zip(self._table["image"].tolist(), self._table["annotation"].tolist(), strict=True)
        names = [f"{image:012d}-{annotation}" for image, annotation in ids]
        super().__init__("coco", split, names)
        self._masks = COCOMasks(path, f"{label}-masks", self.root, stamp, self._table["annotation"])

    def _find_part(self, split: str, years: tuple[int, ...]) -> tuple[Path, Path]:
        """Return the annotation file and the folder of images."""
        for year in years:
            path = self.root / "annotations" / f"instances_{split}{year}.json"
            if path.is_file():
                for folder in (self.root / "images", self.root):
                    if (folder / f"{split}{year}").is_dir():
                        return path, folder / f"{split}{year}"
                found = f"holds {path.name} but neither images/{split}{year}/ nor {split}{year}/"
                raise wrong_root("coco", self.root, found, _LAYOUT)
        files = " nor ".join(f"annotations/instances_{split}{year}.json" for year in years)
        raise wrong_root("coco", self.root, f"does not hold {files}", _LAYOUT)

    def _load(self, index: int) -> Sequence:
        table = self._table
        path = self._images / os.fsdecode(table["files"][table["file_number"][index]])
        category = table["categories"][table["category_number"][index]]
        attributes = {"object_class": np.array(str(category))}
        read_mask = partial(self._masks.read, index)
        return _Still(self.names[index], path, table["box"][index], attributes, read_mask)


class _Still(ImageSequence):
    """One image with one annotated object."""

    def __init__(
        self,
        name: str,
        path: Path,
        box: NDArray[np.float64],
        attributes: dict[str, Any],
        read_mask: Callable[[], NDArray[np.bool_] | None],
    ) -> None:
        super().__init__(name, [path], box, None, attributes)
        self._read_mask = read_mask

    def read_mask(self, t: int) -> NDArray[np.bool_] | None:
        """Return the object's mask, shape ``(H, W)``; None where the annotation has none."""
        if t not in (0, -1):
            raise FrameError(f"{self.name!r} has no frame {t}: it has 1 frame")
        return self._read_mask()


def _build_index(path: Path, present: set[str]) -> dict[str, NDArray[Any]]:
    """Parse an annotation file.

    Args:
        path: The file.
        present: Names of the images on the disk.

    Returns:
        For each of N annotations: ``image`` and ``annotation``, ids; ``box``, ``(N, 4)`` float64;
        ``file_number`` and ``category_number``, places in ``files`` (bytes) and ``categories``
        (text).
    """
    images, annotations, categories = _parse(path)
    files = {number: file for number, file in images if file in present}
    chosen = [row for row in annotations if row[1] in files]
    place = {number: i for i, number in enumerate(files)}
    kind = {number: i for i, (number, _) in enumerate(categories)}
    try:
        kinds = [kind[row[2]] for row in chosen]
    except KeyError as error:
        raise AnnotationError(f"{path} has an annotation of the unknown category {error}") from None
    ids = np.array([row[0] for row in chosen], np.int64)
    if len(np.unique(ids)) < len(ids):
        raise AnnotationError(f"{path} gives the same id to several annotations")
    return {
        "annotation": ids,
        "image": np.array([row[1] for row in chosen], np.int64),
        "box": np.array([row[3] for row in chosen], np.float64).reshape(-1, 4),
        "file_number": np.array([place[row[1]] for row in chosen], np.int32),
        "category_number": np.array(kinds, np.int16),
        "files": np.array([os.fsencode(file) for file in files.values()], np.bytes_),
        "categories": np.array([name for _, name in categories], np.str_),
    }


def _parse(path: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """Return ``(id, file)`` of images, ``(id, image, category, box)``, ``(id, name)``."""
    objects = 0

    def shrink(entry: dict[str, Any]) -> Any:
        # Called for each object as soon as it is read: the polygons, most of the file, go at once.
        nonlocal objects
        objects += 1
        try:
            if "bbox" in entry:
                x, y, w, h = map(float, entry["bbox"])
                row = (int(entry["id"]), int(entry["image_id"]), entry["category_id"], (x, y, w, h))
                return None if entry.get("iscrowd", 0) else row
            if "file_name" in entry:
                return int(entry["id"]), str(entry["file_name"])
        except (KeyError, TypeError, ValueError) as error:
            raise AnnotationError(
                f"{path}, object {objects} (id {entry.get('id')!r}) is not a COCO annotation or "
                f"image: {type(error).__name__}: {error}"
            ) from None
        return entry

    try:
        content = json.loads(path.read_text("utf-8-sig"), object_hook=shrink)
        images, annotations = content["images"], filter(None, content["annotations"])
        categories = [(entry["id"], str(entry["name"])) for entry in content["categories"]]
        return images, list(annotations), categories
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from None
    except AnnotationError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise AnnotationError(
            f"{path} is not a whole COCO annotation file: {type(error).__name__}: {error}"
        ) from None
