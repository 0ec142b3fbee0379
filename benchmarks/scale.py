"""Time sequence-level training in one process and in several, and check that they learn the same.

`torchrun` starts the processes on this machine; each takes one thread for the network and one for
the environment (with `--device cuda`, a GPU of its own). All numbers of processes train the same
model on the same clips, so the speed-up is that of a fixed batch. Prints the median over the
rounds, in which they take turns, of clip-frames per second, the ratio to one process, and the
milliseconds of an iteration in the first process: environment (waiting for decode and crop),
network (exploration), update, and of that the time until all gradients are added up, which holds
the wait for the slowest process. The weights must agree with those of one process to 1e-5.

Decoded frames are those of synthetic video, drawn by the environment's thread.

    python benchmarks/scale.py
    python benchmarks/scale.py --tracker transt --device cuda --processes 1 2 4 8 --clips 16
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from slt_gym.agents import SLT

PHASES = ("environment", "network", "update", "exchange")


def train(args: argparse.Namespace) -> None:
    """Train in this process or in torchrun's, and write what it took from the first one."""
    torch.set_num_threads(1)
    model = SLT(
        "TrackerPolicy",
        "slt_gym:SLTTrack-Synthetic-v0",
        # A plain step is linear in the gradient: Adam's first steps blow up the last digits.
        policy_kwargs={
            "tracker": args.tracker,
            "optimizer_class": torch.optim.SGD,
            "optimizer_kwargs": {},
        },
        env_kwargs={
            "num_frames": args.frames,
            "threads": 1,
            "dataset_options": {"width": args.width, "height": args.height},
        },
        n_clips=args.clips,
        micro_batch=args.micro_batch,
        learning_rate=1e-4,
        device=args.device,
        seed=0,
    )
    processes, exchanged = model.processes, 0.0
    add_gradients = processes.add_gradients

    def timed(parameters: Any) -> None:
        nonlocal exchanged
        start = time.perf_counter()
        add_gradients(parameters)
        exchanged += time.perf_counter() - start

    processes.add_gradients = timed  # type: ignore[method-assign]
    steps = args.clips * 2 * (args.frames - 1)  # of an iteration: greedy and sampled tracks
    model.learn(steps, log_interval=0)  # warms up
    processes.gather(None)
    before, exchanged = dict(model._stopwatch.seconds), 0.0
    start = time.perf_counter()
    model.learn(steps * args.iterations, reset_num_timesteps=False, log_interval=0)
    if args.device != "cpu":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    phases = {name: model._stopwatch.seconds[name] - before[name] for name in PHASES[:3]}
    if processes.first:
        content = {
            "clip_frames_per_second": args.clips * args.frames * args.iterations / seconds,
            "milliseconds": {
                name: 1e3 * value / args.iterations
                for name, value in {**phases, "exchange": exchanged}.items()
            },
            "weights": model.get_parameters()["policy"],
        }
        torch.save(content, args.worker)
    assert model.env is not None
    model.env.close()


def launch(count: int, out: Path) -> dict[str, Any]:
    """Run this script's training in ``count`` processes; return what the first one wrote."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command = [*(launcher if count > 1 else []), __file__, *sys.argv[1:], "--worker", str(out)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"training in {count} process(es) failed:\n{done.stderr}")
    return torch.load(out, map_location="cpu", weights_only=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracker", default="transt-tiny")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2], help="the first is 1")
    parser.add_argument("--clips", type=int, default=8, help="in an iteration, of all processes")
    parser.add_argument("--frames", type=int, default=16, help="of a clip")
    parser.add_argument("--micro-batch", type=int, default=2, help="clips in a backward pass")
    parser.add_argument("--iterations", type=int, default=4, help="timed in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=320, help="of the frames, pixels")
    parser.add_argument("--height", type=int, default=240, help="of the frames, pixels")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results there")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        train(args)
        return
    if args.processes[0] != 1:
        parser.error(f"--processes begins with {args.processes[0]}: the first is 1, the reference")

    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in args.processes}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for count in args.processes:
                runs[count].append(launch(count, Path(folder) / "run.pt"))
    for run in (run for others in runs.values() for run in others):
        for name, value in runs[1][0]["weights"].items():
            torch.testing.assert_close(run["weights"][name], value, rtol=0, atol=1e-5)
    print(
        f"{args.tracker} on {args.device}, {args.clips} clips of {args.frames} frames, median of "
        f"{args.rounds} rounds"
    )
    columns = ("clip-frames/s", "ratio", *(f"{phase} ms" for phase in PHASES))
    print(f"{'processes':12}" + "".join(f"{column:>15}" for column in columns))
    rows = {}
    for count, results in runs.items():
        rates = [run["clip_frames_per_second"] for run in results]
        ones = [run["clip_frames_per_second"] for run in runs[1]]
        milliseconds = {
            phase: statistics.median(run["milliseconds"][phase] for run in results)
            for phase in PHASES
        }
        rows[count] = {
            "clip_frames_per_second": statistics.median(rates),
            "ratio": statistics.median(a / b for a, b in zip(rates, ones, strict=True)),
            "milliseconds": milliseconds,
        }
        print(
            f"{count:<12}{rows[count]['clip_frames_per_second']:15.1f}{rows[count]['ratio']:15.2f}"
            + "".join(f"{value:15.0f}" for value in milliseconds.values())
        )
    if args.json is not None:
        settings = {
            name: value for name, value in vars(args).items() if name not in ("json", "worker")
        }
        content = {**settings, "torch": torch.__version__, "rows": rows}
        args.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
