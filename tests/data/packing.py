"""Small datasets for the tests of packs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from slt_gym.data import Sequence, SequenceDataset
from slt_gym.data.pack.manifest import Manifest
from slt_gym.data.pack.plan import make_plan, open_source
from slt_gym.data.pack.writer import write_pack


def write_sequences(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write sequences of noisy JPEG frames in the layout of LaSOT, which is a folder's, too."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name / "img").mkdir(parents=True)
        for t in range(1, count + 1):
            frame = rng.integers(0, 256, (24, 32, 3), np.uint8)
            encoded = cv2.imencode(".jpg", frame)[1]
            (root / name / "img" / f"{t:08d}.jpg").write_bytes(encoded.tobytes())
        rows = rng.integers(1, 20, (count, 4))
        text = "\n".join(",".join(map(str, row)) for row in rows)
        (root / name / "groundtruth.txt").write_text(text + "\n")
        for flag in ("full_occlusion", "out_of_view"):
            (root / name / f"{flag}.txt").write_text(",".join(map(str, rng.integers(0, 2, count))))
        (root / name / "nlp.txt").write_text(f"the {name} – a target")
    return root


def pack(
    root: Path,
    out: Path,
    dataset: str = "folder",
    splits: tuple[str, ...] = ("test",),
    shard_bytes: int = 1 << 30,
    **options: object,
) -> Manifest:
    return write_pack(make_plan(open_source(dataset, root, splits, options), shard_bytes), out)


def assert_equal_sequences(packed: Sequence, plain: Sequence) -> None:
    assert (packed.name, packed.notes, len(packed)) == (plain.name, plain.notes, len(plain))
    np.testing.assert_array_equal(packed.boxes, plain.boxes, strict=True)
    np.testing.assert_array_equal(packed.visible, plain.visible, strict=True)
    assert list(packed.attributes) == list(plain.attributes)
    for name, value in plain.attributes.items():
        np.testing.assert_array_equal(packed.attributes[name], value, strict=True)
    for t in range(len(plain)):
        assert packed.read_encoded(t) == plain.read_encoded(t)


def assert_equal_datasets(packed: SequenceDataset, plain: SequenceDataset) -> None:
    assert (packed.name, packed.split, packed.names) == (plain.name, plain.split, plain.names)
    for sequence, expected in zip(packed, plain, strict=True):
        assert_equal_sequences(sequence, expected)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, which holds no folders."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
