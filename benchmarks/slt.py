"""Time iterations of sequence-level training against the plain loop of published trainers.

Both do the same: the same clips (JPEG frames in a folder), the same random numbers and the same
weights, which are random and stay as they are (learning rate 0). See `plain_slt.py` for what the
plain loop does. The two take turns; the first round warms up, and ratios are medians over the
others.

Both must give the same result, boxes within 1e-3 pixel and gradients within 1e-4 of their norm, or
the command fails (with `--precision float32`; what the others give is printed). Random networks are
ill conditioned, and those of the published sizes miss that bound in float32. So the two are also
compared in a round of shorter clips in float64, which tells whether they do the same; and printed
is how far the plain loop's own gradient moves in float32 if its weights are rounded anew.

`explore` is tracking a batch of clips, greedily and with samples, `update` the optimizer step.
On a CPU the seconds are those of the CPU, on one thread; the split decode / crop / network is by
the clock. Memory is the growth of the process's peak on a CPU (the plain loop's on top of ours),
and what PyTorch allocates at its peak on a GPU. "computed" is the share of crops that the network
sees: while the tracks of a clip see the same crop, always in the first frame, it is computed once.

    python benchmarks/slt.py --tracker transt
    python benchmarks/slt.py --tracker transt-tiny --clips 4 --frames 12
    python benchmarks/slt.py --device cuda --clips 8 --frames 24 --precision bf16 --no-plain
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from frames import write_synthetic
from plain_slt import PlainRollout, PlainSLT, separate_batch_norm
from stable_baselines3.common.logger import Logger

from slt_gym.agents import SLT, TrackerPolicy
from slt_gym.agents import graphs as graphs_module
from slt_gym.agents import policy as policy_module
from slt_gym.agents.features import find_equal_crops, upload
from slt_gym.agents.precision import PRECISIONS
from slt_gym.agents.siamrpnpp import SiamRPNpp
from slt_gym.agents.transt import TransT
from slt_gym.agents.trdimp import TrDiMP
from slt_gym.data import Clip

TRACKERS = ("siamattn", "siamrpnpp", "transt", "trdimp")
SEED = 1
PHASES = ("explore", "update", "iteration")
CHECKED_FRAMES = 3
DIFFERENCES = {
    "difference": "difference in the timed rounds",
    "difference_float64": "difference in float64",
}


class Watch:
    """Takes the time and the peak of memory of what runs on a device."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def time(self, function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
        """Return a function's result and its seconds."""
        clock = time.perf_counter if self.cuda else time.process_time
        self._wait()
        start = clock()
        result = function(*args)
        self._wait()
        return result, clock() - start

    def peak(self) -> int:
        """Return the peak since the last call on a GPU, and since the start elsewhere: bytes."""
        if self.cuda:
            peak = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            return peak
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


class Ours:
    """`SLT`, begun anew on the same clips in every round."""

    def __init__(self, model: SLT) -> None:
        self.model = model
        model.set_logger(Logger(None, []))
        self.clips: list[Clip] = []
        self.computed = self.seen = 0
        self.boxes: list[Any] = []
        _, self._callback = model._setup_learn(1)
        for module in (policy_module, graphs_module):
            module.find_equal_crops = self._count  # type: ignore[attr-defined]

    def _count(self, *args: Any) -> Any:
        found = find_equal_crops(*args)
        self.computed += len(found[0])
        self.seen += len(found[1])
        return found

    def begin(self) -> None:
        """Start the clips and the random numbers again."""
        model: Any = self.model
        model.policy.set_seed(SEED)
        model._rng = np.random.default_rng(SEED)
        model.env.seed(SEED)
        model._last_obs = model.env.reset()
        model._at_start = True
        groups = model.env.tracks._groups
        self.clips = [group.episodes[0].frames.clip for group in groups]

    def explore(self) -> Any:
        """Track the clips."""
        self.boxes = []
        step = self.model.env.step

        def watch(actions: Any) -> Any:
            result = step(actions)
            self.boxes.append(np.stack([info["box"] for info in result[3]]))
            return result

        self.model.env.step = watch  # type: ignore[union-attr, method-assign]
        try:
            return self.model.collect_rollout(self._callback)
        finally:
            self.model.env.step = step  # type: ignore[union-attr, method-assign]


def calm(network: Any, observation: dict[str, Any]) -> None:
    """Let random weights track: activations of unit size, boxes of about the target's size."""
    statistics_of = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for module in statistics_of:
        module.momentum = 1.0  # takes over the crops' statistics
    device = next(network.parameters()).device
    names = [key for key in ("template", "template_box") if key in observation]
    shown = [upload(observation[key][:2], device) for key in names]
    search = upload(observation["search"][:2], device)
    with torch.no_grad():
        network.train()
        network.propose(network.encode(*shown), search)
        network.eval()
        for module in statistics_of:
            module.momentum = 0.1
        if isinstance(network, TransT):
            layer = network.bbox_embed.layers[-1]
            layer.weight.mul_(0.1)
            layer.bias.copy_(torch.tensor([0.0, 0.0, -1.1, -1.1]))  # a quarter of the crop
        elif isinstance(network, SiamRPNpp):
            for level in network.rpn_head.levels:
                level.loc.head[3].weight.mul_(0.01)
                level.loc.head[3].bias.zero_()
        elif isinstance(network, TrDiMP):
            network.bb_regressor.iou_predictor.weight.mul_(0.01)  # gentle slopes


