"""YouTube-BoundingBoxes (Real et al., CVPR 2017) as crops around the target, pysot's form."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.frames import FramePaths
from slt_gym.data.index import cached_index, fingerprint
from slt_gym.data.roots import find_root, list_files, list_folders, wrong_root
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset
from slt_gym.errors import AnnotationError, DatasetNotFoundError, unknown

_LAYOUT = """\
YouTubeBB/
  train.json                               (val.json)
  crop511/yt_bb_detection_train/<class>/<youtubeid>/000000.00.x.jpg …
"""
_SPLITS = ("train", "val")
# pysot crops 511 pixels so that a template of 127 is the target with half of its context around.
_CROP_SIDE = 511
_TEMPLATE_SIDE = 127


class _Track(NamedTuple):
    """A target's frames, by number, and its sizes in them."""

    frames: list[str]
    sizes: NDArray[np.float64]


class YouTubeBBDataset(SequenceDataset):
    """YouTube-BB, or any other dataset, as pysot crops it for training.

    ``train.json`` (or ``train2017.json``, the name in pysot's COCO) holds
    ``{video: {track: {frame: [x1, y1, x2, y2]}}}``, and the crops are
    ``crop511/<video>/<frame>.<track>.x.jpg``. A sequence is called ``<video>-<track>`` with dashes
    for the slashes of ``<video>``; its frames are those of the file that are on the disk, one a
    second in YouTube-BB, with gaps. Videos that are not on the disk are left out.

    The file's boxes are those of the original frames, of which only the sizes matter: a target of
    ``(w, h)`` with context ``p = (w + h) / 2`` has a template window of side
    ``s = sqrt((w + p) (h + p))``, and the crop of 511 pixels, centred on the target, covers
    ``511 / 127 s``. The boxes here are in the crop's pixels: size ``127 / s (w, h)``, centre
    ``(255, 255)``. Since the target is in the middle of every crop, its motion is lost: such
    sequences serve the training on pairs of frames, not on clips.

    Args:
        root: The folder of ``crop511`` and the JSON files; else ``$SLT_GYM_YOUTUBEBB``, else
            ``$SLT_GYM_DATA/youtubebb``.
        split: ``"train"`` or ``"val"``.

    Raises:
        AnnotationError: The JSON file is broken.
        DatasetNotFoundError: There is no such folder, no JSON file of the split, or no crop.
        InvalidArgumentError: The split is unknown.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, split: str = "train") -> None:
        if split not in _SPLITS:
            raise unknown("split of youtubebb", split, _SPLITS)
        self.root = find_root("youtubebb", root, _LAYOUT)
        nested = self.root / "crop511"
        self._crops = nested if nested.is_dir() else self.root
        files = (f"{split}.json", f"{split}2017.json")
        places = [folder / file for folder in (self.root, self.root.parent) for file in files]
        path = next(filter(Path.is_file, places), None)
        if path is None:
            raise wrong_root("youtubebb", self.root, f"holds no {files[0]}", _LAYOUT)
        index = cached_index(
            f"youtubebb-{split}", self.root, fingerprint([path]), lambda: _build_index(path)
        )
        present = self._find_present(index["video"].tolist())
        self._arrays, self._chosen = index, np.flatnonzero(present)
        names = [
            f"{video}-{track}".replace("/", "-")
            for video, track in zip(
                index["video"][present].tolist(), index["track"][present].tolist(), strict=True
            )
        ]
        if not names:
            found = f"holds crops of none of the videos in {path}"
            raise wrong_root("youtubebb", self._crops, found, _LAYOUT)
        super().__init__("youtubebb", split, names)

    def _find_present(self, videos: list[str]) -> NDArray[np.bool_]:
        """Tell which of the videos have a folder, by listing the folders above."""
        parents = dict.fromkeys(video.rpartition("/")[0] for video in videos)
        listed = {
            parent: set(list_folders(self._crops / parent))
            for parent in parents
            if (self._crops / parent).is_dir()
        }
        parts = (video.rpartition("/") for video in videos)
        return np.array([name in listed.get(parent, ()) for parent, _, name in parts], bool)

    def _load(self, index: int) -> Sequence:
        name, arrays, row = self.names[index], self._arrays, self._chosen[index]
        start, stop = arrays["rows"][row : row + 2].tolist()
        folder = self._crops / str(arrays["video"][row])
        suffix = f".{arrays['track'][row]}.x.jpg"
        on_disk = set(list_files(folder, suffix))
        files = [os.fsdecode(frame) + suffix for frame in arrays["frame"][start:stop].tolist()]
        kept = [t for t, file in enumerate(files) if file in on_disk]
        if not kept:
            raise DatasetNotFoundError(f"sequence {name!r} has none of its {len(files)} crops")
        missing = len(files) - len(kept)
        notes = [f"{missing} of {len(files)} crops are missing and left out"] if missing else []
        paths = FramePaths(folder, [files[t] for t in kept])
        boxes = _place_in_crop(arrays["size"][start:stop][kept])
        return ImageSequence(name, cast("list[Path]", paths), boxes, notes=notes)


def _place_in_crop(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the boxes ``(T, 4)`` in the crops of targets of sizes ``(T, 2)`` in their frames."""
    context = sizes.sum(axis=1, keepdims=True) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        window = np.sqrt(np.prod(sizes + context, axis=1, keepdims=True))
        scaled = sizes * (_TEMPLATE_SIDE / window)
    # A box without an area has no window: it stays as it is, and is not visible.
    scaled = np.where((sizes > 0).all(axis=1, keepdims=True), scaled, sizes)
    centre = (_CROP_SIDE - 1) / 2
    return np.concatenate([centre - scaled / 2, scaled], axis=1)


