"""TrDiMP: "Transformer Meets Tracker" (Wang et al., CVPR 2021), layer for layer as published."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from slt_gym.agents.network import Proposals, SLTDefaults, TrackerNetwork, normalise
from slt_gym.agents.recomputation import Recomputing
from slt_gym.agents.schedules import ExponentialSchedule
from slt_gym.agents.trdimp.backbone import Backbone
from slt_gym.agents.trdimp.config import TrDiMPConfig
from slt_gym.agents.trdimp.filter import FilterInitializer, FilterOptimizer, correlate
from slt_gym.agents.trdimp.iou_net import IoUNet
from slt_gym.agents.trdimp.labels import gaussian_label
from slt_gym.agents.trdimp.losses import density_loss, draw_proposals, hinge_loss
from slt_gym.agents.trdimp.refinement import refine
from slt_gym.agents.trdimp.transformer import Transformer, instance_norm
from slt_gym.geometry import TrDiMPGeometry

TrDiMPFeatures = dict[str, Tensor]


class Classifier(Recomputing):
    """Classification features, the transformer, and the filter's learning."""

    def __init__(self, config: TrDiMPConfig, inputs: int, stride: int) -> None:
        super().__init__()
        c = config
        self.filter_size = c.filter_size
        self.filter_initializer = FilterInitializer(c.channels, c.filter_size, stride)
        self.filter_optimizer = FilterOptimizer(stride)
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(inputs, c.channels, 3, padding=1, bias=False)
        )
        self.transformer = Transformer(c.channels, c.key_channels, c.filter_size)

    def features(self, layer3: Tensor) -> Tensor:
        """Map the backbone's features ``(B, C3, H, W)`` to tokens ``(B, H W, C)``."""
        tokens = self.feature_extractor(layer3).flatten(2).transpose(1, 2)
        return instance_norm(tokens, self.filter_size)

    def learn_filter(
        self, tokens: Tensor, box: Tensor, iterations: int, sample_weights: Tensor | None = None
    ) -> list[Tensor]:
        """Initialise filters on samples, and optimise them.

        Args:
            tokens: The decoder's features of the samples, shape ``(B, n, L, C)``.
            box: Shape ``(B, n, 4)``, ``(x, y, w, h)``, pixels of the samples.
            iterations: Steps.
            sample_weights: Shape ``(B, n)``; all alike if None.

        Returns:
            The filters ``(B, C, k, k)`` after 0, 1, … steps.
        """
        side = math.isqrt(tokens.shape[2])
        maps = tokens.transpose(2, 3).unflatten(-1, (side, side))
        initial = self.filter_initializer(maps, box)
        return self.filter_optimizer(initial, tokens, box, iterations, sample_weights)


@dataclass
class TrDiMPProposals(Proposals):
    """One proposal in each cell of the score map; its box is refined once it is chosen.

    Attributes:
        iterates: The scores of the filters after 0, 1, … steps, shape ``(I, B, N)``.
        iou_features: What the IoU-Net pools from, modulated by the template.
    """

    iterates: Tensor
    iou_features: tuple[Tensor, Tensor]

    @classmethod
    def _combine(
        cls, function: Callable[[list[Tensor]], Tensor], all_proposals: Sequence[Any]
    ) -> Any:
        def turn(proposals: Any) -> Any:  # the batch first, as in all other fields, and back
            return replace(proposals, iterates=proposals.iterates.transpose(0, 1))

        return turn(super()._combine(function, [turn(each) for each in all_proposals]))


