"""One track through one clip: the dynamics that every environment shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from slt_gym.data import Clip
from slt_gym.data.jpeg import FACTORS, ReducedFrame
from slt_gym.envs.action_forms import ActionForm, BoxForm
from slt_gym.envs.frames import KEPT_FRAMES, ClipFrames
from slt_gym.envs.references import View, make_view, pack_reference
from slt_gym.envs.rendering import draw_overlay
from slt_gym.envs.rewards import (
    FrameScore,
    final_reward,
    frame_reward,
    generalised_iou,
    overlap_suffices,
    success_auc,
    untracked_reward,
)
from slt_gym.errors import AnnotationError
from slt_gym.geometry import Geometry, Window, iou, is_valid

Observation = dict[str, NDArray[Any]]

# The previous estimate in crop units lies around (0.25, 0.25, 0.5, 0.5) by construction of the
# search window; extreme shapes that leave these bounds are cut to them.
BOX_BOUNDS = (-4.0, 4.0)

# How far a window may move down in the frame after the next, of its side, and that frame be read
# ahead to where it is needed. A target moves less, and what is read in vain costs more time than
# rows.
_SLACK = 0.25
_ALL_ROWS = 1 << 30  # more than a frame has


@dataclass(frozen=True)
class EpisodeRules:
    """What does not change from clip to clip.

    Attributes:
        geometry: The windows and crops.
        reward: A name of :data:`slt_gym.envs.rewards.REWARDS`, or weights by these names.
        lost_after: The track has failed after this many consecutive visible frames at IoU 0, and
            ends; None never does.
        form: What the actions mean.
        restart: A failed track does not end, but begins again this many frames later; None ends.
        reduced_decode: Frames whose search window is larger than its crop are decoded smaller.
    """

    geometry: Geometry
    reward: str | Mapping[str, float] = "auc"
    lost_after: int | None = None
    form: ActionForm = field(default_factory=BoxForm)
    restart: int | None = None
    reduced_decode: bool = False

    @cached_property
    def observation_space(self) -> spaces.Dict:
        """The space of one track's observations."""
        template, search = self.geometry.template_size, self.geometry.search_size
        shown: dict[str, spaces.Space[Any]] = {
            "box": spaces.Box(*BOX_BOUNDS, (4,), np.float32),
            "search": spaces.Box(0, 255, (3, search, search), np.uint8),
            "template": spaces.Box(0, 255, (3, template, template), np.uint8),
        }
        if self.geometry.shows_template_box:
            shown["template_box"] = spaces.Box(*BOX_BOUNDS, (4,), np.float32)
        proposals = self.form.propose(np.ones(4))
        if proposals is not None:
            # Flat, because Stable-Baselines3 warns of arrays with two dimensions.
            shown["proposals"] = spaces.Box(*BOX_BOUNDS, (proposals.size,), np.float32)
        return spaces.Dict(shown)

    @cached_property
    def overlap_suffices(self) -> bool:
        """Whether the reward asks for nothing of a frame but the overlap."""
        return overlap_suffices(self.reward)

    @cached_property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """The shapes and types of an observation's arrays."""
        shown = self.observation_space.items()
        return {key: (space.shape or (), np.dtype(space.dtype)) for key, space in shown}

    @property
    def action_space(self) -> spaces.Box | spaces.Discrete:
        """The space of one track's actions."""
        return self.form.space

    @property
    def in_step(self) -> bool:
        """Whether tracks that began a clip together are on the same frame until they end."""
        return self.form.steps_per_frame == 1 and self.restart is None

    def count_kept(self, tracks: int, rendered: bool) -> int:
        """Return how many frames of a clip that ``tracks`` follow are worth keeping."""
        if self.in_step:
            return KEPT_FRAMES if rendered else 1
        return KEPT_FRAMES * tracks

    def part(self, window: Window) -> tuple[int, int]:
        """Return what a search window needs of a frame: the factor that it may be reduced by, rows.

        The rows are those of the whole frame, from the first one on.
        """
        factor, size = 1, self.geometry.search_size
        if self.reduced_decode:
            factor = next((factor for factor in FACTORS if window.side >= factor * size), 1)
        if not self.geometry.stays_in_window:
            return factor, _ALL_ROWS
        # Pixels of a smaller frame blend with the next ones.
        return factor, window.bottom + (2 * factor if factor > 1 else 0)

    def follows_rows(self, tracks: int, rendered: bool) -> bool:
        """Return whether frames that ``tracks`` follow need to be decoded down to windows only."""
        return not rendered and (self.in_step or (tracks == 1 and self.form.steps_per_frame == 1))

    def crop_search(
        self, frame: ReducedFrame, window: Window, fill: NDArray[np.uint8], out: NDArray[np.uint8]
    ) -> None:
        """Cut a search window out of a frame, into ``out``, uint8 ``(3, S, S)``."""
        geometry, size = self.geometry, self.geometry.search_size
        if frame.factor == 1:
            geometry.crop(frame.pixels, window, size, fill, out)
        else:
            geometry.crop_reduced(frame.pixels, frame.factor, window, size, fill, out)


