"""SiamAttn's tracker, which can also say which pixels are the target's."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from slt_gym.agents.siamattn.network import RefinableProposals, SiamAttn
from slt_gym.agents.tracker import ProposalTracker
from slt_gym.errors import SltGymError
from slt_gym.geometry import Geometry, SiamRPNGeometry, to_corners

_MIN_AREA = 100.0  # SiamAttn: a smaller mask is not trusted, pixels


class SiamAttnTracker(ProposalTracker):
    """Tracks boxes; :meth:`segment` and :meth:`polygon` look at the latest frame again.

    Masks are for reporting and change nothing in what follows.
    """

    network: SiamAttn

    def __init__(self, name: str, network: SiamAttn, geometry: Geometry, device: str) -> None:
        # Training measures from the corner that is not rounded, tracking from the other: the
        # published code does so.
        geometry = replace(cast(SiamRPNGeometry, geometry), rounded_corner=True)
        super().__init__(name, network, geometry, device)
        self._tracked = False

    def init(self, frame: NDArray[np.uint8], box: ArrayLike) -> None:
        """Start on ``frame`` with the target at ``box``, see :class:`Tracker`."""
        super().init(frame, box)
        self._tracked = False

    def update(self, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Find the target in the next frame, see :class:`Tracker`."""
        box = super().update(frame)
        self._tracked = True
        return box

    @torch.no_grad()
    def segment(self) -> NDArray[np.bool_]:
        """Mark the target's pixels in the frame of the latest :meth:`update`.

        Returns:
            Booleans, shape ``(H, W)``.

        Raises:
            SltGymError: No frame has been tracked yet.
        """
        if not self._tracked:
            raise SltGymError("a mask was asked for before update: track a frame first")
        proposals, window, (width, height) = self._seen
        config, size = self.network.config, self.network.search_size
        roi = to_corners(window.to_crop(self._box)) * size
        rois = torch.from_numpy(np.array([[0.0, *roi]], np.float32)).to(self.device)
        logits = self.network.segment(cast(RefinableProposals, proposals), rois)[0]
        if config.centre_mask:
            logits = logits - logits.mean()
        mask = logits.sigmoid().cpu().numpy()

        # The region's square in frame pixels: a rounded window for both, as published.
        scale = window.side / size
        left = window.cx - window.side / 2 + roi[0] * scale
        top = window.cy - window.side / 2 + roi[1] * scale
        across = mask.shape[1] / (scale * (roi[2] - roi[0]))
        down = mask.shape[0] / (scale * (roi[3] - roi[1]))
        a = (width - 1) / (width * across)
        b = (height - 1) / (height * down)
        warp = np.array([[a, 0, a * left * across], [0, b, b * top * down]])
        pasted = cv2.warpAffine(
            mask,
            warp,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
        return pasted > config.mask_threshold

    def polygon(self) -> NDArray[np.float64]:
        """Return the rotated rectangle around the target in the frame of the latest update.

        Returns:
            Corners, shape ``(4, 2)``, frame pixels: of the smallest rectangle around the mask's
            largest part, or of the tracked box where the mask has no part of 100 pixels.
        """
        mask = self.segment().astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if contours:
            largest = max(contours, key=cv2.contourArea)
            if cv2.contourArea(largest) > _MIN_AREA:
                return cv2.boxPoints(cv2.minAreaRect(largest)).astype(np.float64)
        x1, y1, x2, y2 = to_corners(self._box)
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
