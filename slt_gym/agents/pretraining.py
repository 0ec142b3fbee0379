"""Frame-level training: the published "base" trackers that sequence-level training starts from."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from slt_gym.agents.network import TrackerNetwork
from slt_gym.agents.schedules import CosineSchedule
from slt_gym.data.pairs import PairBatch, PairConfig, PairSampler
from slt_gym.data.sequence import SequenceDataset
from slt_gym.errors import InvalidArgumentError
from slt_gym.geometry import Geometry


@dataclass(frozen=True)
class PretrainingConfig:
    """Constants of frame-level training.

    Attributes:
        steps: Optimizer steps.
        seconds: Train for this long instead, as many steps as that gives; the learning rate then
            follows the share of the time. The result depends on the machine's speed.
        batch_size: Pairs of crops in a step.
        learning_rate: At the start; ``parameter_groups`` scale it.
        final_learning_rate: At the end of the cosine.
        warmup_steps: Steps over which the learning rate rises from zero.
        weight_decay: AdamW's.
        max_grad_norm: L2 norm that gradients are clipped to.
        freeze_batch_norm: Normalise with the running statistics and leave them as they are, as a
            tracker does and as sequence-level training does. Otherwise with each batch's own, as
            published.
        seed: Of the pairs; the initial weights are the network's own.
        pairs: How pairs are drawn and disturbed; None takes the network's published way.
        threads: Threads that decode and crop.
    """

    steps: int = 4000
    seconds: float | None = None
    batch_size: int = 32
    learning_rate: float = 1e-4  # TransT
    final_learning_rate: float = 1e-5
    warmup_steps: int = 0
    weight_decay: float = 1e-4  # TransT
    max_grad_norm: float = 0.1  # TransT
    freeze_batch_norm: bool = False
    seed: int = 0
    pairs: PairConfig | None = None
    threads: int = 2

    def rate(self, step: float) -> float:
        """Return the learning rate of a step: linear warm-up, then a cosine."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return CosineSchedule(self.learning_rate, self.final_learning_rate)(1 - progress)


def pretrain(
    network: TrackerNetwork,
    dataset: SequenceDataset,
    geometry: Geometry,
    config: PretrainingConfig | None = None,
    *,
    device: str = "cpu",
    progress_bar: bool = False,
    log: Callable[[int, dict[str, float]], None] | None = None,
    log_interval: int = 50,
) -> TrackerNetwork:
    """Train a network on single pairs of frames with its published losses.

    Args:
        network: What to train, in place; left in eval mode.
        dataset: Where the pairs come from.
        geometry: The tracker's windows.
        config: The constants.
        device: Where to train.
        progress_bar: Show one, with rate and remaining time.
        log: Called every ``log_interval`` steps with the step and the mean losses since.
        log_interval: Steps between calls of ``log``.

    Returns:
        ``network``.

    Raises:
        InvalidArgumentError: The network has no losses for frame-level training.
    """
    config = config or PretrainingConfig()
    weights = network.pretraining_weights
    if not weights:
        raise InvalidArgumentError(
            f"{type(network).__name__} has no pretraining_weights: name its losses and their "
            "weights there"
        )
    network.to(device).train()
    if config.freeze_batch_norm:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    optimizer = torch.optim.AdamW(network.parameter_groups(), weight_decay=config.weight_decay)
    sampler = PairSampler(
        dataset,
        geometry,
        config.batch_size,
        config.seed,
        config.pairs or network.pretraining_pairs,
        config.threads,
        masks=network.needs_masks(weights),
    )
    rng = np.random.default_rng(config.seed)
    sums: dict[str, float] = {}
    started = time.perf_counter()
    # Closing the generator stops its threads, also when a step fails.
    with contextlib.closing(iter(sampler)) as batches:
        for step, position in _schedule(config, progress_bar):
            rate = config.rate(position)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            losses = _losses(network, next(batches), rng, device, geometry.shows_template_box)
            total = sum(
                (weights[name] * losses[name] for name in weights), torch.zeros((), device=device)
            )
            optimizer.zero_grad()
            total.backward()
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
            optimizer.step()
            for name, value in {**losses, "loss": total, "grad_norm": norm}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            if log is not None and (step + 1) % log_interval == 0:
                means = {name: value / log_interval for name, value in sums.items()}
                means["steps_per_second"] = (step + 1) / (time.perf_counter() - started)
                means["learning_rate"] = rate
                log(step + 1, means)
                sums.clear()
    return network.eval()


def _schedule(config: PretrainingConfig, progress_bar: bool) -> Iterator[tuple[int, float]]:
    """Yield each step's number, and its position in a schedule of ``config.steps`` steps."""
    count = config.steps if config.seconds is None else None
    started = time.perf_counter()
    with tqdm(total=count, desc="pre-training", disable=not progress_bar, unit="step") as bar:
        for step in itertools.count():
            if config.seconds is None:
                position = float(step)
            else:
                position = (time.perf_counter() - started) / config.seconds * config.steps
            if position >= config.steps:
                return
            yield step, position
            bar.update()


def _losses(
    network: TrackerNetwork,
    batch: PairBatch,
    rng: np.random.Generator,
    device: str,
    with_template_box: bool,
) -> dict[str, Tensor]:
    given = [batch.template, *([batch.template_box] if with_template_box else [])]
    features = network.encode(*(torch.from_numpy(part).to(device) for part in given))
    proposals = network.propose(features, torch.from_numpy(batch.search).to(device))
    gt_box, other_box = (
        torch.from_numpy(box).to(device) for box in (batch.gt_box, batch.other_box)
    )
    masks = {}
    if batch.mask is not None and batch.has_mask is not None:
        known = {"mask": batch.mask, "has_mask": batch.has_mask}
        masks = {name: torch.from_numpy(array).to(device) for name, array in known.items()}
    return network.training_losses(proposals, gt_box, rng, other_box, **masks)
