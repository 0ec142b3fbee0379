"""Sequences, datasets and the clips that are drawn from them (NumPy and OpenCV only)."""

from slt_gym.data.augmentation import AugmentationConfig, augment_clip
from slt_gym.data.clip import Clip
from slt_gym.data.registry import list_datasets, open_dataset
from slt_gym.data.sampling import (
    draw_clip,
    sample_clip,
    sample_clip_pysot,
    sample_pair,
    whole_clip,
)
from slt_gym.data.sequence import ImageSequence, Sequence, SequenceDataset

__all__ = [
    "AugmentationConfig",
    "Clip",
    "ImageSequence",
    "Sequence",
    "SequenceDataset",
    "augment_clip",
    "draw_clip",
    "list_datasets",
    "open_dataset",
    "sample_clip",
    "sample_clip_pysot",
    "sample_pair",
    "whole_clip",
]
