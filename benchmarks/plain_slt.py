"""Sequence-level training as published trainers write it: the baseline of `slt.py`.

Every track decodes each frame and cuts its crop itself, out of a copy of the whole frame with a
border; crops are kept as floats; the template is encoded again in every frame and, in the update,
for every crop (not by TrDiMP, which learns its filter once for each track); exploration builds
autograd graphs; attention computes the weights that nothing reads; BatchNorm runs on its own and
maps have their channels first. Losses, geometry and the constants are those of `slt_gym`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from slt_gym.agents import SLT, TrackerNetwork, convolution, resnet
from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.network import normalise
from slt_gym.agents.registry import get_tracker_entry
from slt_gym.agents.siamattn import heads as siamattn_heads
from slt_gym.agents.siamrpnpp import backbone as siamrpnpp_backbone
from slt_gym.agents.siamrpnpp.network import SiamRPNpp, to_bgr
from slt_gym.agents.transt.fusion import Attention
from slt_gym.agents.trdimp import backbone as trdimp_backbone
from slt_gym.agents.trdimp.network import TrDiMP
from slt_gym.data import Clip
from slt_gym.envs.actions import action_to_box, box_to_action
from slt_gym.envs.stopwatch import Stopwatch
from slt_gym.geometry import Window, get_geometry, iou

_FOLDING: tuple[ModuleType, ...] = (
    convolution,
    resnet,
    siamattn_heads,
    siamrpnpp_backbone,
    trdimp_backbone,
)
_BOUNDS = (-4.0, 4.0)  # of the observations' boxes


class PlainAttention(nn.Module):
    """`nn.MultiheadAttention`, asked for its weights, with the parameters of `Attention`."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        width = attention.out_proj.in_features
        self.attention = nn.MultiheadAttention(width, attention.heads)
        for name in ("in_proj_weight", "in_proj_bias", "out_proj"):
            setattr(self.attention, name, getattr(attention, name))

    def forward(self, query: Tensor, key: Tensor | None, value: Tensor) -> Tensor:
        """Attend, see `Attention`; the published layout puts the tokens first."""
        q, v = query.transpose(0, 1), value.transpose(0, 1)
        k = q if key is None else key.transpose(0, 1)
        mask = torch.zeros(k.shape[1], k.shape[0], dtype=torch.bool, device=k.device)
        return self.attention(q, k, v, key_padding_mask=mask)[0].transpose(0, 1)


def plain_resnet(net: Any, images: Tensor) -> list[Tensor]:
    """Compute the maps of stem and layers, channels first."""
    x = F.relu(net.bn1(net.conv1(images)), inplace=True)
    maps = [x]
    x = F.max_pool2d(x, 3, 2, 1)
    for layer in (net.layer1, net.layer2, net.layer3, getattr(net, "layer4", None)):
        if layer is not None:
            x = layer(x)
            maps.append(x)
    return maps


def make_plain(network: TrackerNetwork) -> TrackerNetwork:
    """Undo a network's layout of maps and its attention; its modules stay the same."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Attention):
                setattr(module, name, PlainAttention(child))
            elif isinstance(child, siamrpnpp_backbone.AtrousResNet):
                child.forward = lambda x, net=child: plain_resnet(net, x)  # type: ignore[method-assign, misc]
            elif isinstance(child, trdimp_backbone.Backbone):
                child.layer4 = None  # type: ignore[assignment]  # never runs
                child.forward = lambda x, net=child: tuple(plain_resnet(net, x)[2:])  # type: ignore[method-assign, misc]
            elif isinstance(child, resnet.ResNet):
                child.forward = lambda x, net=child: plain_resnet(net, x)[-1]  # type: ignore[method-assign, misc]
    return network.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


@contextmanager
def separate_batch_norm() -> Iterator[None]:
    """Apply BatchNorm after its convolution within the block."""
    folded = resnet.conv_bn
    for module in _FOLDING:
        module.conv_bn = lambda x, conv, bn: bn(conv(x))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in _FOLDING:
            module.conv_bn = folded  # type: ignore[attr-defined]


def crop_padded(
    frame: NDArray[np.uint8], window: Window, size: int, fill: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Cut a window out of a frame, or out of a copy with a border where the window leaves it."""
    height, width = frame.shape[:2]
    x, y = window.origin
    left, top = max(-x, 0), max(-y, 0)
    right, bottom = max(x + window.side - width, 0), max(y + window.side - height, 0)
    if left or top or right or bottom:
        padded = np.empty((height + top + bottom, width + left + right, 3), np.uint8)
        padded[:] = fill
        padded[top : top + height, left : left + width] = frame
        frame, x, y = padded, x + left, y + top
    patch = frame[y : y + window.side, x : x + window.side]
    if window.side != size:
        patch = np.asarray(cv2.resize(patch, (size, size)), np.uint8)
    return np.ascontiguousarray(patch.transpose(2, 0, 1))