class TrDiMP(TrackerNetwork):
    """A filter that is learned on the first frame's samples, and boxes refined by an IoU-Net."""

    slt_weights: ClassVar[Mapping[str, float]] = {"policy": 4.0, "bb_ce": 0.01}  # SLT-TrDiMP
    # SLT-TrDiMP: Adam, StepLR over 40 epochs, halved every eighth.
    slt_defaults: ClassVar[SLTDefaults] = SLTDefaults(
        learning_rate=ExponentialSchedule(4e-5, 2.5e-6, epochs=5),
        max_grad_norm=40.0,
        optimizer_class=torch.optim.Adam,
        optimizer_kwargs={},
    )
    # The classification's weight is ours, bb_ce's that of SLT-TrDiMP. Pairs are drawn as for TransT
    # (pretraining_pairs), where DiMP draws sets of frames.
    pretraining_weights: ClassVar[Mapping[str, float]] = {"classification": 100.0, "bb_ce": 0.01}

    def __init__(
        self, config: TrDiMPConfig | None = None, geometry: TrDiMPGeometry | None = None
    ) -> None:
        super().__init__()
        c = self.config = config or TrDiMPConfig()
        self.geometry = geometry or TrDiMPGeometry()
        strides = 4 * c.strides[1], 4 * c.strides[1] * c.strides[2]
        self.size = self.geometry.search_size
        self.stride = strides[1]
        self.cells = self.size // self.stride
        self.feature_extractor = Backbone(c.stem, c.planes, c.blocks, c.strides)
        self.feature_extractor.freeze(c.frozen_layers)
        inputs = 4 * c.planes[1], 4 * c.planes[2]
        self.classifier = Classifier(c, inputs[1], self.stride)
        self.bb_regressor = IoUNet(inputs, c.iou_channels, strides)
        self.bb_regressor.requires_grad_(not c.official_quirks)
        self.generator = torch.Generator()
        self.set_seed(c.seed)

    def set_seed(self, seed: int) -> None:
        """Start the draws of the refinement anew."""
        self.seed = seed
        self.generator.manual_seed(seed)

    def encode(self, template: Tensor, template_box: Tensor | None = None) -> TrDiMPFeatures:
        """Learn the target's model from the first frame's patch.

        The random shifts of the initial samples follow from the patch's pixels and the seed, so
        that a template gets the same model in exploration and in the update.

        Args:
            template: The patches around the targets, shape ``(B, 3, Z, Z)``.
            template_box: The targets' boxes in crop units of the patch, shape ``(B, 4)``; squares
                in the middle if None.

        Returns:
            Tensors with the batch as first axis, see :meth:`encode_samples`.
        """
        geometry = self.geometry
        if template_box is None:
            side = self.size / geometry.search_area_scale / geometry.template_size
            square = torch.tensor([0.5 - side / 2, 0.5 - side / 2, side, side])
            template_box = square.to(template.device).expand(len(template), 4)
        patches = normalise(template).cpu().numpy()
        shifts = [geometry.initial_shifts(self._draw_shifts(patch)) for patch in template]
        samples = [geometry.initial_samples(p, s) for p, s in zip(patches, shifts, strict=True)]
        stack = torch.stack([torch.from_numpy(s) for s in samples])
        stack = stack.to(template.device, torch.get_default_dtype())
        moves = torch.stack([torch.from_numpy(s) for s in shifts]).to(template.device)
        return self.encode_samples(stack, self.sample_boxes(template_box.to(stack.dtype), moves))

    def _draw_shifts(self, patch: Tensor) -> Tensor:
        key = zlib.crc32(patch.cpu().numpy().tobytes())
        generator = torch.Generator().manual_seed(key + self.seed)
        return draw_shifts(self.geometry, generator)

    def sample_boxes(self, template_box: Tensor, shifts: Tensor) -> Tensor:
        """Compute the target's boxes in the initial samples.

        Args:
            template_box: Shape ``(B, 4)``, ``(x, y, w, h)``, crop units of the patch.
            shifts: By how much the samples' content moves, shape ``(B, n, 2)``, (down, right).

        Returns:
            Shape ``(B, n, 4)``, ``(x, y, w, h)``, pixels of the sample.
        """
        patch = self.geometry.template_size
        corner, size = (template_box * patch)[:, None].expand(-1, shifts.shape[1], -1).split(2, -1)
        return torch.cat([corner - (patch - self.size) // 2 + shifts.flip(-1), size], dim=-1)

    def encode_samples(self, samples: Tensor, box: Tensor) -> TrDiMPFeatures:
        """Learn the target's model from samples of the first frame.

        Args:
            samples: Normalised, shape ``(B, n, 3, S, S)``; the IoU-Net sees the first one only.
            box: Shape ``(B, n, 4)``, ``(x, y, w, h)``, pixels of the samples.

        Returns:
            The transformer's memory (``keys``, ``values``), the ``filters`` after 0, 1, … steps
            ``(B, I, C, k, k)``, the IoU-Net's modulation (``modulation3``, ``modulation4``) and the
            target's ``size`` ``(B, 2)``, pixels of the sample.
        """
        batch, images = samples.shape[:2]
        layer2, layer3 = self._extract(samples.flatten(0, 1))
        tokens = self.classifier.features(layer3).unflatten(0, (batch, images))
        transformer, run = self.classifier.transformer, self.classifier.run
        keys, values = run(transformer.encode, tokens, self.transformer_label(box))
        # One sample at a time: a batch of them would need a copy of the memory for each.
        decoded = torch.stack(
            [run(transformer.decode, tokens[:, i], (keys, values)) for i in range(images)], dim=1
        )
        filters = self.classifier.learn_filter(decoded, box, self.config.train_iterations)
        modulation = self.bb_regressor.modulate(layer2[::images], layer3[::images], box[:, 0])
        return {
            "keys": keys,
            "values": values,
            "filters": torch.stack(filters, dim=1),
            "modulation3": modulation[0],
            "modulation4": modulation[1],
            "size": box[:, 0, 2:],
        }

    def _extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with self.reduced():
            layer2, layer3 = self.feature_extractor(images)
        return layer2.to(images.dtype), layer3.to(images.dtype)

    def transformer_label(self, box: Tensor) -> Tensor:
        """Compute the transformer's labels ``(..., L)`` of boxes ``(..., 4)``, sample pixels."""
        sigma = self.config.transformer_sigma
        return gaussian_label(box, self.cells, self.stride, sigma).flatten(-2)

    def propose(self, features: TrDiMPFeatures, search: Tensor) -> TrDiMPProposals:
        """Score each cell of the search crops ``(B, 3, S, S)``; boxes are the target's size."""
        layer2, layer3 = self._extract(normalise(search))
        tokens = self.classifier.features(layer3)
        memory = features["keys"], features["values"]
        tokens = self.classifier.run(self.classifier.transformer.decode, tokens, memory)
        iterates = torch.stack(
            [
                correlate(tokens[:, None], weights, self.cells).flatten(1)
                for weights in features["filters"].unbind(dim=1)
            ]
        )
        iou_features = self.bb_regressor.features(layer2, layer3)
        return TrDiMPProposals(
            scores=iterates[-1],
            boxes=self._cell_boxes(features["size"]),
            iterates=iterates,
            iou_features=(
                iou_features[0] * features["modulation3"],
                iou_features[1] * features["modulation4"],
            ),
        )

    def _cell_boxes(self, size: Tensor) -> Tensor:
        """Put boxes of ``size`` ``(B, 2)``, sample pixels, on every cell: crop units."""
        count = self.cells + 1
        row, column = torch.meshgrid(*[torch.arange(count, device=size.device)] * 2, indexing="ij")
        place = torch.stack([column, row], dim=-1).flatten(0, 1)  # (N, 2)
        centre = self.size / 2 + (place - self.cells // 2) * self.stride  # (N, 2)
        size = size[:, None].expand(-1, len(centre), -1)
        return torch.cat([centre - size / 2, size], dim=-1) / self.size

    def losses(self, proposals: Proposals, gt_box: Tensor) -> dict[str, Tensor]:
        """Compute ``classification`` (frame-level) and ``bb_ce``, on boxes of the seed."""
        return self._losses(proposals, gt_box, torch.Generator().manual_seed(self.seed))

    def training_losses(
        self,
        proposals: Proposals,
        gt_box: Tensor,
        rng: np.random.Generator,
        other_box: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute :meth:`losses` on boxes drawn anew."""
        del other_box
        seed = int(rng.integers(2**63 - 1))
        return self._losses(proposals, gt_box, torch.Generator().manual_seed(seed))

    def _losses(
        self, proposals: Proposals, gt_box: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        assert isinstance(proposals, TrDiMPProposals)
        c = self.config
        present = (gt_box[:, 2:] > 0).all(dim=1)
        box = gt_box[present] * self.size
        label = gaussian_label(box, self.cells, self.stride, c.label_sigma, extra=1)
        scores = proposals.iterates[:, present].unflatten(-1, label.shape[1:])
        if not len(box):
            nothing = proposals.scores.sum() * 0
            return {"classification": nothing, "bb_ce": nothing}
        boxes, density, gt_density = draw_proposals(
            box, c.num_proposals, c.proposal_sigmas, generator
        )
        overlap = self.bb_regressor(tuple(f[present] for f in proposals.iou_features), boxes)
        return {
            "classification": hinge_loss(scores, label),
            "bb_ce": density_loss(overlap, density, gt_density),
        }

    def action_logits(self, proposals: Proposals, box: Tensor) -> Tensor:
        """Compute the policy's logits ``(B, N)``: the mean score at -7, the best at 7 (SLT)."""
        del box
        low, high = self.config.score_range
        scores = proposals.scores
        mean = scores.mean(dim=1, keepdim=True)
        # Differs from SLT: a map without a peak gives a uniform policy instead of 0 / 0.
        spread = (scores.amax(dim=1, keepdim=True) - mean).clamp(min=1e-12)
        return low + (high - low) * (scores - mean) / spread

    def resolve(self, proposals: Proposals, index: Tensor, box: Tensor) -> Tensor:
        """Put the previous estimate's size on the chosen cells, and refine by the IoU-Net.

        One draw of jitter, from the network's own generator, serves the whole batch, as published.
        """
        assert isinstance(proposals, TrDiMPProposals)
        draws = self.draw_jitter(self.generator).to(box.device)
        chosen = proposals.pick(index)
        centre = chosen[:, :2] + chosen[:, 2:] / 2
        # At least a pixel, because the refinement works with logarithms.
        size = box[:, 2:].to(centre.dtype).clamp(min=1 / self.size)
        start = torch.cat([centre - size / 2, size], dim=1) * self.size
        features = proposals.iou_features
        refined, _ = refine(
            lambda boxes: self.bb_regressor(features, boxes), start, draws, self.config
        )
        return refined / self.size

    def draw_jitter(self, generator: torch.Generator) -> Tensor:
        """Draw uniform numbers for the refinement's other boxes, shape ``(n, 4)``, on the CPU."""
        return torch.rand(self.config.num_init_random_boxes, 4, generator=generator)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Group the parameters that learn, with the published ratios of their rates."""
        c, classifier = self.config, self.classifier
        parts = (
            (classifier.filter_initializer, c.initializer_lr_scale),
            (classifier.filter_optimizer, c.optimizer_lr_scale),
            (classifier.feature_extractor, c.feature_lr_scale),
            (classifier.transformer, 1.0),
            (self.bb_regressor, 1.0),
            (self.feature_extractor, c.backbone_lr_scale),
        )
        groups = [
            {"params": [p for p in part.parameters() if p.requires_grad], "lr_scale": scale}
            for part, scale in parts
        ]
        return [group for group in groups if group["params"]]


def draw_shifts(geometry: TrDiMPGeometry, generator: torch.Generator) -> Tensor:
    """Draw what :meth:`TrDiMPGeometry.initial_shifts` takes: pair by pair, as published."""
    pairs = [torch.rand(2, generator=generator) for _ in range(geometry.num_random_shifts)]
    return torch.stack(pairs)
