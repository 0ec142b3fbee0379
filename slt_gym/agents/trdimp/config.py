"""Everything that defines TrDiMP, published size and laptop size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slt_gym.agents.registry import check_range
from slt_gym.errors import InvalidArgumentError


@dataclass(frozen=True)
class TrDiMPConfig:
    """TrDiMP's network, its tracker's rules and its policy; the defaults are the published ones.

    Attributes:
        stem: Channels of the backbone's first convolution.
        planes: Inner channels of the backbone's layers; a fourth layer is carried, not run.
        blocks: Blocks of the backbone's layers.
        strides: Strides of the backbone's layers.
        frozen_layers: Layers of the backbone that are never trained, with the stem; 0 for none.
        channels: Channels of the classification features and of the filter.
        key_channels: Channels of the attention's queries and keys.
        filter_size: Side of the filter, even.
        iou_channels: Inner channels of the IoU-Net.
        transformer_sigma: Width of the transformer's label, in samples.
        label_sigma: Width of the label of the frame-level loss, in samples.
        train_iterations: Filter iterations of the policy and in training.
        score_range: The policy's logits span it from the mean score to the best one.
        num_proposals: Boxes around the ground truth on which the IoU-Net learns.
        proposal_sigmas: Widths of their two distributions; the first is the ground truth's own.
        official_quirks: Leave the IoU-Net untrained, as the published sequence-level training does
            by accident: its exploration freezes it and nothing thaws it.
        initializer_lr_scale: Factor on the learning rate for the filter initialiser.
        optimizer_lr_scale: For the filter optimiser.
        feature_lr_scale: For the classification features.
        backbone_lr_scale: For the backbone.
        seed: Of the tracker's draws; a policy has a seed of its own.
        net_opt_iter: Filter iterations on the first frame.
        net_opt_update_iter: Every ``train_skipping`` frames.
        net_opt_hn_iter: After a hard negative.
        train_skipping: Frames between two regular updates of the filter.
        dropout_probability: Of the two dropout copies among the initial samples.
        num_dropout_samples: How many; 0 for none.
        sample_memory_size: Samples that the filter is optimised on.
        learning_rate: Weight of a new sample.
        hard_negative_learning_rate: Weight of one that shows a distractor.
        init_samples_minimum_weight: Least weight of the initial samples together.
        transformer_skipping: Frames between two samples of the transformer's memory; 0 for none.
        transformer_memory_size: Samples of the transformer's memory.
        target_not_found_threshold: Best score below which the target counts as lost.
        distractor_threshold: A second peak above this share of the first is a distractor.
        hard_negative_threshold: One above this share is a hard negative.
        target_neighborhood_scale: Neighbourhood of the first peak, in target sizes.
        displacement_scale: A peak this far from the centre, in half score maps, is far.
        num_init_random_boxes: Boxes beside the first one that the refinement starts from.
        box_jitter_pos: Their jitter of the position, in target sizes.
        box_jitter_sz: Of the size.
        iounet_k: Boxes of the highest predicted overlap that are averaged.
        maximal_aspect_ratio: Boxes more elongated than this are dropped.
        box_refinement_iter: Steps of gradient ascent.
        box_refinement_step_length: Length of the first step.
        box_refinement_step_decay: Factor on the length after each step.
    """

    stem: int = 64
    planes: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    frozen_layers: int = 2
    channels: int = 512
    key_channels: int = 128
    filter_size: int = 4
    iou_channels: int = 256
    transformer_sigma: float = 0.1
    label_sigma: float = 1 / 24
    train_iterations: int = 5
    score_range: tuple[float, float] = (-7.0, 7.0)  # SLT-TrDiMP
    num_proposals: int = 128
    proposal_sigmas: tuple[float, float] = (0.05, 0.5)
    official_quirks: bool = False
    initializer_lr_scale: float = 0.05  # SLT-TrDiMP: 2e-6 beside 4e-5
    optimizer_lr_scale: float = 0.5
    feature_lr_scale: float = 0.05
    backbone_lr_scale: float = 0.02
    seed: int = 0
    net_opt_iter: int = 10
    net_opt_update_iter: int = 2
    net_opt_hn_iter: int = 1
    train_skipping: int = 20
    dropout_probability: float = 0.2
    num_dropout_samples: int = 2
    sample_memory_size: int = 50
    learning_rate: float = 0.01
    hard_negative_learning_rate: float = 0.02
    init_samples_minimum_weight: float = 0.25
    transformer_skipping: int = 5
    transformer_memory_size: int = 20
    target_not_found_threshold: float = 0.25
    distractor_threshold: float = 0.8
    hard_negative_threshold: float = 0.5
    target_neighborhood_scale: float = 2.2
    displacement_scale: float = 0.8
    num_init_random_boxes: int = 9
    box_jitter_pos: float = 0.1
    box_jitter_sz: float = 0.5
    iounet_k: int = 3
    maximal_aspect_ratio: float = 6.0
    box_refinement_iter: int = 10
    box_refinement_step_length: float = 2.5e-3
    box_refinement_step_decay: float = 1.0

    def __post_init__(self) -> None:
        if not len(self.planes) == len(self.blocks) == len(self.strides) in (3, 4):
            raise InvalidArgumentError(
                f"the backbone has three layers, or four, but planes {self.planes}, blocks "
                f"{self.blocks} and strides {self.strides} are given"
            )
        if self.filter_size % 2:
            raise InvalidArgumentError(f"filter_size is {self.filter_size}: it must be even")
        check_range(self, 2, math.inf, "filter_size", "num_proposals")
        check_range(self, 1, math.inf, "stem", "channels", "key_channels", "iou_channels")
        check_range(self, 1, math.inf, "iounet_k", "train_skipping", "transformer_memory_size")
        check_range(self, 0, math.inf, "num_init_random_boxes", "num_dropout_samples")
        check_range(self, 0, math.inf, "train_iterations", "transformer_skipping")
        check_range(self, 0, math.inf, "box_refinement_iter", "sample_memory_size")
        check_range(self, 0, 3, "frozen_layers")


# A laptop's size: the same classes, samples of 96 px with 13 x 13 scores, trained as a whole.
TRDIMP_TINY = TrDiMPConfig(
    stem=16,
    planes=(8, 16, 24),
    blocks=(1, 1, 1),
    strides=(1, 2, 1),
    frozen_layers=0,
    channels=48,
    key_channels=24,
    iou_channels=32,
    train_iterations=3,
    num_proposals=32,
    initializer_lr_scale=1.0,
    optimizer_lr_scale=1.0,
    feature_lr_scale=1.0,
    backbone_lr_scale=1.0,
)
