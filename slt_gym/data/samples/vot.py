"""Writers of the VOT challenges' layouts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.samples.writing import Source, Written, write_lines, write_rows
from slt_gym.data.synthetic import SyntheticSequence
from slt_gym.data.synthetic.render import render_mask

_VOT2018 = ("ants1", "bag", "ball1", "basketball", "birds1", "blanket", "bolt1", "book", "car1")
_VOT2020 = ("agility", "ants1", "ball2", "basketball", "birds1", "bolt1", "book", "butterfly")
_ANCHOR_INTERVAL = 50


def write_vot2018(root: Path, source: Source) -> Written:
    """Write VOT2018: the four corners of each box."""
    written = source.name("test", _VOT2018)
    for name, sequence in written.items():
        x, y, w, h = sequence.boxes.T
        corners = np.stack([x, y + h, x, y, x + w, y, x + w, y + h], axis=1)
        write_rows(root / name / "groundtruth.txt", corners, decimals=4)
    return _finish(root, source, written)


def write_vot2020(root: Path, source: Source) -> Written:
    """Write VOT2020: masks in run-length text, and the frames at which tracking starts."""
    written = source.name("test", _VOT2020)
    for name, sequence in written.items():
        masks = (_target_mask(sequence, t) for t in range(len(sequence)))
        write_lines(root / name / "groundtruth.txt", map(encode_mask, masks))
        # Forward from the first anchors, backward from the later ones.
        anchors = np.zeros(len(sequence), int)
        anchors[::_ANCHOR_INTERVAL] = 1
        anchors[(len(anchors) + 1) // 2 :] *= -1
        write_lines(root / name / "anchor.value", anchors)
    return _finish(root, source, written)


def encode_mask(mask: NDArray[np.bool_]) -> str:
    """Encode a mask as VOT does: ``mx,y,w,h,run,run,…``.

    Args:
        mask: Booleans, shape ``(H, W)``.

    Returns:
        The mask's extent, then the lengths of the runs in it, row by row, of background and of
        target in turn, starting with background.
    """
    if not mask.any():
        return "m0,0,0,0"
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    inside = mask[y : rows[-1] + 1, x : columns[-1] + 1]
    flat = np.concatenate([[False], inside.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(changes, prepend=0, append=inside.size)
    return "m" + ",".join(map(str, [x, y, inside.shape[1], inside.shape[0], *runs]))


def _target_mask(sequence: SyntheticSequence, t: int) -> NDArray[np.bool_]:
    scene = sequence.scene
    return render_mask(scene.things[scene.target], sequence.config, t) > 127


def _finish(root: Path, source: Source, written: dict[str, SyntheticSequence]) -> Written:
    """Write what both years have: frames, tags, descriptions and the list."""
    for name, sequence in written.items():
        folder = root / name
        source.write_frames(sequence, folder / "color", "{:08d}.jpg")
        for tag, values in _tags(sequence).items():
            write_lines(folder / f"{tag}.tag", np.asarray(values, int))
        description = {
            "channels.color": "color/%08d.jpg",
            "format": "default",
            "fps": 30,
            "height": source.height,
            "length": len(sequence),
            "name": name,
            "width": source.width,
        }
        write_lines(folder / "sequence", (f"{key}={value}" for key, value in description.items()))
    write_lines(root / "list.txt", written)
    return {"test": written}


def _tags(sequence: SyntheticSequence) -> dict[str, Iterable[Any]]:
    x, y, w, h = sequence.boxes.T
    size = np.sqrt(w * h)
    moved = np.hypot(np.gradient(x + w / 2), np.gradient(y + h / 2))
    gain = sequence.scene.camera.gain
    return {
        "camera_motion": np.ones(len(x)),
        "illum_change": abs(gain - gain[0]) > 0.2,
        "motion_change": moved > 0.2 * size,
        "occlusion": sequence.attributes["occlusion"] > 0.1,
        "size_change": abs(np.log(size / size[0])) > 0.4,
    }
