"""TransT: "Transformer Tracking" (Chen et al., CVPR 2021), layer for layer as published."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from slt_gym.agents.network import Proposals, TrackerNetwork, normalise
from slt_gym.agents.resnet import ResNet
from slt_gym.agents.transt.fusion import FeatureFusion, rectify, sine_position
from slt_gym.agents.transt.losses import box_losses, classification_loss, positive_cells
from slt_gym.geometry import TransTGeometry


@dataclass(frozen=True)
class TransTConfig:
    """Everything that defines a TransT network and its test-time prior.

    Attributes:
        stem: Channels of the backbone's first convolution.
        planes: Inner channels of the backbone's layers.
        blocks: Blocks of the backbone's layers.
        strides: Strides of the backbone's layers.
        dilations: Dilations of their first blocks.
        hidden_dim: Width of the tokens.
        heads: Attention heads.
        feedforward: Inner width of the feed-forward layers.
        fusion_layers: Number of fusion layers.
        dropout: Dropout probability in training mode.
        window_influence: Weight of the Hann window against the score.
        epsilon: Keeps the policy's log-odds finite.
        temperature: Factor on the policy's log-odds.
        backbone_lr_scale: Factor on the learning rate for the backbone.
        official_quirks: Count positive cells like the published code, see ``positive_cells``.
    """

    stem: int = 64
    planes: tuple[int, ...] = (64, 128, 256)
    blocks: tuple[int, ...] = (3, 4, 6)
    strides: tuple[int, ...] = (1, 2, 1)
    dilations: tuple[int, ...] = (1, 1, 2)
    hidden_dim: int = 256
    heads: int = 8
    feedforward: int = 2048
    fusion_layers: int = 4
    dropout: float = 0.1
    window_influence: float = 0.49  # TransT
    epsilon: float = 0.01  # SLT-TransT
    temperature: float = 4.0  # SLT-TransT
    backbone_lr_scale: float = 0.1  # SLT-TransT: 1e-6 beside 1e-5
    official_quirks: bool = False


# A laptop's size: the same classes, a crop of 96 px with 12 x 12 cells.
TRANST_TINY = TransTConfig(
    stem=16,
    planes=(8, 16, 24),
    blocks=(1, 1, 1),
    hidden_dim=48,
    heads=2,
    feedforward=128,
    fusion_layers=1,
    dropout=0.0,
    backbone_lr_scale=1.0,
)


class MLP(nn.Module):
    """Linear layers with ReLU between them (keys ``layers.<i>``)."""

    def __init__(self, width: int, outputs: int, depth: int = 3) -> None:
        super().__init__()
        widths = [width] * depth + [outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., width)`` to ``(..., outputs)``."""
        for layer in self.layers[:-1]:
            x = rectify(layer(x))
        return self.layers[-1](x)


class _Body(nn.Module):
    """Gives the backbone the key prefix ``body`` of published checkpoints."""

    def __init__(self, body: ResNet) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


