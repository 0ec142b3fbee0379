"""One track through one clip: the dynamics that every environment shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from slt_gym.data import Clip
from slt_gym.envs.actions import action_to_box
from slt_gym.envs.frames import ClipFrames
from slt_gym.envs.rendering import draw_overlay
from slt_gym.envs.rewards import final_reward, frame_reward, success_auc
from slt_gym.errors import AnnotationError
from slt_gym.geometry import Geometry, Window, iou, is_valid

Observation = dict[str, NDArray[Any]]

# The previous estimate in crop units lies around (0.25, 0.25, 0.5, 0.5) by construction of the
# search window; extreme shapes that leave these bounds are cut to them.
_BOX_BOUNDS = (-4.0, 4.0)


@dataclass(frozen=True)
class EpisodeRules:
    """What does not change from clip to clip.

    Attributes:
        geometry: The windows and crops.
        reward: ``"auc"``, ``"overlap"`` or ``"final_auc"``.
        lost_after: End after this many consecutive visible frames at IoU 0; None never does.
    """

    geometry: Geometry
    reward: str = "auc"
    lost_after: int | None = None

    @property
    def observation_space(self) -> spaces.Dict:
        """The space of one track's observations."""
        template, search = self.geometry.template_size, self.geometry.search_size
        return spaces.Dict(
            {
                "box": spaces.Box(*_BOX_BOUNDS, (4,), np.float32),
                "search": spaces.Box(0, 255, (3, search, search), np.uint8),
                "template": spaces.Box(0, 255, (3, template, template), np.uint8),
            }
        )

    @property
    def action_space(self) -> spaces.Box:
        """The space of one track's actions."""
        return spaces.Box(-1.0, 1.0, (4,), np.float32)