def make_model(args: argparse.Namespace, root: Path) -> SLT:
    """Make the model, on the folder's clips."""
    torch.manual_seed(0)
    model = SLT(
        TrackerPolicy,
        "slt_gym:SLTTrack-Folder-v0",
        learning_rate=0.0,
        n_clips=args.clips,
        micro_batch=args.micro_batch,
        max_grad_norm=1e9,
        precision=args.precision,
        compile=args.compile,
        activation_checkpointing=args.checkpointing,
        keep_graph=args.keep_graph,
        env_kwargs={"root": str(root), "num_frames": args.frames, "threads": args.threads},
        policy_kwargs={"tracker": args.tracker},
        seed=SEED,
        device=args.device,
    )
    assert model.env is not None
    calm(model.policy.network, model.env.reset())  # type: ignore[arg-type]
    return model


def compare(ours: Ours, plain: PlainSLT, rollout: PlainRollout) -> dict[str, float]:
    """Return the largest difference of boxes, pixels, and the relative one of gradients."""
    boxes = np.abs(np.stack(ours.boxes) - np.stack(rollout.boxes)).max()
    peers = {
        name.replace(".attention.", "."): parameter.grad
        for name, parameter in plain.network.named_parameters()
    }
    difference = norm = 0.0
    for name, parameter in ours.model.policy.network.named_parameters():
        peer = peers.get(name)
        if parameter.grad is not None and peer is not None:
            difference += float((parameter.grad - peer).double().square().sum())
            norm += float(peer.double().square().sum())
    return {"boxes_px": float(boxes), "gradient": (difference / norm) ** 0.5}


def measure_conditioning(plain: PlainSLT, rollout: PlainRollout) -> float:
    """Return how far the plain loop's gradient moves, of its norm, if weights are rounded anew."""
    parameters = [p for p in plain.network.parameters() if p.grad is not None]
    before = [p.grad.clone() for p in parameters if p.grad is not None]
    with torch.no_grad():
        for p in parameters:  # by half a unit in the last place
            p.mul_(1 + torch.empty_like(p).uniform_(-1, 1) * torch.finfo(p.dtype).eps / 2)
    with separate_batch_norm():
        plain.update(rollout, np.random.default_rng(SEED))
    moved = [p.grad for p in parameters if p.grad is not None]
    pairs = list(zip(before, moved, strict=True))
    difference = sum(float((a - b).double().square().sum()) for a, b in pairs)
    return (difference / sum(float(a.double().square().sum()) for a in before)) ** 0.5


def run_ours(ours: Ours, watch: Watch) -> dict[str, float]:
    """Run an iteration and return its seconds."""
    ours.begin()
    rollout, explore = watch.time(ours.explore)
    _, update = watch.time(ours.model.train, rollout)
    return {"explore": explore, "update": update}


def run_plain(
    plain: PlainSLT, clips: list[Clip], watch: Watch
) -> tuple[PlainRollout, dict[str, float]]:
    """Run an iteration of the plain loop."""
    with separate_batch_norm():
        rollout, explore = watch.time(plain.explore, clips, SEED)
        _, update = watch.time(plain.update, rollout, np.random.default_rng(SEED))
    return rollout, {"explore": explore, "update": update}


def compare_in_float64(args: argparse.Namespace, root: Path) -> dict[str, float]:
    """Run an iteration of both with twice the digits, and compare them."""
    torch.set_default_dtype(torch.float64)
    try:
        short = {"frames": min(args.frames, CHECKED_FRAMES), "compile": False}
        ours = Ours(make_model(argparse.Namespace(**{**vars(args), **short}), root))
        plain = PlainSLT(ours.model)
        watch = Watch(ours.model.device)
        run_ours(ours, watch)
        return compare(ours, plain, run_plain(plain, ours.clips, watch)[0])
    finally:
        torch.set_default_dtype(torch.float32)