def _build_index(path: Path) -> dict[str, NDArray[Any]]:
    """Parse a JSON file of tracks.

    Returns:
        For each of K tracks ``video`` and ``track`` (text); ``rows``, ``(K + 1,)``, where its N
        rows begin and the next one's do; ``frame``, the frames' names without their ending
        (bytes), and ``size``, ``(N, 2)``, pixels of the original frames.
    """
    tracks = [
        (video, name, track)
        for video, entries in _parse(path).items()
        for name, track in entries.items()
        if track
    ]
    frames = [os.fsencode(frame) for *_, track in tracks for frame in track.frames]
    return {
        "video": np.array([video for video, *_ in tracks], np.str_),
        "track": np.array([name for _, name, _ in tracks], np.str_),
        "rows": np.cumsum([0, *(len(track.frames) for *_, track in tracks)]),
        "frame": np.array(frames, np.bytes_),
        "size": np.concatenate([np.empty((0, 2)), *(track.sizes for *_, track in tracks)]),
    }


def _parse(path: Path) -> dict[str, dict[str, _Track]]:
    def shrink(entry: dict[str, Any]) -> Any:
        # Called for each object as soon as it is read: rows turn into arrays at once.
        if not any(isinstance(value, list) for value in entry.values()):
            return entry
        frames = sorted(entry, key=int)
        corners = np.array([entry[frame] for frame in frames], np.float64)
        if corners.shape != (len(frames), 4):
            raise ValueError(f"a row of {entry[frames[0]]}")
        return _Track(frames, corners[:, 2:] - corners[:, :2])

    try:
        content = json.loads(path.read_text("utf-8-sig"), object_hook=shrink)
        if not all(
            isinstance(track, _Track) or track == {}
            for entries in content.values()
            for track in entries.values()
        ):
            raise ValueError("not all tracks hold rows")
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise AnnotationError(
            f"{path} is not a file of {{video: {{track: {{frame: [x1, y1, x2, y2]}}}}}} as pysot "
            f"writes it: {error}"
        ) from None
    return content
