"""A features extractor that compares the two crops, for Stable-Baselines3's own policies."""

from __future__ import annotations

import itertools
import math

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.nn import functional as F

from slt_gym.cuda_ops import depthwise_xcorr
from slt_gym.errors import InvalidArgumentError

_LARGEST_MAP = 32  # cells a side that the search crop is encoded to, at most
_SMALLEST = 0.05  # width or height that offsets are divided by, crop units
_SHARPNESS = 10.0  # of the softmax over the places, at the start


class TrackerFeaturesExtractor(BaseFeaturesExtractor):
    """Tell a policy where in the search crop the template's centre is found again.

    Stable-Baselines3's default, one ``NatureCNN`` for each image, leaves the comparison of the two
    images to the layers behind it. This one makes it: one small encoder for both, the middle of
    the template's map slid over the search map (depth-wise cross-correlation, as in Siamese
    trackers), and the place of the best match (soft arg-max). It serves every algorithm with a
    ``MultiInputPolicy`` or a ``MultiInputLstmPolicy``, whatever the actions are:

        model = PPO(
            "MultiInputPolicy",
            env,
            policy_kwargs={"features_extractor_class": TrackerFeaturesExtractor},
        )

    Each crop is normalised by its own mean and standard deviation: the policy's
    ``normalize_images`` makes no difference.

    The features are the match's offset from the previous estimate's centre, in quarters of that
    estimate's width and height (2 numbers), how well it matches, the observation's ``box`` and
    ``template_box``, if it has one, and ``hidden`` numbers computed from the map of similarities.
    ``proposals`` are left out: they are a function of ``box``.

    Args:
        observation_space: Of a tracking environment.
        hidden: Numbers computed from the similarities.
        channels: Of the encoder's maps.

    Raises:
        InvalidArgumentError: The observations are no tracking environment's.
    """

    axis: Tensor

    def __init__(
        self, observation_space: spaces.Space, hidden: int = 16, channels: int = 16
    ) -> None:
        if not isinstance(observation_space, spaces.Dict) or not (
            {"template", "search", "box"} <= set(observation_space)
        ):
            raise InvalidArgumentError(
                "TrackerFeaturesExtractor reads the observations of a tracking environment "
                f"(SLTTrack-…); got {observation_space}"
            )
        keys = [key for key in ("box", "template_box") if key in observation_space.spaces]
        super().__init__(observation_space, features_dim=3 + 4 * len(keys) + hidden)
        self.keys = keys
        shapes = (observation_space[key].shape or () for key in ("template", "search"))
        template, search = (shape[-1] for shape in shapes)
        halvings = max(math.ceil(math.log2(search / _LARGEST_MAP)), 1)
        widths = [3] + [channels] * halvings
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU()]
        self.encoder = nn.Sequential(*layers[:-1])
        # Maps have ceil(side / stride) cells, around the pixels 0, stride, 2 * stride, …
        stride = 2**halvings
        cells, size = (math.ceil(side / stride) for side in (template, search))
        reach = min(size // 8, (cells - 1) // 2)  # a quarter of the search crop: the target's size
        self.middle = slice(cells // 2 - reach, cells // 2 + reach + 1)
        places = size - 2 * reach
        self.sharpness = nn.Parameter(torch.tensor(_SHARPNESS))
        self.read_out = nn.Sequential(
            nn.Conv2d(channels, 8, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * places**2, hidden),
            nn.ReLU(),
        )
        # Where the template's centre lies at each place, in crop units.
        axis = ((torch.arange(places) - self.middle.start) * stride + template / 2) / search
        self.register_buffer("axis", axis, persistent=False)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Compute features ``(B, features_dim)`` from a batch of observations."""
        kernel, searched = (self._encode(observations[key]) for key in ("template", "search"))
        kernel = kernel[:, :, self.middle, self.middle]
        similarity = depthwise_xcorr(searched, kernel) / kernel[0, 0].numel()  # (B, C, g, g)
        score = similarity.mean(dim=1)
        weight = (self.sharpness * score).flatten(1).softmax(dim=1).view_as(score)
        place = torch.stack([(weight.sum(dim) * self.axis).sum(1) for dim in (1, 2)], dim=1)
        boxes = [observations[key].float() for key in self.keys]
        corner, size = boxes[0].split(2, dim=1)
        offset = 4 * (place - corner - size / 2) / size.clamp(min=_SMALLEST)
        best = score.flatten(1).amax(dim=1, keepdim=True)
        return torch.cat([offset, best, *boxes, self.read_out(similarity)], dim=1)

    def _encode(self, crops: Tensor) -> Tensor:
        """Map crops to features whose channels have mean 0 and variance 1 over the map."""
        crops = crops.float()
        return F.instance_norm(self.encoder(F.layer_norm(crops, crops.shape[1:])))
