"""Drawing clips from sequences, for sequence-level training, and pairs, for pre-training.

The rules are those of SLT's published samplers. Every random number comes from the generator that
the caller passes, and the same generator state gives the same clip, whatever was drawn before.
"""

from slt_gym.data.sampling.draw import SAMPLERS, draw_clip, draw_index, sample_pair
from slt_gym.data.sampling.fixed import whole_clip
from slt_gym.data.sampling.pysot import sample_clip_pysot
from slt_gym.data.sampling.pytracking import sample_clip

__all__ = [
    "SAMPLERS",
    "draw_clip",
    "draw_index",
    "sample_clip",
    "sample_clip_pysot",
    "sample_pair",
    "whole_clip",
]
