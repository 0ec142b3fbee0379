"""Writers of the datasets that trackers are tested on."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np

from slt_gym.data.samples.training import write_lasot_sequence
from slt_gym.data.samples.writing import (
    Source,
    Written,
    round_boxes,
    write_lines,
    write_rows,
    write_text,
)
from slt_gym.data.uav import UAV20L_SEQUENCES, UAV123_SEQUENCES

_LASOT_EXT = ("atv", "badminton", "cosplay", "dancingshoe", "footbag", "frisbee", "jianzi")
# Published sequences with one target, whose frames and boxes start with frame 1 and have no gap.
_OTB = (
    *("Basketball", "Biker", "Bird1", "BlurBody", "BlurCar2", "Bolt", "Box", "Boy", "Car1"),
    *("CarDark", "CarScale", "ClifBar", "Couple", "Coke", "Crossing", "Deer", "Doll", "Dudek"),
)
_NFS = ("airboard_1", "basketball_1", "bee", "bird_2", "bottle", "car_camaro", "cup", "dog_1")
_NFS_RATIO = 8  # annotations at 240, frames at 30 per second
_TNL2K = {"train": "Arrow_Video_ZZ{:02d}_done", "test": "advSamp_Baseball_video_{:02d}-Done"}


def write_lasot_ext(root: Path, source: Source) -> Written:
    """Write LaSOT's extension: as LaSOT, without lists."""
    written = source.name("test", (f"{name}-{k}" for k in count(1) for name in _LASOT_EXT))
    for name, sequence in written.items():
        write_lasot_sequence(root / name.rpartition("-")[0] / name, source, sequence)
    return {"test": written}


def write_otb100(root: Path, source: Source) -> Written:
    """Write OTB-100: the separator of the numbers differs from file to file, as it does there."""
    written = source.name("test", _OTB)
    for k, (name, sequence) in enumerate(written.items()):
        source.write_frames(sequence, root / name / "img", "{:04d}.jpg")
        path = root / name / "groundtruth_rect.txt"
        write_rows(path, round_boxes(sequence.boxes), separator=",\t"[k % 2])
    return {"test": written}


def write_uav123(root: Path, source: Source) -> Written:
    """Write UAV123: frames without the target are rows of NaN."""
    return _write_uav(root, source, "UAV123", UAV123_SEQUENCES)


def write_uav20l(root: Path, source: Source) -> Written:
    """Write UAV20L, whose frames lie in UAV123's folders."""
    return _write_uav(root, source, "UAV20L", UAV20L_SEQUENCES)


def _write_uav(
    root: Path, source: Source, part: str, sequences: dict[str, tuple[str, int, int | None]]
) -> Written:
    # Others are cut from a folder of thousands of frames.
    written = source.name(
        "test", (name for name, (folder, *_) in sequences.items() if folder == name)
    )
    for name, sequence in written.items():
        source.write_frames(sequence, root / "data_seq" / "UAV123" / name, "{:06d}.jpg")
        boxes = round_boxes(sequence.boxes)
        boxes[~sequence.visible] = np.nan
        write_rows(root / "anno" / part / f"{name}.txt", boxes)
        # Twelve flags for the sequence, of which synthetic video has the first, a change of scale,
        # the sixth, a partial occlusion, the eleventh, a moving camera, and the last, look-alikes.
        flags = "1,0,0,0,0,1,0,0,0,0,1,1"
        write_lines(root / "anno" / part / "att" / f"{name}.txt", [flags])
    return {"test": written}


def write_nfs(root: Path, source: Source) -> Written:
    """Write Need for Speed, the part at 30 frames per second: corners at 240 per second."""
    written = source.name("test", _NFS)
    for name, sequence in written.items():
        folder = root / name / "30"
        source.write_frames(sequence, folder / name, "{:05d}.jpg")
        boxes = round_boxes(sequence.boxes)
        boxes[:, 2:] += boxes[:, :2]
        lines = []
        for t, corners in enumerate(boxes.astype(int).tolist()):
            lost = int(not sequence.visible[t])
            for k in range(_NFS_RATIO):
                box = " ".join(map(str, corners))
                # identity, corners, frame, lost, occluded, generated, label
                row = f'0 {box} {_NFS_RATIO * t + k} {lost} 0 {int(k > 0)} "{name}"'
                lines.append(row)
        write_lines(folder / f"{name}.txt", lines)
    return {"test": written}


def write_tnl2k(root: Path, source: Source) -> Written:
    """Write TNL2K: a sentence for each sequence, and boxes of zeros where the target is absent."""
    written = {}
    for split, pattern in _TNL2K.items():
        written[split] = source.name(split, (pattern.format(k) for k in count(1)))
        for name, sequence in written[split].items():
            folder = root / name
            source.write_frames(sequence, folder / "imgs", "{:05d}.jpg")
            boxes = round_boxes(sequence.boxes)
            boxes[~sequence.visible] = 0
            write_rows(folder / "groundtruth.txt", boxes)
            write_text(folder / "language.txt", "the textured shape that moves over the others")
    write_lines(root / "TNL2K_testing_set.txt", written["test"])
    return written
