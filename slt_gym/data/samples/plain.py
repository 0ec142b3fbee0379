"""Writers of the two layouts for one's own material: folders of frames, and video files."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import cv2

from slt_gym.data.samples.writing import Source, Written, write_rows
from slt_gym.errors import InvalidArgumentError

_FPS = 30.0


def write_folder(root: Path, source: Source) -> Written:
    """Write a folder of frames and a text file of boxes for each sequence."""
    written = source.name("test", (f"clip-{k}" for k in count(1)))
    for name, sequence in written.items():
        source.write_frames(sequence, root / name / "img", "{:04d}.jpg")
        boxes = sequence.boxes.copy()
        boxes[~sequence.visible] = 0
        write_rows(root / name / "groundtruth_rect.txt", boxes, decimals=2)
    return {"test": written}


def write_video(root: Path, source: Source) -> Written:
    """Write an MP4 file and a text file of boxes for each sequence.

    Raises:
        InvalidArgumentError: The frames' width or height is odd, which the codec does not know.
        OSError: This OpenCV has no such encoder.
    """
    if source.width % 2 or source.height % 2:
        raise InvalidArgumentError(
            f"frames of {source.width}x{source.height} pixels: video files have an even width and "
            "height"
        )
    written = source.name("test", (f"clip-{k}" for k in count(1)))
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    for name, sequence in written.items():
        file = root / f"{name}.mp4"
        video = cv2.VideoWriter(str(file), codec, _FPS, (source.width, source.height))
        if not video.isOpened():
            raise OSError(f"cannot write {file}: this OpenCV has no MPEG-4 encoder")
        try:
            for t in range(len(sequence)):
                video.write(cv2.cvtColor(sequence.read(t), cv2.COLOR_RGB2BGR))
                source.progress()
        finally:
            video.release()
        boxes = sequence.boxes.copy()
        boxes[~sequence.visible] = 0
        write_rows(root / f"{name}.txt", boxes, decimals=2)
    return {"test": written}
