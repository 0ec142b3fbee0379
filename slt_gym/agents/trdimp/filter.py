"""The target's filter: initialised from the target's features, then optimised on the samples.

Bhat et al., "Learning Discriminative Model Prediction for Tracking", ICCV 2019, section 3.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slt_gym.agents.trdimp.labels import centre_distance
from slt_gym.cuda_ops import prroi_pool

_BIN_WIDTH = 0.1  # DiMP: cells for each bin of the distance from the target's centre
_MIN_REGULARISATION = 1e-3  # TrDiMP
_MIN_CURVATURE = 1e-8  # DiMP


def correlate(tokens: Tensor, weights: Tensor, cells: int) -> Tensor:
    """Correlate features with filters, zero around the features.

    Args:
        tokens: Shape ``(B, n, L, C)``, ``L = cells * cells``.
        weights: Filters, shape ``(B, C, k, k)``, k even.
        cells: Side of the features.

    Returns:
        Scores, shape ``(B, n, cells + 1, cells + 1)``.
    """
    batch, images, length, _ = tokens.shape
    k = weights.shape[-1]
    # A 1 x 1 convolution for each of the filter's places, then the places' maps shifted and added.
    flat = weights.flatten(2).flip(-1)[:, None]  # (B, 1, C, k k)
    maps = (tokens @ flat).transpose(2, 3).reshape(batch * images, k * k, length)
    edge = k // 2 - 1
    side = cells + k - 1
    scores = F.fold(maps, side, k)[:, 0, edge : side - edge, edge : side - edge]
    return scores.reshape(batch, images, cells + 1, cells + 1)


def correlate_transposed(tokens: Tensor, scores: Tensor, k: int) -> Tensor:
    """Apply the transpose of :func:`correlate`, which is its gradient with regard to the filter.

    Args:
        tokens: Shape ``(B, n, L, C)``.
        scores: Shape ``(B, n, cells + 1, cells + 1)``.
        k: Side of the filter.

    Returns:
        Shape ``(B, C, k, k)``.
    """
    batch, images, length, channels = tokens.shape
    edge = k // 2 - 1
    maps = F.unfold(F.pad(scores.flatten(0, 1)[:, None], (edge,) * 4), k)
    maps = maps.view(batch, images, k * k, length).transpose(1, 2).flatten(2)  # (B, k k, n L)
    return (maps @ tokens.flatten(1, 2)).flip(1).transpose(1, 2).reshape(batch, channels, k, k)


class FilterInitializer(nn.Module):
    """A convolution and the mean over the target's box."""

    def __init__(self, channels: int, filter_size: int, stride: int) -> None:
        super().__init__()
        self.filter_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.filter_size = filter_size
        self.stride = stride

    def forward(self, features: Tensor, box: Tensor) -> Tensor:
        """Make filters.

        Args:
            features: Shape ``(B, n, C, H, W)``.
            box: Shape ``(B, n, 4)``, ``(x, y, w, h)``, pixels of the samples.

        Returns:
            Shape ``(B, C, k, k)``, the mean over the ``n`` samples.
        """
        maps = self.filter_conv(features.flatten(0, 1))
        corners = torch.cat([box[..., :2], box[..., :2] + box[..., 2:]], dim=-1)
        pooled = prroi_pool(maps, corners.view(-1, 1, 4), self.filter_size, 1 / self.stride)
        return pooled.view(*features.shape[:2], *pooled.shape[2:]).mean(dim=1)


