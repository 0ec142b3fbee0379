"""Time the published networks' trackers on one core, against the plain way to write their loop.

Prints for each tracker the median over the rounds of the frames per second of `update`, and of the
milliseconds of its crops and of the rest, which is its network. Next to it the same tracker with
crops that pad the whole frame, as the published code does wherever a window leaves it ("pads
frames"), and one that also encodes the template in every frame, as the published exploration of
sequence-level training does ("encodes anew"). All see the same frames in turn and must give the
same boxes, bit for bit. TrDiMP learns from its template and pads no frame: it has no such peers.

Below the tracker stands the exploration of SLT ("explores"): a greedy and a sampled track of one
clip of as many frames, in an environment, by the clip-frame, the template included, with the time
to decode (or to draw) next to that of the crops. Its ratio is to the tracker, which follows one
track, through frames in memory.

Weights are random: before each update the estimate is put on the target of the frame before, and
TrDiMP refines whatever it finds. The frames are spread evenly over a sequence, and decoded
beforehand. Times are seconds of the CPU, not of the clock. "crop kB" is what a search crop
allocates at its peak (`tracemalloc`), on average; "leaving" is the share of windows that leave the
frame; "MB" is how far the process's memory rises while the tracker starts and makes one update, or
the clip is explored (Linux only), without the weights and without memory that an earlier tracker
has freed: for this figure time one tracker alone.

    python benchmarks/trackers.py
    python benchmarks/trackers.py --dataset folder --root DIR --trackers siamrpnpp --rounds 5
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from plain_slt import crop_padded
from slt import calm

from slt_gym import create_tracker
from slt_gym.agents import TrackerNetwork, TrackerPolicy
from slt_gym.agents.features import map_features
from slt_gym.agents.tracker import ProposalTracker, Tracker
from slt_gym.agents.trdimp import tracker as trdimp
from slt_gym.data import Sequence, open_dataset
from slt_gym.envs import TrackingVectorEnv
from slt_gym.geometry import Geometry

TRACKERS = ("siamattn", "siamrpnpp", "transt", "trdimp")
Crop = Callable[..., NDArray[Any]]


@dataclass
class Peer:
    """A tracker under the clock.

    Attributes:
        tracker: It.
        seconds: Of each round's updates.
        phases: Of each round, by phase.
        boxes: Every estimate.
    """

    tracker: Tracker
    seconds: list[float] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)
    boxes: list[NDArray[np.float64]] = field(default_factory=list)


class Clock:
    """Adds up the seconds that crops take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, crop: Crop) -> Crop:
        """Return ``crop`` under the clock."""

        def timed(*args: Any) -> NDArray[Any]:
            start = time.process_time()
            patch = crop(*args)
            self.seconds += time.process_time() - start
            return patch

        return timed


class Cropping:
    """A geometry with another way to crop."""

    def __init__(self, geometry: Geometry, crop: Crop) -> None:
        self._geometry, self.crop = geometry, crop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._geometry, name)


