"""SiamAttn (Yu et al., "Deformable Siamese Attention Networks", CVPR 2020), as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from slt_gym.agents.network import Proposals
from slt_gym.agents.siamattn.attention import FeatureEnhancement
from slt_gym.agents.siamattn.heads import MASK_UPSAMPLING, FeatureFusion, MaskHead, RefineHead
from slt_gym.agents.siamattn.losses import (
    DELTA_SCALE,
    cut_masks,
    mask_loss,
    refinement_loss,
    sample_regions,
)
from slt_gym.agents.siamrpnpp.anchors import decode
from slt_gym.agents.siamrpnpp.losses import Draws
from slt_gym.agents.siamrpnpp.network import (
    TINY,
    AnchorProposals,
    SiamRPNpp,
    SiamRPNppConfig,
)
from slt_gym.data.pairs import SIAMATTN_PAIRS, PairConfig
from slt_gym.geometry import SiamRPNGeometry

_MIN_ROI = 10.0  # SiamAttn: smallest side of a region that is refined, crop pixels


@dataclass(frozen=True)
class SiamAttnConfig(SiamRPNppConfig):
    """Everything that defines a SiamAttn network and its test-time rule.

    Attributes:
        box_pool: Bins along one side of the regions that are refined.
        mask_pool: Bins along one side of the regions that are segmented.
        offset_width: Inner width of the layers that place the bins.
        refine_width: Inner width of the layers that refine.
        mask_stride: Every so many-th of a crop's 16 sampled regions learns a mask.
        mask_threshold: Probability above which a pixel is the target's; 0.45 with ``centre_mask``.
        centre_mask: Measure a mask's log-odds from their mean (SLT-SiamAttn).
    """

    window_influence: float = 0.25  # SiamAttn
    penalty_k: float = 0.1  # SiamAttn
    size_lr: float = 0.45  # SiamAttn
    backbone_lr_scale: float = 0.05  # SLT-SiamAttn
    box_pool: int = 4  # SiamAttn
    mask_pool: int = 16  # SiamAttn
    offset_width: int = 1024  # SiamAttn
    refine_width: int = 512  # SiamAttn
    mask_stride: int = 1  # SiamAttn
    mask_threshold: float = 0.2  # SiamAttn
    centre_mask: bool = False


# A laptop's size: the mask head is the dearest part of a training step, for each region.
SIAMATTN_TINY = SiamAttnConfig(**TINY, mask_pool=8, mask_stride=4, offset_width=64, refine_width=64)


@dataclass
class RefinableProposals(AnchorProposals):
    """One box for each anchor, and the maps that refinement and masks are read from.

    Attributes:
        box_map: Shape ``(B, C, g, g)``.
        maps: The search region's stem, first layer and three enhanced levels.
    """

    box_map: Tensor
    maps: list[Tensor]


class SiamAttn(SiamRPNpp):
    """SiamRPN++ on features that attend to each other, with refined boxes and masks."""

    # SLT-SiamAttn; the mask's loss is 0 where no crop's mask is known.
    slt_weights: ClassVar[Mapping[str, float]] = {
        "policy": 1.0,
        "regression": 0.5,
        "refinement": 0.5,
        "mask": 0.2,
    }
    pretraining_weights: ClassVar[Mapping[str, float]] = {
        "classification": 1.0,
        "regression": 0.5,
        "refinement": 0.5,
        "mask": 0.2,
    }  # SiamAttn
    pretraining_pairs: ClassVar[PairConfig] = SIAMATTN_PAIRS
    mask_losses: ClassVar[frozenset[str]] = frozenset({"mask"})

    config: SiamAttnConfig

    def __init__(
        self, config: SiamAttnConfig | None = None, geometry: SiamRPNGeometry | None = None
    ) -> None:
        c = config or SiamAttnConfig()
        super().__init__(c, geometry)
        self.feature_enhance = FeatureEnhancement(c.hidden)
        self.feature_fusion = FeatureFusion(self.backbone.channels[:2], c.hidden)
        self.refine_head = RefineHead(c.hidden, c.box_pool, c.offset_width, c.refine_width)
        self.mask_head = MaskHead(c.hidden, c.mask_pool, c.offset_width)

    def encode(self, template: Tensor) -> Tensor:
        """Map template crops ``(B, 3, Z, Z)`` to the neck's maps ``(B, 3, C, 7, 7)``.

        All that follows depends on the search crop, too.
        """
        return torch.stack(self.template_maps(template), dim=1)

    def enhance(
        self, features: Tensor, search: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Let template and search region attend to each other.

        Args:
            features: Of :meth:`encode`.
            search: Shape ``(B, 3, S, S)``.

        Returns:
            The enhanced maps of the template, those of the search region, and the search
            region's stem and first layer.
        """
        maps = self.extract(search)
        templates, searches = self.feature_enhance(list(features.unbind(1)), maps[2:])
        return templates, searches, maps[:2]

    def predict(self, features: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        """Compute class logits and deltas, see :meth:`SiamRPNpp.predict`."""
        templates, searches, _ = self.enhance(features, search)
        return self.rpn_head(self.rpn_head.kernels(templates), searches)

    def propose(self, features: Tensor, search: Tensor) -> Proposals:
        """Propose one box per anchor in the search crops ``(B, 3, S, S)``."""
        templates, searches, early = self.enhance(features, search)
        raw = self.rpn_head(self.rpn_head.kernels(templates), searches)
        box_map = self.feature_fusion(templates, searches)
        return RefinableProposals(*self.read_out(*raw), box_map, [*early, *searches])

    def refine(self, proposals: RefinableProposals, rois: Tensor) -> Tensor:
        """Predict normalised deltas ``(R, 4)`` of regions ``(R, 5)``, crop pixels."""
        scale = self.grid / self.search_size
        return self.refine_head(proposals.box_map, rois, scale)

    def segment(self, proposals: RefinableProposals, rois: Tensor) -> Tensor:
        """Predict masks' log-odds ``(R, P, P)`` of regions ``(R, 5)``, crop pixels."""
        fused = self.feature_fusion.fuse_mask(proposals.maps)
        return self.mask_head(fused, rois, fused.shape[-1] / self.search_size)[:, 0]

    @torch.no_grad()
    def resolve(self, proposals: Proposals, index: Tensor, box: Tensor) -> Tensor:
        """Refine the chosen proposals, then smooth their sizes; see :meth:`SiamRPNpp.smooth`."""
        assert isinstance(proposals, RefinableProposals)
        size = float(self.search_size)
        chosen = proposals.pick(index) * size
        centre = (chosen[:, :2] + chosen[:, 2:] / 2).clamp(0, size)
        side = chosen[:, 2:].clamp(_MIN_ROI, size)
        row = torch.arange(len(index), device=chosen.device)[:, None]
        # Inclusive pixels, as published.
        low, high = centre - side / 2 + 0.5, centre + side / 2 - 0.5
        deltas = self.refine(proposals, torch.cat([row.to(low.dtype), low, high], dim=1))
        anchor = torch.cat([centre, side], dim=1)
        refined = decode(deltas * deltas.new_tensor(DELTA_SCALE), anchor) / size
        corner = refined[:, :2] - refined[:, 2:] / 2
        return self.smooth(proposals, index, torch.cat([corner, refined[:, 2:]], dim=1), box)

    def training_losses(
        self,
        proposals: Proposals,
        gt_box: Tensor,
        rng: Draws,
        other_box: Tensor | None = None,
        mask: Tensor | None = None,
        has_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute :meth:`losses`, with draws of ``rng``."""
        return self.losses(proposals, gt_box, rng, other_box, mask, has_mask)

    def losses(
        self,
        proposals: Proposals,
        gt_box: Tensor,
        rng: Draws | None = None,
        other_box: Tensor | None = None,
        mask: Tensor | None = None,
        has_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute ``classification``, ``regression``, ``refinement`` and ``mask``.

        Args:
            proposals: Of ``B`` crops.
            gt_box: Shape ``(B, 4)``, ``(x, y, w, h)`` in crop units.
            rng: Draws anchors and regions; None draws the same ones in each call.
            other_box: The other target in crops of negative pairs, see :meth:`SiamRPNpp.losses`.
            mask: Shape ``(B, S, S)``, 1 on the target; without it the mask's loss is 0.
            has_mask: Booleans, shape ``(B,)``, the crops whose mask is known; None means all.
        """
        assert isinstance(proposals, RefinableProposals)
        rng = np.random.default_rng(0) if rng is None else rng
        losses = super().losses(proposals, gt_box, rng, other_box)
        size, quirks = self.search_size, self.config.official_quirks
        boxes = proposals.boxes.detach() * size
        if quirks:
            boxes = boxes - boxes.new_tensor([0.5, 0.5, 0, 0])
        regions = sample_regions(boxes, gt_box * size, rng, quirks)
        losses["refinement"] = refinement_loss(self.refine(proposals, regions.rois), regions)
        losses["mask"] = proposals.scores.new_zeros(())
        if mask is not None:
            rois = regions.rois[:: self.config.mask_stride]
            if has_mask is not None:
                rois = rois[has_mask[rois[:, 0].long()]]
            if len(rois):
                target = cut_masks(mask, rois, MASK_UPSAMPLING * self.config.mask_pool)
                losses["mask"] = mask_loss(self.segment(proposals, rois), target)
        return losses