class FilterOptimizer(nn.Module):
    """Steepest descent on a learned, robust least-squares loss, with Gauss-Newton's step length.

    Args:
        stride: Pixels from cell to cell of the features.
        num_bins: Bins of the distance from the target's centre, in which the labels, the mask and
            the weights are learned.
        step_length: Initial value.
        regularisation: Initial value.
        sigma: Initial width of the label, cells.
        mask_factor: Initial steepness of the mask.
    """

    def __init__(
        self,
        stride: int,
        num_bins: int = 100,  # TrDiMP
        step_length: float = 0.9,  # TrDiMP
        regularisation: float = 0.1,  # TrDiMP
        sigma: float = 22 / 24,  # TrDiMP
        mask_factor: float = 3.0,  # TrDiMP
    ) -> None:
        super().__init__()
        self.stride = stride
        self.log_step_length = nn.Parameter(torch.full((1,), math.log(step_length)))
        self.filter_reg = nn.Parameter(torch.full((1,), regularisation))
        self.label_map_predictor = nn.Conv2d(num_bins, 1, 1, bias=False)
        mask = nn.Conv2d(num_bins, 1, 1, bias=False)
        self.target_mask_predictor = nn.Sequential(mask)
        self.spatial_weight_predictor = nn.Conv2d(num_bins, 1, 1, bias=False)
        distance = torch.arange(num_bins) * _BIN_WIDTH
        label = torch.exp(-0.5 * (distance / sigma) ** 2)
        with torch.no_grad():
            self.label_map_predictor.weight[0, :, 0, 0] = label - label.min()
            mask.weight[0, :, 0, 0] = mask_factor * torch.tanh(2 - distance)
            self.spatial_weight_predictor.weight.fill_(1.0)

    def maps(self, box: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the label, the mask and the weight of each cell of the score maps.

        Args:
            box: Shape ``(B, n, 4)``, ``(x, y, w, h)``, pixels of the samples.
            cells: Side of the score maps.

        Returns:
            Three tensors ``(B, n, cells, cells)``.
        """
        # What a 1 x 1 convolution over triangular bins gives: the bins' values, interpolated.
        bins = self.label_map_predictor.in_channels
        place = (centre_distance(box, cells, self.stride) / _BIN_WIDTH).clamp(max=bins - 1)
        low = place.floor().long().clamp(max=bins - 2)
        share = place - low

        def interpolate(layer: nn.Conv2d) -> Tensor:
            values = layer.weight.flatten()
            return (1 - share) * values[low] + share * values[low + 1]

        mask = torch.sigmoid(interpolate(cast(nn.Conv2d, self.target_mask_predictor[0])))
        return (
            interpolate(self.label_map_predictor),
            mask,
            interpolate(self.spatial_weight_predictor),
        )

    def forward(
        self,
        weights: Tensor,
        tokens: Tensor,
        box: Tensor,
        iterations: int,
        sample_weights: Tensor | None = None,
    ) -> list[Tensor]:
        """Optimise filters.

        Args:
            weights: The initial filters, shape ``(B, C, k, k)``.
            tokens: Features of the samples, shape ``(B, n, L, C)``.
            box: Shape ``(B, n, 4)``, ``(x, y, w, h)``, pixels of the samples.
            iterations: Steps.
            sample_weights: Shape ``(B, n)``; all alike if None.

        Returns:
            The filters after 0, 1, … steps.
        """
        cells = math.isqrt(tokens.shape[2])
        k = weights.shape[-1]
        label, mask, weight = self.maps(box, cells + 1)
        if sample_weights is None:
            weight = weight / math.sqrt(tokens.shape[1])
        else:
            weight = weight * sample_weights.sqrt()[..., None, None]
        step_length = self.log_step_length.exp()
        regularisation = self.filter_reg.square().clamp(min=_MIN_REGULARISATION**2)

        iterates = [weights]
        for _ in range(iterations):
            scores = correlate(tokens, weights, cells)
            # A leaky ReLU, whose slope below zero is 1 in the target's place and 0 far from it.
            activation = (1 - mask) / 2 * scores.abs() + (1 + mask) / 2 * scores
            slope = (1 - mask) / 2 * scores.detach().sign() + (1 + mask) / 2
            residual = weight * (activation - label)
            gradient = correlate_transposed(tokens, slope * weight * residual, k)
            gradient = gradient + regularisation * weights
            change = weight * slope * correlate(tokens, gradient, cells)
            energy = gradient.square().sum(dim=(1, 2, 3))
            curvature = change.square().sum(dim=(1, 2, 3)) + regularisation * energy
            step = energy / curvature.clamp(min=_MIN_CURVATURE)
            weights = weights - step_length * step[:, None, None, None] * gradient
            iterates.append(weights)
        return iterates
