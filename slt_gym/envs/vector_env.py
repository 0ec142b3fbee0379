"""Many tracks at once: decoded and cropped by threads, straight into one batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from slt_gym.data import SequenceDataset
from slt_gym.envs.action_forms import ActionForm
from slt_gym.envs.arguments import (
    check_augment,
    check_count,
    check_keywords,
    check_num_frames,
    check_render_mode,
    check_rules,
    check_sampler,
    open_sequences,
)
from slt_gym.envs.clips import ClipSource
from slt_gym.envs.episode import Episode, EpisodeRules, Observation
from slt_gym.envs.frames import reuse_freed_memory
from slt_gym.envs.group import TrackGroup, TrackStep
from slt_gym.envs.infos import pack_infos
from slt_gym.envs.stopwatch import Stopwatch
from slt_gym.envs.tracking_env import TrackingEnv
from slt_gym.errors import InvalidArgumentError, unknown

_MODES = {
    **{mode.name.lower(): mode for mode in AutoresetMode},
    **{mode.value: mode for mode in AutoresetMode},
}
_OWN_ARGUMENTS = ("num_envs", "tracks_per_clip", "threads", "prefetch", "copy", "autoreset_mode")
_Result = TypeVar("_Result")


class TrackingVectorEnv(VectorEnv[Observation, NDArray[Any], NDArray[Any]]):
    """Run many :class:`TrackingEnv` tracks, as Gymnasium's own vector environments would.

    Tracks come in groups of ``tracks_per_clip``: the n-th episode of every track of a group is the
    same clip, whose frames are decoded and whose template is cut once. Each group is one task for
    the threads, and the frame after the one being looked at is decoded while the policy thinks.
    With ``action="moves"`` or ``restart`` the tracks of a group may be on different frames; each
    track then adds to the frames that are kept, and those far ahead of the others decode alone.
    None of this changes a result: with ``tracks_per_clip=1`` and a seed s, track i is a
    ``TrackingEnv`` reset with the seed s + i.

    Seeds: group g draws its clips from a generator seeded with s + g * k, its first track's seed.
    Walked splits (``val``, ``test``) are dealt out: group g of G takes the sequences g, g + G, ….

    Args:
        num_envs: Number of tracks.
        dataset: As for :class:`TrackingEnv`, like ``root`` to ``dataset_options``.
        root: The dataset's folder; a mixture's folder or dict of folders.
        split: ``"train"``, ``"val"``, ``"test"``, or another of the dataset's splits.
        geometry: Name of the tracker whose windows and crops are used.
        action: Form of the actions: ``"box"``, ``"delta"``, ``"moves"`` or ``"proposals"``.
        action_options: A dict of options of that form.
        reward: Name of a reward, or a dict of weights by name.
        num_frames: Length of a clip; None is whole sequences.
        sampler: The rule that training clips are drawn by: ``"pytracking"`` or ``"pysot"``.
        augment: Change training clips: True, or a dict of the fields of
            :class:`slt_gym.data.AugmentationConfig`.
        lost_after: End after that many consecutive visible frames at IoU 0.
        restart: Begin again that many frames after a failure instead; True: 5.
        dataset_options: Further options of the dataset.
        reduced_decode: Decode JPEG frames smaller where their crops are smaller anyway.
        render_mode: ``"rgb_array"``: :meth:`render` gives one picture for each track.
        tracks_per_clip: Tracks that share each clip (k); divides ``num_envs``.
        threads: Threads that decode and crop; 0 takes one for each core, at most one a group.
        prefetch: Decode the next frame ahead of time.
        copy: Return fresh observations, which the threads write to directly; else two batches that
            are overwritten in turn, so that the previous step's observations are valid until the
            next step returns.
        autoreset_mode: ``"next_step"``, ``"same_step"`` or ``"disabled"``, or Gymnasium's enum.

    Raises:
        InvalidArgumentError: An argument has a value that is not accepted.
        DatasetNotFoundError: There is nothing to read.

    Attributes:
        stopwatch: Sums the threads' time to ``decode`` (or draw) frames and to ``crop`` them.
        autoreset_mode: When an ended track begins anew.
    """

    metadata: dict[str, Any] = dict(TrackingEnv.metadata)  # noqa: RUF012  (set in each instance)

    def __init__(
        self,
        num_envs: int,
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
        tracks_per_clip: int = 1,
        threads: int = 0,
        prefetch: bool = True,
        copy: bool = True,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **unknown: Any,
    ) -> None:
        super().__init__()
        check_keywords(unknown, *_OWN_ARGUMENTS)
        self.num_envs = check_count("argument 'num_envs'", num_envs, least=1)
        self.tracks_per_clip = check_count("argument 'tracks_per_clip'", tracks_per_clip, least=1)
        if self.num_envs % self.tracks_per_clip:
            raise InvalidArgumentError(
                f"argument 'tracks_per_clip' is {tracks_per_clip}: accepted are the divisors of "
                f"num_envs={num_envs}"
            )
        groups = self.num_envs // self.tracks_per_clip
        threads = check_count("argument 'threads' (0: one for each core)", threads, least=0)
        self.autoreset_mode = _check_mode(autoreset_mode)
        self.metadata = {**TrackingEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = check_render_mode(render_mode)
        self.copy = bool(copy)

        self._rules = rules = check_rules(
            geometry, action, action_options, reward, lost_after, restart, reduced_decode
        )
        length = check_num_frames(num_frames)
        sampler = check_sampler(sampler)
        augmentation = check_augment(augment, sampler)
        self._sequences = open_sequences(dataset, root, split, dataset_options)
        self.single_observation_space = rules.observation_space
        self.single_action_space = rules.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

        reuse_freed_memory()
        self.stopwatch = Stopwatch()
        self._pool = ThreadPoolExecutor(
            threads or min(count_cores(), groups), thread_name_prefix="slt_gym-decode"
        )
        self._groups = [
            TrackGroup(
                ClipSource(self._sequences, length, g, groups, sampler, augmentation),
                rules,
                self.tracks_per_clip,
                self.autoreset_mode,
                self._pool if prefetch else None,
                self.stopwatch,
                rendered=self.render_mode is not None,
            )
            for g in range(groups)
        ]
        # Without copies, the batches that are written in turn; the one returned last comes first.
        self._batches = [] if self.copy else [self._make_batch(), self._make_batch()]
        self._begun = np.zeros(self.num_envs, np.bool_)
        self._ended = np.zeros(self.num_envs, np.bool_)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The groups' random number generators."""
        return tuple(group.rng for group in self._groups)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seeds of the groups' random number generators."""
        return tuple(group.seed for group in self._groups)

    @property
    def rules(self) -> EpisodeRules:
        """What does not change from clip to clip."""
        return self._rules

    @property
    def episodes(self) -> list[Episode | None]:
        """The tracks' current episodes, ground truth included; None before the first reset."""
        return [episode for group in self._groups for episode in group.episodes]

    @property
    def sequences(self) -> SequenceDataset:
        """Where the clips come from."""
        return self._sequences

    @property
    def split(self) -> str:
        """The split that the clips come from."""
        return self._sequences.split

    @property
    def sequence_names(self) -> list[str]:
        """The names of the split's sequences, in the order that ``val`` and ``test`` walk."""
        return self._sequences.names

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin new episodes.

        Args:
            seed: An int s stands for s, s + 1, …, one for each track; a group takes its first
                track's.
            options: As for :class:`TrackingEnv`, for every track; with ``"reset_mask"``, booleans
                of shape ``(num_envs,)``, only for the tracks that it marks.

        Raises:
            InvalidArgumentError: An option is unknown or chooses no clip, or a seed would go to a
                part of a group.
        """
        observations, infos = self.reset_tracks(seed=seed, options=options)
        return observations, pack_infos(infos)

    def reset_tracks(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Observation, list[dict[str, Any] | None]]:
        """Do what :meth:`reset` does, but give the infos track by track, None if not reset."""
        options = dict(options or {})
        mask = _check_mask(options.pop("reset_mask", None), self.num_envs)
        seeds = self._spread_seeds(seed, mask)
        batch, k = self._next_batch(), self.tracks_per_clip
        rows = self._split(batch)

        def reset_group(g: int) -> dict[int, dict[str, Any]]:
            tracks = np.flatnonzero(mask[g * k : (g + 1) * k]).tolist()
            infos = self._groups[g].reset(tracks, rows[g], seeds[g], options) if tracks else {}
            self._groups[g].observe(set(range(k)).difference(tracks), rows[g])
            return infos

        results = self._run(reset_group)
        self._begun |= mask
        self._ended &= ~mask
        return batch, [results[i // k].get(i % k) for i in range(self.num_envs)]

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[
        Observation, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Take one step in every track.

        Raises:
            InvalidArgumentError: The actions have another shape, or a number that is not finite or
                out of range.
            ResetNeeded: A track has not begun or, with ``autoreset_mode="disabled"``, has ended.
        """
        observations, steps = self.step_tracks(actions)
        infos = pack_infos([track.info for track in steps])
        if any(track.final_info is not None for track in steps):
            finals = [
                None
                if track.final_info is None
                else {"final_obs": track.final_obs, "final_info": track.final_info}
                for track in steps
            ]
            infos = {**pack_infos(finals), **infos}
        rewards = np.array([track.reward for track in steps], np.float64)
        terminations = np.array([track.terminated for track in steps], np.bool_)
        return observations, rewards, terminations, np.zeros_like(terminations), infos

    def step_tracks(self, actions: NDArray[Any]) -> tuple[Observation, list[TrackStep]]:
        """Do what :meth:`step` does, but give everything except the observations track by track."""
        disabled = self.autoreset_mode is AutoresetMode.DISABLED
        waiting = ~self._begun | (self._ended & disabled)
        if waiting.any():
            raise ResetNeeded(
                f"track(s) {np.flatnonzero(waiting).tolist()} have not begun or have ended: reset "
                'them first, with options={"reset_mask": …} if others go on'
            )
        autoreset = self._ended & (self.autoreset_mode is AutoresetMode.NEXT_STEP)
        checked = _check_actions(self._rules.form, actions, autoreset)
        batch, k = self._next_batch(), self.tracks_per_clip
        rows = self._split(batch)

        def step_group(g: int) -> list[TrackStep]:
            part = slice(g * k, (g + 1) * k)
            return self._groups[g].step(checked[part], autoreset[part], rows[g])

        steps = [track for result in self._run(step_group) for track in result]
        self._ended = np.array([track.terminated for track in steps])
        return batch, steps

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Draw each track's latest frame; None without ``render_mode="rgb_array"``."""
        if self.render_mode is None:
            return None
        if not self._begun.all():
            raise ResetNeeded("the episodes have not begun: call reset() before render()")
        return tuple(
            episode.render() for group in self._groups for episode in group.episodes if episode
        )

    def use_batches(self, first: Observation, second: Observation) -> None:
        """Write observations into these arrays in turn from now on, as with ``copy=False``.

        Their memory is the caller's choice, such as page-locked memory that a GPU reads at once:
        ``torch.empty(shape, dtype=…, pin_memory=True).numpy()``.

        Args:
            first: C-contiguous arrays by the keys of ``observation_space``, of its shapes and
                types.
            second: The same, in other memory.

        Raises:
            InvalidArgumentError: A key is missing, or an array is another one than is needed.
        """
        for batch in (first, second):
            for key, space in self.observation_space.items():  # type: ignore[attr-defined]
                array = batch.get(key)
                if (
                    not isinstance(array, np.ndarray)
                    or (array.shape, array.dtype) != (space.shape, space.dtype)
                    or not array.flags.c_contiguous
                ):
                    found = getattr(array, "dtype", None), getattr(array, "shape", None)
                    raise InvalidArgumentError(
                        f"the array of {key!r} is {found}: needed is a C-contiguous one of "
                        f"{space.dtype}, shape {space.shape}"
                    )
        keys = self._rules.shapes
        self._batches = [{key: batch[key] for key in keys} for batch in (first, second)]
        self.copy = False

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, work: Callable[[int], _Result]) -> list[_Result]:
        """Call ``work`` for each group in the pool; raise the first error when all are done."""
        # A task may need what is read ahead. No deadlock: what has not begun it reads itself.
        futures = [self._pool.submit(work, g) for g in range(len(self._groups))]
        wait(futures)
        return [future.result() for future in futures]

    def _make_batch(self) -> Observation:
        shapes = self._rules.shapes.items()
        return {key: np.empty((self.num_envs, *shape), dtype) for key, (shape, dtype) in shapes}

    def _next_batch(self) -> Observation:
        """Return the batch to write and to return next; its dict is the caller's."""
        if self.copy:
            return self._make_batch()
        self._batches.reverse()
        return dict(self._batches[0])

    def _split(self, batch: Observation) -> list[Observation]:
        """Return each group's rows of a batch."""
        k = self.tracks_per_clip
        return [
            {key: array[g * k : (g + 1) * k] for key, array in batch.items()}
            for g in range(len(self._groups))
        ]

    def _spread_seeds(
        self, seed: int | list[int | None] | None, mask: NDArray[np.bool_]
    ) -> list[int | None]:
        """Return each group's seed."""
        if seed is None:
            return [None] * len(self._groups)
        if isinstance(seed, (int, np.integer)):
            seeds: list[int | None] = [int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise InvalidArgumentError(
                f"there are {len(seeds)} seeds: accepted are an int or one for each of the "
                f"{self.num_envs} tracks"
            )
        firsts = seeds[:: self.tracks_per_clip]
        marked = mask.reshape(len(self._groups), -1)
        for g, first in enumerate(firsts):
            if first is not None and marked[g].any() and not marked[g].all():
                raise InvalidArgumentError(
                    f"seed {first} would go to a part of group {g}, whose {self.tracks_per_clip} "
                    "tracks share their clips: reset all of them, or none with a seed"
                )
        return firsts


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_mode(mode: str | AutoresetMode) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    if mode not in _MODES:
        raise unknown("autoreset_mode", mode, [mode.name.lower() for mode in AutoresetMode])
    return _MODES[mode]


def _check_mask(mask: object, num_envs: int) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones(num_envs, np.bool_)
    if (
        not isinstance(mask, np.ndarray)
        or mask.dtype != np.bool_
        or mask.shape != (num_envs,)
        or not mask.any()
    ):
        raise InvalidArgumentError(
            f"option 'reset_mask' of reset is {mask!r}: accepted is a NumPy array of {num_envs} "
            "booleans, one of them True"
        )
    return mask


def _check_actions(form: ActionForm, actions: Any, unused: NDArray[np.bool_]) -> NDArray[Any]:
    """Check a batch of actions; those of tracks that are about to begin may hold anything."""
    if unused.any():
        actions = np.array(actions)
        if actions.shape[:1] == unused.shape:
            actions[unused] = 0
    return form.check(actions, unused.shape)
