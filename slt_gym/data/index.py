"""Indices of datasets that are slow to list, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Part of each index's file name: count up when what a reader stores changes its meaning.
_FORMAT = 1
_FINGERPRINT = "fingerprint"


def cache_folder() -> Path:
    r"""Return the folder of the indices, which need not be there yet.

    It is ``$SLT_GYM_CACHE``, else ``$XDG_CACHE_HOME/slt_gym``, else the platform's own place:
    ``~/.cache/slt_gym``, ``~/Library/Caches/slt_gym`` or ``%LOCALAPPDATA%\slt_gym``. Everything
    in it may be deleted at any time.
    """
    if own := os.environ.get("SLT_GYM_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    if not base and sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    if not base:
        base = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    return Path(os.path.expanduser(base)) / "slt_gym"  # noqa: PTH111 (does not fail without home)


def fingerprint(paths: Iterable[Path]) -> str:
    """Return a text that changes when one of the files or folders does.

    What counts is the path, the size and the time of the last change, which for a folder is the
    last time that a name in it came or went. A path may be missing.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(os.fsencode(path) + f"\0{state}\n".encode())
    return digest.hexdigest()


def cached_index(
    dataset: str, root: Path, fingerprint: str, build: Callable[[], Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """Return a dataset's index from the cache, or build it and keep it there.

    Nothing is written beside the data, and several processes may come here at once: each builds
    the index, the last one's stays. A cache that is broken is built anew; one that cannot be
    written costs a warning.

    Args:
        dataset: The dataset's name and whatever else distinguishes indices of one root, such as
            ``"coco-train2017"``; letters, digits and dashes.
        root: The dataset's folder.
        fingerprint: What the index was built from: a kept one with another fingerprint is stale.
        build: Lists the dataset and returns arrays by name (NumPy does not take ``"file"``),
            none of them of Python objects.
    """
    where = os.fsencode(os.path.realpath(root))
    key = hashlib.sha256(where).hexdigest()[:16]
    path = cache_folder() / f"{dataset}-{key}-v{_FORMAT}.npz"
    kept = _read(path)
    if kept is not None and str(kept.pop(_FINGERPRINT, None)) == fingerprint:
        return kept
    index = dict(build())
    try:
        _write(path, {**index, _FINGERPRINT: np.array(fingerprint)})
    except OSError as error:
        warnings.warn(
            f"cannot keep the index of {dataset} in {path.parent} ({error.strerror or error}), so "
            "that it is built again each time; $SLT_GYM_CACHE names another folder",
            stacklevel=2,
        )
    return index


def _read(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of a file, None where it is missing or broken."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception:  # What a damaged zip raises is not limited; all of it means "build anew".
        return None


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}-{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
