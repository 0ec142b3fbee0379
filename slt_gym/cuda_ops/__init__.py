"""Operators that trackers need beyond PyTorch's own."""

from slt_gym.cuda_ops.deform_conv import deform_conv2d
from slt_gym.cuda_ops.deform_roi_pool import deform_roi_pool
from slt_gym.cuda_ops.depthwise_xcorr import depthwise_xcorr
from slt_gym.cuda_ops.prroi_pool import prroi_pool

__all__ = ["deform_conv2d", "deform_roi_pool", "depthwise_xcorr", "prroi_pool"]
