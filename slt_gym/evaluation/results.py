"""Reading the result files of this library and of the field's toolkits."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import cast

import numpy as np
from numpy.typing import NDArray

from slt_gym.data.annotations import read_boxes, read_lines
from slt_gym.data.frames import sort_naturally
from slt_gym.errors import ResultsError

_REPETITION = re.compile(r"_(\d{3})$")
_TIME = "_time"
_ACCEPTED = (
    "expected is a folder or a zip with <sequence>.txt or <sequence>/<sequence>_001.txt for each "
    "sequence, or one such file"
)


def load_results(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float64]]:
    """Read a tracker's results, in the layout of any toolkit.

    Layouts: ``<sequence>.txt`` (this library, pysot, PyTracking, OSTrack, the GOT-10k toolkit for
    OTB and its like, LaSOT's and TrackingNet's toolkits) and ``<sequence>/<sequence>_001.txt``
    (GOT-10k; of several repetitions the first is read), at any depth below ``path``. Rows are
    ``x, y, w, h``, separated by comma, tab or blanks; rows of eight numbers, a polygon's corners,
    become its axis-aligned hull. Files of times are passed over, as is what starts with a dot.

    Args:
        path: A folder, a zip file, or one text file.

    Returns:
        Boxes by sequence, float64, shape ``(T, 4)``, in natural order of the names, which are the
        toolkit's own: see :func:`slt_gym.evaluation.names.match_names`.

    Raises:
        ResultsError: There is nothing at ``path``, no result in it, or two results for one
            sequence.
        AnnotationError: A file is garbled.
    """
    return {name: runs[0] for name, runs in load_repetitions(path).items()}


def load_repetitions(path: str | os.PathLike[str]) -> dict[str, list[NDArray[np.float64]]]:
    """Read a tracker's results as :func:`load_results` does, but all repetitions.

    Returns:
        By sequence, the repetitions' boxes in the order of their numbers.
    """
    files: dict[str, dict[int, Path]] = defaultdict(dict)
    with _open_texts(path) as texts:
        for pure, file in texts:
            if pure.stem.endswith(_TIME):
                continue
            name, repetition = _split_name(pure)
            if repetition in files[name]:
                raise ResultsError(
                    f"{path} holds two results for {name!r}, {files[name][repetition]} and {file}: "
                    "give the folder of one tracker"
                )
            files[name][repetition] = file
        if not files:
            raise ResultsError(f"{path} holds no result: {_ACCEPTED}")
        return {
            name: [read_boxes(files[name][k], polygons=True) for k in sorted(files[name])]
            for name in sort_naturally(list(files))
        }


def load_times(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float64]]:
    """Read the times that lie with a tracker's results, ``<sequence>_time.txt`` at any depth.

    Args:
        path: A folder or a zip file.

    Returns:
        Seconds per frame by sequence, float64, shape ``(T, R)``, a column for each repetition, in
        natural order of the names. Empty where the toolkit writes no times.

    Raises:
        ResultsError: There is nothing at ``path``, or a file of times is garbled.
        AnnotationError: A file of times is empty.
    """
    times = {}
    with _open_texts(path) as texts:
        for pure, file in texts:
            if pure.stem.endswith(_TIME):
                times[pure.stem.removesuffix(_TIME)] = _read_times(file)
    return {name: times[name] for name in sort_naturally(list(times))}


def mean_speed(times: dict[str, NDArray[np.float64]]) -> float:
    """Return frames per second as the GOT-10k toolkit does: the mean over all frames of 1 / t.

    Frames whose time is not above 0 are left out; without any frame the speed is NaN.

    Args:
        times: Seconds per frame, as :func:`load_times` returns them.
    """
    seconds = np.concatenate([values.reshape(-1) for values in times.values()] or [np.empty(0)])
    seconds = seconds[seconds > 0]
    return float((1 / seconds).mean()) if len(seconds) else float("nan")


def _read_times(file: Path) -> NDArray[np.float64]:
    lines = [line.replace(",", " ") for line in read_lines(file)]
    try:
        return np.loadtxt(lines, np.float64, ndmin=2)
    except ValueError as error:
        raise ResultsError(f"{file} is not rows of seconds, one per frame: {error}") from None


@contextmanager
def _open_texts(path: str | os.PathLike[str]) -> Iterator[Iterator[tuple[PurePath, Path]]]:
    """Yield each text file's place below ``path`` and the file itself, in order."""
    path = Path(path).expanduser()
    if path.is_dir() or not zipfile.is_zipfile(path):
        yield _list_texts(path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            # A zipfile.Path reads and prints as a path, which is all that is asked of it.
            files = {name: cast("Path", zipfile.Path(archive, name)) for name in archive.namelist()}
            places = ((PurePosixPath(name), files[name]) for name in sorted(files))
            yield ((pure, file) for pure, file in places if _is_text(pure))
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # the last: encrypted
        raise ResultsError(f"cannot unpack {path}: {error}") from None


def _list_texts(path: Path) -> Iterator[tuple[PurePath, Path]]:
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for file in (Path(folder, name) for name in sorted(names)):
                if _is_text(file):
                    yield file, file
    elif path.is_file():
        yield path, path
    else:
        raise ResultsError(f"there are no results at {path}: {_ACCEPTED}")


def _is_text(path: PurePath) -> bool:
    return path.suffix == ".txt" and not path.name.startswith(".")


def _split_name(pure: PurePath) -> tuple[str, int]:
    """Return the sequence's name and the number of the repetition, 1 where none is written."""
    repetition = _REPETITION.search(pure.stem)
    if repetition and pure.stem[: repetition.start()] == pure.parent.name:
        return pure.parent.name, int(repetition[1])
    return pure.stem, 1
