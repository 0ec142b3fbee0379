"""Importing the package: what it registers, what it leaves alone, what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

import slt_gym

REPOSITORY = Path(slt_gym.__file__).parents[1]
HEAVY = ("torch", "stable_baselines3", "matplotlib", "cv2")


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_import_is_light() -> None:
    loaded = run_python(f"import sys, slt_gym; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded == "[]"


def test_import_costs_little_beyond_gymnasium() -> None:
    code = "import time, gymnasium; t = time.perf_counter(); import slt_gym; {}"
    times = [float(run_python(code.format("print(time.perf_counter() - t)"))) for _ in range(3)]
    assert min(times) < 0.3


@pytest.mark.parametrize(
    "module",
    [
        *("slt_gym.data", "slt_gym.geometry", "slt_gym.envs.vector_env", "slt_gym.envs.sb3"),
        "slt_gym.evaluation",
    ],
)
def test_environments_and_scores_need_no_torch(module: str) -> None:
    heavy = [name for name in HEAVY if name != "cv2"]
    loaded = run_python(f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])")
    assert loaded == "[]"


def test_make_sb3_env_is_importable_without_torch() -> None:
    code = "import sys; from slt_gym.envs import make_sb3_env; print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_module_form_of_an_id_registers_it() -> None:
    code = (
        "import gymnasium as gym; e = gym.make('slt_gym:SLTTrack-Synthetic-v0'); print(e.spec.id)"
    )
    assert run_python(code) == "SLTTrack-Synthetic-v0"


def test_public_names() -> None:
    assert set(slt_gym.__all__) == {"__version__", "create_tracker", "list_trackers"}
    assert set(slt_gym.__all__) <= set(dir(slt_gym))
    assert slt_gym.__version__.split(".")[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = slt_gym.nonsense


def test_registering_twice_changes_nothing(recwarn: pytest.WarningsRecorder) -> None:
    before = gym.spec("SLTTrack-LaSOT-v0")
    slt_gym.register_envs()
    assert gym.spec("SLTTrack-LaSOT-v0") is before
    assert not recwarn.list
