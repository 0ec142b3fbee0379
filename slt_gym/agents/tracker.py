"""Trackers with the field's two methods: ``init`` and ``update``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from slt_gym.agents.network import TrackerNetwork
from slt_gym.errors import InvalidArgumentError, SltGymError
from slt_gym.geometry import Geometry, is_valid


class Tracker(ABC):
    """Follows one target through a video.

    Attributes:
        name: The tracker's name.
        score: How sure the last :meth:`update` is, in [0, 1]; 1 after :meth:`init`.
    """

    name: str
    score: float = 1.0

    @abstractmethod
    def init(self, frame: NDArray[np.uint8], box: ArrayLike) -> None:
        """Start on a frame.

        Args:
            frame: RGB uint8, shape ``(H, W, 3)``.
            box: The target, ``(x, y, w, h)``, frame pixels.

        Raises:
            InvalidArgumentError: The frame or the box is none.
        """

    @abstractmethod
    def update(self, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Find the target in the next frame.

        Args:
            frame: RGB uint8, shape ``(H, W, 3)``.

        Returns:
            The target's box ``(x, y, w, h)``, float64, shape ``(4,)``, frame pixels.

        Raises:
            InvalidArgumentError: The frame is none.
            SltGymError: ``init`` was not called, or the network's box is not finite.
        """


class ProposalTracker(Tracker):
    """A network that takes its most probable proposal in every frame, without randomness."""

    def __init__(self, name: str, network: TrackerNetwork, geometry: Geometry, device: str) -> None:
        self.name = name
        self.network = network.to(device).eval()
        self.geometry = geometry
        self.device = torch.device(device)
        self._features: torch.Tensor | None = None

    @torch.no_grad()
    def init(self, frame: NDArray[np.uint8], box: ArrayLike) -> None:
        """Start on ``frame`` with the target at ``box``, see :class:`Tracker`."""
        estimate = check_start(frame, box)
        geometry = self.geometry
        self._fill = geometry.fill_colour(frame)
        window = geometry.template_window(estimate)
        template = geometry.crop(frame, window, geometry.template_size, self._fill)
        self._features = self.network.encode(self._batch(template))
        self._box = estimate
        self.score = 1.0

    @torch.no_grad()
    def update(self, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Find the target in the next frame, see :class:`Tracker`."""
        if self._features is None:
            raise SltGymError("update was called before init: give the first frame and its box")
        check_frame(frame)
        geometry = self.geometry
        frame_size = frame.shape[1], frame.shape[0]
        window = geometry.search_window(self._box, frame_size)
        search = geometry.crop(frame, window, geometry.search_size, self._fill)
        proposals = self.network.propose(self._features, self._batch(search))
        self._seen = proposals, window, frame_size
        previous = torch.from_numpy(window.to_crop(self._box).astype(np.float32)).to(self.device)
        index = self.network.action_logits(proposals, previous[None]).argmax(dim=-1)
        chosen = self.network.resolve(proposals, index, previous[None])[0].cpu().numpy()
        if not np.isfinite(chosen).all():
            raise SltGymError(
                f"the network of {self.name!r} gives the box {chosen.tolist()}: its weights are "
                "damaged, or a training made them so"
            )
        self._box = geometry.limit(window.to_frame(chosen), frame_size)
        self.score = float(proposals.scores[0, index[0]].sigmoid())
        return self._box.copy()

    def _batch(self, crop: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(crop)[None].to(self.device)


def check_start(frame: NDArray[np.uint8], box: ArrayLike) -> NDArray[np.float64]:
    """Return the first box, float64 ``(4,)``, after a look at what ``init`` was given.

    Raises:
        InvalidArgumentError: The frame or the box is none.
    """
    check_frame(frame)
    try:
        estimate = np.array(box, np.float64)
    except (TypeError, ValueError):
        estimate = np.empty(0)
    if estimate.shape != (4,) or not is_valid(estimate):
        raise InvalidArgumentError(f"box {box!r} is not x, y, w, h in pixels with w and h above 0")
    return estimate


def check_frame(frame: NDArray[np.uint8]) -> None:
    """Raise InvalidArgumentError unless ``frame`` is RGB uint8 of shape ``(H, W, 3)``."""
    if not (
        isinstance(frame, np.ndarray)
        and frame.ndim == 3
        and frame.shape[2] == 3
        and frame.size
        and frame.dtype == np.uint8
    ):
        shape, dtype = getattr(frame, "shape", None), getattr(frame, "dtype", type(frame).__name__)
        raise InvalidArgumentError(
            f"frame has shape {shape} and type {dtype}: needed is RGB uint8 of shape (H, W, 3)"
        )
