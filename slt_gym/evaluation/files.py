"""Outputs that appear whole or not at all, and what every run's folder holds."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slt_gym.errors import InvalidArgumentError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Let a file be written beside ``path``, and put it there once it is whole.

    Yields a path in the same folder (made if it is missing) that ends in the same suffix. Where
    the block fails, what was written goes, and what stood at ``path`` stays.
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")


def next_run_folder(folder: str | Path) -> Path:
    """Return ``folder``, or ``folder-2``, ``folder-3``, … if that is taken."""
    first = Path(folder).expanduser()
    candidate, number = first, 2
    while candidate.exists():
        candidate = first.with_name(f"{first.name}-{number}")
        number += 1
    return candidate


def check_output_folder(folder: Path) -> None:
    """Check that a run may write into ``folder``: it is new or empty, and can be made.

    Raises:
        InvalidArgumentError: It holds something, or its place is no folder.
        PermissionError: Its place may not be written to.
    """
    if folder.is_dir() and any(folder.iterdir()):
        names = sorted(path.name for path in folder.iterdir())
        held = ", ".join([*names[:3], *(["…"] if len(names) > 3 else [])])
        raise InvalidArgumentError(
            f"the folder {folder} is not empty (it holds {held}): give a new one, or remove it"
        )
    if folder.exists() and not folder.is_dir():
        raise InvalidArgumentError(f"{folder} is a file: expected is a new or empty folder")
    _check_place(folder)


def check_output_file(file: Path, suffixes: tuple[str, ...] = ()) -> None:
    """Check that ``file`` may be written or replaced.

    Args:
        file: The path.
        suffixes: The accepted ends of its name; none accepts all.

    Raises:
        InvalidArgumentError: It is a folder, its place is no folder, or its name ends otherwise.
        PermissionError: Its place may not be written to.
    """
    if file.is_dir():
        raise InvalidArgumentError(f"{file} is a folder: expected is the path of a file to write")
    if suffixes and file.suffix.lower() not in suffixes:
        raise InvalidArgumentError(f"{file} must end in {' or '.join(suffixes)}")
    _check_place(file)


def _check_place(path: Path) -> None:
    """Check that the nearest folder above ``path`` that exists can be written to."""
    place = path.absolute().parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InvalidArgumentError(f"cannot write {path}: {place} is a file, not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(13, "no permission to write there", str(place))
