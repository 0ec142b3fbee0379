"""Small trees of sequences, real ones cut from ../shared and made ones that need nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from slt_gym.data import list_datasets

FrameWriter = Callable[..., list[Path]]


@pytest.fixture
def write_frames() -> FrameWriter:
    """Write ``count`` small images whose brightness tells their place: ``10 * (t + 1)``."""

    def write(folder: Path, count: int, pattern: str = "{:04d}.jpg", first: int = 1) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / pattern.format(first + t) for t in range(count)]
        for t, path in enumerate(paths):
            frame = np.full((12, 16, 3), 10 * (t + 1), np.uint8)
            path.write_bytes(cv2.imencode(path.suffix, frame)[1].tobytes())
        return paths

    return write


@pytest.fixture(autouse=True)
def no_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a developer's own datasets out of the tests."""
    for name in ("data", *list_datasets()):
        monkeypatch.delenv(f"SLT_GYM_{name.upper()}", raising=False)


@pytest.fixture(scope="session")
def layouts(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniature datasets, exact in structure, made of real frames: 24 in most sequences."""
    out = tmp_path_factory.mktemp("layouts")
    script = shared / "layouts" / "make_layout_samples.py"
    sources = shared / "data" / "sequences"
    command = [sys.executable, str(script), "--out", str(out), "--frames", "24", "--irregular"]
    for name in ("Crossing", "Man", "ball1", "bag"):
        command += ["--src", f"{name}={sources / name}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=shared)
    return out
