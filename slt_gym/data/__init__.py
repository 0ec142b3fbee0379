"""Sequences, datasets and the clips that are drawn from them (NumPy and OpenCV only)."""

from slt_gym.data.registry import list_datasets, open_dataset
from slt_gym.data.sampling import draw_clip, sample_clip, sample_pair, whole_clip
from slt_gym.data.sequence import Clip, ImageSequence, Sequence, SequenceDataset

__all__ = [
    "Clip",
    "ImageSequence",
    "Sequence",
    "SequenceDataset",
    "draw_clip",
    "list_datasets",
    "open_dataset",
    "sample_clip",
    "sample_pair",
    "whole_clip",
]