class TransT(TrackerNetwork):
    """Backbone, feature fusion by attention, and two heads that predict a box in every cell."""

    hann: Tensor
    template_pos: Tensor
    search_pos: Tensor

    # SLT-TransT: 15 sl + 5 L1 + 2 GIoU, without classification.
    slt_weights: ClassVar[Mapping[str, float]] = {"policy": 15.0, "l1": 5.0, "giou": 2.0}
    pretraining_weights: ClassVar[Mapping[str, float]] = {
        "classification": 8.334,
        "l1": 5.0,
        "giou": 2.0,
    }  # TransT

    def __init__(
        self, config: TransTConfig | None = None, geometry: TransTGeometry | None = None
    ) -> None:
        super().__init__()
        c = self.config = config or TransTConfig()
        crops = geometry or TransTGeometry()
        body = ResNet(c.stem, c.planes, c.blocks, c.strides, c.dilations)
        self.featurefusion_network = FeatureFusion(
            c.fusion_layers, c.hidden_dim, c.heads, c.feedforward, c.dropout
        )
        self.class_embed = MLP(c.hidden_dim, 2)
        self.bbox_embed = MLP(c.hidden_dim, 4)
        self.input_proj = nn.Conv2d(body.channels, c.hidden_dim, 1)
        self.backbone = nn.Sequential(_Body(body))
        stride = 4 * int(np.prod(c.strides))
        self.grid = crops.search_size // stride
        template_grid = crops.template_size // stride
        # The published policy multiplies float32 scores with a float64 window: its probabilities,
        # and all that follows from them, are float64.
        hann = torch.from_numpy(np.outer(np.hanning(self.grid), np.hanning(self.grid)).flatten())
        self.register_buffer("hann", hann, persistent=False)
        template_pos = sine_position(template_grid, template_grid, c.hidden_dim)
        self.register_buffer("template_pos", template_pos, persistent=False)
        search_pos = sine_position(self.grid, self.grid, c.hidden_dim)
        self.register_buffer("search_pos", search_pos, persistent=False)

    def _tokens(self, crops: Tensor) -> Tensor:
        with self.reduced():
            features = self.input_proj(self.backbone(normalise(crops)))
        tokens = features.flatten(2).transpose(1, 2)  # (B, h * w, C)
        return tokens.to(self.input_proj.weight.dtype)

    def encode(self, template: Tensor) -> Tensor:
        """Map template crops ``(B, 3, Z, Z)`` to tokens ``(B, Z/8 * Z/8, C)``."""
        return self._tokens(template)

    def predict(self, features: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the network's raw outputs.

        Args:
            features: Template tokens of :meth:`encode`, shape ``(B, Nt, C)``.
            search: Shape ``(B, 3, S, S)``.

        Returns:
            Class logits ``(B, N, 2)``, channel 0 the target's, and boxes ``(B, N, 4)``,
            ``(cx, cy, w, h)`` in crop units; ``N = S/8 * S/8`` cells, row-major.
        """
        tokens = self._tokens(search)
        with self.reduced():
            tokens = self.featurefusion_network(
                features, tokens, self.template_pos, self.search_pos
            )
        tokens = tokens.to(self.input_proj.weight.dtype)
        return self.class_embed(tokens), self.bbox_embed(tokens).sigmoid()

    def propose(self, features: Tensor, search: Tensor) -> Proposals:
        """Propose one box per cell of the search crops ``(B, 3, S, S)``."""
        logits, boxes_cxcywh = self.predict(features, search)
        centre, size = boxes_cxcywh.split(2, dim=-1)
        boxes = torch.cat([centre - size / 2, size], dim=-1)
        return Proposals(logits[..., 0] - logits[..., 1], boxes)

    def losses(self, proposals: Proposals, gt_box: Tensor) -> dict[str, Tensor]:
        """Compute ``classification``, ``l1`` and ``giou`` (paper, section 3.4)."""
        positive = positive_cells(gt_box, self.grid, self.config.official_quirks)
        l1, giou = box_losses(proposals.boxes, gt_box, positive)
        return {
            "classification": classification_loss(proposals.scores, positive),
            "l1": l1,
            "giou": giou,
        }

    def action_logits(self, proposals: Proposals, box: Tensor) -> Tensor:
        """Compute the policy's logits ``(B, N)``, float64: window, then log-odds (SLT, 3.3)."""
        del box
        c = self.config
        score = proposals.scores.sigmoid()
        windowed = (1 - c.window_influence) * score + c.window_influence * self.hann
        return c.temperature * torch.logit((1 - 2 * c.epsilon) * windowed + c.epsilon)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Group the parameters: the backbone learns more slowly than the rest."""
        backbone = list(self.backbone.parameters())
        ours = {id(p) for p in backbone}
        rest = [p for p in self.parameters() if id(p) not in ours]
        return [
            {"params": rest, "lr_scale": 1.0},
            {"params": backbone, "lr_scale": self.config.backbone_lr_scale},
        ]