@dataclass
class PlainRollout:
    """What exploration leaves: lists over the frames, of lists or tensors over the tracks."""

    boxes: list[NDArray[np.float64]]
    rewards: list[NDArray[np.float64]]
    search: list[Tensor]
    previous: list[Tensor]
    gt_box: list[Tensor]
    index: list[Tensor]
    templates: Tensor
    template_box: Tensor


class PlainSLT:
    """The loop. Takes the clips and the random numbers that a model took.

    Args:
        model: Whose weights and settings are used: `baseline="greedy"`, one sampled track.
    """

    def __init__(self, model: SLT) -> None:
        policy = model.policy
        self.name, self.device = policy.tracker, policy.device
        self.geometry = get_geometry(self.name)
        network = get_tracker_entry(self.name).build(**policy.overrides)
        network.load_state_dict(policy.network.state_dict())
        self.network = make_plain(network.to(self.device))
        self.encodes_once = isinstance(network, TrDiMP)
        groups = [{"params": list(network.parameters()), "lr": 0.0}]
        self.optimizer = policy.optimizer_class(groups, **policy.optimizer_kwargs)
        self.micro_batch = model.micro_batch
        weights = dict(network.slt_weights)
        self.policy_weight, self.loss_weights = weights.pop("policy"), weights
        self.average = network.slt_defaults.average_micro_batches
        self.stopwatch = Stopwatch()

    def _read(self, clip: Clip, i: int) -> NDArray[np.uint8]:
        with self.stopwatch.measure("decode"):
            return clip.sequence.read(int(i))

    def _crop(self, frame: Any, window: Window, size: int, fill: Any) -> Tensor:
        """Cut a crop and normalise it: floats, shape `(3, size, size)`."""
        with self.stopwatch.measure("crop"):
            cut = self.geometry.crop if isinstance(self.network, TrDiMP) else crop_padded
            crop = torch.from_numpy(cut(frame, window, size, fill))[None]
            if isinstance(self.network, SiamRPNpp):
                return to_bgr(crop)[0]
            return normalise(crop)[0]

    def encode(self, templates: Tensor, template_box: Tensor) -> Any:
        """Encode templates, one for each row."""
        given = (templates, template_box) if self.geometry.shows_template_box else (templates,)
        return self.network.encode(*given)

    def _start(self, clip: Clip) -> tuple[Tensor, Any, NDArray[np.float32], tuple[int, int]]:
        """Return a track's template, padding colour, box in the template, and the frame's size."""
        geometry, frame = self.geometry, self._read(clip, clip.template)
        window, size = geometry.template_window(clip.template_box), geometry.template_size
        box = geometry.template_box(clip.template_box).astype(np.float32)
        frame_size = frame.shape[1], frame.shape[0]
        if self.encodes_once:  # no padding; and random shifts follow from the uint8 pixels
            fill = np.zeros(3, np.uint8)
            return torch.from_numpy(geometry.crop(frame, window, size, fill)), fill, box, frame_size
        fill = np.mean(frame, axis=(0, 1)).astype(np.uint8)
        return self._crop(frame, window, size, fill), fill, box, frame_size

    def explore(self, clips: list[Clip], seed: int) -> PlainRollout:
        """Track each clip greedily, and once with sampled proposals."""
        geometry, device = self.geometry, self.device
        generator = torch.Generator(device).manual_seed(seed)
        self.network.set_seed(seed)
        tracks = [clip for clip in clips for _ in range(2)]
        greedy = torch.tensor([True, False] * len(clips), device=device)
        boxes = [clip.boxes[0].copy() for clip in tracks]
        templates, fills, template_boxes, sizes = map(
            list, zip(*(self._start(clip) for clip in tracks), strict=True)
        )
        stack, template_box = torch.stack(templates), torch.tensor(np.stack(template_boxes))
        out = PlainRollout([], [], [], [], [], [], stack[1::2], template_box[1::2])
        features: Any = None
        for i in range(1, len(clips[0])):
            crops, windows = [], []
            for k, clip in enumerate(tracks):
                frame = self._read(clip, clip.frames[i])
                windows.append(geometry.search_window(boxes[k], sizes[k]))
                crops.append(self._crop(frame, windows[k], geometry.search_size, fills[k]))
                sizes[k] = frame.shape[1], frame.shape[0]
            pairs = list(zip(windows, boxes, strict=True))
            seen = np.stack([np.clip(window.to_crop(box), *_BOUNDS) for window, box in pairs])
            with self.stopwatch.measure("network"):
                if features is None or not self.encodes_once:
                    features = self.encode(stack.to(device), template_box.to(device))
                search, previous = torch.stack(crops), torch.from_numpy(seen.astype(np.float32))
                proposals = self.network.propose(features, search.to(device))
                logits = self.network.action_logits(proposals, previous.to(device))
                distribution = ProposalDistribution(logits)
                sampled = distribution.sample(generator)
                index = torch.where(greedy, distribution.mode(), sampled)
                chosen = self.network.resolve(proposals, index, previous.to(device))
                answers = action_to_box(box_to_action(chosen.detach().cpu().numpy()))
            rewards, gt_boxes = [], []
            for k, clip in enumerate(tracks):
                boxes[k] = geometry.limit(windows[k].to_frame(answers[k]), sizes[k])
                rewards.append(float(iou(boxes[k], clip.boxes[i])))
                gt_boxes.append(windows[k].to_crop(clip.boxes[i]).astype(np.float32))
            out.boxes.append(np.stack(boxes))
            out.rewards.append(np.array(rewards))
            out.search.append(search[1::2])
            out.previous.append(previous[1::2])
            out.gt_box.append(torch.tensor(np.stack(gt_boxes)[1::2]))
            out.index.append(index[1::2].cpu())
        return out

    def update(self, rollout: PlainRollout, rng: np.random.Generator) -> None:
        """Take an optimizer step; templates are encoded again for every crop."""
        with self.stopwatch.measure("update"):
            self.optimizer.zero_grad()
            returns = np.stack(rollout.rewards).mean(axis=0)
            advantage = torch.tensor(returns[1::2] - returns[::2])
            clips, frames = len(advantage), len(rollout.search)
            firsts = range(0, clips, self.micro_batch)
            for first, draws in zip(firsts, rng.spawn(len(firsts)), strict=True):
                part = slice(first, first + self.micro_batch)
                loss = self._loss(rollout, advantage, part, frames, draws)
                share = len(range(clips)[part]) / clips if self.average else 1.0
                (share * loss).backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1e9)
            self.optimizer.step()

    def _loss(
        self,
        rollout: PlainRollout,
        advantage: Tensor,
        part: slice,
        frames: int,
        rng: np.random.Generator,
    ) -> Tensor:
        def gather(steps: list[Tensor]) -> Tensor:
            return torch.cat([step[part] for step in steps]).to(self.device)  # frame by frame

        templates = rollout.templates[part].to(self.device)
        template_box = rollout.template_box[part].to(self.device)
        if self.encodes_once:
            encoded = self.encode(templates, template_box)
            features: Any = {key: torch.cat([value] * frames) for key, value in encoded.items()}
        else:
            features = self.encode(torch.cat([templates] * frames), template_box)
        proposals = self.network.propose(features, gather(rollout.search))
        logits = self.network.action_logits(proposals, gather(rollout.previous))
        log_prob = ProposalDistribution(logits).log_prob(gather(rollout.index))
        weight = torch.cat([advantage[part]] * frames).to(log_prob)
        own = self.network.training_losses(proposals, gather(rollout.gt_box), rng)
        total = -self.policy_weight * (weight * log_prob).mean()
        for name, factor in self.loss_weights.items():
            total = total + factor * own[name]
        return total
