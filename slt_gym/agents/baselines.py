"""Trackers without a network of ours, which give results their context."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from slt_gym.agents.tracker import Tracker, check_frame, check_start
from slt_gym.errors import CheckpointError, InvalidArgumentError, SltGymError, unknown
from slt_gym.geometry import from_cxcywh, get_geometry, is_valid, to_cxcywh

Frame = NDArray[np.uint8]
Box = NDArray[np.float64]
_LEAST_SIDE = 5  # pixels


class _Baseline(Tracker):
    """A tracker that remembers a box."""

    _box: Box | None = None

    def _last_box(self, frame: Frame) -> Box:
        """Return the box that :meth:`init` or the last :meth:`update` left.

        Raises:
            InvalidArgumentError: ``frame`` is none.
            SltGymError: There was no :meth:`init`.
        """
        if self._box is None:
            raise SltGymError("update was called before init: give the first frame and its box")
        check_frame(frame)
        return self._box.copy()


class StaticTracker(_Baseline):
    """Answers with the first box for ever: what a result must beat to be one."""

    name = "static"

    def init(self, frame: Frame, box: ArrayLike) -> None:
        """Start on ``frame`` with the target at ``box``, see :class:`Tracker`."""
        self._box = check_start(frame, box)

    def update(self, frame: Frame) -> Box:
        """Return the first box, see :class:`Tracker`."""
        return self._last_box(frame)


class RandomWalkTracker(_Baseline):
    """Moves the box by a Gaussian step in every frame, from the same seed in every sequence.

    Args:
        seed: Of the steps.
        step: Standard deviation of the centre's steps, in target sizes.
        scale_step: Standard deviation of the steps of the log size.
    """

    name = "random-walk"

    def __init__(self, seed: int = 0, step: float = 0.1, scale_step: float = 0.02) -> None:
        self.seed = seed
        self.step = step
        self.scale_step = scale_step

    def init(self, frame: Frame, box: ArrayLike) -> None:
        """Start on ``frame`` with the target at ``box``, see :class:`Tracker`."""
        self._box = check_start(frame, box)
        self._rng = np.random.default_rng(self.seed)

    def update(self, frame: Frame) -> Box:
        """Take a step that keeps the centre inside the frame, see :class:`Tracker`."""
        last = to_cxcywh(self._last_box(frame))
        height, width = frame.shape[:2]
        size = last[2:] * np.exp(self._rng.standard_normal(2) * self.scale_step)
        size = np.clip(size, 1, [width, height])
        centre = last[:2] + self._rng.standard_normal(2) * self.step * size
        self._box = from_cxcywh(np.concatenate([np.clip(centre, 0, [width, height]), size]))
        return self._box.copy()


class OracleTracker(_Baseline):
    """Knows the ground truth, and answers with it as far as a tracker's search crop reaches.

    What it misses lay outside the search window around its last box, or is a size that the
    geometry's limits refuse. Where the ground truth holds no valid box it stays where it is.

    Args:
        geometry: Name of the tracker whose windows limit it.
    """

    name = "oracle"

    def __init__(self, geometry: str = "transt") -> None:
        self.geometry = get_geometry(geometry)
        self._truth = np.empty((0, 4))

    def reveal(self, boxes: ArrayLike) -> None:
        """Take the ground truth of the frames from the next ``init`` on, shape ``(T, 4)``."""
        self._truth = np.array(boxes, np.float64).reshape(-1, 4)

    def init(self, frame: Frame, box: ArrayLike) -> None:
        """Start on ``frame`` with the target at ``box``, see :class:`Tracker`."""
        if not len(self._truth):
            raise SltGymError(
                "the oracle has not been shown the ground truth: call reveal(boxes) before init, "
                "as slt-gym evaluate does"
            )
        self._box = check_start(frame, box)
        self._left = iter(self._truth[1:])

    def update(self, frame: Frame) -> Box:
        """Return the reachable box nearest to the ground truth, see :class:`Tracker`."""
        last = self._last_box(frame)
        truth = next(self._left, None)
        if truth is None:
            raise InvalidArgumentError(
                f"the oracle was shown {len(self._truth)} boxes and is asked for one more"
            )
        if not is_valid(truth):
            return last
        size = frame.shape[1], frame.shape[0]
        window = self.geometry.search_window(last, size)
        seen = to_cxcywh(window.to_crop(truth))
        # A proposal's centre lies in the crop, and an action's size is at most two crops.
        seen = np.clip(seen, 0, [1, 1, 2, 2])
        self._box = np.asarray(self.geometry.limit(window.to_frame(from_cxcywh(seen)), size))
        return self._box.copy()


class OpenCVTracker(_Baseline):
    """One of OpenCV's own trackers; while it reports a loss the last box stands.

    It starts on the part of the target inside the frame, at least five pixels wide and high. What
    it refuses even so (MIL: a target that fills the frame) is lost from the start.

    Args:
        name: Its name here.
        make: Makes a fresh ``cv2.Tracker``, for every sequence.
    """

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name = name
        self._make = make

    def init(self, frame: Frame, box: ArrayLike) -> None:
        """Start on ``frame`` with the target at ``box``, see :class:`Tracker`."""
        self._box = check_start(frame, box)
        self._tracker = self._make()
        self.score = 1.0
        try:
            self._tracker.init(_to_bgr(frame), _fit(self._box, frame.shape[1], frame.shape[0]))
        except cv2.error:
            self._tracker = None

    def update(self, frame: Frame) -> Box:
        """Find the target in the next frame, see :class:`Tracker`."""
        last = self._last_box(frame)
        found, box = self._tracker.update(_to_bgr(frame)) if self._tracker else (False, last)
        self.score = float(found)
        if found and is_valid(np.array(box, np.float64)):
            self._box = np.array(box, np.float64)
        return self._last_box(frame)


def make_mil() -> OpenCVTracker:
    """Make OpenCV's MIL tracker (Babenko et al., CVPR 2009), which needs no files.

    OpenCV seeds it by the clock and offers no other seed: its boxes differ from run to run.
    """
    return OpenCVTracker("opencv-mil", cv2.TrackerMIL.create)


def make_nano(backbone: str | Path | None = None, neckhead: str | Path | None = None) -> Tracker:
    """Make OpenCV's NanoTrack.

    Args:
        backbone: Path of ``nanotrack_backbone_sim.onnx``.
        neckhead: Path of ``nanotrack_head_sim.onnx``.

    Raises:
        CheckpointError: A file is not given, or missing.
    """
    for key, path in (("backbone", backbone), ("neckhead", neckhead)):
        if path is None or not Path(path).expanduser().is_file():
            raise CheckpointError(
                f"opencv-nano needs the ONNX files of NanoTrack, {key}=… is "
                f"{'not given' if path is None else f'no file: {path}'}; accepted are the paths "
                "backbone=…/nanotrack_backbone_sim.onnx and neckhead=…/nanotrack_head_sim.onnx"
            )
    parameters = cv2.TrackerNano.Params()
    parameters.backbone = str(Path(str(backbone)).expanduser())
    parameters.neckhead = str(Path(str(neckhead)).expanduser())
    return OpenCVTracker("opencv-nano", lambda: cv2.TrackerNano.create(parameters))


# What create_tracker makes beside the registered networks.
BASELINES: dict[str, Callable[..., Tracker]] = {
    "opencv-mil": make_mil,
    "opencv-nano": make_nano,
    "oracle": OracleTracker,
    "random-walk": RandomWalkTracker,
    "static": StaticTracker,
}


def create_baseline(name: str, **options: Any) -> Tracker:
    """Make one of ``BASELINES``.

    Raises:
        InvalidArgumentError: It has no such option.
        CheckpointError: A file that it needs is missing.
    """
    make = BASELINES[name]
    accepted = list(inspect.signature(make).parameters)
    for key in options:
        if key not in accepted:
            if not accepted:
                raise InvalidArgumentError(f"{name} has no options, but {key!r} was given")
            raise unknown(f"option of {name}", key, accepted)
    return make(**options)


def _fit(box: Box, width: int, height: int) -> tuple[int, ...]:
    """Cut a box to a frame, in whole pixels; MIL fails outside, and hangs on a few pixels."""
    limits = np.array([width, height])
    corner = np.clip(np.rint(box[:2]), 0, np.maximum(limits - _LEAST_SIDE, 0))
    size = np.rint(box[:2] + box[2:]) - corner
    size = np.minimum(np.maximum(size, _LEAST_SIDE), limits - corner)
    return tuple(np.concatenate([corner, size]).astype(int).tolist())


def _to_bgr(frame: Frame) -> Frame:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), np.uint8)
