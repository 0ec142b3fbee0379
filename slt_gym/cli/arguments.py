"""Checks of arguments that several commands share; each speaks before anything is written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from slt_gym.errors import InvalidArgumentError


def parse_options(flag: str, text: str) -> dict[str, Any]:
    """Read a JSON object, such as ``{"width": 256}``.

    Args:
        flag: The argument's name, for the message.
        text: What was typed.

    Raises:
        InvalidArgumentError: It is no JSON, or no object.
    """
    try:
        options = json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(
            f"{flag} {text!r} is not JSON ({error}): expected is an object such as "
            """'{"width": 256}'"""
        ) from None
    if not isinstance(options, dict):
        raise InvalidArgumentError(
            f"""{flag} {text!r} is not a JSON object: expected is one such as '{{"width": 256}}'"""
        )
    return options


def choose_device(name: str) -> str:
    """Return the PyTorch device that ``name`` stands for: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        InvalidArgumentError: There is no such device here.
    """
    import torch  # noqa: PLC0415 (takes seconds)

    kind, _, index = name.partition(":")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdecimal())):
        raise InvalidArgumentError(
            f"unknown device {name!r}: accepted are auto, cpu, cuda, and cuda:1 and so on"
        )
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise InvalidArgumentError(
            f"device {name!r} is not here: PyTorch sees {torch.cuda.device_count()} CUDA devices"
        )
    return name


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
