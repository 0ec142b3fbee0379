"""Looking through a downloaded dataset for what is missing, damaged or wrong."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.published import is_known
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset, decode_frame
from slt_gym.data.truncation import is_truncated
from slt_gym.errors import InvalidArgumentError, SltGymError, unknown
from slt_gym.geometry import is_valid

KINDS = {
    "part": "parts that cannot be opened",
    "sequence": "sequences that cannot be read",
    "missing": "sequences with missing frames",
    "extra": "sequences with more images, boxes or flags than go together",
    "unreadable": "unreadable frames",
    "truncated": "truncated frames",
    "size": "frames of another size than the first of their sequence",
    "first": "first frames without a box",
    "nan": "boxes that are not numbers",
    "area": "boxes without an area in frames that are said to show the target",
    "outside": "boxes wholly outside the image",
    "note": "remarks of the reader",
}
"""The kinds of problems, and what a report calls them."""

DECODE = ("all", "first", "none")

# What match_lengths notes, and what the reader of YouTube-BB does.
_TOO_MANY = re.compile(r"\d+ (.+) for \d+ frames: the last \d+ are left out")
_MISSING = re.compile(r"\d+ of \d+ .+ are missing and left out")
# Attributes of shape (T,), and the value that says that the target is not there.
_ABSENCE = {
    **dict.fromkeys(("full_occlusion", "out_of_view", "absence", "absent", "lost"), True),
    "cover": 0,
}
# Files whose check is remembered, because several targets may share an image or a video.
_REMEMBERED = 200_000

Size = tuple[int, int]


@dataclass(frozen=True)
class Problem:
    """Something wrong with a run of frames, or with a whole sequence.

    Attributes:
        kind: A key of :data:`KINDS`.
        sequence: The sequence's name.
        detail: What was found, in the run's first frame.
        first: The first frame (from 0); None where it is about the sequence.
        last: The last frame of the run.
        file: The first frame's file, where it has one.
        known: Nothing is broken: the published files are known to be like that, or it is a remark.
    """

    kind: str
    sequence: str
    detail: str
    first: int | None = None
    last: int | None = None
    file: str | None = None
    known: bool = False

    @property
    def count(self) -> int:
        """How many frames it is about; 1 for a sequence."""
        return 1 if self.first is None or self.last is None else self.last - self.first + 1


@dataclass(frozen=True)
class SequenceCheck:
    """What the check of one sequence found.

    Attributes:
        frames: Its length; 0 where it cannot be read.
        visible: Frames in which the target is visible.
        decoded: Frames that were looked at.
        problems: What is wrong, by kind and frame.
    """

    frames: int
    visible: int
    decoded: int
    problems: tuple[Problem, ...]


def check_dataset(
    dataset: SequenceDataset, decode: str = "all", workers: int | None = None
) -> Iterator[SequenceCheck]:
    """Check every sequence of a dataset, in order.

    A sequence that cannot be read is a problem like others. Frames without a box count as problems
    only where the dataset says that the target is visible there.

    Args:
        dataset: The dataset.
        decode: The frames to decode: ``"all"``, the ``"first"`` of each sequence, or ``"none"``.
            What concerns images (unreadable, truncated, of another size, boxes outside) is found
            in these only; with ``"first"``, all boxes are compared with the first frame.
        workers: Threads; None takes one for each core.

    Raises:
        InvalidArgumentError: ``decode`` is unknown, or ``workers`` is below 1.
    """
    if decode not in DECODE:
        raise unknown("frames to decode", decode, DECODE)
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise InvalidArgumentError(f"workers is {workers}: it must be at least 1")
    return _check_all(dataset, decode, workers)


def _check_all(dataset: SequenceDataset, decode: str, workers: int) -> Iterator[SequenceCheck]:
    images = _Images()
    pool = ThreadPoolExecutor(workers, "check")
    ahead: deque[Future[SequenceCheck]] = deque()
    try:
        for index in range(len(dataset)):
            ahead.append(pool.submit(_check, dataset, index, decode, images))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check(dataset: SequenceDataset, index: int, decode: str, images: _Images) -> SequenceCheck:
    def mark(problems: Iterable[Problem]) -> tuple[Problem, ...]:
        return tuple(
            replace(
                p, known=p.kind == "note" or is_known(dataset.name, p.kind, p.sequence, p.detail)
            )
            for p in problems
        )

    try:
        sequence = dataset[index]
    except (SltGymError, OSError) as error:
        return SequenceCheck(0, 0, 0, mark([Problem("sequence", dataset.names[index], str(error))]))
    count = {"all": len(sequence), "first": min(1, len(sequence)), "none": 0}[decode]
    looks = [images.look(sequence, t) for t in range(count)]
    sizes = [size for size, _ in looks]
    problems = [
        *_compare_lengths(sequence),
        *(problem for _, problem in looks if problem),
        *_compare_sizes(sequence, sizes),
        *_check_boxes(sequence, next(filter(None, sizes), None)),
    ]
    visible = int(np.count_nonzero(sequence.visible))
    return SequenceCheck(len(sequence), visible, count, mark(_merge_runs(problems)))


class _Images:
    """Checks frames, each file once."""

    def __init__(self) -> None:
        self._remembered: dict[str, tuple[Size | None, Problem | None]] = {}

    def look(self, sequence: Sequence, t: int) -> tuple[Size | None, Problem | None]:
        """Return a frame's size ``(W, H)``, if it can be decoded, and what is wrong with it."""
        if not isinstance(sequence, ImageSequence):
            return _look(sequence, t)
        file = str(sequence.paths[t])
        known = self._remembered.get(file)
        if known is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            known = self._remembered[file] = _look(sequence, t)
        size, problem = known
        return size, problem and replace(problem, sequence=sequence.name, first=t, last=t)


