"""Sequences tracked by several processes, which share a queue."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slt_gym.agents import Tracker
from slt_gym.data import SequenceDataset
from slt_gym.errors import SltGymError
from slt_gym.evaluation.runner import (
    ResultFolder,
    TrackerRecipe,
    one_thread,
    track_sequence,
)

_PATIENCE = 1.0  # seconds between two looks at whether the others are still alive


@dataclass(frozen=True)
class Progress:
    """What a process tells: frames tracked since its last message, and the sequence it ended."""

    frames: int
    done: str | None = None


Tell = Callable[[Progress], object]


def track_in_processes(
    recipe: TrackerRecipe,
    dataset: SequenceDataset,
    names: Sequence[str],
    folder: ResultFolder,
    workers: int,
    tell: Tell,
) -> None:
    """Track sequences in ``workers`` processes, begun in the order of ``names``.

    Args:
        recipe: Of the tracker.
        dataset: The dataset, which every process gets a copy of.
        names: The sequences.
        folder: Where their files go.
        workers: The number of processes.
        tell: Called with what there is to tell.

    Raises:
        SltGymError: As a process raised it; or a process ended without a word. The files of the
            sequences that were done by then stay.
    """
    context = multiprocessing.get_context("spawn")  # PyTorch's threads do not survive a fork.
    tasks, messages = context.Queue(), context.Queue()
    for name in [*names, *[None] * workers]:
        tasks.put(name)
    arguments = (recipe, dataset, folder, tasks, messages, os.getpid())
    processes = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    left = len(names)
    try:
        while left:
            try:
                message = messages.get(timeout=_PATIENCE)
            except queue.Empty:
                _check_alive(processes)
                continue
            if isinstance(message, Exception):
                raise message
            left -= message.done is not None
            tell(message)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def track_here(
    tracker: Tracker,
    dataset: SequenceDataset,
    names: Sequence[str],
    folder: ResultFolder,
    tell: Tell,
) -> None:
    """Track sequences in this process, in the order of ``names``."""
    with one_thread():
        for name in names:
            boxes, times = track_sequence(
                tracker, dataset.get(name), lambda frames: tell(Progress(frames))
            )
            folder.write(name, boxes, times)
            tell(Progress(0, name))


def _check_alive(processes: Sequence[Any]) -> None:
    for process in processes:
        if process.exitcode:
            raise SltGymError(
                f"a process of the evaluation ended with code {process.exitcode} (-9: the system "
                "ran out of memory): run it again with fewer workers, it goes on where it stopped"
            )


def _work(
    recipe: TrackerRecipe,
    dataset: SequenceDataset,
    folder: ResultFolder,
    tasks: Any,
    messages: Any,
    parent: int,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent speaks for all.

    def tell(frames: int) -> None:
        if os.getppid() != parent:  # It was killed: nobody would end this process.
            os._exit(1)
        messages.put(Progress(frames))

    try:
        with one_thread():
            tracker = recipe.make()
            for name in _take(tasks, parent):
                boxes, times = track_sequence(tracker, dataset.get(name), tell)
                folder.write(name, boxes, times)
                messages.put(Progress(0, name))
    except (SltGymError, OSError) as error:
        messages.put(error)


def _take(tasks: Any, parent: int) -> Iterator[str]:
    while os.getppid() == parent:
        try:
            name = tasks.get(timeout=_PATIENCE)
        except queue.Empty:
            continue
        if name is None:
            return
        yield name
