"""Sequence-level training in one file: an environment, a small network, two losses.

Nothing of the library but the environment is used, so that every step can be read, and changed,
here. First a small Siamese network learns frame by frame to find a template in a crop; then whole
clips are tracked, once greedily and once with sampled boxes, and self-critical REINFORCE (Kim et
al., "Towards Sequence-Level Training for Visual Tracking", ECCV 2022) rewards what tracks better.
Both times the same held-out sequences are tracked. Procedural video: nothing to download.

    python examples/slt_single_file.py
    python examples/slt_single_file.py --policy-weight 0    # without the reward's gradient
    tensorboard --logdir runs/slt_single_file

Shapes: B tracks (or crops), T frames of a clip, N = 144 cells of the search crop. Boxes are
(x, y, w, h) in crop units: (0, 0) and (1, 1) are opposite corners of the search crop.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

CELLS = 12  # on each side of the search crop, one every 8 pixels


@dataclass
class Config:
    """What can be set on the command line."""

    clips: int = 8
    """Clips that are tracked side by side."""
    frames: int = 16
    """Frames of a clip; the first one only shows where the target is."""
    warmup: int = 50
    """Batches of clips for frame-level training."""
    warmup_lr: float = 1e-3
    """Its learning rate."""
    updates: int = 60
    """Updates of sequence-level training, each on one batch of clips."""
    lr: float = 5e-4
    """Its learning rate."""
    policy_weight: float = 10.0
    """Weight of REINFORCE against the boxes' L1 loss."""
    temperature: float = 3.0
    """Factor on the scores when tracks are sampled: they must not leave the target at once."""
    reward_to_go: bool = True
    """Credit a choice with the rewards from its frame on; the paper takes the whole return."""
    max_grad_norm: float = 5.0
    """L2 norm that gradients are clipped to."""
    test_sequences: int = 50
    """Held-out sequences."""
    test_frames: int = 40
    """Their length."""
    threads: int = 1
    """PyTorch's threads; the environment draws frames in threads of its own."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the network runs."""
    seed: int = 0
    """Of weights, clips and samples."""
    output: Path = Path("runs/slt_single_file")
    """Folder for TensorBoard."""


def make_env(tracks: int, frames: int, **options) -> gym.vector.VectorEnv:
    """Make tracks that run side by side until all end together, with crops of 96 pixels."""
    return gym.make_vec(
        "slt_gym:SLTTrack-Synthetic-v0",
        num_envs=tracks,
        geometry="transt-tiny",  # template crops of 48 pixels, search crops of 96
        reward="overlap",  # IoU / T: the return is a clip's mean overlap
        num_frames=frames,
        autoreset_mode="disabled",
        **options,
    )


class Siamese(nn.Module):
    """Proposes one box for each cell of a search crop, and scores it."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride in (
            (3, width // 2, 2),
            (width // 2, width, 2),
            (width, width, 2),
            (width, width, 1),
        ):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.GroupNorm(4, outputs),  # no batch statistics that training could disturb
                nn.ReLU(),
            ]
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 5, 1)
        )
        row, column = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
        corner = torch.stack([column, row], dim=-1).reshape(-1, 2)
        self.register_buffer("centres", (corner + 0.5) / CELLS)  # (N, 2), (x, y)
        hann = torch.outer(*[torch.hann_window(CELLS, periodic=False)] * 2).reshape(-1)
        self.register_buffer("prior", torch.log(0.1 + 0.9 * hann))  # (N,)

    def encode(self, template: Tensor) -> Tensor:
        """Map templates ``(B, 3, 48, 48)``, uint8, to kernels ``(B, C, 6, 6)``."""
        return self.backbone(template.float() / 255 - 0.5)

    def forward(
        self, kernels: Tensor, search: Tensor, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities ``(B, N)`` and boxes ``(B, N, 4)`` of search crops."""
        seen = self.backbone(search.float() / 255 - 0.5)  # (B, C, 12, 12)
        b, c = seen.shape[:2]
        # Depth-wise cross-correlation: each track's template is the filter of its search crop.
        padded = F.pad(seen, (2, 3, 2, 3)).reshape(1, b * c, CELLS + 5, CELLS + 5)
        match = F.conv2d(padded, kernels.reshape(b * c, 1, 6, 6), groups=b * c)
        match = match.reshape(b, c, CELLS, CELLS) / 6
        out = self.head(torch.cat([match, seen], dim=1)).flatten(2).transpose(1, 2)  # (B, N, 5)
        log_probs = torch.log_softmax(temperature * (out[..., 0] + self.prior), dim=1)
        centre = self.centres + 0.15 * torch.tanh(out[..., 1:3])
        size = 0.25 * torch.exp(out[..., 3:].clamp(-2, 2))  # a crop's side is four target sizes
        return log_probs, torch.cat([centre - size / 2, size], dim=-1)


