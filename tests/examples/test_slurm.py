"""The SLURM example: what it would start, with the cluster's commands replaced."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tyro
from torch.distributed.run import get_args_parser

from slt_gym.cli.job import Config

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "slurm" / "train_slt_transt.sbatch"
CLUSTER = {
    "SLURM_JOB_ID": "77",
    "SLURM_NNODES": "2",
    "SLURM_GPUS_ON_NODE": "4",
    "SLURM_JOB_NODELIST": "node[3-4]",
}


def send(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # More machines than fit into a pipe: who reads only the first line breaks it.
    commands = {"srun": 'printf "%s\\n" "$@"', "scontrol": 'echo "node3"; seq 100000'}
    for name, line in commands.items():
        command = folder / name
        command.write_text(f"#!/bin/sh\n{line}\n")
        command.chmod(0o755)
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        env={"PATH": f"{folder}:/usr/bin:/bin", **CLUSTER, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def test_each_machine_starts_its_processes_on_the_papers_recipe(tmp_path: Path) -> None:
    done = send(tmp_path, "some where/transt.pth")
    assert done.returncode == 0, done.stderr
    _, launcher, *arguments = done.stdout.splitlines()
    assert launcher == "torchrun"
    launch: Any = get_args_parser().parse_args(arguments)
    assert (launch.nnodes, launch.nproc_per_node) == ("2", "4")
    assert (launch.rdzv_backend, launch.rdzv_endpoint) == ("c10d", "node3:29500")
    assert (ROOT / launch.training_script).is_file()
    config = tyro.cli(Config, args=launch.training_script_args)
    assert (config.dataset, config.weights) == ("lasot", "some where/transt.pth")
    assert config.resume and config.output == Path("runs/slt_transt-lasot")
    assert config.clips is not None and config.micro_batch is not None
    assert config.clips % (2 * 4 * config.micro_batch) == 0  # else SLT refuses to divide them


def test_a_restarted_job_meets_anew_and_writes_to_the_same_place(tmp_path: Path) -> None:
    first = send(tmp_path, "transt.pth", OUTPUT="runs/mine")
    second = send(tmp_path, "transt.pth", OUTPUT="runs/mine", SLURM_RESTART_COUNT="1")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    changed = set(first.stdout.splitlines()) ^ set(second.stdout.splitlines())
    assert changed == {"--rdzv-id=77-0", "--rdzv-id=77-1"}
    assert "runs/mine" in second.stdout


def test_without_weights_it_says_how_to_send_it(tmp_path: Path) -> None:
    done = send(tmp_path)
    assert done.returncode != 0 and "WEIGHTS" in done.stderr
