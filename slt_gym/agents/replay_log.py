"""A compact log of what was observed, step by step: references instead of images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slt_gym.envs.references import TRANSFORM_BYTES, StepReference, View

# Steps in a row whose observations differ only in frame and box, and what was seen after the last
# of them. "Looks" are numbers of packed transforms, -1 stands for none.
_RUN = np.dtype(
    [
        ("start", np.int64),  # number of the first step
        ("sequence", np.int32),
        ("template", np.int32),
        ("template_look", np.int32),
        ("look", np.int32),
        ("size", np.uint16, 2),
        ("last_frame", np.int32),
        ("last_look", np.int32),
        ("last_size", np.uint16, 2),
        ("last_box", np.float64, 4),
    ]
)
_LOOK = np.dtype(f"V{TRANSFORM_BYTES}")


class Shown(NamedTuple):
    """A logged observation.

    Attributes:
        place: Row, track, and whether it is the one after the row's step; unique in the log.
        sequence: Name of the sequence.
        template: Frame number of the template.
        template_transform: What was done to the template's frame, packed; empty for nothing.
        view: The frame that is shown, and how.
    """

    place: tuple[int, int, bool]
    sequence: str
    template: int
    template_transform: bytes
    view: View


class ReferenceLog:
    """The latest ``rows`` steps of each track, in a ring of rows.

    A row holds the frame and the box of the observation before its step, 36 bytes. The one after it
    is the next row's, or the run's last. All else is kept once for each run of rows that share it,
    and let go with the last of them. At a break (an episode's end, or a reset in its middle) a new
    run begins, so that no row ever leads to another episode's.

    Args:
        rows: Steps of each track that are kept.
        tracks: Number of tracks.
    """

    def __init__(self, rows: int, tracks: int) -> None:
        self._frames = np.zeros((rows, tracks), np.int32)
        self._boxes = np.zeros((rows, tracks, 4), np.float64)
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._tracks = [_Track() for _ in range(tracks)]

    def goes_on(self, track: int, sequence: str, reference: StepReference) -> bool:
        """Tell whether a step begins with what its track's latest one led to."""
        return self._tracks[track].goes_on(self._numbers.get(sequence), reference)

    def add(self, step: int, track: int, sequence: str, reference: StepReference) -> None:
        """Log a step of a track.

        Args:
            step: Its number, one more than the latest; from 0.
            track: Number of the track.
            sequence: Name of the clip's sequence.
            reference: What was seen before and after the step.
        """
        number = self._numbers.setdefault(sequence, len(self._names))
        if number == len(self._names):
            self._names.append(sequence)
        row = step % len(self._frames)
        self._frames[row, track] = reference.before.frame
        self._boxes[row, track] = reference.before.box
        self._tracks[track].add(step, number, reference, step + 1 - len(self._frames))

    def find(
        self, rows: NDArray[np.intp], tracks: NDArray[np.intp], steps: int
    ) -> list[tuple[Shown, Shown]]:
        """Return the observations before and after the steps in some rows of some tracks.

        Args:
            rows: Shape ``(B,)``.
            tracks: Shape ``(B,)``.
            steps: Number of steps that have been logged for each track.
        """
        length = len(self._frames)
        numbers = steps - 1 - (steps - 1 - rows) % length
        found: list[tuple[Shown, Shown]] = [None] * len(rows)  # type: ignore[list-item]
        for j in np.unique(tracks):
            track = self._tracks[j]
            chosen = np.flatnonzero(tracks == j)
            runs = track.runs.kept
            starts = np.append(runs["start"], steps)
            indices = np.searchsorted(starts, numbers[chosen], side="right") - 1
            lasts = starts[indices + 1] == numbers[chosen] + 1
            for k, index, last in zip(chosen, indices, lasts, strict=True):
                row = int(rows[k])
                run = runs[index]
                before = self._show(row, j, run)
                after = self._show_last(row, j, run) if last else None
                found[k] = before, after or self._show((row + 1) % length, j, run)
        return found

    def _show(self, row: int, j: int, run: np.void) -> Shown:
        frame, box = int(self._frames[row, j]), self._boxes[row, j]
        return self._make((row, int(j), False), run, frame, run["size"], box, run["look"])

    def _show_last(self, row: int, j: int, run: np.void) -> Shown:
        place = (row, int(j), True)
        frame, size, box = int(run["last_frame"]), run["last_size"], run["last_box"]
        return self._make(place, run, frame, size, box, run["last_look"])

    def _make(
        self,
        place: tuple[int, int, bool],
        run: np.void,
        frame: int,
        size: NDArray[np.uint16],
        box: NDArray[np.float64],
        look: int,
    ) -> Shown:
        transform = self._tracks[place[1]].transform
        width, height = size.tolist()
        x, y, w, h = box.tolist()
        return Shown(
            place,
            self._names[run["sequence"]],
            int(run["template"]),
            transform(run["template_look"]),
            View(frame, (width, height), (x, y, w, h), transform(look)),
        )


class _Track:
    """The runs and the looks of one track."""

    def __init__(self) -> None:
        self.runs = _Queue(_RUN)
        self._looks = _Queue(_LOOK)
        self._latest: tuple[object, View] | None = None  # the clip, and what was seen last of it
        # The first looks that the latest run may have, and that the next one may have.
        self._usable = self._usable_next = 0

    def goes_on(self, sequence: int | None, reference: StepReference) -> bool:
        """Tell whether a step begins with what the latest one led to."""
        return self._latest == (_clip(sequence, reference), reference.before)

    def add(self, step: int, sequence: int, reference: StepReference, oldest: int) -> None:
        """Log a step, and forget what only steps before ``oldest`` needed."""
        if not self.goes_on(sequence, reference) or not self._fits(reference.before):
            self._begin(step, sequence, reference)
        after = reference.after
        self._latest = _clip(sequence, reference), after
        run = self.runs.kept[-1]
        run["last_frame"], run["last_size"], run["last_box"] = after.frame, after.size, after.box
        run["last_look"] = self._number(after.transform)
        while len(self.runs) > 1 and self.runs.kept[1]["start"] <= oldest:
            self.runs.drop(1)
            self._forget_looks()

    def transform(self, look: int) -> bytes:
        """Return the packed transform of that number."""
        return b"" if look < 0 else self._looks.kept[look - self._looks.first].tobytes()

    def _fits(self, view: View) -> bool:
        """Tell whether a view belongs to the latest run."""
        run = self.runs.kept[-1]
        return run["size"].tolist() == list(view.size) and self.transform(run["look"]) == (
            view.transform
        )

    def _begin(self, step: int, sequence: int, reference: StepReference) -> None:
        self._usable, self._usable_next = self._usable_next, self._looks.first + len(self._looks)
        run = np.zeros((), _RUN)
        run["start"], run["sequence"], run["template"] = step, sequence, reference.template
        run["size"] = reference.before.size
        run["template_look"] = self._number(reference.template_transform)
        run["look"] = self._number(reference.before.transform, int(run["template_look"]))
        run["last_look"] = run["look"]
        self.runs.append(run)

    def _number(self, transform: bytes, *known: int) -> int:
        """Return the number of a transform: of the latest run's, or a known or a new one.

        A run only has looks of the run before it, and later ones: one that runs have handed on from
        long ago is written anew, since all looks after it would stay with it.
        """
        if not transform:
            return -1
        if len(self.runs):
            run = self.runs.kept[-1]
            known = (*known, *(int(run[k]) for k in ("look", "last_look", "template_look")))
        for look in known:
            if look >= self._usable and self.transform(look) == transform:
                return look
        return self._looks.append(np.void(transform))

    def _forget_looks(self) -> None:
        run = self.runs.kept[0]
        looks = [int(run[k]) for k in ("look", "last_look", "template_look") if run[k] >= 0]
        if looks:
            self._looks.drop(min(looks) - self._looks.first)


def _clip(sequence: int | None, reference: StepReference) -> object:
    return sequence, reference.template, reference.template_transform


class _Queue:
    """Records with running numbers, of which the oldest are dropped.

    Attributes:
        first: The number of the oldest record that is kept.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self._records = np.zeros(0, dtype)
        self._begin = self._end = 0
        self.first = 0

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def kept(self) -> NDArray:
        """The records, oldest first; a view that can be written to."""
        return self._records[self._begin : self._end]

    def append(self, record: np.void | NDArray) -> int:
        """Add a record and return its number."""
        if self._end == len(self._records):
            kept = self.kept
            # Little room to spare: copying it often costs less than the memory.
            self._records = np.zeros(len(kept) + len(kept) // 16 + 8, kept.dtype)
            self._records[: len(kept)] = kept
            self._begin, self._end = 0, len(kept)
        self._records[self._end] = record
        self._end += 1
        return self.first + len(self) - 1

    def drop(self, count: int) -> None:
        """Forget the oldest records."""
        self._begin += count
        self.first += count
