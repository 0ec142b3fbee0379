"""``slt-gym pack``: copy a dataset into a few large files, or look for damage in them."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import Positional, arg

from slt_gym.cli.arguments import parse_options
from slt_gym.data import list_datasets
from slt_gym.data.pack.manifest import UNFINISHED, Manifest, is_pack, read_manifest
from slt_gym.data.pack.plan import make_plan, open_source
from slt_gym.data.pack.verify import total_bytes, verify_pack
from slt_gym.data.pack.writer import (
    check_output,
    find_complete,
    find_finished_shards,
    write_pack,
)
from slt_gym.errors import DatasetNotFoundError, InvalidArgumentError, SltGymError

_DATASET_HELP = f"The dataset's name: {', '.join(list_datasets())}."
_SHOWN_DAMAGES = 20
_MIB = 1 << 20


@dataclass(frozen=True)
class Arguments:
    """Copy a dataset's encoded frames and annotations into a few LMDB files, or verify a pack.

    `slt-gym pack DATASET ROOT OUT` makes the pack OUT, which opens wherever the folder ROOT does.
    The frames are copied as they are, byte for byte. When it is interrupted or killed, the same
    command goes on where it stopped. `slt-gym pack --verify OUT` compares every byte of a pack
    with its checksums, names the sequences and frames that are damaged, and exits with 1 if there
    are any.

    Attributes:
        dataset: The dataset's name.
        root: The dataset's folder.
        out: The pack's folder, new or empty, outside of the dataset's.
        verify: Verify this pack instead of making one.
        splits: The splits to pack; by default those of train, val and test that the dataset has.
        dataset_options: Options of the dataset, a JSON object such as '{"holdout": true}'; the pack
            opens with the same ones.
        shard_size: The size of a file, about, in MiB.
        workers: The number of threads; by default the number of processor cores.
        progress_bar: Show a progress bar with the rate and the remaining time.
    """

    dataset: Annotated[Positional[str | None], arg(metavar="DATASET", help=_DATASET_HELP)] = None
    root: Annotated[Positional[Path | None], arg(metavar="ROOT")] = None
    out: Annotated[Positional[Path | None], arg(metavar="OUT")] = None
    verify: Annotated[Path | None, arg(metavar="OUT")] = None
    splits: Annotated[tuple[str, ...], arg(metavar="SPLIT …")] = ()
    dataset_options: Annotated[str, arg(metavar="JSON")] = "{}"
    shard_size: float = 2048
    workers: int | None = None
    progress_bar: bool = True


def execute(arguments: Arguments, command: str) -> None:
    """Make a pack, or verify one.

    Args:
        arguments: The command's.
        command: The command line.

    Raises:
        InvalidArgumentError: An argument is none; nothing is written.
        DatasetNotFoundError: The dataset, or the pack to verify, is not there.
        SltGymError: The pack to verify is damaged.
    """
    del command
    workers = os.cpu_count() or 1 if arguments.workers is None else arguments.workers
    if workers < 1:
        raise InvalidArgumentError(f"--workers is {workers}: it must be at least 1")
    dataset, root, out = arguments.dataset, arguments.root, arguments.out
    if arguments.verify is not None:
        if dataset is not None:
            raise InvalidArgumentError(
                f"--verify takes the pack alone, but {dataset!r} was given, too"
            )
        _verify(arguments.verify.expanduser(), workers, arguments.progress_bar)
    elif dataset is None or root is None or out is None:
        raise InvalidArgumentError(
            "expected are `slt-gym pack DATASET ROOT OUT`, or `slt-gym pack --verify OUT`"
        )
    else:
        _pack(arguments, dataset, root.expanduser(), out.expanduser(), workers)


def _pack(arguments: Arguments, dataset: str, root: Path, out: Path, workers: int) -> None:
    shard_bytes = int(arguments.shard_size * _MIB)
    if shard_bytes < 1:
        raise InvalidArgumentError(f"--shard-size is {arguments.shard_size}: it must be above 0")
    options = parse_options("--dataset-options", arguments.dataset_options)
    check_output(root, out)
    source = open_source(dataset, root, arguments.splits, options)
    complete = find_complete(source, shard_bytes, out)
    if complete is not None:
        print(f"{_describe(out, complete)} is complete already; --verify looks for damage")
        return
    quiet = not arguments.progress_bar
    count = sum(map(len, source.splits.values()))
    with tqdm(desc="reading annotations", total=count, unit="sequence", disable=quiet) as bar:
        plan = make_plan(source, shard_bytes, bar.update)
    finished = find_finished_shards(plan, out)
    kept = sum(plan.shards[number].frames for number in finished)
    try:
        with tqdm(
            desc=f"packing {source.dataset}",
            initial=kept,
            total=sum(shard.frames for shard in plan.shards),
            unit="frame",
            unit_scale=True,
            disable=quiet,
        ) as bar:
            manifest = write_pack(plan, out, workers, bar.update)
    except (KeyboardInterrupt, OSError, SltGymError):
        if (out / UNFINISHED).is_dir():
            done = len(find_finished_shards(plan, out))
            print(
                f"{done} of {len(plan.shards)} shards are finished: the same command goes on there",
                file=sys.stderr,
            )
        raise
    print(_describe(out, manifest))


def _verify(folder: Path, workers: int, progress_bar: bool) -> None:
    if not is_pack(folder):
        raise DatasetNotFoundError(f"there is no pack at {folder}: it has no pack.json")
    manifest = read_manifest(folder)
    with tqdm(
        desc="verifying",
        total=total_bytes(manifest),
        unit="B",
        unit_scale=True,
        disable=not progress_bar,
    ) as bar:
        damages = verify_pack(folder, workers, bar.update)
    for damage in damages[:_SHOWN_DAMAGES]:
        print(f"{folder}, {damage}")
    if len(damages) > _SHOWN_DAMAGES:
        print(f"and {len(damages) - _SHOWN_DAMAGES} more")
    if damages:
        raise SltGymError(f"the pack {folder} is damaged: remove it and pack the dataset again")
    print(f"{_describe(folder, manifest)} is whole")


def _describe(folder: Path, manifest: Manifest) -> str:
    frames = sum(shard.frames for shard in manifest.shards)
    size = total_bytes(manifest) / _MIB
    sequences = sum(manifest.splits.values())
    return (
        f"the pack {folder} ({manifest.describe()}: {sequences} sequences, {frames} frames, "
        f"{len(manifest.shards)} shards, {size:.1f} MiB)"
    )
