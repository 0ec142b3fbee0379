"""Tracks that follow the same clips and share their frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from slt_gym.data import Clip
from slt_gym.envs.clips import ClipSource
from slt_gym.envs.episode import Episode, EpisodeRules, Observation
from slt_gym.envs.frames import ClipFrames
from slt_gym.envs.stopwatch import Stopwatch
from slt_gym.errors import SltGymError


class TrackStep(NamedTuple):
    """What one step of one track gives beside the observation.

    Attributes:
        reward: The step's reward.
        terminated: Whether the step ended the episode.
        info: The info; with a reset in the same step, that of the reset.
        final_obs: With a reset in the same step, the observation before it.
        final_info: With a reset in the same step, the info before it.
    """

    reward: float
    terminated: bool
    info: dict[str, Any]
    final_obs: Observation | None = None
    final_info: dict[str, Any] | None = None


class TrackGroup:
    """Run k tracks whose n-th episodes all follow the same clip, drawn from one generator.

    One thread works on a group at a time.

    Attributes:
        episodes: The tracks' current episodes.
        rng: Where the clips are drawn from.
        seed: What ``rng`` was made from.
    """

    def __init__(
        self,
        source: ClipSource,
        rules: EpisodeRules,
        tracks: int,
        autoreset_mode: AutoresetMode,
        pool: Executor | None,
        stopwatch: Stopwatch | None = None,
        rendered: bool = False,
    ) -> None:
        self._rendered = rendered
        self._source = source
        self._rules = rules
        self._mode = autoreset_mode
        self._pool = pool
        self._stopwatch = stopwatch
        self.episodes: list[Episode | None] = [None] * tracks
        self.rng, self.seed = seeding.np_random(None)
        self._begun = [0] * tracks  # drawn episodes that each track has begun
        self._drawn = 0
        # Clips that the group's first track has reached and its last one has not passed; in place
        # of a clip that could not be drawn, the reason.
        self._clips: dict[int, Clip | SltGymError] = {}
        self._frames: WeakValueDictionary[int, ClipFrames] = WeakValueDictionary()
        self._upcoming: ClipFrames | None = None  # keeps the prefetched start of a clip alive

    def reset(
        self,
        tracks: Iterable[int],
        rows: Observation,
        seed: int | None,
        options: Mapping[str, Any] | None,
    ) -> dict[int, dict[str, Any]]:
        """Begin new episodes.

        Args:
            tracks: Numbers of the tracks to reset, 0 to k - 1.
            rows: The group's rows of the batch, by the observation's keys; written to.
            seed: Restarts the group's generator and walk; only with all of its tracks.
            options: Chooses the clip.

        Returns:
            The infos by track.
        """
        tracks = list(tracks)
        if seed is not None:
            self.rng, self.seed = seeding.np_random(seed)
            self._source.restart()
            self._begun = [0] * len(self._begun)
            self._drawn = 0
            self._forget_clips()
        elif len(tracks) == len(self._begun):
            # Tracks that ended early may be ahead of the others: together they go on together.
            self._begun = [max(self._begun)] * len(self._begun)
        chosen = None
        if options:
            chosen = self._decode(self._source.choose(options))
        infos = {j: self._begin(j, rows, chosen) for j in tracks}
        self._look_ahead(tracks)
        return infos

    def observe(self, tracks: Iterable[int], rows: Observation) -> None:
        """Write what tracks show now; zeros of those that have not begun."""
        for j in tracks:
            episode, row = self.episodes[j], _row(rows, j)
            if episode is not None:
                episode.observe(row)
                continue
            for array in row.values():
                array[...] = 0

    def step(
        self, actions: NDArray[Any], autoreset: NDArray[np.bool_], rows: Observation
    ) -> list[TrackStep]:
        """Take one step in each track.

        Args:
            actions: Checked already, one for each track.
            autoreset: Which tracks begin a new episode instead (``NEXT_STEP``), shape ``(k,)``.
            rows: The group's rows of the batch, by the observation's keys; written to.
        """
        # All tracks move their windows before one of them looks at the frame: it is decoded down to
        # the lowest of them.
        outcomes = [
            None if autoreset[j] or episode is None else episode.step(actions[j])
            for j, episode in enumerate(self.episodes)
        ]
        steps = [self._show(j, outcome, rows) for j, outcome in enumerate(outcomes)]
        self._look_ahead(range(len(steps)))
        return steps

    def _show(
        self, j: int, outcome: tuple[float, bool, dict[str, Any]] | None, rows: Observation
    ) -> TrackStep:
        """Write what track ``j`` sees after its step, or at the start of its next episode."""
        episode = self.episodes[j]
        if outcome is None or episode is None:
            return TrackStep(0.0, False, self._begin(j, rows))
        reward, terminated, info = outcome
        if terminated and self._mode is AutoresetMode.SAME_STEP:
            final_obs = episode.observe()
            return TrackStep(reward, True, self._begin(j, rows), final_obs, info)
        episode.observe(_row(rows, j))
        return TrackStep(reward, terminated, info)

    def _begin(self, j: int, rows: Observation, chosen: ClipFrames | None = None) -> dict[str, Any]:
        if chosen is None:
            self._begun[j] += 1
            frames = self._open(self._begun[j] - 1)
            for n in [n for n in self._clips if n < min(self._begun)]:
                del self._clips[n]
            self._upcoming = None
        else:
            frames = chosen
        # The old frames' memory is not given back to the system before the new ones are decoded.
        old, episode = self.episodes[j], Episode(frames, self._rules)
        self.episodes[j] = episode
        episode.observe(_row(rows, j))
        del old
        return episode.start_info()

    def _look_ahead(self, tracks: Iterable[int]) -> None:
        """Let the pool read what tracks will need after their next step."""
        if self._pool is None:
            return
        needed: dict[tuple[ClipFrames, int, int], int] = {}
        for j in tracks:
            episode = self.episodes[j]
            if episode is None:
                continue
            if episode.remaining > 1:
                i, factor, down_to = episode.ahead
                key = episode.frames, i, factor
                needed[key] = max(down_to, needed.get(key, 0))
                continue
            # Drawing a clip early changes nothing: clips are numbered, and drawn in order. What
            # goes wrong with it is said when it is begun.
            with suppress(SltGymError):
                self._upcoming = self._open(self._begun[j])
                self._upcoming.prefetch_start(first=not self._rules.reduced_decode)
        for (frames, i, factor), down_to in needed.items():
            frames.prefetch(i, factor, down_to)

    def _open(self, n: int) -> ClipFrames:
        """Return the frames of the group's ``n``-th clip, shared by the tracks that are in it."""
        while self._drawn <= n:
            try:
                self._clips[self._drawn] = self._source.next(self.rng)
            except SltGymError as error:
                self._clips[self._drawn] = error
            self._drawn += 1
        clip = self._clips[n]
        if isinstance(clip, SltGymError):
            raise clip
        frames = self._frames.get(n)
        if frames is None:
            frames = self._decode(clip)
            self._frames[n] = frames
        return frames

    def _decode(self, clip: Clip) -> ClipFrames:
        keep = self._rules.count_kept(len(self.episodes), self._rendered)
        whole = not self._rules.follows_rows(len(self.episodes), self._rendered)
        return ClipFrames(clip, self._rules.geometry, self._pool, self._stopwatch, keep, whole)

    def _forget_clips(self) -> None:
        self._clips.clear()
        self._frames.clear()
        self._upcoming = None


def _row(rows: Observation, j: int) -> Observation:
    return {key: array[j] for key, array in rows.items()}
