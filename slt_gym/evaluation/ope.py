"""Running a tracker over a benchmark, in any number of processes, and continuing after a stop."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from slt_gym.agents import Tracker
from slt_gym.data import SequenceDataset, open_dataset
from slt_gym.errors import AnnotationError, InvalidArgumentError
from slt_gym.evaluation.pool import Progress, track_here, track_in_processes
from slt_gym.evaluation.protocols import DEFAULT_PROTOCOL, find_rule
from slt_gym.evaluation.report import Report, build_report
from slt_gym.evaluation.runner import ResultFolder, TrackerRecipe, longest_first, shard
from slt_gym.geometry import is_valid
from slt_gym.version import __version__


def evaluate(
    tracker: str | TrackerRecipe | Tracker,
    dataset: str | SequenceDataset,
    results_dir: str | Path,
    *,
    protocol: str = DEFAULT_PROTOCOL,
    sequences: Sequence[str] | None = None,
    **options: Any,
) -> Report:
    """Track a dataset with :func:`track_dataset`, and score what was tracked.

    Args:
        tracker: See :func:`track_dataset`.
        dataset: The same.
        results_dir: The same.
        protocol: Whose rule to score by, see :func:`slt_gym.evaluation.protocols.find_rule`.
        sequences: Names of those to track and score; None for all.
        **options: Further arguments of :func:`track_dataset`.

    Returns:
        The scores, see :func:`slt_gym.evaluation.report.write_report` for a page of them.

    Raises:
        InvalidArgumentError: An argument is none; nothing is tracked.
        AnnotationError: The ground truth is not public (after all is tracked).
    """
    find_rule("", protocol)  # Speaks before anything is tracked.
    opened = track_dataset(tracker, dataset, results_dir, sequences=sequences, **options)
    return build_report({_label(tracker): results_dir}, opened, protocol, sequences=sequences)


def track_dataset(
    tracker: str | TrackerRecipe | Tracker,
    dataset: str | SequenceDataset,
    results_dir: str | Path,
    *,
    root: str | Path | None = None,
    split: str = "test",
    dataset_options: Mapping[str, Any] | None = None,
    sequences: Sequence[str] | None = None,
    workers: int | None = 1,
    progress_bar: bool = False,
) -> SequenceDataset:
    """Track every sequence of a dataset once and write its boxes, in the manner of OPE.

    The tracker starts on a sequence's first frame with its ground truth and is never restarted.
    Sequences whose files are there already are passed over, so that an interrupted call continues.
    Neither the number of processes nor their order changes a box: each uses one thread of the CPU.

    Under ``torchrun`` every process takes its share of the sequences, on a GPU of its own where
    the recipe says ``"cuda"``, and returns when all are done.

    Args:
        tracker: A name (of a network: with the weights that ship with the package), how to make
            one, or a tracker (then ``workers`` is 1).
        dataset: A name, or a dataset; ``root`` and ``dataset_options`` are then what it was opened
            with, and only noted.
        results_dir: Folder for the result files, new, empty, or of the same evaluation.
        root: See :func:`slt_gym.data.open_dataset`.
        split: The same.
        dataset_options: The same.
        sequences: Names of those to track; None for all.
        workers: Processes; None for one per core of the CPU, and one on a GPU. A script that asks
            for several must stand below ``if __name__ == "__main__":``.
        progress_bar: Show one, with rate and remaining time.

    Returns:
        The dataset.

    Raises:
        InvalidArgumentError: An argument is none, or the folder holds something else.
        CheckpointError: The tracker's weights cannot be read, or a network has none.
        AnnotationError: A sequence has no first box; nothing is tracked.
        FrameError: A frame cannot be read.
    """
    if isinstance(dataset, str):
        dataset = open_dataset(dataset, root=root, split=split, **dict(dataset_options or {}))
    rank, world = shard()
    recipe, made = _make(tracker, world)
    count = _count_workers(workers, recipe, world)
    names = _choose(dataset, sequences)
    folder = ResultFolder(Path(results_dir).expanduser())
    if rank == 0:
        run = {
            "tracker": {"name": made.name} if recipe is None else recipe.describe(),
            "dataset": dataset.name,
            "split": dataset.split,
            "dataset_options": dict(dataset_options or {}),
            "slt_gym": __version__,
        }
        notes = {
            "weights": None if recipe is None else recipe.source,
            "root": None if root is None else str(Path(root).expanduser().absolute()),
        }
        folder.claim(run, notes)
    wait_for_all(world)
    ordered = longest_first(dataset, names)[rank::world]
    left = [name for name in ordered if not folder.is_done(name, len(dataset.get(name)))]
    done = len(ordered) - len(left)
    with tqdm(
        desc=f"tracking {dataset.name} {dataset.split}",
        total=sum(len(dataset.get(name)) for name in left),
        unit="frame",
        disable=not progress_bar or rank > 0,
        smoothing=0.05,
    ) as bar:

        def tell(progress: Progress) -> None:
            nonlocal done
            done += progress.done is not None
            bar.set_postfix_str(f"{done}/{len(ordered)} sequences", refresh=False)
            bar.update(progress.frames)

        if recipe is not None and min(count, len(left)) > 1:
            track_in_processes(recipe, dataset, left, folder, min(count, len(left)), tell)
        else:
            track_here(made, dataset, left, folder, tell)
    wait_for_all(world)
    return dataset


def _label(tracker: str | TrackerRecipe | Tracker) -> str:
    if isinstance(tracker, str):
        return tracker
    return tracker.label if isinstance(tracker, TrackerRecipe) else tracker.name


def _choose(dataset: SequenceDataset, sequences: Sequence[str] | None) -> list[str]:
    """Return the sequences' names, after a look at their first boxes."""
    names = list(dict.fromkeys(sequences)) if sequences else list(dataset.names)
    for name in names:
        first = dataset.get(name).boxes[0]
        if not is_valid(first):
            raise AnnotationError(
                f"the first frame of sequence {name!r} has no box to start from: its row is "
                f"{first.tolist()}"
            )
    return names


def _make(
    tracker: str | TrackerRecipe | Tracker, world: int
) -> tuple[TrackerRecipe | None, Tracker]:
    """Return how to make the tracker in other processes, if it can be, and one made.

    It is made before anything is written, so that what is wrong with it leaves nothing.
    """
    if isinstance(tracker, Tracker):
        return None, tracker
    recipe = TrackerRecipe(tracker) if isinstance(tracker, str) else tracker
    if world > 1 and recipe.device == "cuda":  # Each process of torchrun has a GPU of its own.
        recipe = replace(recipe, device=f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return recipe, recipe.make()


def _count_workers(workers: int | None, recipe: TrackerRecipe | None, world: int) -> int:
    if workers is not None and workers < 1:
        raise InvalidArgumentError(f"workers is {workers}: it must be at least 1")
    if recipe is None and workers not in (None, 1):
        raise InvalidArgumentError(
            f"workers={workers} needs a tracker's name or recipe: a made tracker stays in its "
            "process"
        )
    if workers is not None:
        return workers
    if world > 1 or recipe is None or recipe.device.startswith("cuda"):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait_for_all(world: int) -> None:
    """Wait until every process of ``torchrun`` has come here; do nothing without it."""
    if world == 1:
        return
    distributed = torch.distributed
    if not distributed.is_initialized():
        # A share of the sequences may take hours longer than another.
        distributed.init_process_group("gloo", timeout=timedelta(days=7))
    distributed.barrier()
