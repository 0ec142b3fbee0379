"""TrDiMP as a tracker, with its memory, its updates and its rules of belief."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from slt_gym.agents.network import normalise_levels
from slt_gym.agents.tracker import Tracker, check_frame, check_start
from slt_gym.agents.trdimp.filter import correlate
from slt_gym.agents.trdimp.localisation import localise
from slt_gym.agents.trdimp.memory import SampleMemory, TransformerMemory
from slt_gym.agents.trdimp.network import TrDiMP, draw_shifts
from slt_gym.agents.trdimp.refinement import refine
from slt_gym.errors import SltGymError
from slt_gym.geometry import TrDiMPGeometry, Window
from slt_gym.geometry.trdimp import crop_float


class TrDiMPTracker(Tracker):
    """TrDiMP as published, on crops in floating point.

    Every sequence starts from the configuration's ``seed``. The draws are, in this order: the
    random shifts of the initial samples, the mask of the dropout copies, then the jitter of the
    refinement in every frame in which the target is found.

    Attributes:
        flag: What the last :meth:`update` believed, see :class:`localisation.Peak`.
    """

    def __init__(self, name: str, network: TrDiMP, geometry: TrDiMPGeometry, device: str) -> None:
        self.name = name
        self.network = network.to(device).eval()
        self.geometry = geometry
        self.config = network.config
        self.device = torch.device(device)
        self.flag = "normal"
        self._box: NDArray[np.float64] | None = None

    @torch.no_grad()
    def init(self, frame: NDArray[np.uint8], box: ArrayLike) -> None:
        """Start on ``frame`` with the target at ``box``, see :class:`Tracker`."""
        estimate = check_start(frame, box)
        network, geometry, c = self.network, self.geometry, self.config
        self._generator = torch.Generator().manual_seed(c.seed)
        patch = crop_float(frame, geometry.template_window(estimate), geometry.template_size)
        draws = draw_shifts(geometry, self._generator)
        shifts = geometry.initial_shifts(draws)
        samples = torch.from_numpy(geometry.initial_samples(patch, shifts)).to(self.device)
        template_box = torch.from_numpy(geometry.template_box(estimate)).float()
        boxes = network.sample_boxes(template_box[None], torch.from_numpy(shifts)[None])[0]
        boxes = boxes.to(self.device)

        layer2, layer3 = network.feature_extractor(normalise_levels(samples))
        tokens = network.classifier.features(layer3)
        if c.num_dropout_samples:
            tokens = torch.cat([tokens, self._drop_channels(tokens[0])])
            boxes = torch.cat([boxes, boxes[:1].expand(c.num_dropout_samples, -1)])
        self._transformer_memory = TransformerMemory(tokens, network.transformer_label(boxes), c)
        self._encode_memory()
        decoded = torch.cat([self._decode(t[None]) for t in tokens])
        self._filter = network.classifier.learn_filter(decoded[None], boxes[None], c.net_opt_iter)[
            -1
        ]
        self._modulation = network.bb_regressor.modulate(layer2[:1], layer3[:1], boxes[:1])
        self._samples = SampleMemory(decoded, boxes, c)
        self._box = estimate
        self._frame_number = 1
        self.score, self.flag = 1.0, "normal"

    def _drop_channels(self, tokens: Tensor) -> Tensor:
        """Return copies of ``tokens`` ``(L, C)`` without some channels, the others amplified."""
        kept = 1 - self.config.dropout_probability
        mask = torch.empty(self.config.num_dropout_samples, 1, tokens.shape[1])
        mask = mask.bernoulli_(kept, generator=self._generator).to(tokens)
        return tokens * (mask / kept)

    def _encode_memory(self) -> None:
        memory = self._transformer_memory
        self._encoded = self.network.classifier.transformer.encode(
            memory.tokens[None], memory.labels[None]
        )

    def _decode(self, tokens: Tensor) -> Tensor:
        return self.network.classifier.transformer.decode(tokens, self._encoded)

    @torch.no_grad()
    def update(self, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Find the target in the next frame, see :class:`Tracker`."""
        if self._box is None:
            raise SltGymError("update was called before init: give the first frame and its box")
        check_frame(frame)
        self._frame_number += 1
        network, geometry = self.network, self.geometry
        frame_size = frame.shape[1], frame.shape[0]
        window = geometry.search_window(self._box, frame_size)
        crop = torch.from_numpy(crop_float(frame, window, geometry.search_size))
        layer2, layer3 = network.feature_extractor(normalise_levels(crop[None].to(self.device)))
        raw = network.classifier.features(layer3)
        tokens = self._decode(raw)
        scores = correlate(tokens[:, None], self._filter, network.cells)[0, 0].cpu().numpy()

        cell = network.stride * window.side / network.size  # frame pixels
        centre = np.array([window.cx, window.cy])
        size = self._box[2:]
        previous = (self._box[:2] + size / 2 - centre) / cell
        neighbourhood = self.config.target_neighborhood_scale * size / cell
        peak = localise(scores, neighbourhood[::-1], previous[::-1], self.config)
        self.flag, self.score = peak.flag, float(np.clip(peak.score, 0.0, 1.0))
        if peak.flag == "not_found":
            return self._box.copy()
        displacement = np.array([peak.column, peak.row]) - network.cells // 2
        position = geometry.limit_position(centre - 0.5 + displacement * cell, size, frame_size)
        start = np.concatenate([position + 0.5 - size / 2, size])
        self._box = self._refine((layer2, layer3), start, window)
        if peak.flag != "uncertain":
            self._learn(raw[0], tokens[0], window, hard=peak.flag == "hard_negative")
        return self._box.copy()

    def _refine(
        self, layers: tuple[Tensor, Tensor], start: NDArray[np.float64], window: Window
    ) -> NDArray[np.float64]:
        """Refine a box, frame pixels."""
        regressor = self.network.bb_regressor
        features = regressor.features(*layers)
        modulated = features[0] * self._modulation[0], features[1] * self._modulation[1]
        draws = self.network.draw_jitter(self._generator).to(self.device)
        refined, _ = refine(
            lambda boxes: regressor(modulated, boxes),
            self._to_sample(start, window)[None],
            draws,
            self.config,
        )
        return window.to_frame(refined[0].cpu().numpy() / self.network.size)

    def _to_sample(self, box: NDArray[np.float64], window: Window) -> Tensor:
        pixels = window.to_crop(box) * self.network.size
        return torch.from_numpy(pixels.astype(np.float32)).to(self.device)

    def _learn(self, raw: Tensor, tokens: Tensor, window: Window, *, hard: bool) -> None:
        """Store the frame's sample, and optimise the filter where it is due."""
        assert self._box is not None
        c, passed = self.config, self._frame_number - 1
        box = self._to_sample(self._box, window)
        self._samples.add(tokens, box, c.hard_negative_learning_rate if hard else c.learning_rate)
        iterations = 0
        if hard:
            iterations = c.net_opt_hn_iter
        elif passed % c.train_skipping == 0:
            iterations = c.net_opt_update_iter
        if iterations:
            stored, boxes, weights = self._samples.samples
            self._filter = self.network.classifier.filter_optimizer(
                self._filter, stored[None], boxes[None], iterations, weights[None]
            )[-1]
        if c.transformer_skipping and passed % c.transformer_skipping == 0:
            self._transformer_memory.add(raw, self.network.transformer_label(box))
            self._encode_memory()
