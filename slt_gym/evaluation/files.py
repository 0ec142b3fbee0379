"""Outputs that appear whole or not at all, and the folder of a run."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slt_gym.errors import InvalidArgumentError
from slt_gym.version import __version__

_PACKAGES = ("torch", "torchvision", "gymnasium", "stable-baselines3", "numpy", "opencv-python")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to, and put it in place at the end.

    If the block fails, nothing is left and an earlier file at ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")


def check_run_folder(folder: str | Path) -> Path:
    """Return the path of a run's folder, which must not hold anything yet.

    Raises:
        InvalidArgumentError: It exists and is not an empty folder.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InvalidArgumentError(
            f"output {folder} exists already: give a folder that is new or empty"
        )
    return folder


def next_run_folder(folder: str | Path) -> Path:
    """Return ``folder``, or ``folder-2``, ``folder-3``, … if that is taken."""
    first = Path(folder).expanduser()
    candidate, number = first, 2
    while candidate.exists():
        candidate = first.with_name(f"{first.name}-{number}")
        number += 1
    return candidate


def describe_versions() -> dict[str, str]:
    """Return the versions that a run depends on."""
    versions = {"slt_gym": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except ModuleNotFoundError:  # opencv-python-headless, say
            versions[package] = "not installed under this name"
    return versions
