"""ImageNet-VID (Russakovsky et al., IJCV 2015): videos of 30 classes, several objects in each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.frames import list_numbered_frames
from slt_gym.data.index import cached_index, fingerprint
from slt_gym.data.roots import find_root, list_files, list_folders, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, match_lengths
from slt_gym.errors import AnnotationError, DatasetNotFoundError, unknown

_LAYOUT = """\
ILSVRC2015/
  Annotations/VID/train/ILSVRC2015_VID_train_0000/<video>/000000.xml …   (val/<video>/ likewise)
  Data/VID/train/ILSVRC2015_VID_train_0000/<video>/000000.JPEG …
"""
_SPLITS = ("train", "val")
# pysot's users link the parts, and val, as train/a to train/e: a video's own name tells its split.
_VIDEO = {split: re.compile(rf"ILSVRC\d+_{split}_\d+") for split in _SPLITS}
# A network disk answers threads together; from a local one, a single thread reads as fast.
_THREADS = 4


class _Track(NamedTuple):
    """An object from its first frame to the last before the first gap."""

    name: str
    wnid: str
    first: int
    boxes: list[tuple[float, float, float, float]]
    occluded: list[bool]


class VIDDataset(SequenceDataset):
    """ImageNet-VID, one sequence for each object (``trackid``) of a video.

    A sequence is called ``<video>-<trackid>``, such as ``ILSVRC2015_train_00000000-0``. It runs
    from the object's first frame until the first frame without it; what follows after such a gap
    is left out, as in PyTracking. Objects whose first run is a single frame are left out, as there
    is nothing to follow. Videos without a folder of frames are left out, as in a partial download.

    The files hold corners, ``w = xmax - xmin`` here as in PyTracking (the GOT-10k toolkit adds one
    pixel). A frame is visible when the object is not occluded and its box has an area.

    Attributes: ``occluded``, booleans of shape ``(T,)``; ``object_class``, the WordNet id, such as
    ``n02958343``, as a text array of shape ``()``.

    The first opening reads every annotation file, a million in ``train``; the boxes are then kept
    as an index in the user's cache folder (see :func:`slt_gym.data.index.cache_folder`), which is
    built anew when files come or go.

    Args:
        root: ``ILSVRC2015`` or the folder that holds it; else ``$SLT_GYM_VID``, else
            ``$SLT_GYM_DATA/vid``.
        split: ``"train"`` or ``"val"``.

    Raises:
        AnnotationError: An annotation file is broken.
        DatasetNotFoundError: There is no such folder, or no sequence of the split in it.
        InvalidArgumentError: The split is unknown.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, split: str = "train") -> None:
        if split not in _SPLITS:
            raise unknown("split of vid", split, _SPLITS)
        folder = find_root("vid", root, _LAYOUT)
        nested = folder / "ILSVRC2015"
        self.root = nested if (nested / "Annotations").is_dir() else folder
        annotations = self.root / "Annotations" / "VID" / split
        if not annotations.is_dir():
            raise wrong_root("vid", self.root, f"holds no Annotations/VID/{split}/", _LAYOUT)
        videos = _find_videos(annotations, split)
        index = cached_index(
            f"vid-{split}",
            self.root,
            fingerprint(annotations / place for place in videos.values()),
            lambda: _build_index(annotations, videos),
        )
        data = self.root / "Data" / "VID" / split
        with_frames = _find_videos(data, split) if data.is_dir() else {}
        chosen = np.flatnonzero(np.isin(index["video"], list(with_frames)))
        if not len(chosen):
            found = f"holds no object with frames in the {len(videos)} videos of {annotations}"
            raise wrong_root("vid", self.root, found, _LAYOUT)
        self._folders = {video: data / place for video, place in with_frames.items()}
        self._arrays, self._chosen = index, chosen
        names = zip(index["video"][chosen].tolist(), index["track"][chosen].tolist(), strict=True)
        super().__init__("vid", split, [f"{video}-{track}" for video, track in names])

    def _load(self, index: int) -> Sequence:
        name, arrays, row = self.names[index], self._arrays, self._chosen[index]
        first, (start, stop) = int(arrays["first"][row]), arrays["rows"][row : row + 2].tolist()
        folder = self._folders[str(arrays["video"][row])]
        # Frames count from 0 in the video, so that a gap before the object's first matters too.
        last = first + stop - start
        paths = list_numbered_frames(folder, "{:06d}.JPEG", last, first=0)[first:last]
        if not paths:
            raise DatasetNotFoundError(f"sequence {name!r} has no frames from {first} in {folder}")
        count, notes = match_lengths(images=len(paths), boxes=stop - start)
        occluded = arrays["occluded"][start : start + count]
        return ImageSequence(
            name,
            cast("list[Path]", paths),
            arrays["box"][start : start + count],
            ~occluded,
            {"occluded": occluded, "object_class": np.array(str(arrays["wnid"][row]))},
            notes,
        )