class _Drawn(NamedTuple):
    """What the latest step did, for pictures: its frame of the clip, estimate, window and IoU."""

    i: int
    box: NDArray[np.float64]
    window: Window
    overlap: float


class Episode:
    """The state of one track: its estimate, its window and its running sums.

    Attributes:
        box: The latest estimate, ``(x, y, w, h)``, frame pixels, float64.
        done: Whether the last frame is tracked, or the target given up (``lost_after``).
        failures: How often the target was lost (``lost_after``).
    """

    def __init__(self, frames: ClipFrames, rules: EpisodeRules) -> None:
        clip = frames.clip
        _check(clip)
        self.frames = frames
        self.rules = rules
        self._gt = clip.boxes  # (N, 4)
        self._visible = clip.visible  # (N,)
        self._valid = is_valid(clip.boxes)  # (N,)
        self._tracked = int(self._visible[1:].sum())  # T
        self.box = self._gt[0].copy()
        self._window: Window | None = None
        self._size: tuple[int, int] | None = None  # the window's frame; None: the template's
        self.done = False
        self.failures = 0
        self._drawn: _Drawn | None = None
        self._shown: tuple[int, tuple[int, int]] | None = None  # the frame observed last, its size
        self._seen_view: View | None = None  # what the agent saw last, after a step
        self._next = 1  # the frame that the next action is about
        self._taken: list[Any] = []  # the actions about it so far
        self._kept = self.box  # the estimate before them
        self._seen = 0
        self._lost = 0
        self._sums = {"auc": 0.0, "overlap": 0.0, "success_50": 0.0, "success_75": 0.0}

    @property
    def window(self) -> Window:
        """The search window of the next step."""
        if self._window is None:  # An episode is made before any of its frames is decoded.
            size = self._size or self.frames.size
            self._window = self.rules.geometry.search_window(self.box, size)
        return self._window

    @property
    def next_frame(self) -> int:
        """Which of the clip's frames the next action is about."""
        return self._next

    @property
    def at_frame_start(self) -> bool:
        """Whether no action has been about that frame yet."""
        return not self._taken

    @property
    def truth(self) -> NDArray[np.float64] | None:
        """The target in that frame, frame pixels; None where it is not visible, and at the end."""
        if self.done or not self._visible[self._next]:
            return None
        return self._gt[self._next].copy()

    @property
    def remaining(self) -> int:
        """Number of frames still to track."""
        return 0 if self.done else len(self._gt) - self._next

    def observe(self, out: Observation | None = None) -> Observation:
        """Return what the policy sees before the next step; after the end, the last window's view.

        Args:
            out: Arrays to write to, by the observation's keys; fresh ones if None.
        """
        window = self.window
        frame = self.frames.look(self._observed, *self._needs(self._observed))
        self._shown = self._observed, frame.size
        if out is None:
            out = {key: np.empty(*form) for key, form in self.rules.shapes.items()}
        fill, template = self.frames.fill, self.frames.template
        with self.frames.stopwatch.measure("crop"):
            self.rules.crop_search(frame, window, fill, out["search"])
            out["template"][:] = template
        write_boxes(out, self.rules, self.box, window, self.frames.clip.template_box)
        return out

    def start_info(self) -> dict[str, Any]:
        """Return the info that goes with the first observation."""
        return self._info(0, self.box, self.window, 1.0)

    def step(self, action: Any) -> tuple[float, bool, dict[str, Any]]:
        """Act once on the frame to track.

        Args:
            action: Checked already by the rules' form.

        Returns:
            The reward, whether the episode has ended, and the info.
        """
        i, geometry, form = self._next, self.rules.geometry, self.rules.form
        window, before = self.window, self._seen_view or self._view()
        if self._shown is None or self._shown[0] != i:
            self._shown = i, self.frames.look(i, *self._needs(i)).size
        size = self._shown[1]
        chosen = window.to_frame(form.decode(action, window.to_crop(self.box)))
        self.box = box = np.asarray(geometry.limit(chosen, size), np.float64)
        self._window, self._size = None, size
        self._taken.append(action)

        overlap = float(iou(box, self._gt[i])) if self._visible[i] else 0.0
        self._drawn = _Drawn(i, box, window, overlap)
        reward = self._end_frame(overlap) if form.ends_frame(self._taken) else 0.0
        info = self._info(i, box, window, overlap)
        if self.done:
            # Frames that are left out count as overlap 0: T stays the clip's.
            summary = {key: total / max(self._tracked, 1) for key, total in self._sums.items()}
            reward += final_reward(self.rules.reward, summary["auc"])
            info.update(summary)
        frames = self.frames
        self._seen_view = self._view()
        info["reference"] = pack_reference(frames.clip, before, self._seen_view, frames.fill)
        frames.announce(self._observed, self._needs(self._observed)[1])
        return reward, self.done, info

    @property
    def ahead(self) -> tuple[int, int, int]:
        """Which frame comes after the one to track, and what will be needed of it, about.

        Its number, and factor and rows as :meth:`ClipFrames.look` takes them.
        """
        i = self._next + 1
        return i, *self._needs(i)

    def render(self) -> NDArray[np.uint8]:
        """Draw the frame that the latest action was about: RGB uint8 ``(H, W, 3)``."""
        i, box, window, overlap = self._drawn or _Drawn(0, self.box, self.window, 1.0)
        number = int(self.frames.clip.frames[i])
        score = self._sums["auc"] / max(self._seen, 1)
        seen = f"IoU {overlap:.2f}" if self._visible[i] else "not visible"
        return draw_overlay(
            self.frames.frame(i),
            self._gt[i] if self._valid[i] else None,
            box,
            window,
            f"frame {number}" + (f"  {seen}  AUC {score:.2f}" if i else ""),
        )

    @property
    def _observed(self) -> int:
        return min(self._next, len(self._gt) - 1)

    def _needs(self, i: int) -> tuple[int, int]:
        """Return the factor by which frame ``i`` is reduced, and how many rows are looked at."""
        factor, rows = self.rules.part(self.window)
        # The window of the last frame moves once more while it is shown.
        if i != self._next or i + 1 == len(self._gt):
            rows += round(_SLACK * self.window.side)
        return factor, rows

    def _view(self) -> View:
        size = self._size or self.frames.size
        return make_view(self.frames.clip, self._observed, size, self.box)

    def _end_frame(self, overlap: float) -> float:
        """Count the frame, go on to the next one and return the reward."""
        i, rules = self._next, self.rules
        reward = self._count(i, overlap) if self._visible[i] else 0.0
        self._next = i + 1
        if rules.lost_after is not None and self._lost >= rules.lost_after:
            reward += self._fail()
        self.done |= self._next == len(self._gt)
        self._taken = []
        self._kept = self.box
        return reward

    def _count(self, i: int, overlap: float) -> float:
        self._seen += 1
        self._lost = self._lost + 1 if overlap == 0.0 else 0
        self._sums["auc"] += success_auc(overlap)
        self._sums["overlap"] += overlap
        self._sums["success_50"] += overlap > 0.5
        self._sums["success_75"] += overlap > 0.75
        score = FrameScore(overlap)
        if not self.rules.overlap_suffices:
            gt = self._gt[i]
            score = FrameScore(overlap, float(iou(self._kept, gt)), generalised_iou(self.box, gt))
        return frame_reward(self.rules.reward, score, self._tracked)

    def _fail(self) -> float:
        """Go to where the target is given again, or end; return the left-out frames' reward."""
        first, end = self._next, len(self._gt)
        self.failures += 1
        self._lost = 0
        restart = end
        if self.rules.restart is not None:
            soonest = first - 1 + self.rules.restart
            restart = next((i for i in range(soonest, end) if self._visible[i]), end)
        if restart + 1 < end:
            self.box, self._window, self._size = self._gt[restart].copy(), None, None
            self._next = end = restart + 1
        else:
            self.done = True
        left_out = int(self._visible[first:end].sum())
        return untracked_reward(self.rules.reward, left_out / self._tracked)

    def _info(self, i: int, box: NDArray, window: Any, overlap: float) -> dict[str, Any]:
        valid = self._valid[i]
        info = {
            "iou": overlap,
            "frame": int(self.frames.clip.frames[i]),
            "box": box.copy(),
            "gt_box": self._gt[i].copy() if valid else np.zeros(4),
            "gt_box_crop": window.to_crop(self._gt[i]) if valid else np.zeros(4),
            "visible": bool(self._visible[i]),
            "sequence": self.frames.clip.sequence.name,
        }
        if self.rules.form.steps_per_frame > 1:
            info["frame_done"] = not self._taken
        if self.rules.restart is not None:
            info["failures"] = self.failures
        return info


