"""Parsing of the text files that hold boxes, flags and names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slt_gym.errors import AnnotationError

# Two commas with nothing between them, or a comma that opens a line: a number is missing there.
_EMPTY_FIELD = re.compile(r"(?:^|,)[ \t]*,", re.MULTILINE)
_SHOWN_CHARACTERS = 60


def read_boxes(path: Path, *, polygons: bool = False) -> NDArray[np.float64]:
    """Read a file of boxes, one ``x, y, w, h`` row per frame.

    Numbers are separated by commas, tabs, blanks or a mixture; ``NaN`` is a number. A byte order
    mark, Windows newlines and empty lines at the end do no harm; an empty line in between would
    shift the frames and is an error.

    Args:
        path: The file.
        polygons: Accept files of eight numbers a row too, the corners ``x1, y1, … x4, y4``, and
            return their axis-aligned hulls.

    Returns:
        Float64, shape ``(T, 4)``, in the file's own pixels.

    Raises:
        AnnotationError: The file cannot be read, is empty, or one of its lines is not a box.
    """
    rows = _read_rows(path, (4, 8) if polygons else (4,))
    return find_hulls(rows) if rows.shape[1] == 8 else rows


def read_polygons(path: Path) -> NDArray[np.float64]:
    """Read a file of quadrangles, one ``x1, y1, … x4, y4`` row per frame.

    Rows of four numbers are boxes ``x, y, w, h``, and become their corners.

    Returns:
        Float64, shape ``(T, 8)``, in the file's own pixels.

    Raises:
        AnnotationError: As in :func:`read_boxes`.
    """
    rows = _read_rows(path, (4, 8))
    if rows.shape[1] == 4:
        x, y, w, h = rows.T
        rows = np.stack([x, y, x + w, y, x + w, y + h, x, y + h], axis=1)
    return rows


def find_hulls(polygons: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest boxes ``(x, y, w, h)``, ``(T, 4)``, around polygons ``(T, 8)``."""
    corners = polygons.reshape(-1, 4, 2)
    low, high = corners.min(axis=1), corners.max(axis=1)
    return np.concatenate([low, high - low], axis=1)


def read_flags(path: Path) -> NDArray[np.int64]:
    """Read whole numbers, one per frame: all of them on one line, or one per line.

    Returns:
        Int64, shape ``(T,)``.

    Raises:
        AnnotationError: The file cannot be read, is empty, or holds something else.
    """
    lines = read_lines(path)
    values: list[int] = []
    for number, line in enumerate(lines, 1):
        fields = _split(line) or [line]
        try:
            values.extend(map(int, fields))
        except ValueError:
            raise AnnotationError(
                f"{path}, line {number}: {_shorten(line)} does not consist of whole numbers, one "
                "per frame, on one line with commas or blanks between them, or one per line"
            ) from None
    return np.array(values, np.int64)


def read_names(path: Path) -> list[str]:
    """Read a list of names, one per line, without empty lines and repetitions.

    Raises:
        AnnotationError: The file cannot be read or is empty.
    """
    return list(dict.fromkeys(line.strip() for line in read_lines(path) if line.strip()))


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file, without empty ones at its end.

    Raises:
        AnnotationError: The file cannot be read or is empty.
    """
    lines = _read_text(path).rstrip().splitlines()
    if not lines:
        raise AnnotationError(f"{path} is empty: expected one row per frame or name")
    return lines


def read_optional_text(path: Path) -> str | None:
    """Return the text of a file, blanks and newlines around it trimmed; None without the file.

    Raises:
        AnnotationError: The file is there but cannot be read.
    """
    return _read_text(path).strip() if path.is_file() else None


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from None
    # A byte that is not UTF-8 becomes a character that no number has, so its line gets named.
    return data.decode("utf-8-sig", errors="replace")


def _read_rows(path: Path, widths: tuple[int, ...]) -> NDArray[np.float64]:
    lines = read_lines(path)
    rows = _parse_at_once(lines)
    if rows is None or rows.shape[1] not in widths:
        rows = _parse_by_line(path, lines, widths)
    return rows


def _parse_at_once(lines: list[str]) -> NDArray[np.float64] | None:
    """Return all rows, or None where anything about them is irregular."""
    text = "\n".join(lines)
    if _EMPTY_FIELD.search(text):
        return None
    try:
        rows = np.loadtxt(text.replace(",", " ").split("\n"), comments=None, ndmin=2)
    except ValueError:
        return None
    return rows if len(rows) == len(lines) else None  # loadtxt passes over empty lines


def _parse_by_line(path: Path, lines: list[str], widths: tuple[int, ...]) -> NDArray[np.float64]:
    """Return all rows, or raise the error that names the first line that is not a box."""
    rows = []
    for number, line in enumerate(lines, 1):
        fields = _split(line)
        try:
            row = [float(field) for field in fields]
        except ValueError:
            row = []
        if len(row) not in widths or "_" in line:
            corners = ", nor the eight of a polygon's corners" if 8 in widths else ""
            raise AnnotationError(
                f"{path}, line {number}: {_shorten(line)} is not four numbers x, y, w, h separated "
                f"by comma, tab or blanks{corners}"
            )
        widths = (len(row),)  # The first row decides between boxes and polygons.
        rows.append(row)
    return np.array(rows, np.float64)


def _split(line: str) -> list[str]:
    """Return a line's fields, none where one of them is empty."""
    return [] if _EMPTY_FIELD.search(line) else line.replace(",", " ").split()


def _shorten(line: str) -> str:
    line = line.strip()
    return repr(line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…")