def run_rounds(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Let the two take turns; return what was measured."""
    ours = Ours(make_model(args, root))
    watch = Watch(ours.model.device)
    plain = PlainSLT(ours.model) if args.plain else None
    seconds: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    peaks: dict[str, int] = {}
    differences: dict[str, float] = {}
    before = watch.peak()
    for number in range(args.rounds + 1):
        if number == 1:  # the first one warms up
            ours.model._stopwatch.seconds.clear()
            ours.model.env.tracks.stopwatch.seconds.clear()  # type: ignore[union-attr]
            if plain is not None:
                plain.stopwatch.seconds.clear()
        seconds["ours"].append(run_ours(ours, watch))
        peak = watch.peak()
        peaks.setdefault("ours", peak if watch.cuda else peak - before)
        if plain is not None:
            rollout, spent = run_plain(plain, ours.clips, watch)
            seconds["plain"].append(spent)
            other = watch.peak()
            peaks.setdefault("plain", other if watch.cuda else other - before)
            differences = compare(ours, plain, rollout)
    splits = {"ours": ours.model._split_time()}
    if plain is not None:
        splits["plain"] = plain.stopwatch.seconds
    rows: dict[str, Any] = {}
    for name, split in splits.items():
        rounds = [{**s, "iteration": sum(s.values())} for s in seconds[name][1:]]
        medians = {phase: statistics.median(s[phase] for s in rounds) for phase in PHASES}
        rows[name] = {
            "seconds": medians,
            "clip_frames_per_second": args.clips * args.frames / medians["iteration"],
            "split": {phase: spent / args.rounds for phase, spent in split.items()},
            "peak_bytes": peaks[name],
        }
    if plain is not None:
        pairs = list(zip(*(seconds[name][1:] for name in ("ours", "plain")), strict=True))
        rows["ratio"] = {
            phase: statistics.median(p[phase] / o[phase] for o, p in pairs)
            for phase in ("explore", "update")
        }
        rows["ratio"]["iteration"] = statistics.median(
            sum(p.values()) / sum(o.values()) for o, p in pairs
        )
        rows["difference"] = differences
        if args.precision == "float32":
            rows["conditioning"] = measure_conditioning(plain, rollout)
            rows["difference_float64"] = compare_in_float64(args, root)
    rows["computed"] = ours.computed / ours.seen if ours.seen else 1.0
    return rows


def show(rows: dict[str, Any]) -> None:
    """Print what was measured."""
    columns = ("explore s", "update s", "clip-fr/s", "decode s", "crop s", "network s", "peak MB")
    print(" " * 8 + "".join(f"{column:>11}" for column in columns))
    for name in ("ours", "plain"):
        if name not in rows:
            continue
        row = rows[name]
        values = [row["seconds"]["explore"], row["seconds"]["update"]]
        values += [row["clip_frames_per_second"]]
        values += [row["split"].get(phase, 0.0) for phase in ("decode", "crop", "network")]
        values += [row["peak_bytes"] / 1e6]
        print(f"{name:8}" + "".join(f"{value:11.3f}" for value in values))
    print(f"computed {rows['computed']:.1%} of the crops")
    if "ratio" in rows:
        ratios = "  ".join(f"{phase} {rows['ratio'][phase]:.2f}" for phase in PHASES)
        print(f"plain / ours: {ratios}")
        for name, title in DIFFERENCES.items():
            if name in rows:
                words = "{}: boxes {boxes_px:.1e} px, gradient {gradient:.1e}"
                print(words.format(title, **rows[name]))
        if "conditioning" in rows:
            print(f"plain gradient with its weights rounded anew: {rows['conditioning']:.1e}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*TRACKERS, *(f"{name}-tiny" for name in TRACKERS)]
    parser.add_argument("--tracker", default="transt", choices=names)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--frames", type=int, default=5, help="of a clip; the first is not tracked")
    parser.add_argument("--micro-batch", type=int, default=2, help="clips in one backward pass")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--compile", nargs="?", const=True, default=False, help="or its mode")
    parser.add_argument("--checkpointing", action="store_true", help="of activations")
    parser.add_argument("--keep-graph", action="store_true", help="from exploration to the update")
    parser.add_argument("--no-plain", dest="plain", action="store_false", help="only ours")
    parser.add_argument("--threads", type=int, default=1, help="that decode and crop")
    parser.add_argument("--width", type=int, default=1280, help="of the frames, pixels")
    parser.add_argument("--height", type=int, default=720, help="of the frames, pixels")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as root:
        write_synthetic(Path(root), args.clips, args.width, args.height)
        rows = run_rounds(args, Path(root))
    cuda = torch.device(args.device).type == "cuda"
    device = torch.cuda.get_device_name() if cuda else "one CPU thread"
    print(
        f"{args.tracker}: {args.clips} clips of {args.frames} frames, {args.width}x{args.height}, "
        f"{device}, {args.precision}, median of {args.rounds} rounds"
    )
    show(rows)
    if args.json is not None:
        settings = {k: v for k, v in vars(args).items() if k != "json"}
        versions = {"torch": torch.__version__, "opencv": cv2.__version__, "device": device}
        args.json.write_text(json.dumps({**settings, **versions, **rows}, indent=2) + "\n")
    differing = [
        title
        for name, title in DIFFERENCES.items()
        if name in rows and (rows[name]["boxes_px"] > 1e-3 or rows[name]["gradient"] > 1e-4)
    ]
    if args.precision == "float32" and differing:
        bound = "more than 1e-3 pixel or 1e-4 of the gradient"
        parser.exit(1, f"the results differ by {bound}: {', '.join(differing)}\n")


if __name__ == "__main__":
    main()