class PlainTracker(ProposalTracker):
    """Encodes the template in every frame."""

    def init(self, frame: NDArray[np.uint8], box: Any) -> None:
        """Start on ``frame``, see :class:`Tracker`."""
        super().init(frame, box)
        geometry, size = self.geometry, self.geometry.template_size
        window = geometry.template_window(box)
        self._template = self._batch(geometry.crop(frame, window, size, self._fill))

    @torch.no_grad()
    def update(self, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Find the target, see :class:`Tracker`."""
        self._features = self.network.encode(self._template)
        return super().update(frame)


def make_peers(name: str, clock: Clock, observation: dict[str, Any]) -> dict[str, Peer]:
    """Make a tracker and what it is compared with, on one network; see :func:`calm`."""
    torch.manual_seed(0)
    believing = {"target_not_found_threshold": -math.inf} if name == "trdimp" else {}
    tracker = create_tracker(name, **believing)
    calm(tracker.network, observation)  # type: ignore[attr-defined]
    if not isinstance(tracker, ProposalTracker):
        trdimp.crop_float = clock.time(trdimp.crop_float)  # type: ignore[assignment]
        return {name: Peer(tracker)}
    network, geometry = tracker.network, tracker.geometry
    plain = ProposalTracker(name, network, geometry, "cpu")
    anew = PlainTracker(name, network, geometry, "cpu")
    for peer, crop in ((tracker, geometry.crop), (plain, crop_padded), (anew, crop_padded)):
        peer.geometry = Cropping(geometry, clock.time(crop))  # type: ignore[assignment]
    return {name: Peer(tracker), "pads frames": Peer(plain), "encodes anew": Peer(anew)}


def time_rounds(
    peers: dict[str, Peer], sequence: Sequence, times: list[int], rounds: int, clock: Clock
) -> None:
    """Track the frames ``times`` with all peers in turn; one more round warms up."""
    first, frames = sequence.read(0), {t: sequence.read(t) for t in times}
    names = list(peers)
    for number in range(rounds + 1):
        seconds = dict.fromkeys(names, 0.0)
        crops = dict.fromkeys(names, 0.0)
        for name in names:
            peers[name].tracker.init(first, sequence.boxes[0])
        for i, t in enumerate(times):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                peer = peers[name]
                peer.tracker._box = sequence.boxes[t - 1].copy()  # type: ignore[attr-defined]
                clock.seconds, start = 0.0, time.process_time()
                peer.boxes.append(peer.tracker.update(frames[t]))
                seconds[name] += time.process_time() - start
                crops[name] += clock.seconds
        if number:
            for name, peer in peers.items():
                peer.seconds.append(seconds[name])
                rest = seconds[name] - crops[name]
                peer.phases.append({"crop": crops[name], "rest": rest})


@torch.no_grad()
def time_exploration(
    name: str, network: TrackerNetwork, env: TrackingVectorEnv, sequence: str, rounds: int
) -> tuple[list[float], list[dict[str, float]], float]:
    """Explore a clip as SLT does, in turns with nothing; one more round warms up.

    Returns:
        The CPU seconds of each round, the same by phase, and the peak of memory, MB.
    """
    policy = TrackerPolicy(env.single_observation_space, env.single_action_space, tracker=name)
    policy.network.load_state_dict(network.state_dict())
    greedy = np.array([True, False])
    seconds, phases, peak = [], [], math.nan
    for number in range(rounds + 1):
        before = dict(env.stopwatch.seconds)
        start = time.process_time()
        with PeakMemory() as memory:
            obs, _ = env.reset(seed=0, options={"sequence": sequence})
            shown = [obs[key][:1] for key in ("template", "template_box") if key in obs]
            features = map_features(lambda f: f.expand(2, *f.shape[1:]), policy.encode(*shown))
            done = False
            while not done:
                obs, _, ends, _, _ = env.step(policy.act(features, obs, greedy, 2)[0])
                done = bool(ends.all())
        if not number:
            peak = memory.megabytes
            continue
        seconds.append(time.process_time() - start)
        spent = {key: value - before.get(key, 0.0) for key, value in env.stopwatch.seconds.items()}
        rest = seconds[-1] - sum(spent.values())
        phases.append({**spent, "rest": rest})
    return seconds, phases, peak


class PeakMemory:
    """Measures how far the process's memory rises while it is entered.

    Attributes:
        megabytes: The rise; NaN where the system does not tell.
    """

    def __enter__(self) -> PeakMemory:
        self.megabytes = math.nan
        self._before = self._read("VmRSS")
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        return self

    def __exit__(self, *_: object) -> None:
        self.megabytes = (self._read("VmHWM") - self._before) / 1e3

    @staticmethod
    def _read(field: str) -> float:
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith(field):
                    return float(line.split()[1]) * 1.024  # kB
        return math.nan


def measure_memory(tracker: Tracker, sequence: Sequence, t: int) -> float:
    """Return the peak of memory while the tracker starts and makes one update, MB."""
    first, frame = sequence.read(0), sequence.read(t)
    with PeakMemory() as memory:
        tracker.init(first, sequence.boxes[0])
        tracker.update(frame)
    return memory.megabytes


def measure_crops(tracker: Tracker, sequence: Sequence, times: list[int]) -> tuple[float, float]:
    """Return the mean peak of what a search crop allocates, bytes, and how many leave the frame."""
    geometry: Geometry = tracker.geometry  # type: ignore[attr-defined]
    peaks, leaving = [], 0
    for t in times:
        frame = sequence.read(t)
        height, width = frame.shape[:2]
        window = geometry.search_window(sequence.boxes[t - 1], (width, height))
        x, y = window.origin
        leaving += min(x, y) < 0 or x + window.side > width or y + window.side > height
        fill = geometry.fill_colour(frame)
        tracemalloc.start()
        geometry.crop(frame, window, geometry.search_size, fill)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return statistics.mean(peaks), leaving / len(times)


def make_env(name: str, args: argparse.Namespace, options: dict[str, Any]) -> TrackingVectorEnv:
    """Make the environment that is explored: two tracks of one clip."""
    return TrackingVectorEnv(
        2,
        args.dataset,
        root=None if args.root is None else str(args.root),
        split=args.split,
        geometry=name,
        num_frames=args.frames + 1,
        dataset_options=options,
        tracks_per_clip=2,
        threads=1,
        prefetch=False,
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trackers", nargs="+", default=list(TRACKERS), choices=TRACKERS)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--root", type=Path, help="its folder")
    parser.add_argument("--split", default="test")
    parser.add_argument("--sequence", help="its name (default: the first)")
    parser.add_argument("--frames", type=int, default=8, help="tracked in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=1280, help="of synthetic frames, pixels")
    parser.add_argument("--height", type=int, default=720, help="of synthetic frames, pixels")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    options = {"width": args.width, "height": args.height} if args.dataset == "synthetic" else {}
    dataset = open_dataset(args.dataset, args.root, args.split, **options)
    sequence = dataset[0] if args.sequence is None else dataset.get(args.sequence)
    height, width = sequence.read(0).shape[:2]
    times = np.linspace(1, len(sequence) - 1, args.frames).round().astype(int).tolist()
    print(
        f"{args.frames} frames of {sequence.name}, {width}x{height}, one thread, median of "
        f"{args.rounds} rounds"
    )
    columns = ("frames/s", "ratio", "crop ms", "rest ms", "crop kB", "leaving", "MB")
    print(" " * 24 + "".join(f"{column:>9}" for column in columns))
    report: dict[str, Any] = {}
    for name in args.trackers:
        clock = Clock()
        env = make_env(name, args, options)
        peers = make_peers(name, clock, env.reset(seed=0, options={"sequence": sequence.name})[0])
        time_rounds(peers, sequence, times, args.rounds, clock)
        first, *others = peers.values()
        for peer in others:
            np.testing.assert_array_equal(peer.boxes, first.boxes)
        report[name] = rows = {}
        for row, peer in peers.items():
            ratio = statistics.median(
                a / b for a, b in zip(first.seconds, peer.seconds, strict=True)
            )
            size, leaving = measure_crops(peer.tracker, sequence, times)
            milliseconds = {
                phase: 1e3 * statistics.median(p[phase] for p in peer.phases) / args.frames
                for phase in ("crop", "rest")
            }
            rows[row] = {
                "frames_per_second": args.frames / statistics.median(peer.seconds),
                "ratio": ratio,
                "milliseconds": milliseconds,
                "crop_bytes": size,
                "leaving": leaving,
                "megabytes": measure_memory(peer.tracker, sequence, times[0]),
            }
            label = row if peer is first else f"  {row}"
            print(
                f"{label:24}{rows[row]['frames_per_second']:9.2f}{ratio:9.3f}"
                f"{milliseconds['crop']:9.2f}{milliseconds['rest']:9.1f}"
                f"{size / 1e3:9.0f}{leaving:9.0%}{rows[row]['megabytes']:9.0f}"
            )
        network: TrackerNetwork = first.tracker.network  # type: ignore[attr-defined]
        seconds, phases, megabytes = time_exploration(
            name, network, env, sequence.name, args.rounds
        )
        env.close()
        ratio = statistics.median(a / b for a, b in zip(first.seconds, seconds, strict=True))
        rate = args.frames / statistics.median(seconds)
        milliseconds = {
            phase: 1e3 * statistics.median(p[phase] for p in phases) / args.frames
            for phase in ("decode", "crop", "rest")
        }
        rows["explores"] = {
            "frames_per_second": rate,
            "ratio": ratio,
            "milliseconds": milliseconds,
            "megabytes": megabytes,
        }
        print(
            f"{'  explores':24}{rate:9.2f}{ratio:9.3f}{milliseconds['crop']:9.2f}"
            f"{milliseconds['rest']:9.1f}{'':18}{megabytes:9.0f}"
            f"  (decode {milliseconds['decode']:.1f} ms)"
        )
    if args.json is not None:
        settings = {"frames": args.frames, "width": width, "height": height, "rounds": args.rounds}
        versions = {"torch": torch.__version__, "opencv": cv2.__version__}
        content = {**settings, **versions, "trackers": report}
        args.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