class Episode:
    """The state of one track: its estimate, its window and its running sums.

    Attributes:
        box: The latest estimate, ``(x, y, w, h)``, frame pixels, float64.
        done: Whether the last frame is tracked, or the target given up (``lost_after``).
    """

    def __init__(self, frames: ClipFrames, rules: EpisodeRules) -> None:
        clip = frames.clip
        _check(clip)
        self.frames = frames
        self.rules = rules
        self._gt = clip.sequence.boxes[clip.frames]  # (N, 4)
        self._visible = clip.sequence.visible[clip.frames]  # (N,)
        self._tracked = int(self._visible[1:].sum())  # T
        self.box = self._gt[0].copy()
        self._window: Window | None = None
        self.done = False
        # What the latest step did, for rendering: its window and its overlap.
        self._last_window: Window | None = None
        self._last_overlap = 1.0
        self._next = 1
        self._seen = 0
        self._lost = 0
        self._sums = {"auc": 0.0, "overlap": 0.0, "success_50": 0.0, "success_75": 0.0}

    @property
    def window(self) -> Window:
        """The search window of the next step."""
        if self._window is None:  # An episode is made before any of its frames is decoded.
            self._window = self.rules.geometry.search_window(self.box, self.frames.size)
        return self._window

    @property
    def remaining(self) -> int:
        """Number of frames still to track."""
        return 0 if self.done else len(self._gt) - self._next

    def observe(self, out: Observation | None = None) -> Observation:
        """Return what the policy sees before the next step; after the end, the last window's view.

        Args:
            out: Arrays to write to, by the observation's keys; fresh ones if None.
        """
        geometry = self.rules.geometry
        frame = self.frames.frame(self._observed)
        size = geometry.search_size
        box = np.clip(self.window.to_crop(self.box), *_BOX_BOUNDS)
        fill, template = self.frames.fill, self.frames.template
        with self.frames.stopwatch.measure("crop"):
            if out is None:
                return {
                    "box": box.astype(np.float32),
                    "search": geometry.crop(frame, self.window, size, fill),
                    "template": template.copy(),
                }
            out["box"][:] = box
            geometry.crop(frame, self.window, size, fill, out["search"])
            out["template"][:] = template
        return out

    def start_info(self) -> dict[str, Any]:
        """Return the info that goes with the first observation."""
        return self._info(0, self.box, self.window, 1.0)

    def step(self, action: NDArray[np.floating]) -> tuple[float, bool, dict[str, Any]]:
        """Track one frame.

        Args:
            action: Shape ``(4,)``, checked already.

        Returns:
            The reward, whether the episode has ended, and the info.
        """
        i, geometry = self._next, self.rules.geometry
        height, width = self.frames.frame(i).shape[:2]
        window = self.window
        estimate = window.to_frame(action_to_box(action))
        self.box = np.asarray(geometry.limit(estimate, (width, height)), np.float64)
        self._window = geometry.search_window(self.box, (width, height))

        overlap = float(iou(self.box, self._gt[i])) if self._visible[i] else 0.0
        reward = self._count(overlap) if self._visible[i] else 0.0
        self._last_window, self._last_overlap = window, overlap
        self._next = i + 1
        lost_after = self.rules.lost_after
        gave_up = lost_after is not None and self._lost >= lost_after
        self.done = gave_up or self._next == len(self._gt)

        info = self._info(i, self.box, window, overlap)
        if self.done:
            # Frames that lost_after leaves out count as overlap 0: T stays the clip's.
            summary = {key: total / max(self._tracked, 1) for key, total in self._sums.items()}
            reward += final_reward(self.rules.reward, summary["auc"])
            info.update(summary)
        return reward, self.done, info

    def prefetch(self) -> None:
        """Begin to read the frame that the step after the next one will show."""
        self.frames.prefetch(self._next + 1)

    def render(self) -> NDArray[np.uint8]:
        """Draw the frame tracked last: RGB uint8 ``(H, W, 3)``."""
        i = self._next - 1
        number = int(self.frames.clip.frames[i])
        score = self._sums["auc"] / max(self._seen, 1)
        seen = f"IoU {self._last_overlap:.2f}" if self._visible[i] else "not visible"
        return draw_overlay(
            self.frames.frame(i),
            self._gt[i] if is_valid(self._gt[i]) else None,
            self.box,
            self._last_window or self.window,
            f"frame {number}" + (f"  {seen}  AUC {score:.2f}" if i else ""),
        )

    @property
    def _observed(self) -> int:
        return min(self._next, len(self._gt) - 1)

    def _count(self, overlap: float) -> float:
        self._seen += 1
        self._lost = self._lost + 1 if overlap == 0.0 else 0
        self._sums["auc"] += success_auc(overlap)
        self._sums["overlap"] += overlap
        self._sums["success_50"] += overlap > 0.5
        self._sums["success_75"] += overlap > 0.75
        return frame_reward(self.rules.reward, overlap, self._tracked)

    def _info(self, i: int, box: NDArray, window: Any, overlap: float) -> dict[str, Any]:
        valid = bool(is_valid(self._gt[i]))
        return {
            "iou": overlap,
            "frame": int(self.frames.clip.frames[i]),
            "box": box.copy(),
            "gt_box": self._gt[i].copy() if valid else np.zeros(4),
            "gt_box_crop": window.to_crop(self._gt[i]) if valid else np.zeros(4),
            "visible": bool(self._visible[i]),
            "sequence": self.frames.clip.sequence.name,
        }


def _check(clip: Clip) -> None:
    sequence = clip.sequence
    if len(clip) < 2:
        raise AnnotationError(
            f"sequence {sequence.name!r} gives a clip of {len(clip)} frame(s): needed are 2, one "
            "for the initial box and one to track"
        )
    for role, number in (("first frame", clip.frames[0]), ("template", clip.template)):
        if not sequence.visible[number]:
            raise AnnotationError(
                f"sequence {sequence.name!r} has no valid box in frame {int(number)}, the clip's "
                f"{role}: needed is a frame where the target is visible"
            )
