"""Time reading frames from a folder, from an LMDB pack and from a video, on one core.

Prints the median over the rounds in frames per second, and the median of the ratios to plain
`cv2.imdecode` and `cv2.cvtColor` of the same files' bytes, which lie in memory, in the same round.
All files are in the system's cache: a cold disk is slower, and a pack gains on it. The video is
another, lossy encoding (MPEG-4) of the same frames, read from the first to the last.

    python benchmarks/frames.py --rounds 9
    python benchmarks/frames.py --dataset lasot --root LaSOT --split test --frames 500
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from slt_gym.data import ImageSequence, Sequence, SequenceDataset, open_dataset
from slt_gym.data.pack.plan import make_plan, open_source
from slt_gym.data.pack.writer import write_pack

Reader = Callable[[], Iterator[NDArray[np.uint8]]]
FRAMES = 100  # of a synthetic sequence


def write_synthetic(root: Path, sequences: int, width: int, height: int) -> None:
    """Write synthetic sequences in a folder's layout, frames as JPEG of quality 95."""
    dataset = open_dataset("synthetic", split="test", num_frames=FRAMES, width=width, height=height)
    for i in range(sequences):
        folder = root / dataset[i].name
        (folder / "img").mkdir(parents=True)
        for t in range(FRAMES):
            path, frame = folder / "img" / f"{t + 1:04d}.jpg", dataset[i].read(t)
            cv2.imwrite(str(path), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        np.savetxt(folder / "groundtruth.txt", dataset[i].boxes, "%.2f", ",")


def choose(dataset: SequenceDataset, count: int) -> list[tuple[int, int]]:
    """Return sequence and frame numbers of the first ``count`` frames."""
    chosen: list[tuple[int, int]] = []
    for i, sequence in enumerate(dataset):
        chosen += [(i, t) for t in range(len(sequence))][: count - len(chosen)]
        if len(chosen) >= count:
            break
    return chosen


def write_videos(folder: Path, sequences: list[Sequence], lengths: list[int]) -> list[Path]:
    """Write the frames of each sequence as one .mp4."""
    paths = []
    for i, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        paths.append(folder / f"{i}.mp4")
        height, width = sequence.read(0).shape[:2]
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(paths[-1]), code, 30, (width, height))
        for t in range(length):
            writer.write(cv2.cvtColor(sequence.read(t), cv2.COLOR_RGB2BGR))
        writer.release()
    return paths


def read_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield a video's frames as RGB."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    while True:
        there, frame = capture.read()
        if not there:
            break
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame)  # type: ignore[misc]
    capture.release()


def read_plain(encoded: list[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Decode bytes that lie in memory."""
    for data in encoded:
        frame = cv2.imdecode(data, cv2.IMREAD_COLOR)
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame)  # type: ignore[misc, arg-type]


def time_rounds(readers: dict[str, Reader], rounds: int, count: int) -> dict[str, list[float]]:
    """Return frames per second by reader and round.

    The readers take turns frame by frame, so that whatever else the machine does slows all alike.
    """
    names = list(readers)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds + 1):
        streams = {name: readers[name]() for name in names}
        seconds = dict.fromkeys(names, 0.0)
        for k in range(count):
            for name in names[k % len(names) :] + names[: k % len(names)]:
                start = time.perf_counter()
                next(streams[name])
                seconds[name] += time.perf_counter() - start
        if i:  # The first round brings the files into the cache.
            for name in names:
                rates[name].append(count / seconds[name])
    return rates


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="folder")
    parser.add_argument("--root", type=Path, help="its folder; without it, synthetic frames")
    parser.add_argument("--split", default="test")
    parser.add_argument("--frames", type=int, default=400, help="the dataset's first ones")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=640, help="of synthetic frames, pixels")
    parser.add_argument("--height", type=int, default=360, help="of synthetic frames, pixels")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the results there")
    args = parser.parse_args()
    cv2.setNumThreads(1)

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        root, name = args.root, args.dataset
        if root is None:
            root, name = work / "folder", "folder"
            write_synthetic(root, -(-args.frames // FRAMES), args.width, args.height)
        write_pack(make_plan(open_source(name, root, [args.split]), 2 << 30), work / "pack")
        folder, packed = (open_dataset(name, place, args.split) for place in (root, work / "pack"))
        chosen = choose(folder, args.frames)
        lengths = [sum(i == j for i, _ in chosen) for j in range(chosen[-1][0] + 1)]
        sequences = [folder[i] for i in range(len(lengths))]
        (work / "videos").mkdir()
        videos = write_videos(work / "videos", sequences, lengths)
        encoded = []
        for i, t in chosen:
            sequence = folder[i]
            assert isinstance(sequence, ImageSequence)
            encoded.append(np.frombuffer(sequence.read_encoded(t), np.uint8))
        readers: dict[str, Reader] = {
            "cv2.imdecode": lambda: read_plain(encoded),
            "folder": lambda: (folder[i].read(t) for i, t in chosen),
            "LMDB pack": lambda: (packed[i].read(t) for i, t in chosen),
            "video": lambda: (frame for path in videos for frame in read_video(path)),
        }
        rates = time_rounds(readers, args.rounds, len(chosen))
        height, width = sequences[0].read(0).shape[:2]

    plain = rates["cv2.imdecode"]
    kilobytes = sum(map(len, encoded)) / len(encoded) / 1000
    print(
        f"{len(chosen)} frames, the first {width}x{height}, {kilobytes:.0f} kB each, one thread, "
        f"median of {args.rounds} rounds"
    )
    results = {}
    for reader, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, plain, strict=True))
        results[reader] = {"frames_per_second": statistics.median(values), "ratio": ratio}
        print(f"{reader:14} {statistics.median(values):8.1f} frames/s  {ratio:5.3f} x cv2.imdecode")
    if args.json is not None:
        report = {
            "frames": len(chosen),
            "width": width,
            "height": height,
            "kilobytes_per_frame": kilobytes,
            "rounds": args.rounds,
            "opencv": cv2.__version__,
            "readers": results,
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
