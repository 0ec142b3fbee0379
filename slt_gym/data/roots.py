"""Where datasets are looked for on disk, and what to say when they are not there."""

from __future__ import annotations

import os
from pathlib import Path

from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError


def find_root(
    name: str, root: str | os.PathLike[str] | None, layout: str, *, or_file: bool = False
) -> Path:
    """Return the folder of a dataset.

    The first of these that is given decides: the argument, ``$SLT_GYM_<NAME>``,
    ``$SLT_GYM_DATA/<name>``. ``~`` stands for the home folder.

    Args:
        name: The dataset's name, such as ``lasot``.
        root: The caller's argument, or None.
        layout: What the folder should look like, shown when there is none.
        or_file: A file will do, too.

    Raises:
        DatasetNotFoundError: There is no such folder; the message says what was tried.
        InvalidArgumentError: ``root`` is not a path.
    """
    if root is not None and not isinstance(root, str | os.PathLike):
        raise InvalidArgumentError(f"root={root!r} is not a path: accepted are text and paths")
    own = f"SLT_GYM_{name.upper()}"
    if root is not None:
        path, origin = os.fspath(root), f"root={os.fspath(root)!r}"
    elif path := os.environ.get(own, ""):
        origin = f"${own}={path!r}"
    elif base := os.environ.get("SLT_GYM_DATA", ""):
        path = os.path.join(base, name)  # noqa: PTH118 (an environment variable's text)
        origin = f"${own} is not set, and $SLT_GYM_DATA/{name}={path!r}"
    else:
        raise DatasetNotFoundError(
            f"cannot find {name}: no root is given, and neither ${own} nor $SLT_GYM_DATA is set; "
            + _advise(name, layout)
        )
    folder = Path(path).expanduser()
    if not path or not (folder.is_dir() or (or_file and folder.is_file())):
        wanted = "neither a folder nor a file" if or_file else "not a folder"
        raise DatasetNotFoundError(
            f"cannot find {name}: {origin} is {wanted}; " + _advise(name, layout)
        )
    return folder


def wrong_root(name: str, root: Path, found: str, layout: str) -> DatasetNotFoundError:
    """Build the error for a folder that is there but does not hold the dataset.

    Args:
        name: The dataset's name.
        root: The folder.
        found: What is the matter with it, continuing "``root`` …".
        layout: What the folder should look like.
    """
    return DatasetNotFoundError(
        f"cannot read {name}: {root} {found}; expected is a folder like\n{layout.rstrip()}"
    )


def list_folders(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder``, hidden ones left out, in no order.

    Raises:
        DatasetNotFoundError: The folder cannot be listed.
    """
    # Entries know their type, so nothing but links costs a look at the disk.
    return [e.name for e in _scan(folder) if e.is_dir()]


def list_files(folder: Path, suffix: str) -> list[str]:
    """Return the names in ``folder`` that end in ``suffix``, hidden ones left out, in no order.

    Raises:
        DatasetNotFoundError: The folder cannot be listed.
    """
    return [e.name for e in _scan(folder) if e.name.endswith(suffix)]


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name[0] != "."]
    except OSError as error:
        reason = error.strerror or str(error)
        raise DatasetNotFoundError(f"cannot list {folder}: {reason}") from None


def _advise(name: str, layout: str) -> str:
    return (
        f"pass root=…, or set $SLT_GYM_{name.upper()} to the dataset's folder, or $SLT_GYM_DATA to "
        f"the folder that holds {name!r}; it should look like\n{layout.rstrip()}"
    )
