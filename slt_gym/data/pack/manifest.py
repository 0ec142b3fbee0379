"""The files of a pack: ``pack.json``, ``index.json`` and the shards."""

from __future__ import annotations

import inspect
import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from slt_gym.data.roots import find_root
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError, SltGymError

# Counts up when older versions of the library cannot read what newer ones write.
FORMAT = 1
MANIFEST = "pack.json"
INDEX = "index.json"
UNFINISHED = "unfinished-pack"
CHECKSUM_DIFFERS = "its checksum differs"
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class FileSum:
    """A file of a pack, and what it must hold byte for byte."""

    file: str
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Shard(FileSum):
    """An LMDB file of a pack.

    Attributes:
        sequences: The number of records of annotations in it.
        frames: The number of frames in it; those that several sequences share count once.
    """

    sequences: int
    frames: int


@dataclass(frozen=True)
class Manifest:
    """What ``pack.json`` says.

    Attributes:
        dataset: The packed dataset's name.
        options: Its options, as far as they differ from the defaults; JSON values.
        splits: The number of sequences by split.
        shard_bytes: The size that the shards were to have.
        index: The sum of ``index.json``.
        shards: The LMDB files, in order.
        library: The version of slt_gym that wrote the pack.
        format: The version of the format.
    """

    dataset: str
    options: dict[str, Any]
    splits: dict[str, int]
    shard_bytes: int
    index: FileSum
    shards: tuple[Shard, ...]
    library: str
    format: int = FORMAT

    def describe(self) -> str:
        """Say what the pack holds, in words."""
        options = f", options {json.dumps(self.options)}" if self.options else ""
        plural = "s" if len(self.splits) > 1 else ""
        return f"{self.dataset}, split{plural} {', '.join(self.splits)}{options}"


def shard_name(number: int) -> str:
    """Return the name of a shard's file."""
    return f"shard-{number:05d}.lmdb"


def is_pack(folder: Path) -> bool:
    """Tell whether ``folder`` is a pack; an unfinished one is an error.

    Raises:
        DatasetNotFoundError: The pack was interrupted while it was made.
    """
    if (folder / MANIFEST).is_file():
        return True
    if (folder / UNFINISHED).is_dir():
        raise DatasetNotFoundError(
            f"{folder} is an unfinished pack: call the same `slt-gym pack` again, which goes on "
            "where it stopped"
        )
    return False


def find_pack(dataset: str, root: str | os.PathLike[str] | None) -> Path | None:
    """Return the pack that a dataset's root is; None if it is something else, or missing.

    Args:
        dataset: The dataset's name.
        root: The caller's argument; None looks where :func:`find_root` does.

    Raises:
        DatasetNotFoundError: The pack was interrupted while it was made.
        InvalidArgumentError: ``root`` is not a path.
    """
    try:
        folder = find_root(dataset, root, layout="")
    except DatasetNotFoundError:  # The dataset's reader says it with its layout.
        return None
    return folder if is_pack(folder) else None


def changed_options(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a dataset's class that are not its defaults, as JSON values.

    Raises:
        InvalidArgumentError: One of them is none.
    """
    parameters = inspect.signature(cls).parameters
    changed = {
        name: value
        for name, value in options.items()
        if name not in parameters or value != parameters[name].default
    }
    try:
        return dict(json.loads(json.dumps(changed)))
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"the options of a pack are JSON values, but {changed} was given"
        ) from None


def read_manifest(folder: Path) -> Manifest:
    """Read ``pack.json``.

    Raises:
        InvalidArgumentError: A newer version of the library wrote it.
        SltGymError: It is damaged.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        if content["format"] > FORMAT:
            raise InvalidArgumentError(
                f"the pack {folder} has format {content['format']}, and this version of slt_gym "
                f"reads formats up to {FORMAT}: update slt_gym"
            )
        if content.pop("crc32") != zlib.crc32(_compact(content)):
            raise ValueError(CHECKSUM_DIFFERS)
        content["index"] = FileSum(**content["index"])
        content["shards"] = tuple(Shard(**shard) for shard in content["shards"])
        return Manifest(**content)
    except InvalidArgumentError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SltGymError(f"the pack {folder} is damaged, {MANIFEST}: {error}") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``pack.json``, whole or not at all."""
    content = asdict(manifest)
    content["crc32"] = zlib.crc32(_compact(content))
    write_text(folder / MANIFEST, json.dumps(content, indent=1))


def read_index(folder: Path, manifest: Manifest) -> dict[str, dict[str, list[Any]]]:
    """Read ``index.json``.

    Returns:
        For each split ``names``, the sequences' names; ``shards``, the numbers of their shards;
        ``records``, their numbers in there.

    Raises:
        SltGymError: It is damaged.
    """
    if damage := find_damage(folder, manifest.index):
        raise SltGymError(f"the pack {folder} is damaged, {damage}")
    index = json.loads((folder / INDEX).read_bytes())
    return cast("dict[str, dict[str, list[Any]]]", index)


def write_index(folder: Path, index: dict[str, dict[str, list[Any]]]) -> FileSum:
    """Write ``index.json``, whole or not at all, and return its sum."""
    write_text(folder / INDEX, json.dumps(index, separators=(",", ":")))
    return sum_file(folder / INDEX)


def sum_file(path: Path, progress: Callable[[int], object] | None = None) -> FileSum:
    """Compute the sum of a file.

    Args:
        path: The file.
        progress: Called with the number of bytes of each part that was read.
    """
    size, crc32 = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size, crc32 = size + len(chunk), zlib.crc32(chunk, crc32)
            if progress is not None:
                progress(len(chunk))
    return FileSum(path.name, size, crc32)


def find_damage(
    folder: Path, expected: FileSum, progress: Callable[[int], object] | None = None
) -> str | None:
    """Say what is wrong with a file of a pack; None if nothing is."""
    path = folder / expected.file
    try:
        size = path.stat().st_size
        if size != expected.bytes:
            return f"{expected.file}: has {size} bytes instead of {expected.bytes}"
        if sum_file(path, progress).crc32 != expected.crc32:
            return f"{expected.file}: {CHECKSUM_DIFFERS}"
    except OSError as error:
        return f"{expected.file}: {error.strerror or error}"
    return None


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_text(text + "\n", "utf-8")
    temporary.replace(path)


def _compact(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
