"""COCO's masks: the segmentations of an annotation file, kept as an index of their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.index import cached_index
from slt_gym.data.masks import decode_compressed_runs, decode_runs, fill_mask
from slt_gym.errors import AnnotationError

# Threads that draw pairs come here together; the file is parsed once.
_LOCK = threading.Lock()


class COCOMasks:
    """The masks of some annotations of one file, which is parsed when the first is asked for.

    Segmentations are most of an annotation file. They have an index of their own, so that nobody
    who needs boxes alone reads them.

    Args:
        path: The annotation file.
        label: Names the index, see :func:`slt_gym.data.index.cached_index`.
        root: The dataset's folder.
        fingerprint: Of the file.
        annotations: Ids of the annotations, shape ``(N,)``.
    """

    def __init__(
        self,
        path: Path,
        label: str,
        root: Path,
        fingerprint: str,
        annotations: NDArray[np.int64],
    ) -> None:
        self._path = path
        self._label, self._root, self._fingerprint = label, root, fingerprint
        self._annotations = annotations
        self._table: dict[str, NDArray[Any]] | None = None

    def read(self, index: int) -> NDArray[np.bool_] | None:
        """Return the mask of an annotation: booleans ``(H, W)``; None where it has none.

        Args:
            index: Its place among the annotations.

        Raises:
            AnnotationError: The file is broken, or the segmentation does not fit the image.
        """
        with _LOCK:
            if self._table is None:
                self._table = cached_index(self._label, self._root, self._fingerprint, self._build)
        table = self._table
        height, width = table["size"][index].tolist()
        first, end = table["first_run"][index : index + 2]
        if first < end:
            runs = table["runs"][first:end]
            try:
                return decode_runs(runs, height * width).reshape(width, height).T
            except ValueError as error:
                raise self._error(int(self._annotations[index]), str(error)) from None
        first, end = table["first_ring"][index : index + 2]
        if first == end:
            return None
        places = table["first_point"][first : end + 1]
        rings = [table["points"][a:b] for a, b in pairwise(places)]
        return fill_mask(rings, (width, height))

    def _build(self) -> dict[str, NDArray[Any]]:
        """Return the segmentations of N annotations as arrays.

        ``size`` ``(N, 2)``, height and width. Those of annotation i are the polygons
        ``first_ring[i]`` to ``first_ring[i + 1]``; of polygon k, ``points[first_point[k]]`` to
        ``points[first_point[k + 1]]``; or else ``runs[first_run[i]]`` to
        ``runs[first_run[i + 1]]``, column by column.
        """
        sizes, segmentations = self._parse()
        rows = [segmentations.get(int(number), _NOTHING) for number in self._annotations]
        size = np.zeros((len(rows), 2), np.int32)
        for i, row in enumerate(rows):
            if row is not _NOTHING:
                known = row.size or sizes.get(row.image)
                if known is None:
                    raise self._error(
                        int(self._annotations[i]), "its image has no width and height"
                    )
                size[i] = known
        rings = [ring for row in rows for ring in row.rings]
        return {
            "size": size,
            "first_ring": _count_up(len(row.rings) for row in rows),
            "first_point": _count_up(map(len, rings)),
            "points": np.concatenate([np.zeros((0, 2), np.float32), *rings]),
            "first_run": _count_up(len(row.runs) for row in rows),
            "runs": np.concatenate([np.zeros(0, np.int32), *(row.runs for row in rows)]),
        }

    def _parse(self) -> tuple[dict[int, tuple[int, int]], dict[int, _Segmentation]]:
        """Return the images' sizes and the segmentations by id."""
        sizes: dict[int, tuple[int, int]] = {}
        found: dict[int, _Segmentation] = {}
        wanted = set(self._annotations.tolist())

        def keep(entry: dict[str, Any]) -> Any:
            # Called for each object as soon as it is read: lists of Python numbers go at once.
            if "bbox" in entry:
                number = int(entry["id"])
                if number in wanted and entry.get("segmentation"):
                    try:
                        found[number] = _convert(entry["image_id"], entry["segmentation"])
                    except (KeyError, TypeError, ValueError) as error:
                        reason = f"its segmentation is none: {type(error).__name__}: {error}"
                        raise self._error(number, reason) from None
                return None
            if "file_name" in entry:
                if "width" in entry and "height" in entry:
                    sizes[int(entry["id"])] = (int(entry["height"]), int(entry["width"]))
                return None
            return entry

        try:
            json.loads(self._path.read_text("utf-8-sig"), object_hook=keep)
        except OSError as error:
            raise AnnotationError(f"cannot read {self._path}: {error.strerror or error}") from None
        except ValueError as error:
            what = f"{self._path} is not a whole COCO annotation file"
            raise AnnotationError(f"{what}: {type(error).__name__}: {error}") from None
        return sizes, found

    def _error(self, annotation: int, reason: str) -> AnnotationError:
        return AnnotationError(
            f"{self._path}, annotation {annotation}, gives no mask: {reason}; accepted are "
            "polygons of at least three points, and run lengths that fit into the image"
        )


class _Segmentation(NamedTuple):
    """One annotation's mask: polygons ``(n, 2)``, or runs with the height and width."""

    image: int
    rings: tuple[NDArray[np.float32], ...] = ()
    runs: NDArray[np.int32] = np.zeros(0, np.int32)
    size: tuple[int, int] | None = None


_NOTHING = _Segmentation(-1)


def _convert(image: Any, segmentation: Any) -> _Segmentation:
    """Convert what the file holds: a list of flat polygons, or run lengths, plain or compressed.

    Raises:
        KeyError, TypeError, ValueError: It is neither.
    """
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]
        runs = decode_compressed_runs(counts) if isinstance(counts, str) else np.array(counts)
        height, width = map(int, segmentation["size"])
        decode_runs(runs, height * width)  # Refuses what does not fit.
        return _Segmentation(int(image), (), runs.astype(np.int32), (height, width))
    rings = tuple(np.array(ring, np.float32).reshape(-1, 2) for ring in segmentation)
    if any(len(ring) < 3 for ring in rings):
        raise ValueError("a polygon with less than three points")
    return _Segmentation(int(image), rings)


def _count_up(lengths: Any) -> NDArray[np.int64]:
    """Return where pieces of these lengths start, and the end of the last one."""
    return np.concatenate([[0], np.cumsum(list(lengths), dtype=np.int64)]).astype(np.int64)