def _find_videos(folder: Path, split: str) -> dict[str, str]:
    """Return where the videos of a split lie below a folder, directly or in its parts."""
    found: dict[str, str] = {}
    for name in sorted(list_folders(folder)):
        if _VIDEO[split].fullmatch(name):
            found.setdefault(name, name)
            continue
        for child in sorted(list_folders(folder / name)):
            if _VIDEO[split].fullmatch(child):
                found.setdefault(child, f"{name}/{child}")
    return found


def _build_index(annotations: Path, videos: dict[str, str]) -> dict[str, NDArray[Any]]:
    """Read all annotation files.

    Returns:
        For each of K objects ``video``, ``track`` and ``wnid`` (text) and ``first`` (its first
        frame); ``rows``, ``(K + 1,)``, where its N rows begin and the next one's do; ``box``,
        ``(N, 4)``, and ``occluded``, ``(N,)``.
    """
    columns: dict[str, list[Any]] = {"video": [], "track": [], "wnid": [], "first": []}
    rows, boxes, occluded = [0], [np.empty((0, 4))], [np.empty(0, bool)]
    with ThreadPoolExecutor(_THREADS) as pool:
        folders = (annotations / place for place in videos.values())
        for video, tracks in zip(videos, pool.map(_read_video, folders), strict=True):
            for track in tracks:
                values = (video, track.name, track.wnid, track.first)
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
                rows.append(rows[-1] + len(track.boxes))
                boxes.append(np.array(track.boxes))
                occluded.append(np.array(track.occluded))
    return {
        **{key: np.array(columns[key], np.str_) for key in ("video", "track", "wnid")},
        "first": np.array(columns["first"], np.int64),
        "rows": np.array(rows),
        "box": np.concatenate(boxes),
        "occluded": np.concatenate(occluded),
    }


def _read_video(folder: Path) -> list[_Track]:
    """Return a video's objects in the order of their first frames."""
    numbers = sorted(
        (int(stem), stem)
        for stem in (name.removesuffix(".xml") for name in list_files(folder, ".xml"))
        if stem.isdecimal()
    )
    tracks: dict[str, _Track] = {}
    for t, stem in numbers:
        for name, wnid, box, occluded in _read_objects(folder / f"{stem}.xml"):
            track = tracks.setdefault(name, _Track(name, wnid, t, [], []))
            if t == track.first + len(track.boxes):  # else it comes back after a gap
                track.boxes.append(box)
                track.occluded.append(occluded)
    return [track for track in tracks.values() if len(track.boxes) > 1]


def _read_objects(
    path: Path,
) -> Iterator[tuple[str, str, tuple[float, float, float, float], bool]]:
    """Yield the ``trackid``, class, box ``(x, y, w, h)`` and occlusion of a frame's objects."""
    try:
        for entry in ElementTree.fromstring(path.read_bytes()).iter("object"):
            values = {child.tag: child.text or "" for child in entry.iter()}
            x1, y1, x2, y2 = (float(values[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
            box = (x1, y1, x2 - x1, y2 - y1)
            yield values["trackid"], values["name"], box, int(values["occluded"]) != 0
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from None
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise AnnotationError(
            f"{path} is not a whole annotation of ImageNet-VID: {type(error).__name__}: {error}"
        ) from None
