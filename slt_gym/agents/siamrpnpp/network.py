"""SiamRPN++ (Li et al., "SiamRPN++", CVPR 2019), layer for layer as published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from slt_gym.agents.network import Proposals, SLTDefaults, TrackerNetwork
from slt_gym.agents.registry import check_range
from slt_gym.agents.schedules import ExponentialSchedule
from slt_gym.agents.siamrpnpp.anchors import RATIOS, decode, make_anchors
from slt_gym.agents.siamrpnpp.backbone import AtrousResNet
from slt_gym.agents.siamrpnpp.heads import KERNEL, Neck, RegionProposals, crop_centre
from slt_gym.agents.siamrpnpp.losses import (
    Draws,
    classification_loss,
    label_anchors,
    regression_loss,
)
from slt_gym.data.pairs import SIAMRPNPP_PAIRS, PairConfig
from slt_gym.geometry import SiamRPNGeometry


@dataclass(frozen=True)
class SiamRPNppConfig:
    """Everything that defines a SiamRPN++ network and its test-time rule.

    Attributes:
        stem: Channels of the backbone's first convolution.
        planes: Inner channels of the backbone's layers.
        blocks: Blocks of the backbone's layers.
        frozen: Parts of the backbone that never learn.
        hidden: Width of neck and heads.
        anchor_scale: Side of the square anchor over the stride.
        window_influence: Weight of the Hann window against the score.
        penalty_k: Strength of the penalty on changes of scale and shape.
        size_lr: Largest share of the new size in the estimate's.
        epsilon: Keeps the policy's log-odds finite.
        temperature: Factor on the policy's log-odds.
        backbone_lr_scale: Factor on the learning rate for the backbone.
        official_quirks: Label anchors on a grid half a pixel beside the one that boxes are decoded
            on, like the published code.
    """

    stem: int = 64
    planes: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    frozen: tuple[str, ...] = ("conv1", "bn1", "layer1")  # SiamRPN++
    hidden: int = 256
    anchor_scale: int = 8  # SiamRPN++
    window_influence: float = 0.42  # SiamRPN++
    penalty_k: float = 0.05  # SiamRPN++
    size_lr: float = 0.38  # SiamRPN++
    epsilon: float = 0.01  # SLT-SiamRPN++
    temperature: float = 8.0  # SLT-SiamRPN++
    backbone_lr_scale: float = 0.1  # SLT-SiamRPN++
    official_quirks: bool = False

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "stem", "hidden", "anchor_scale")
        check_range(self, 0, 1, "window_influence", "size_lr")
        check_range(self, 0, 0.5, "epsilon")
        check_range(self, 0, math.inf, "penalty_k", "temperature", "backbone_lr_scale")


# A laptop's size: the same classes, a crop of 127 px with 9 x 9 cells.
TINY: dict[str, Any] = {
    "stem": 16,
    "planes": (8, 16, 24, 32),
    "blocks": (1, 1, 1, 1),
    "frozen": (),
    "hidden": 48,
    "anchor_scale": 4,
    "backbone_lr_scale": 1.0,
}
SIAMRPNPP_TINY = SiamRPNppConfig(**TINY)


@dataclass
class AnchorProposals(Proposals):
    """One box for each anchor.

    Attributes:
        deltas: Shape ``(B, N, 4)``, the predicted ``(dx, dy, dw, dh)``.
    """

    deltas: Tensor


class SiamRPNpp(TrackerNetwork):
    """Backbone, neck, and region proposals by depth-wise correlation with the template.

    Crops are RGB uint8, or floats BGR from 0 to 255, which are taken as they are.
    """

    anchors: Tensor
    window: Tensor

    slt_weights: ClassVar[Mapping[str, float]] = {"policy": 1.0, "regression": 1.0}  # SLT-SiamRPN++
    pretraining_weights: ClassVar[Mapping[str, float]] = {
        "classification": 1.0,
        "regression": 1.2,
    }  # SiamRPN++
    pretraining_pairs: ClassVar[PairConfig] = SIAMRPNPP_PAIRS
    slt_defaults = SLTDefaults(
        learning_rate=ExponentialSchedule(1e-5, 1e-6, epochs=20),
        max_grad_norm=10.0,
        optimizer_class=torch.optim.Adam,
        optimizer_kwargs={"weight_decay": 1e-4},
        average_micro_batches=True,
    )  # SLT-SiamRPN++

    def __init__(
        self, config: SiamRPNppConfig | None = None, geometry: SiamRPNGeometry | None = None
    ) -> None:
        super().__init__()
        c = self.config = config or SiamRPNppConfig()
        crops = geometry or SiamRPNGeometry()
        self.search_size = crops.search_size
        self.backbone = AtrousResNet(c.stem, c.planes, c.blocks, c.frozen)
        self.neck = Neck(self.backbone.channels[2:], c.hidden)
        self.rpn_head = RegionProposals(c.hidden, len(RATIOS))
        self.search_map = self.backbone.map_size(crops.search_size)
        self.grid = self.search_map - 2 - (KERNEL - 1)
        anchors = torch.from_numpy(make_anchors(self.grid, c.anchor_scale))
        self.register_buffer("anchors", anchors, persistent=False)
        # The published policy multiplies float32 scores with a float64 window: its probabilities,
        # and all that follows from them, are float64.
        hann = np.outer(np.hanning(self.grid), np.hanning(self.grid)).ravel()
        window = torch.from_numpy(np.tile(hann, len(RATIOS)))
        self.register_buffer("window", window, persistent=False)

    def encode(self, template: Tensor) -> Tensor:
        """Map template crops ``(B, 3, Z, Z)`` to the heads' kernels ``(B, 6, C, 5, 5)``."""
        return self.rpn_head.kernels(self.template_maps(template))

    def template_maps(self, template: Tensor) -> list[Tensor]:
        """Compute the centres of the neck's maps, ``(B, C, 7, 7)`` each."""
        return [crop_centre(x) for x in self.extract(template)[2:]]

    def extract(self, crops: Tensor) -> list[Tensor]:
        """Compute the maps of crops: the backbone's stem and first layer, then the neck's."""
        with self.reduced():
            maps = self.backbone(to_bgr(crops))
            maps = [*maps[:2], *self.neck(maps[2:])]
        return [x.to(self.rpn_head.cls_weight.dtype) for x in maps]

    def predict(self, features: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the network's raw outputs.

        Args:
            features: Of :meth:`encode`, first axis ``B``.
            search: Shape ``(B, 3, S, S)``.

        Returns:
            Class logits ``(B, 2 * A, g, g)``, background first, and deltas ``(B, 4 * A, g, g)``.
        """
        return self.rpn_head(features, self.extract(search)[2:])

    def propose(self, features: Tensor, search: Tensor) -> Proposals:
        """Propose one box per anchor in the search crops ``(B, 3, S, S)``."""
        return AnchorProposals(*self.read_out(*self.predict(features, search)))

    def read_out(self, cls: Tensor, loc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn raw outputs into log-odds ``(B, N)``, boxes and deltas ``(B, N, 4)``."""
        background, target = cls.reshape(len(cls), 2, -1).unbind(1)
        deltas = loc.reshape(len(loc), 4, -1).transpose(1, 2)
        centre, size = decode(deltas, self.anchors).split(2, dim=-1)
        corner = centre - size / 2 + self.search_size / 2
        return target - background, torch.cat([corner, size], dim=-1) / self.search_size, deltas

    def training_losses(
        self, proposals: Proposals, gt_box: Tensor, rng: Draws, other_box: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute :meth:`losses`, with draws of ``rng``."""
        return self.losses(proposals, gt_box, rng, other_box)

    def losses(
        self,
        proposals: Proposals,
        gt_box: Tensor,
        rng: Draws | None = None,
        other_box: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute ``classification`` and ``regression``, of at most 64 anchors in each crop.

        Args:
            proposals: Of ``B`` crops.
            gt_box: Shape ``(B, 4)``, ``(x, y, w, h)`` in crop units.
            rng: Draws the anchors; None draws the same ones in each call.
            other_box: Shape ``(B, 4)``, likewise: the other target in crops of negative pairs, see
                :func:`label_anchors`; zeros elsewhere.
        """
        assert isinstance(proposals, AnchorProposals)
        rng = np.random.default_rng(0) if rng is None else rng
        other = None if other_box is None else self.to_grid(other_box)
        labels = label_anchors(self.anchors, self.to_grid(gt_box), rng, other)
        return {
            "classification": classification_loss(proposals.scores, labels),
            "regression": regression_loss(proposals.deltas, labels),
        }

    def to_grid(self, box: Tensor) -> Tensor:
        """Convert ``(x, y, w, h)`` in crop units to the anchors' ``(cx, cy, w, h)``, to label."""
        centre = self.search_size / 2 - (0.5 if self.config.official_quirks else 0.0)
        box = box * self.search_size
        return torch.cat([box[..., :2] + box[..., 2:] / 2 - centre, box[..., 2:]], dim=-1)

    @torch.no_grad()
    def penalty(self, boxes: Tensor, box: Tensor) -> Tensor:
        """Compute the penalty ``(B, N)`` on changes of scale and shape since the last estimate.

        Args:
            boxes: Shape ``(B, N, 4)``, ``(x, y, w, h)`` in crop units.
            box: Shape ``(B, 4)``, the previous estimates.
        """

        def change(ratio: Tensor) -> Tensor:
            return torch.maximum(ratio, 1 / ratio)

        def context(w: Tensor, h: Tensor) -> Tensor:
            margin = (w + h) / 2
            return ((w + margin) * (h + margin)).sqrt()

        w, h = boxes[..., 2], boxes[..., 3]
        old_w, old_h = box[:, 2, None], box[:, 3, None]
        scale = change(context(w, h) / context(old_w, old_h))
        shape = change((old_w / old_h) / (w / h))
        return torch.exp(-(scale * shape - 1) * self.config.penalty_k)

    def action_logits(self, proposals: Proposals, box: Tensor) -> Tensor:
        """Compute the policy's logits ``(B, N)``, float64: penalty, window, then log-odds."""
        c = self.config
        score = self.penalty(proposals.boxes, box) * proposals.scores.sigmoid()
        windowed = (1 - c.window_influence) * score + c.window_influence * self.window
        return c.temperature * torch.logit((1 - 2 * c.epsilon) * windowed + c.epsilon)

    def resolve(self, proposals: Proposals, index: Tensor, box: Tensor) -> Tensor:
        """Take the chosen proposals' centres, and sizes between the previous and theirs."""
        return self.smooth(proposals, index, proposals.pick(index), box)

    def smooth(self, proposals: Proposals, index: Tensor, estimate: Tensor, box: Tensor) -> Tensor:
        """Move the size only as far as the chosen proposals' scores carry; keep the centre.

        Args:
            proposals: Of ``B`` crops.
            index: Shape ``(B,)``, the chosen ones.
            estimate: Shape ``(B, 4)``, ``(x, y, w, h)`` in crop units, made of them.
            box: Shape ``(B, 4)``, the previous estimates.
        """
        score = proposals.scores.gather(1, index[:, None]).sigmoid()
        rate = self.config.size_lr * score * self.penalty(proposals.pick(index)[:, None], box)
        size = (1 - rate) * box[:, 2:] + rate * estimate[:, 2:]
        centre = estimate[:, :2] + estimate[:, 2:] / 2
        return torch.cat([centre - size / 2, size], dim=-1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Group what learns: the backbone at a rate of its own."""
        backbone = {id(p) for p in self.backbone.parameters()}
        learning = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in learning if id(p) not in backbone], "lr_scale": 1.0},
            {
                "params": [p for p in learning if id(p) in backbone],
                "lr_scale": self.config.backbone_lr_scale,
            },
        ]


def to_bgr(crops: Tensor) -> Tensor:
    """Convert RGB uint8 crops ``(B, 3, S, S)`` to floats BGR from 0 to 255; pass floats through."""
    return crops if crops.is_floating_point() else crops.flip(1).to(torch.get_default_dtype())
