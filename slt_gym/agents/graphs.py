"""Autograd's graphs of exploration, kept for the update."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slt_gym.agents.features import Features, find_equal_crops, map_features
from slt_gym.agents.network import Proposals
from slt_gym.agents.policy import TrackerPolicy


class KeptGraphs:
    """Proposes for the tracks of a batch of clips, and keeps the graphs of the sampled ones.

    The update goes back through them instead of computing the same once more. Each sampled track is
    computed for itself, also where it sees what another one sees.

    Args:
        policy: Whose network proposes; its weights must not change until the update.
        template: Of the ``C`` clips, uint8, shape ``(C, 3, Z, Z)``.
        template_box: Shape ``(C, 4)``; None where the observations do not hold it.
        greedy: Which of the tracks are greedy, booleans, shape ``(C, k)``.
    """

    def __init__(
        self,
        policy: TrackerPolicy,
        template: NDArray[np.uint8],
        template_box: NDArray[np.float32] | None,
        greedy: NDArray[np.bool_],
    ) -> None:
        self._policy = policy
        self._tracks_per_clip = greedy.shape[1]
        self._greedy, self._sampled = np.flatnonzero(greedy), np.flatnonzero(~greedy)
        with torch.enable_grad():
            features = policy.encode(template, template_box)
            self._features = self._spread(features, self._sampled)
        self._encoded = map_features(lambda f: f.detach(), features)
        self._kept: list[Proposals] = []

    def propose(self, observation: dict[str, Any]) -> Proposals:
        """Propose for all tracks, without gradients in what is returned.

        Args:
            observation: With ``search`` ``(B, 3, S, S)`` and ``box`` ``(B, 4)``.
        """
        policy, sampled, search = self._policy, self._sampled, observation["search"]
        with torch.enable_grad():
            proposals = policy.propose_boxes(self._features, search[sampled])
        self._kept.append(proposals)
        found = [proposals.detach()]
        place = np.full(len(search), -1)
        place[sampled] = np.arange(len(sampled))
        _, source = find_equal_crops(search, observation["box"], self._tracks_per_clip)
        for track in self._greedy:
            twins = sampled[source[sampled] == source[track]]
            place[track] = place[twins[0]] if len(twins) else -1
        alone = np.flatnonzero(place < 0)
        if len(alone):
            place[alone] = len(sampled) + np.arange(len(alone))
            with torch.no_grad():
                features = self._spread(self._encoded, alone)
                found.append(policy.propose_boxes(features, search[alone]))
        return found[0].join(found[1:]).take(torch.as_tensor(place, device=policy.device))

    def take(self, used: NDArray[np.bool_]) -> Proposals:
        """Return the sampled tracks' proposals with their graphs.

        Args:
            used: Which of their frames, booleans, shape ``(T, C, S)``, one at least.

        Returns:
            A row for each frame that is used, in the order of ``np.nonzero(used)``.
        """
        chosen = []
        for proposals, mask in zip(self._kept, used.reshape(len(used), -1), strict=True):
            if not mask.any():
                continue
            rows = torch.as_tensor(np.flatnonzero(mask), device=self._policy.device)
            chosen.append(proposals if mask.all() else proposals.take(rows))
        return chosen[0].join(chosen[1:])

    def forget(self) -> None:
        """Let go of everything: others, such as callbacks, may still hold this object."""
        self._kept = []
        self._features = self._encoded = None

    def _spread(self, features: Features, tracks: NDArray[np.int64]) -> Features:
        """Return the features of the tracks' clips."""
        clips = torch.as_tensor(tracks // self._tracks_per_clip, device=self._policy.device)
        return map_features(lambda f: f[clips], features)
