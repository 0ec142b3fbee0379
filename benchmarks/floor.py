"""Compute the least time that sequence-level training can take, from FLOPs and bytes.

Nothing is trained. FLOPs of the published networks are counted by PyTorch (`FlopCounterMode`, a
multiplication and an addition are two) in one forward and one backward pass; an iteration of SLT at
the paper's settings is then so many templates, search crops and backward passes. Divided by what a
processor computes in a second, that is the floor: clip-frames (frames of a clip, however many
tracks follow it) in a second that no program passes. The losses are left out, and with them what
only they compute: SiamAttn's refined boxes and masks, TrDiMP's jittered boxes.

The rates of this machine's core are measured in the same run: a large float32 matrix product, and
`cv2.imdecode` of a synthetic JPEG of 1280x720. Those of a GPU are arguments; 60, 400 and 790
TFLOP/s are about what an H100 or H200 reaches in float32, TF32 and bf16.

    python benchmarks/floor.py
    python benchmarks/floor.py --trackers transt --teraflops 790 --cores 16
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from slt_gym.agents.registry import get_tracker_entry
from slt_gym.data import open_dataset

TRACKERS = ("siamattn", "siamrpnpp", "transt", "trdimp")
CLIPS = {"siamattn": 12}  # in an iteration, as published; the others take 8
TRACKS = 2  # of a clip: greedy and sampled


@dataclass(frozen=True)
class Work:
    """What one clip-frame of SLT costs.

    Attributes:
        encode: FLOPs of a template.
        propose: FLOPs of a search crop.
        update: FLOPs of a sampled crop's forward and backward pass, its share of the template's
            included.
        clip_frame: FLOPs of exploration and update together.
        crop_bytes: Of the crops that two tracks bring to the network.
        rollout_bytes: Of an iteration's crops that the update keeps.
    """

    encode: float
    propose: float
    update: float
    clip_frame: float
    crop_bytes: int
    rollout_bytes: int


def count_flops(work: Callable[[], Any]) -> int:
    """Return the FLOPs of a call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def count_work(name: str, frames: int) -> Work:
    """Count what a tracker's clip-frame costs, at clips of ``frames`` frames."""
    torch.manual_seed(0)
    entry = get_tracker_entry(name)
    network, geometry = entry.build().eval(), entry.geometry
    z, s = geometry.template_size, geometry.search_size
    template = torch.randint(0, 256, (1, 3, z, z), dtype=torch.uint8)
    search = torch.randint(0, 256, (1, 3, s, s), dtype=torch.uint8)
    shown = [template]
    if geometry.shows_template_box:
        shown.append(torch.tensor([[0.4, 0.4, 0.2, 0.2]]))

    def learn() -> None:
        proposals = network.propose(network.encode(*shown), search)
        (proposals.scores.sum() + proposals.boxes.sum()).backward()

    with torch.no_grad():
        features = network.encode(*shown)
        encode = count_flops(lambda: network.encode(*shown))
        propose = count_flops(lambda: network.propose(features, search))
    both = count_flops(learn)  # of a template and a crop
    tracked = frames - 1
    backward = both / (encode + propose)
    update = backward * (propose + encode / tracked)
    clip_frame = (encode + tracked * (TRACKS * propose + update)) / frames
    clips = CLIPS.get(name, 8)
    crop = 3 * s * s
    return Work(
        encode, propose, update, clip_frame, TRACKS * crop, clips * (3 * z * z + tracked * crop)
    )


def measure_core(rounds: int) -> tuple[float, float, float]:
    """Return this core's FLOP/s, the seconds to decode a 720p JPEG, and its bytes."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    a = torch.randn(1024, 1024)
    frame = open_dataset("synthetic", split="test", width=1280, height=720, num_frames=2)[0].read(0)
    jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    rates, decodes = [], []
    for number in range(rounds + 1):
        start = time.perf_counter()
        for _ in range(4):
            a @ a
        middle = time.perf_counter()
        for _ in range(8):
            cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        if number:
            rates.append(4 * 2 * 1024**3 / (middle - start))
            decodes.append((time.perf_counter() - middle) / 8)
    return statistics.median(rates), statistics.median(decodes), float(np.size(jpeg))


def main() -> None:
    """Run the computation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trackers", nargs="+", default=list(TRACKERS), choices=TRACKERS)
    parser.add_argument("--frames", type=int, default=24, help="of a clip")
    parser.add_argument(
        "--teraflops", nargs="+", type=float, default=[60, 400, 790], help="of a GPU, per second"
    )
    parser.add_argument("--cores", type=int, default=2, help="that decode, or compute without GPU")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results there")
    args = parser.parse_args()
    rate, decode, size = measure_core(args.rounds)
    decoded = args.cores / decode  # a template and the tracked frames: as many as the clip has
    print(
        f"one core: {rate / 1e9:.1f} GFLOP/s in float32, {1e3 * decode:.2f} ms for a 1280x720 JPEG "
        f"of {size / 1e3:.0f} kB\n{args.cores} core(s) decode the frames of {decoded:.0f} "
        "clip-frames/s\n"
    )
    names = ("encode", "propose", "update", "clip-frame", "kB in", "MB kept")
    header = f"{'GFLOP':12}" + "".join(f"{name:>12}" for name in names)
    targets = [("cores", args.cores * rate)] + [(f"{t:g} TF", 1e12 * t) for t in args.teraflops]
    print(header + "".join(f"{label:>10}" for label, _ in targets) + "  clip-frames/s at most")
    report: dict[str, Any] = {}
    for name in args.trackers:
        work = count_work(name, args.frames)
        flops = (work.encode, work.propose, work.update, work.clip_frame)
        floors = {label: speed / work.clip_frame for label, speed in targets}
        report[name] = {**vars(work), "clip_frames_per_second": floors}
        print(
            f"{name:12}"
            + "".join(f"{value / 1e9:12.2f}" for value in flops)
            + f"{work.crop_bytes / 1e3:12.0f}{work.rollout_bytes / 1e6:12.1f}"
            + "".join(f"{value:10.1f}" for value in floors.values())
        )
    if args.json is not None:
        machine = {"flops": rate, "decode_seconds": decode, "jpeg_bytes": size}
        content = {"frames": args.frames, "cores": args.cores, "core": machine, "trackers": report}
        args.json.write_text(json.dumps({**content, "torch": torch.__version__}, indent=2) + "\n")


if __name__ == "__main__":
    main()
