"""The tracking environment: one target, one clip an episode."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray

from slt_gym.data import SequenceDataset
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
from slt_gym.envs.episode import Episode, EpisodeRules, Observation
from slt_gym.envs.frames import ClipFrames, reuse_freed_memory
from slt_gym.envs.stopwatch import Stopwatch


class TrackingEnv(gym.Env[Observation, ArrayLike]):
    """Follow one target through a clip of video.

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

    | `action` | space | meaning |
    |---|---|---|
    | `"box"` | `Box(-1, 1, (4,), float32)` | the box: centre `0.5 + a[:2]`, size `1 + a[2:]` |
    | `"delta"` | `Box(-1, 1, (4,), float32)` | the previous estimate, shifted and scaled |
    | `"moves"` | `Discrete(11)` | a small step of the estimate, several a frame |
    | `"proposals"` | `Discrete(729)` | one of the boxes that the observation lists |

    - `"box"` is in crop units (fractions of the search crop's side, from its top-left corner).
      `slt_gym.envs.box_to_action` and `action_to_box` convert.
    - `"delta"`: `a[:2]` is the shift in previous widths and heights, `a[2:]` is log2 of the factors
      of width and height. All zeros keep the previous estimate.
    - `"moves"` are those of ADNet: 0 left, 1 right, 2 up, 3 down, by 3 % of the box's width or
      height; 4 to 7 the same, twice as far; 8 bigger, 9 smaller, by 3 %; 10 stop. Each move is a
      step of the environment: the observation shows the same frame around the moved box. The frame
      ends with "stop", with its 20th move, or when the agent oscillates (makes a move, its opposite
      and the same move again); only then comes the frame's reward.
    - `"proposals"` stand on a 9 x 9 grid of shifts around the previous estimate, each in 3 scales
      and 3 aspect ratios; number 364, the middle one, keeps it.

    `action_options` sets the constants of the last two, such as `{"max_moves": 10}`: the fields of
    `slt_gym.envs.action_forms.MovesForm` and `ProposalsForm`.

    Numbers outside a `Box` are cut to it; NaN, and choices that are not in the space, are refused.
    The frame's limits are then applied by the geometry's own rule.

    ## Observation Space

    `Dict` of

    | key | space | meaning |
    |---|---|---|
    | `template` | `Box(0, 255, (3, Z, Z), uint8)` | the target, the same all episode |
    | `search` | `Box(0, 255, (3, S, S), uint8)` | the search window of the next frame |
    | `box` | `Box(-4, 4, (4,), float32)` | the previous estimate `(x, y, w, h)`, crop units |
    | `proposals` | `Box(-4, 4, (2916,), float32)` | with `action="proposals"`: the N boxes, flat |
    | `template_box` | `Box(-4, 4, (4,), float32)` | TrDiMP's only: the target in the template |

    Crops are RGB. Z and S are the geometry's: 128 and 256 for `"transt"`. After the last frame's
    step there is no frame left: the final observation shows the last frame, in the window around
    the new estimate. `observation["proposals"].reshape(-1, 4)` has one box `(x, y, w, h)` a row, in
    crop units.

    ## Rewards

    T is the number of tracked frames (the first frame is not one) in which the target is visible.
    With IoU the overlap of estimate and ground truth, in the full frame:

    | `reward` | of a frame | sum over the episode |
    |---|---|---|
    | `"auc"` | `mean_k[IoU > 0.05 k, k = 0...20] / T` | the clip's success AUC |
    | `"overlap"` | `IoU / T` | the mean overlap |
    | `"final_auc"` | 0; the last step gives the AUC | the clip's success AUC |
    | `"iou_gain"` | `(IoU - IoU of the previous estimate) / T` | mean gain over standing still |
    | `"giou"` | `GIoU / T` | the mean generalised IoU, which tells near from far misses |
    | `"lost_penalty"` | `-1 / T` if the IoU is 0 | minus the share of lost frames |

    A dict of weights mixes them: `reward={"auc": 1.0, "lost_penalty": 0.5}`. The success AUC is the
    number that LaSOT and OTB report, 20/21 at most. The last `info` holds it under `auc` whatever
    the reward, so that an evaluation does not depend on what was trained with.

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
    A ground truth that is no valid box is given as zeros. `reference`, after a step, says where
    its two observations come from, packed for `slt_gym.agents.ReferenceReplayBuffer`.

    With `action="moves"` they are about the frame that the move was made in, and `frame_done` says
    whether it ended; with `restart`, `failures` counts.

    ## Episode End

    `terminated` after the clip's last frame, or, with `lost_after=k`, after k consecutive visible
    frames at IoU 0. The last `info` adds `auc`, `overlap`, `success_50` and `success_75` (shares of
    frames above IoU 0.5 and 0.75), over the same T frames. `truncated` is never set.

    With `restart=n` a failure (k consecutive visible frames at IoU 0; one, unless `lost_after` is
    given) does not end the episode. The track begins again from the ground truth of the n-th frame
    after the failure, or of the next one where the target is visible, and goes on with the frame
    after it; where there is none, the episode ends. `restart=True` is 5 frames, as in VOT's
    supervised experiment. The template stays.

    The visible frames that are left out after a failure, the one of the new start included, count
    as IoU 0: in T, in `auc` and the other results, and in the reward, where `"giou"` and
    `"lost_penalty"` take -1 for each of them.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | `dataset` | the id's | name of a dataset, or of several with "+" between: `"lasot+got10k"` |
    | `root` | `None` | the dataset's folder; None looks at the environment variables |
    | `split` | `"train"` | `"train"`, `"val"`, `"test"`, or another of the dataset's splits |
    | `geometry` | `"transt"` | name of the tracker whose windows and crops are used |
    | `action` | `"box"` | form of the actions: `"box"`, `"delta"`, `"moves"` or `"proposals"` |
    | `action_options` | `None` | a dict of options of that form |
    | `reward` | `"auc"` | name of a reward, or a dict of weights by name |
    | `num_frames` | `24` | length of a clip, the first frame included; None: whole sequences |
    | `sampler` | `"pytracking"` | the rule that training clips are drawn by; or `"pysot"` |
    | `augment` | `False` | change training clips: True, or a dict of `AugmentationConfig` fields |
    | `lost_after` | `None` | end after that many consecutive visible frames at IoU 0 |
    | `restart` | `False` | begin again that many frames after a failure; True: 5 |
    | `dataset_options` | `None` | a dict of further options of the dataset |
    | `reduced_decode` | `False` | decode JPEG frames smaller where the crop is smaller anyway |
    | `render_mode` | `None` | `"rgb_array"`: ground truth green, estimate red, window yellow |

    `reduced_decode=True` decodes a JPEG frame at 1/2, 1/4 or 1/8 of its size where the search
    window is at least so many times as large as the crop, in a fraction of the time. Boxes, windows
    and rewards keep the whole frame's pixels; crops lie where they did, but their grey levels
    differ from those that published trackers see. Templates and augmented frames are decoded whole.

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
        action_options: dict[str, Any] | None = None,
        reward: str | dict[str, float] = "auc",
        num_frames: int | None = 24,
        sampler: str = "pytracking",
        augment: bool | dict[str, Any] = False,
        lost_after: int | None = None,
        restart: bool | int = False,
        dataset_options: dict[str, Any] | None = None,
        reduced_decode: bool = False,
        render_mode: str | None = None,
        **unknown: Any,
    ) -> None:
        check_keywords(unknown)
        self.render_mode = check_render_mode(render_mode)
        self._rules = check_rules(
            geometry, action, action_options, reward, lost_after, restart, reduced_decode
        )
        length = check_num_frames(num_frames)
        sampler = check_sampler(sampler)
        augmentation = check_augment(augment, sampler)
        sequences = open_sequences(dataset, root, split, dataset_options)
        self._source = ClipSource(sequences, length, sampler=sampler, augmentation=augmentation)
        reuse_freed_memory()
        self._episode: Episode | None = None
        self.stopwatch = Stopwatch()  # the seconds to decode (or draw) frames and to crop them
        self.observation_space = self._rules.observation_space  # type: ignore[assignment]
        self.action_space = self._rules.action_space

    @property
    def rules(self) -> EpisodeRules:
        """What does not change from clip to clip."""
        return self._rules

    @property
    def episodes(self) -> list[Episode | None]:
        """The current episode, ground truth included; None before the first reset."""
        return [self._episode]

    @property
    def sequences(self) -> SequenceDataset:
        """Where the clips come from."""
        return self._source.dataset

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
        alone = 1, self.render_mode is not None
        frames = ClipFrames(
            clip,
            self._rules.geometry,
            stopwatch=self.stopwatch,
            keep=self._rules.count_kept(*alone),
            whole=not self._rules.follows_rows(*alone),
        )
        # The old frames' memory is not given back to the system before the new ones are decoded.
        old, self._episode = self._episode, Episode(frames, self._rules)
        observation = self._episode.observe()
        del old
        return observation, self._episode.start_info()

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act on the next frame, or once more on the same one with ``action="moves"``.

        Raises:
            InvalidArgumentError: The action has another shape, or a number that is not finite or
                out of range.
        """
        if self._episode is None or self._episode.done:
            raise ResetNeeded("the episode has not begun or has ended: call reset() before step()")
        reward, terminated, info = self._episode.step(self._rules.form.check(action))
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

    def __getstate__(self) -> dict[str, Any]:
        """Leave the episode out: a copy is to be reset first."""
        return {**self.__dict__, "_episode": None}
