"""The script that compares an algorithm of one's own with Stable-Baselines3's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_script_adds_its_own_row(tmp_path: Path) -> None:
    words = ["--steps", "256", "--seeds", "1", "--jobs", "2", "--test-sequences", "2"]
    done = subprocess.run(
        [sys.executable, "examples/benchmark_sb3.py", *words, "--output", str(tmp_path / "out")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "reinforce seed 0: AUC" in done.stdout
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert set(rows) == {"reinforce", "ppo", "static"}
    assert rows["reinforce"]["steps"] == 256
    assert rows["reinforce"]["curves"] != rows["ppo"]["curves"]
