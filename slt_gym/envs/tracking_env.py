"""The tracking environment: one target, one clip an episode."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from slt_gym.envs.actions import check_action
from slt_gym.envs.arguments import (
    RENDER_MODES,
    check_augment,
    check_keywords,
    check_num_frames,
    check_render_mode,
    check_rules,
    check_sampler,
    open_sequences,
)
from slt_gym.envs.clips import ClipSource
from slt_gym.envs.episode import Episode, Observation
from slt_gym.envs.frames import ClipFrames


class TrackingEnv(gym.Env[Observation, NDArray[np.float32]]):
    """Follow one target through a clip of video, one box a frame.

    ## Description

    An episode is a clip of N frames. The first frame only supplies the initial box, its ground
    truth; the agent then gives a box for each of the other N - 1 frames. It sees two crops, as a
    Siamese tracker does: the template (the target, from a frame of the same video with its own
    ground-truth box) and the search crop, a square window of the frame to be tracked around the
    previous estimate. A bad estimate therefore moves the next window: what a tracker meets when it
    runs freely, and what frame-by-frame training never shows it.

    The windows, the crops and the rule that keeps an estimate inside the frame are those of a
    published tracker (`geometry`). Parts of a window outside the frame take one colour, which the
    template's frame decides and which stays for the whole episode.

    ## Action Space

    `Box(-1, 1, (4,), float32)` with `action="box"`: the box's centre is `0.5 + a[:2]` and its size
    `1 + a[2:]`, in crop units (fractions of the search crop's side, from its top-left corner).
    Numbers outside the space are cut to it; NaN is refused. `slt_gym.envs.box_to_action` and
    `action_to_box` convert. The frame's limits are then applied by the geometry's own rule.

    ## Observation Space

    `Dict` of

    | key | space | meaning |
    |---|---|---|
    | `template` | `Box(0, 255, (3, Z, Z), uint8)` | the target, the same all episode |
    | `search` | `Box(0, 255, (3, S, S), uint8)` | the search window of the next frame |
    | `box` | `Box(-4, 4, (4,), float32)` | the previous estimate `(x, y, w, h)`, crop units |
    | `template_box` | `Box(-4, 4, (4,), float32)` | TrDiMP's only: the target in the template |

    Crops are RGB. Z and S are the geometry's: 128 and 256 for `"transt"`. After the last frame's
    step there is no frame left: the final observation shows the last frame, in the window around
    the new estimate.

    ## Rewards

    T is the number of tracked frames (the first frame is not one) in which the target is visible.
    With IoU the overlap of estimate and ground truth, in the full frame:

    - `reward="auc"`: `mean_k[IoU > 0.05 k, k = 0...20] / T`. The undiscounted return is the clip's
      success AUC, the number that LaSOT and OTB report (20/21 at most).
    - `reward="overlap"`: `IoU / T`. The return is the mean overlap.
    - `reward="final_auc"`: zero until the last step, which gives the success AUC.

    Frames where the target is absent give no reward and are left out of T.

    ## Starting State

    With `split="train"` a random clip, drawn from `np_random` by the published rules of a family of
    trackers (`sampler`), and changed if `augment` says so. With `"val"` and `"test"` the
    sequences in order, each once, then from the start again; `reset(seed=...)` also starts again.
    `reset(options={"sequence": name, "start": frame, "stride": n})` chooses a clip instead; `start`
    (default: the first visible frame) and `stride` (default: 1) may be left out.

    Each `info` holds `iou` (0 where the target is not visible), `frame` (its number in the
    sequence), `box` and `gt_box` (frame pixels), `gt_box_crop` (crop units of the window that the
    step's action was taken in), `visible` and `sequence`; at reset they describe the first frame.
    A ground truth that is no valid box is given as zeros.

    ## Episode End

    `terminated` after the clip's last frame, or, with `lost_after=k`, after k consecutive visible
    frames at IoU 0; the frames left out count as IoU 0. The last `info` adds `auc`, `overlap`,
    `success_50` and `success_75` (shares of frames above IoU 0.5 and 0.75), over the same T frames.
    `truncated` is never set.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | `dataset` | the id's | name of a dataset, or of several with "+" between: `"lasot+got10k"` |
    | `root` | `None` | the dataset's folder; None looks at the environment variables |
    | `split` | `"train"` | `"train"`, `"val"`, `"test"`, or another of the dataset's splits |
    | `geometry` | `"transt"` | name of the tracker whose windows and crops are used |
    | `action` | `"box"` | form of the actions |
    | `reward` | `"auc"` | `"auc"`, `"overlap"` or `"final_auc"` |
    | `num_frames` | `24` | length of a clip, the first frame included; None: whole sequences |
    | `sampler` | `"pytracking"` | the rule that training clips are drawn by; or `"pysot"` |
    | `augment` | `False` | change training clips: True, or a dict of `AugmentationConfig` fields |
    | `lost_after` | `None` | end after that many consecutive visible frames at IoU 0 |
    | `dataset_options` | `None` | a dict of further options of the dataset |
    | `render_mode` | `None` | `"rgb_array"`: ground truth green, estimate red, window yellow |

    ## Vectorized environment

    `gym.make_vec(id, num_envs=N)` builds `slt_gym.envs.TrackingVectorEnv`, which decodes and crops
    in threads, and in which several tracks can share one clip. `slt_gym.envs.make_sb3_env` wraps
    it for Stable-Baselines3.

    ## Version History

    - v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": list(RENDER_MODES),
        "render_fps": 30,
    }

    def __init__(
        self,
        dataset: str,
        *,
        root: str | dict[str, str] | None = None,
        split: str = "train",
        geometry: str = "transt",
        action: str = "box",
        reward: str = "auc",
        num_frames: int | None = 24,
        sampler: str = "pytracking",
        augment: bool | dict[str, Any] = False,
        lost_after: int | None = None,
        dataset_options: dict[str, Any] | None = None,
        render_mode: str | None = None,
        **unknown: Any,
    ) -> None:
        check_keywords(unknown)
        self.render_mode = check_render_mode(render_mode)
        self._rules = check_rules(geometry, action, reward, lost_after)
        length = check_num_frames(num_frames)
        sampler = check_sampler(sampler)
        augmentation = check_augment(augment, sampler)
        sequences = open_sequences(dataset, root, split, dataset_options)
        self._source = ClipSource(sequences, length, sampler=sampler, augmentation=augmentation)
        self._episode: Episode | None = None
        self.observation_space = self._rules.observation_space  # type: ignore[assignment]
        self.action_space = self._rules.action_space  # type: ignore[assignment]

    @property
    def split(self) -> str:
        """The split that the clips come from."""
        return self._source.dataset.split

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin the next clip, or the one that ``options`` chooses.

        Args:
            seed: Seeds ``np_random`` and restarts the walk of a ``val`` or ``test`` split.
            options: ``{"sequence": name, "start": frame number, "stride": int}``.

        Raises:
            InvalidArgumentError: An option is unknown, or chooses no clip.
        """
        super().reset(seed=seed)
        if seed is not None:
            self._source.restart()
        clip = self._source.choose(options) if options else self._source.next(self.np_random)
        self._episode = Episode(ClipFrames(clip, self._rules.geometry), self._rules)
        return self._episode.observe(), self._episode.start_info()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Give the box of the next frame.

        Raises:
            InvalidArgumentError: The action has another shape, or a number that is not finite.
        """
        if self._episode is None or self._episode.done:
            raise ResetNeeded("the episode has not begun or has ended: call reset() before step()")
        reward, terminated, info = self._episode.step(check_action(action))
        return self._episode.observe(), reward, terminated, False, info

    def render(self) -> NDArray[np.uint8] | None:
        """Draw the frame tracked last, RGB uint8; None without ``render_mode="rgb_array"``."""
        if self.render_mode is None:
            gym.logger.warn(
                'render() was called without a render mode: pass render_mode="rgb_array" to '
                "gym.make()"
            )
            return None
        if self._episode is None:
            raise ResetNeeded("the episode has not begun: call reset() before render()")
        return self._episode.render()

    def close(self) -> None:
        """Let go of the clip's frames; closing twice does no harm."""
        self._episode = None