def to_action(box: Tensor) -> np.ndarray:
    """Turn boxes ``(B, 4)`` into actions: the centre beside the crop's, the size less 1."""
    centre = box[:, :2] + box[:, 2:] / 2
    action = torch.cat([centre - 0.5, box[:, 2:] - 1], dim=1)
    return action.clamp(-1, 1).cpu().numpy()


def cell_labels(network: Siamese, gt_box: Tensor) -> Tensor:
    """Weigh the cells ``(B, N)`` by their distance from the true centre; each row sums to 1."""
    centre = gt_box[:, :2] + gt_box[:, 2:] / 2
    distance = (network.centres - centre[:, None]).square().sum(-1)  # (B, N)
    return torch.softmax(-distance / (2 * 0.05**2), dim=1)


def supervised_losses(
    network: Siamese, log_probs: Tensor, boxes: Tensor, gt_box: Tensor, present: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the cells' cross-entropy and the boxes' L1 loss, over crops with the target."""
    label = cell_labels(network, gt_box)
    entropy = -(label * log_probs).sum(1)  # (B,)
    l1 = (label * (boxes - gt_box[:, None]).abs().sum(-1)).sum(1)  # (B,)
    count = present.sum().clamp(min=1)
    return (entropy * present).sum() / count, (l1 * present).sum() / count


def step(optimizer: torch.optim.Optimizer, loss: Tensor, max_norm: float) -> None:
    """Take one clipped gradient step."""
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    optimizer.step()


def warm_up(network: Siamese, config: Config, writer: SummaryWriter) -> None:
    """Train frame by frame: the crops follow the last known true box, shifted at random."""
    rng = np.random.default_rng(config.seed)
    # Two tracks of a clip share its frames; here they are two different crops of each.
    env = make_env(2 * config.clips, config.frames, tracks_per_clip=2)
    optimizer = torch.optim.Adam(network.parameters(), config.warmup_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.warmup)
    for batch in range(config.warmup):
        obs, info = env.reset(seed=config.seed if batch == 0 else None)
        template = torch.from_numpy(obs["template"]).to(config.device)  # (B, 3, 48, 48)
        true_box = estimate = info["box"]  # (B, 4), frame pixels
        for _ in range(config.frames - 1):
            # The last known true box, in units of the crop that is looked at.
            scale = (obs["box"][:, 2:] / estimate[:, 2:]).mean(1, keepdims=True)  # (B, 1)
            shift = (true_box[:, :2] + true_box[:, 2:] / 2) - (
                estimate[:, :2] + estimate[:, 2:] / 2
            )
            size = true_box[:, 2:] * scale
            centre = 0.5 + shift * scale + rng.normal(0, 0.25, size.shape) * size
            size = size * np.exp(rng.normal(0, 0.15, size.shape))
            box = torch.from_numpy(np.concatenate([centre - size / 2, size], axis=1))
            search = torch.from_numpy(obs["search"]).to(config.device)  # (B, 3, 96, 96)
            obs, _, _, _, info = env.step(to_action(box.float()))
            log_probs, boxes = network(network.encode(template), search)
            gt_box = torch.from_numpy(info["gt_box_crop"]).float().to(config.device)
            present = torch.from_numpy(info["visible"]).to(config.device)
            entropy, l1 = supervised_losses(network, log_probs, boxes, gt_box, present)
            step(optimizer, entropy + 5 * l1, config.max_grad_norm)
            visible = info["visible"][:, None]
            true_box = np.where(visible, info["gt_box"], true_box)
            estimate = info["box"]
        schedule.step()
        writer.add_scalar("warmup/cross_entropy", entropy.item(), batch)
        writer.add_scalar("warmup/l1", l1.item(), batch)
    env.close()


def train_on_sequences(network: Siamese, config: Config, writer: SummaryWriter) -> None:
    """Self-critical REINFORCE: the greedy track's return is the sampled track's baseline."""
    env = make_env(2 * config.clips, config.frames, tracks_per_clip=2)
    greedy = torch.arange(2 * config.clips, device=config.device) % 2 == 0  # (2 C,)
    generator = torch.Generator(config.device).manual_seed(config.seed)
    optimizer = torch.optim.Adam(network.parameters(), config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.updates)
    for update in range(config.updates):
        # Exploration: both tracks of every clip to its end, without gradients.
        obs, info = env.reset(seed=config.seed + 1_000_000 if update == 0 else None)
        template = torch.from_numpy(obs["template"]).to(config.device)  # (2 C, 3, 48, 48)
        rewards, searches, indices, gt_boxes, visible = [], [], [], [], []
        with torch.no_grad():
            kernels = network.encode(template)
            for _ in range(config.frames - 1):
                search = torch.from_numpy(obs["search"]).to(config.device)
                # (2 C, N), (2 C, N, 4)
                log_probs, boxes = network(kernels, search, config.temperature)
                drawn = torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]
                index = torch.where(greedy, log_probs.argmax(1), drawn)  # (2 C,)
                chosen = boxes[torch.arange(len(index)), index]  # (2 C, 4)
                obs, reward, _, _, info = env.step(to_action(chosen))
                rewards.append(torch.from_numpy(reward).float())
                searches.append(search[~greedy])
                indices.append(index[~greedy])
                gt_boxes.append(torch.from_numpy(info["gt_box_crop"]).float()[1::2])
                visible.append(torch.from_numpy(info["visible"])[1::2])
        rewards = torch.stack(rewards)  # (T, 2 C)
        gain = rewards[:, 1::2] - rewards[:, ::2]  # (T, C), sampled against greedy
        total = gain.sum(0)  # (C,)
        to_go = gain.flip(0).cumsum(0).flip(0)  # (T, C)
        advantage = to_go if config.reward_to_go else total.expand_as(gain)

        # Update: the sampled tracks' crops once more, all at once, with gradients.
        frames = config.frames - 1
        kernels = network.encode(template[~greedy]).repeat(frames, 1, 1, 1)  # (T C, ...)
        # (T C, N), (T C, N, 4)
        log_probs, boxes = network(kernels, torch.cat(searches), config.temperature)
        log_prob = log_probs.gather(1, torch.cat(indices)[:, None])[:, 0]  # (T C,)
        reinforce = -(advantage.flatten().to(config.device) * log_prob).mean()
        gt_box, present = (torch.cat(x).to(config.device) for x in (gt_boxes, visible))
        _, l1 = supervised_losses(network, log_probs, boxes, gt_box, present)
        step(optimizer, config.policy_weight * reinforce + 5 * l1, config.max_grad_norm)
        schedule.step()
        for name, value in (
            ("slt/greedy_auc", info["auc"][::2].mean()),
            ("slt/sampled_auc", info["auc"][1::2].mean()),
            ("slt/positive_advantage", (total > 0).float().mean()),
            ("slt/reinforce", reinforce.item()),
            ("slt/l1", l1.item()),
            ("slt/entropy", -(log_probs.exp() * log_probs).sum(1).mean().item()),
        ):
            writer.add_scalar(name, value, update)
    env.close()


@torch.no_grad()
def test(network: Siamese, config: Config) -> float:
    """Return the mean success AUC of greedy tracks over the held-out sequences."""
    size = {"num_sequences": config.test_sequences, "num_frames": config.test_frames}
    env = make_env(config.test_sequences, config.test_frames, split="test", dataset_options=size)
    obs, info = env.reset()
    kernels = network.encode(torch.from_numpy(obs["template"]).to(config.device))
    for _ in range(config.test_frames - 1):
        log_probs, boxes = network(kernels, torch.from_numpy(obs["search"]).to(config.device))
        chosen = boxes[torch.arange(len(boxes)), log_probs.argmax(1)]
        obs, _, _, _, info = env.step(to_action(chosen))
    env.close()
    return float(info["auc"].mean())


def main(config: Config) -> dict[str, float]:
    """Train, and return the test AUC after each stage."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    network = Siamese().to(config.device)
    aucs: dict[str, float] = {}
    stages = {
        "untrained": lambda *_: None,
        "frame by frame": warm_up,
        "sequences": train_on_sequences,
    }
    with SummaryWriter(str(config.output)) as writer:
        for name, train in stages.items():
            started = time.perf_counter()
            train(network, config, writer)
            seconds = time.perf_counter() - started
            aucs[name] = test(network, config)
            writer.add_scalar("test/auc", aucs[name], len(aucs))
            print(f"{name}: {seconds:.0f} s, test AUC {100 * aucs[name]:.1f} %", flush=True)
    return aucs


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
