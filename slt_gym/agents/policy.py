"""Trackers as Stable-Baselines3 policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.features import (
    Features,
    count_rows,
    find_equal_crops,
    map_features,
    replace_rows,
    upload,
)
from slt_gym.agents.network import Proposals
from slt_gym.agents.precision import check_precision
from slt_gym.agents.recomputation import set_checkpointing
from slt_gym.agents.registry import get_tracker_entry
from slt_gym.agents.weights import load_weights, stored_overrides
from slt_gym.envs.actions import box_to_action
from slt_gym.errors import InvalidArgumentError


@dataclass
class PolicyState:
    """What a policy keeps between the frames of ``n`` tracks.

    Attributes:
        features: The encoded templates, first axis ``n``.
    """

    features: Features


class TrackerPolicy(BasePolicy):
    """A tracker's network, acting in a tracking environment with ``action="box"``.

    The policy is a categorical distribution over the network's proposals, after the tracker's own
    test-time prior. The action is the chosen proposal's box; log-probabilities are those of its
    index (Kim et al., ECCV 2022, section 3.3).

    Args:
        observation_space: Of a tracking environment with this tracker's geometry.
        action_space: Of a tracking environment with ``action="box"``.
        lr_schedule: Learning rate from the remaining progress; None for a policy that only acts.
        tracker: The tracker's name, see :func:`slt_gym.list_trackers`.
        weights: A folder or a checkpoint's file, ``"pretrained"``, or None for random weights.
        seed: Of the generator that samples actions.
        optimizer_class: The optimizer; None takes the tracker's published one.
        optimizer_kwargs: Its arguments besides parameters and learning rate; None takes the
            published ones, or none with an ``optimizer_class`` of one's own.
        **overrides: Fields of the tracker's configuration; they go before those stored with
            ``weights``.
    """

    default_tracker = "transt"

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule | None = None,
        tracker: str | None = None,
        weights: str | None = None,
        seed: int = 0,
        optimizer_class: type[torch.optim.Optimizer] | None = None,
        optimizer_kwargs: dict[str, Any] | None = None,
        **overrides: Any,
    ) -> None:
        super().__init__(observation_space, action_space, normalize_images=False)
        self.tracker = tracker or self.default_tracker
        self.overrides = {**stored_overrides(weights, self.tracker), **overrides}
        entry = get_tracker_entry(self.tracker)
        geometry = entry.geometry
        self._check_spaces(geometry.template_size, geometry.search_size)
        self.network = entry.build(**self.overrides)
        if weights is not None:
            load_weights(self.network, weights, self.tracker)
        defaults = self.network.slt_defaults
        if optimizer_kwargs is None:
            optimizer_kwargs = {} if optimizer_class else dict(defaults.optimizer_kwargs)
        self.optimizer_class = optimizer_class or defaults.optimizer_class
        self.optimizer_kwargs = optimizer_kwargs
        self.seed = seed
        self._generator: torch.Generator | None = None
        # (part, parts) where several processes divide a batch among them, see
        # ProposalDistribution.sample.
        self.sampling_part: tuple[int, ...] = ()
        self.network.set_seed(seed)
        self._propose = self.network.propose
        self._compiled = False
        self.set_training_mode(False)
        if lr_schedule is not None:
            groups = self.network.parameter_groups()
            for group in groups:
                group["lr"] = lr_schedule(1) * group["lr_scale"]
            self.optimizer = self.optimizer_class(groups, **optimizer_kwargs)

    def compute_with(
        self,
        precision: str = "float32",
        compile: bool | str = False,
        activation_checkpointing: bool = False,
    ) -> None:
        """Choose how the network computes.

        Args:
            precision: ``"float32"``, ``"tf32"`` (for :func:`allow_tf32`; as float32 here) or
                ``"bf16"``.
            compile: Whether :meth:`propose` goes through ``torch.compile``, or its ``mode``.
            activation_checkpointing: Whether large layers keep only their inputs for the backward
                pass, and compute again what they need: less memory, more time.
        """
        check_precision(precision)
        self.network.precision = precision
        set_checkpointing(self.network, activation_checkpointing)
        self._propose, self._compiled = self.network.propose, bool(compile)
        if compile:
            mode = compile if isinstance(compile, str) else None
            self._propose = torch.compile(self.network.propose, mode=mode)

    def _check_spaces(self, template: int, search: int) -> None:
        space = self.observation_space
        if not isinstance(space, spaces.Dict) or not {"template", "search", "box"} <= set(space):
            raise InvalidArgumentError(
                "a tracker's policy acts in a tracking environment (SLTTrack-…); got observations "
                f"{space}"
            )
        sizes = space["template"].shape, space["search"].shape
        needed = (3, template, template), (3, search, search)
        if sizes != needed:
            raise InvalidArgumentError(
                f"the environment's crops have shapes {sizes} and {self.tracker!r} needs {needed}: "
                f"make the environment with geometry={self.tracker!r}"
            )
        if not isinstance(self.action_space, spaces.Box) or self.action_space.shape != (4,):
            raise InvalidArgumentError(
                f"a tracker's policy proposes boxes: make the environment with action='box' "
                f"(its actions are {self.action_space})"
            )

    @property
    def generator(self) -> torch.Generator:
        """The source of the sampled actions, on the policy's device."""
        if self._generator is None or self._generator.device.type != self.device.type:
            self._generator = torch.Generator(self.device)
            self._generator.manual_seed(self.seed)
        return self._generator

    def set_seed(self, seed: int) -> None:
        """Start the sampled actions anew from ``seed``."""
        self.seed = seed
        self._generator = None
        self.network.set_seed(seed)

    def encode(
        self,
        template: NDArray[np.uint8] | Tensor,
        template_box: NDArray[np.float32] | Tensor | None = None,
    ) -> Features:
        """Encode templates into features with the batch as first axis.

        Args:
            template: Shape ``(B, 3, Z, Z)``.
            template_box: Shape ``(B, 4)``, from observations that have it.
        """
        given = [template] if template_box is None else [template, template_box]
        return self.network.encode(*(upload(part, self.device) for part in given))

    def propose_boxes(self, features: Features, search: NDArray[np.uint8] | Tensor) -> Proposals:
        """Compute the proposals of ``B`` search crops, see :meth:`propose`."""
        return self._propose(features, upload(search, self.device))

    def distribute(self, proposals: Proposals, box: NDArray | Tensor) -> ProposalDistribution:
        """Return the distribution over proposals.

        Args:
            proposals: Of ``B`` crops.
            box: Shape ``(B, 4)``, the previous estimates, ``(x, y, w, h)`` in crop units.
        """
        logits = self.network.action_logits(proposals, upload(box, self.device))
        return ProposalDistribution(logits, proposals)

    def propose(
        self, features: Features, search: NDArray[np.uint8] | Tensor, box: NDArray | Tensor
    ) -> tuple[Proposals, ProposalDistribution]:
        """Compute the proposals of ``B`` search crops and the distribution over them.

        Args:
            features: Of :meth:`encode`, first axis ``B``.
            search: Shape ``(B, 3, S, S)``.
            box: Shape ``(B, 4)``, the previous estimates, ``(x, y, w, h)`` in crop units.
        """
        proposals = self.propose_boxes(features, search)
        return proposals, self.distribute(proposals, box)

    def propose_once(
        self, features: Features, observation: dict[str, Any], tracks_per_clip: int = 1
    ) -> Proposals:
        """Compute proposals, those of crops that a clip's tracks share once, see :meth:`act`."""
        search = observation["search"]
        # A compiled network would be compiled again for each number of crops.
        if tracks_per_clip == 1 or self._compiled:
            return self.propose_boxes(features, search)
        first, source = find_equal_crops(search, observation["box"], tracks_per_clip)
        if len(first) == len(search):
            return self.propose_boxes(features, search)
        rows = torch.as_tensor(first, device=self.device)
        some = map_features(lambda f: f[rows], features)
        proposals = self.propose_boxes(some, search[first])
        return proposals.take(torch.as_tensor(source, device=self.device))

    @torch.no_grad()
    def act(
        self,
        features: Features,
        observation: dict[str, Any],
        greedy: NDArray[np.bool_] | bool = True,
        tracks_per_clip: int = 1,
    ) -> tuple[NDArray[np.float32], Tensor, ProposalDistribution]:
        """Choose boxes for ``B`` tracks: :meth:`propose_once`, :meth:`choose`, as SLT calls them.

        Args:
            features: Of :meth:`encode`, first axis ``B``.
            observation: With ``search`` ``(B, 3, S, S)`` and ``box`` ``(B, 4)``.
            greedy: Which tracks take the most probable proposal; the others sample.
            tracks_per_clip: How many tracks with the same features lie side by side; while they
                also see the same crop, the network computes it once.

        Returns:
            The actions ``(B, 4)``, float32, the chosen indices ``(B,)`` and the distribution.
        """
        proposals = self.propose_once(features, observation, tracks_per_clip)
        return self.choose(proposals, observation["box"], greedy)

    @torch.no_grad()
    def choose(
        self, proposals: Proposals, box: NDArray | Tensor, greedy: NDArray[np.bool_] | bool = True
    ) -> tuple[NDArray[np.float32], Tensor, ProposalDistribution]:
        """Choose among proposals, see :meth:`act`.

        Args:
            proposals: Of ``B`` tracks.
            box: Shape ``(B, 4)``, the previous estimates, ``(x, y, w, h)`` in crop units.
            greedy: Which tracks take the most probable proposal; the others sample.
        """
        box = upload(box, self.device)
        distribution = self.distribute(proposals, box)
        index = distribution.mode()
        if not np.all(greedy):
            sampled = distribution.sample(self.generator, *self.sampling_part)
            mask = upload(np.broadcast_to(greedy, len(index)).copy(), self.device)
            index = torch.where(mask, index, sampled)
        actions = box_to_action(self.network.resolve(proposals, index, box).cpu().numpy())
        return actions, index, distribution

    def _encode_observed(self, observation: dict[str, Any]) -> Features:
        shown = [observation[key] for key in ("template", "template_box") if key in observation]
        return self.encode(*shown)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        observation = dict(observation)
        with torch.no_grad():
            features = self._encode_observed(observation)
        return torch.from_numpy(self.act(features, observation, deterministic)[0])

    def predict(  # type: ignore[override]
        self,
        observation: dict[str, NDArray],
        state: PolicyState | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], PolicyState]:
        """Choose boxes, encoding a template only where an episode starts.

        Args:
            observation: Of one environment or of ``n`` stacked ones.
            state: What the previous call returned; None at the start.
            episode_start: Shape ``(n,)``, where a new episode has begun since that call. Without
                it, and without ``state``, every track counts as new.
            deterministic: Take the most probable proposals instead of sampling.

        Returns:
            Actions ``(4,)`` or ``(n, 4)``, and the state for the next call.
        """
        single = np.ndim(observation["box"]) == 1
        if single:
            observation = {key: value[None] for key, value in observation.items()}
        count = len(observation["box"])
        with torch.no_grad():
            if state is None or count_rows(state.features) != count:
                state = PolicyState(self._encode_observed(observation))
            elif episode_start is not None and np.any(episode_start):
                new = np.flatnonzero(episode_start)
                started = {key: value[new] for key, value in observation.items()}
                rows = torch.as_tensor(new, device=self.device)
                encoded = self._encode_observed(started)
                state = PolicyState(replace_rows(state.features, rows, encoded))
        actions = self.act(state.features, observation, deterministic)[0]
        return (actions[0] if single else actions), state

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.pop("normalize_images", None)
        data.update(
            tracker=self.tracker,
            seed=self.seed,
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
            **self.overrides,
        )
        return data


class TransTPolicy(TrackerPolicy):
    """TransT as a policy: 1024 proposals, window 0.49, temperature 4 (SLT-TransT)."""

    default_tracker = "transt"


class SiamRPNppPolicy(TrackerPolicy):
    """SiamRPN++ as a policy: 3125 anchors, window 0.42, temperature 8 (SLT-SiamRPN++)."""

    default_tracker = "siamrpnpp"


class SiamAttnPolicy(TrackerPolicy):
    """SiamAttn as a policy: 3125 anchors, window 0.25, temperature 8 (SLT-SiamAttn)."""

    default_tracker = "siamattn"


class TrDiMPPolicy(TrackerPolicy):
    """TrDiMP as a policy: 529 cells, scores from -7 to 7, boxes refined by the IoU-Net (SLT)."""

    default_tracker = "trdimp"