def _look(sequence: Sequence, t: int) -> tuple[Size | None, Problem | None]:
    kind = "unreadable"
    # Frames of video files have no bytes of their own.
    read_encoded = getattr(sequence, "read_encoded", None)
    try:
        if read_encoded is None:
            frame = sequence.read(t)
        else:
            data = read_encoded(t)
            kind = "truncated" if is_truncated(data) else kind
            frame = decode_frame(data, f"frame {t} of {sequence.name!r}")
    except (SltGymError, OSError) as error:
        return None, _problem(kind, sequence, t, str(error))
    size = (frame.shape[1], frame.shape[0])
    if kind == "truncated":
        return size, _problem(kind, sequence, t, "the file ends before the picture does")
    return size, None


def _problem(kind: str, sequence: Sequence, t: int, detail: str) -> Problem:
    path: Path | None = getattr(sequence, "path", None)
    if isinstance(sequence, ImageSequence):
        path = sequence.paths[t]
    return Problem(kind, sequence.name, detail, t, t, str(path) if path else None)


def _compare_lengths(sequence: Sequence) -> Iterator[Problem]:
    """Yield what the reader left out."""
    too_many = {note: match[1] for note in sequence.notes if (match := _TOO_MANY.fullmatch(note))}
    for note in sequence.notes:
        if note in too_many:
            # Where images are not among what is too many, they are too few.
            kind = "extra" if "images" in too_many.values() else "missing"
        else:
            kind = "missing" if _MISSING.fullmatch(note) else "note"
        yield Problem(kind, sequence.name, note)


def _compare_sizes(sequence: Sequence, sizes: list[Size | None]) -> Iterator[Problem]:
    first = next(filter(None, sizes), None)
    for t, size in enumerate(sizes):
        if size and first and size != first:
            detail = f"{size[0]}x{size[1]} pixels instead of {first[0]}x{first[1]}"
            yield _problem("size", sequence, t, detail)


def _check_boxes(sequence: Sequence, size: Size | None) -> Iterator[Problem]:
    boxes, valid = sequence.boxes, is_valid(sequence.boxes)
    claimed = _claim_target(sequence)
    no_number = claimed & ~np.isfinite(boxes).all(axis=1)
    wrong = {"nan": no_number, "area": claimed & ~valid & ~no_number}
    for frames in wrong.values():
        frames[:1] = False
    first = np.zeros(len(boxes), bool)
    first[:1] = ~valid[:1]
    wrong["first"] = first
    if size is not None:
        x, y, w, h = boxes.T
        # Strict comparisons leave room for files that count pixels from 1.
        beside = (x > size[0]) | (y > size[1]) | (x + w < 0) | (y + h < 0)
        wrong["outside"] = claimed & valid & beside
    for kind, frames in wrong.items():
        for t in np.flatnonzero(frames).tolist():
            detail = "box " + ", ".join(f"{value:g}" for value in boxes[t].tolist())
            if kind == "outside" and size is not None:
                detail += f" in {size[0]}x{size[1]} pixels"
            yield _problem(kind, sequence, t, detail)


def _claim_target(sequence: Sequence) -> NDArray[np.bool_]:
    """Tell in which frames the dataset says that the target is there, shape ``(T,)``.

    Its flags say so; without flags, every box does that is not NaN, all zeros or all -1.
    """
    flags = {name: np.asarray(sequence.attributes.get(name, ())) for name in _ABSENCE}
    absent = [
        values == _ABSENCE[name]
        for name, values in flags.items()
        if values.shape == (len(sequence),)  # Others are about the whole sequence.
    ]
    if not absent:
        boxes = sequence.boxes
        absent = [same.all(axis=1) for same in (np.isnan(boxes), boxes == 0, boxes == -1)]
    return ~np.logical_or.reduce(absent)


def _merge_runs(problems: list[Problem]) -> Iterator[Problem]:
    """Join problems of one kind in frames that follow each other."""
    run: Problem | None = None
    for problem in problems:
        if (
            run is not None
            and run.kind == problem.kind
            and run.last is not None
            and run.last + 1 == problem.first
        ):
            run = replace(run, last=problem.last)
        else:
            if run is not None:
                yield run
            run = problem
    if run is not None:
        yield run
