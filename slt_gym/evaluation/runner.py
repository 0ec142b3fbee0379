"""Tracking a dataset once with one tracker, a result file for every sequence."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from slt_gym.agents import Tracker
from slt_gym.agents.creation import choose_weights, create_tracker
from slt_gym.agents.policy_tracker import load_policy_tracker
from slt_gym.agents.registry import get_tracker_entry
from slt_gym.data import Sequence as TrackedSequence
from slt_gym.data import SequenceDataset
from slt_gym.errors import InvalidArgumentError
from slt_gym.evaluation.files import replacing, write_json

CONFIG_FILE = "config.json"
_REPORT_EVERY = 0.5  # seconds between two messages on the progress within a sequence


@dataclass(frozen=True)
class TrackerRecipe:
    """How to make a tracker, in any process.

    Attributes:
        name: A tracker's name, see :func:`slt_gym.list_trackers`; with ``algorithm`` the path of
            a model that Stable-Baselines3 saved.
        weights: See :func:`slt_gym.create_tracker`; None takes those that ship with the package.
        device: PyTorch's.
        overrides: Fields of the tracker's configuration.
        algorithm: The class of a saved model, such as ``"PPO"``.
        geometry: That of the environment a saved model was trained in.
        action: The same environment's.
        action_options: The same.

    Raises:
        InvalidArgumentError: What only trackers have is given for a saved model, or the reverse.
    """

    name: str
    weights: str | None = None
    device: str = "cpu"
    overrides: dict[str, Any] = field(default_factory=dict)
    algorithm: str | None = None
    geometry: str | None = None
    action: str = "box"
    action_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.algorithm is None and (self.geometry or self.action != "box"):
            raise InvalidArgumentError(
                f"{self.name!r} was given with geometry or action, but without an algorithm: they "
                "go with a saved model"
            )
        if self.algorithm is not None and (self.weights is not None or self.overrides):
            raise InvalidArgumentError(
                f"{self.name} is a saved model of {self.algorithm}: it takes neither weights nor "
                "options of a tracker"
            )

    @property
    def label(self) -> str:
        """What its results are called: the tracker's name, or that of the model's file."""
        return self.name if self.algorithm is None else Path(self.name).stem

    @property
    def source(self) -> str | None:
        """Where its parameters come from: a path, ``"pretrained"``, or None without any."""
        if self.algorithm is not None:
            return self.name
        return choose_weights(self.name, self.weights)

    def make(self) -> Tracker:
        """Make the tracker.

        Raises:
            InvalidArgumentError: There is none of that name, or a field or option is unknown.
            CheckpointError: The weights or the model cannot be read, or a network has none.
        """
        if self.algorithm is not None:
            return load_policy_tracker(
                self.name,
                self.algorithm,
                self.geometry,
                self.device,
                self.action,
                self.action_options,
            )
        return create_tracker(self.name, self.source, self.device, **self.overrides)

    def describe(self) -> dict[str, Any]:
        """Return what its boxes depend on; weights and models by their content, not their place."""
        digest = hashlib.sha256()
        files = self._list_files()
        for file in files:
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        return {
            "name": self.label,
            "options": self.overrides,
            "algorithm": self.algorithm,
            "geometry": self.geometry,
            "action": self.action,
            "action_options": self.action_options,
            "sha256": digest.hexdigest() if files else None,
        }

    def _list_files(self) -> list[Path]:
        if self.source is None:
            return []
        shipped = self.source == "pretrained" and get_tracker_entry(self.name).pretrained
        path = Path(shipped or self.source).expanduser()
        return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


@dataclass(frozen=True)
class ResultFolder:
    """Where the results of one tracker on one dataset lie: the layout of the got10k toolkit.

    ``<sequence>.txt`` holds a row ``x,y,w,h`` per frame, ``times/<sequence>_time.txt`` the seconds
    that each took, without reading it.
    """

    path: Path

    def boxes(self, sequence: str) -> Path:
        """Return the path of a sequence's boxes."""
        return self.path / f"{sequence.replace('/', '_')}.txt"

    def times(self, sequence: str) -> Path:
        """Return the path of a sequence's times."""
        return self.path / "times" / f"{sequence.replace('/', '_')}_time.txt"

    def is_done(self, sequence: str, frames: int) -> bool:
        """Tell whether a sequence's boxes are there, one for each of its frames."""
        try:
            with self.boxes(sequence).open("rb") as file:
                return sum(1 for _ in file) == frames
        except OSError:
            return False

    def write(self, sequence: str, boxes: Sequence[Any], times: Sequence[float]) -> None:
        """Write a sequence's files, whole or not at all, the boxes last."""
        with replacing(self.times(sequence)) as temporary:
            np.savetxt(temporary, times, fmt="%.8f")
        with replacing(self.boxes(sequence)) as temporary:
            np.savetxt(temporary, boxes, fmt="%.4f", delimiter=",")

    def claim(self, run: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        """Note what the results are of, or check that those that are there are of the same.

        Args:
            run: What two runs must share so that one may continue the other.
            notes: What else to note.

        Raises:
            InvalidArgumentError: The folder holds something else, or other results.
        """
        wanted = json.loads(json.dumps(run, default=str))
        file = self.path / CONFIG_FILE
        if not file.is_file():
            # A killed run may have left a file that was being written, behind a dot.
            if self.path.is_dir() and any(not p.name.startswith(".") for p in self.path.iterdir()):
                raise InvalidArgumentError(
                    f"{self.path} holds something, but no {CONFIG_FILE} of an evaluation: give a "
                    "new folder, or the one of an evaluation to continue"
                )
            write_json(file, {**run, **notes})
            return
        earlier = read_config(self.path)
        for key, value in _flatten(wanted).items():
            was = _flatten(earlier).get(key)
            if was != value:
                raise InvalidArgumentError(
                    f"{self.path} holds results with {key} {was!r}, and this run has {value!r}: "
                    "give another folder (--results or --name), or remove it to start again"
                )


def read_config(folder: Path) -> dict[str, Any]:
    """Return what was noted with the results in a folder; nothing where nothing was.

    Raises:
        InvalidArgumentError: The note is damaged.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text("utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise InvalidArgumentError(f"{file} is damaged: remove the folder, or give another one")
    return config


def _flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's values, the tracker's beside the others."""
    tracker = {f"tracker {key}": value for key, value in config.get("tracker", {}).items()}
    return {**{key: value for key, value in config.items() if key != "tracker"}, **tracker}


def track_sequence(
    tracker: Tracker,
    sequence: TrackedSequence,
    on_progress: Callable[[int], object] = lambda frames: None,
) -> tuple[list[Any], list[float]]:
    """Run a tracker over a sequence from its first frame, which gives the box, to its last.

    Args:
        tracker: Its ``init`` makes it forget what went before. Where it has a method ``reveal``
            (the oracle) that is shown the ground truth.
        sequence: The sequence.
        on_progress: Called now and then with the number of frames since the last call.

    Returns:
        A box ``(x, y, w, h)`` in frame pixels and the tracker's seconds, for every frame.

    Raises:
        InvalidArgumentError: The first frame has no valid box.
        FrameError: A frame cannot be read.
    """
    first = sequence.boxes[0]
    if hasattr(tracker, "reveal"):
        tracker.reveal(sequence.boxes)
    frame = sequence.read(0)
    started = time.perf_counter()
    tracker.init(frame, first)
    boxes, times = [first], [time.perf_counter() - started]
    reported, last = 0, time.perf_counter()
    for t in range(1, len(sequence)):
        frame = sequence.read(t)
        started = time.perf_counter()
        boxes.append(tracker.update(frame))
        now = time.perf_counter()
        times.append(now - started)
        if now - last > _REPORT_EVERY:
            on_progress(t - reported)
            reported, last = t, now
    on_progress(len(sequence) - reported)
    return boxes, times


def longest_first(dataset: SequenceDataset, names: Sequence[str]) -> list[str]:
    """Order sequences so that the long ones are begun first; equal ones by name."""
    return sorted(names, key=lambda name: (-len(dataset.get(name)), name))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch and OpenCV use one thread, so that a box does not depend on their number."""
    threads, opencv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(opencv)


def shard() -> tuple[int, int]:
    """Return this process's rank and their number, as ``torchrun`` sets them; 0 and 1 without."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
