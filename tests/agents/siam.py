"""What the parity tests of SiamRPN++ and SiamAttn share: weights, recorded values, updates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch

from slt_gym.agents.network import TrackerNetwork
from slt_gym.agents.rollout import ClipRollout
from slt_gym.data import open_dataset
from slt_gym.geometry import Window, from_corners, get_geometry

NAMES = ("Crossing", "Man")


def read_golden(shared: Path, name: str) -> dict[str, Any]:
    """Read ``<name>_track.json``."""
    return json.loads((shared / "parity" / f"{name}_track.json").read_text())


def fill_weights(shared: Path, fill: ModuleType, name: str) -> dict[str, torch.Tensor]:
    """Make the filled weights of the published network."""
    weights = fill.fill_manifest(shared / "parity" / f"{name}_manifest.json")
    return {key: torch.from_numpy(np.array(value)) for key, value in weights.items()}


def read_frames(sequences: Path, count: int) -> list[np.ndarray]:
    """Read the first frames of Crossing, RGB."""
    paths = sorted((sequences / "Crossing" / "img").glob("*.jpg"))[:count]
    return [np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]) for path in paths]


def draw_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the recorded network's inputs: floats BGR from 0 to 255."""
    rng = np.random.default_rng(7)
    sizes = (127, 255)
    template, search = (
        torch.from_numpy(rng.integers(0, 256, (1, 3, s, s)).astype(np.float32)) for s in sizes
    )
    return template, search


def relative_error(value: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference over the largest value."""
    assert value.shape == expected.shape
    return float(np.abs(value - expected).max() / np.abs(expected).max())


def check_recorded(
    found: dict[str, torch.Tensor], recorded: dict[str, np.ndarray], names: list[str]
) -> None:
    """Compare tensors with their recorded statistics, shapes and samples."""
    for name in names:
        value = found[name].detach().numpy()
        half = value.size // 2
        flat = np.ascontiguousarray(value).reshape(-1)
        scale = recorded[f"{name}.stat"][2]
        if f"{name}.shape" in recorded:
            expected = recorded[f"{name}.shape"]
            assert list(value.shape)[: len(expected)] == expected.tolist(), name
        if f"{name}.first8" in recorded:
            for part, at in (("first8", 0), ("mid8", half)):
                error = np.abs(flat[at : at + 8] - recorded[f"{name}.{part}"]).max() / scale
                assert error < 1e-4, (name, part, error)
        wide = flat.astype(np.float64)
        statistics = np.array([wide.mean(), wide.std(), np.abs(wide).max()])
        assert np.abs(statistics - recorded[f"{name}.stat"]).max() / scale < 1e-4, name


@dataclass
class States:
    """The recorded states before each step of one update, tracks as in the golden.

    Attributes:
        windows: Search windows, ``[frame][track]``.
        boxes: The states, ``(x, y, w, h)``, frame pixels, shape ``(T, 4, 4)``.
        gt: Ground truth, likewise.
        results: The recorded estimates, likewise.
        selected: The chosen proposals, shape ``(T, 4)``.
        crops: RGB uint8, shape ``(T, 4, 3, 255, 255)``.
        templates: RGB uint8, shape ``(2, 3, 127, 127)``.
    """

    windows: list[list[Window]]
    boxes: np.ndarray
    gt: np.ndarray
    results: np.ndarray
    selected: np.ndarray
    crops: np.ndarray
    templates: np.ndarray

    @classmethod
    def read(cls, golden: dict[str, Any], sequences: Path, name: str) -> States:
        """Cut the crops that the published code saw."""
        geometry = get_geometry(name)
        dataset = open_dataset("folder", root=str(sequences))
        videos = [dataset.get(video) for video in NAMES]
        fills = [geometry.fill_colour(video.read(0)) for video in videos]
        templates = [
            geometry.crop(video.read(0), geometry.template_window(video.boxes[0]), 127, fill)
            for video, fill in zip(videos, fills, strict=True)
        ]
        frames = golden["frames"]
        centre, size = (np.array([f[key] for f in frames]) for key in ("in_center", "in_size"))
        boxes = np.concatenate([centre - size / 2, size], axis=-1)
        windows = [[geometry.search_window(box, (1, 1)) for box in row] for row in boxes]
        crops = [
            [
                geometry.crop(videos[k % 2].read(f["idx"]), row[k], 255, fills[k % 2])
                for k in range(4)
            ]
            for f, row in zip(frames, windows, strict=True)
        ]
        gt = [[videos[k % 2].boxes[f["idx"]] for k in range(4)] for f in frames]
        results = from_corners(np.array([f["bbox_xyxy"] for f in frames]))
        selected = np.array([f["selected"] for f in frames])
        return cls(
            windows,
            boxes,
            np.array(gt),
            results,
            selected,
            np.array(crops),
            np.stack(templates),
        )

    def to_crop(self, boxes: np.ndarray) -> np.ndarray:
        """Convert boxes ``(T, 4, 4)`` from frame pixels to float32 crop units."""
        return np.stack(
            [
                [window.to_crop(box) for window, box in zip(row, line, strict=True)]
                for row, line in zip(self.windows, boxes, strict=True)
            ]
        ).astype(np.float32)

    def rollout(self, golden: dict[str, Any]) -> ClipRollout:
        """Return what exploration leaves: the sampled tracks, and the greedy ones' rewards."""
        sampled = slice(2, 4)
        shape = self.selected.shape[0], 2, 1
        return ClipRollout(
            template=self.templates,
            search=self.crops[:, sampled, None],
            box=self.to_crop(self.boxes)[:, sampled, None],
            index=self.selected[:, sampled, None],
            gt_box=self.to_crop(self.gt)[:, sampled, None],
            alive=np.ones(shape, bool),
            rewards=np.array(golden["explore_iou"]).T[..., None] / shape[0],
            greedy_rewards=np.array(golden["baseline_iou"]).T / shape[0],
        )


class PublishedDraws:
    """The published code's two streams: anchors are drawn before the update, regions in it."""

    def __init__(self) -> None:
        self._anchors = np.random.RandomState(0)
        self._regions = np.random.RandomState(1)
        self.shuffle = self._anchors.shuffle
        self.choice = self._regions.choice

    def spawn(self, count: int) -> list[PublishedDraws]:
        """Go on with the same streams in every backward pass."""
        return [self] * count


def module_norms(network: TrackerNetwork, names: list[str]) -> dict[str, float]:
    """Return the L2 norms of the gradients of the network's children."""
    norms = {}
    for name in names:
        grads = [p.grad for p in getattr(network, name).parameters() if p.grad is not None]
        norms[name] = float(sum((g.double() ** 2).sum() for g in grads)) ** 0.5
    return norms