def write_boxes(
    out: Observation,
    rules: EpisodeRules,
    box: NDArray[np.float64],
    window: Window,
    template_box: NDArray[np.float64],
) -> None:
    """Write the parts of an observation that are no images.

    Args:
        out: The arrays to write to, by the observation's keys.
        rules: Which parts there are.
        box: The previous estimate, frame pixels.
        window: The search window around it.
        template_box: The target in the template's frame, pixels.
    """
    box_crop = window.to_crop(box)
    out["box"][:] = np.minimum(np.maximum(box_crop, BOX_BOUNDS[0]), BOX_BOUNDS[1])
    if rules.geometry.shows_template_box:
        out["template_box"][:] = np.clip(rules.geometry.template_box(template_box), *BOX_BOUNDS)
    proposals = rules.form.propose(box_crop)
    if proposals is not None:
        out["proposals"][:] = np.clip(proposals, *BOX_BOUNDS).reshape(-1)


def _check(clip: Clip) -> None:
    sequence = clip.sequence
    if len(clip) < 2:
        raise AnnotationError(
            f"sequence {sequence.name!r} gives a clip of {len(clip)} frame(s): needed are 2, one "
            "for the initial box and one to track"
        )
    for role, number, visible in (
        ("first frame", clip.frames[0], clip.visible[0]),
        ("template", clip.template, sequence.visible[clip.template]),
    ):
        if not visible:
            raise AnnotationError(
                f"sequence {sequence.name!r} has no valid box in frame {int(number)}, the clip's "
                f"{role}: needed is a frame where the target is visible"
            )
