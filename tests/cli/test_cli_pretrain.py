"""``slt-gym pretrain``: what a run leaves, and that wrong input leaves nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slt_gym.agents import create_tracker
from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.cli import main
from slt_gym.data.pairs import SIAMATTN_PAIRS, SIAMRPNPP_PAIRS, PairConfig

OPTIONS = '{"width": 96, "height": 72, "num_frames": 6, "num_sequences": 4}'
SHORT = ["--steps", "3", "--batch-size", "4", "--threads", "1", "--dataset-options", OPTIONS]
COMMAND = ["pretrain", "transt-tiny", "synthetic"]


def pretrain(out: Path, *more: str) -> Path:
    main([*COMMAND, str(out), *SHORT, "--no-progress-bar", "--device", "cpu", *more])
    return out


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "weights" / "weights.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrain") / "run"
    return pretrain(out, "--seed", "5", "--centre-jitter", "2")


def test_run_folder(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.json",
        "results.json",
        "tensorboard",
        "weights",
    }
    config = json.loads((finished / "config.json").read_text())
    assert config["seed"] == 5
    assert config["arguments"]["training"]["pairs"]["centre_jitter"] == 2
    assert config["arguments"]["training"]["learning_rate"] == PretrainingConfig.learning_rate
    assert config["versions"]["torch"] == torch.__version__
    results = json.loads((finished / "results.json").read_text())
    assert results["seconds"] > 0
    assert results["steps_logged"] == 3
    assert math.isfinite(results["last_means"]["loss"])


def test_weights_carry_their_command(finished: Path) -> None:
    config = json.loads((finished / "weights" / "config.json").read_text())
    assert config["tracker"] == "transt-tiny"
    assert config["made_by"].startswith("slt-gym pretrain transt-tiny synthetic ")
    assert config["made_by"].endswith("--seed 5 --centre-jitter 2")
    create_tracker("transt-tiny", finished / "weights")


def test_tensorboard_holds_the_losses(finished: Path) -> None:
    log = EventAccumulator(str(finished / "tensorboard")).Reload()
    results = json.loads((finished / "results.json").read_text())
    (entry,) = log.Scalars("pretrain/loss")
    assert entry.step == 3
    assert entry.value == pytest.approx(results["last_means"]["loss"], rel=1e-5)


def test_same_seed_same_weights(finished: Path, tmp_path: Path) -> None:
    torch.rand(3)  # What happened before must not matter.
    again = tensors(pretrain(tmp_path / "again", "--seed", "5", "--centre-jitter", "2"))
    first = tensors(finished)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = tensors(pretrain(tmp_path / "other", "--seed", "6", "--centre-jitter", "2"))
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_starts_from_initial_weights(finished: Path, tmp_path: Path) -> None:
    still = ["--learning-rate", "1e-9", "--final-learning-rate", "1e-9", "--seed", "7"]
    weights = str(finished / "weights")
    moved = tensors(pretrain(tmp_path / "run", *still, "--initial-weights", weights))
    first = tensors(finished)
    for name in first:
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(moved[name], first[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "0"], "--steps is 0"),
        (["--learning-rate", "-1"], "--learning-rate is -1.0"),
        (["--flip-probability", "1.5"], "--flip-probability is 1.5"),
        (["--max-grad-norm", "nan"], "--max-grad-norm is nan"),
        (["--split", "test"], "--split test"),
        (["--split", "test"], '"train_on_test": true'),
        (["--negative-probability", "2"], "--negative-probability is 2.0"),
        (["--search-shift", "-1"], "--search-shift is -1.0"),
        (["--root", "x"], "takes no root"),
        (["--dataset-options", '{"widht": 1}'], "did you mean 'width'"),
        (["--dataset-options", '{"split": "val"}'], "own argument"),
        (["--dataset-options", "{"], "is not JSON"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--device", "cuda:99"], "PyTorch sees"),
        (["--initial-weights", "nowhere"], "there are no weights at nowhere"),
    ],
)
def test_wrong_input_leaves_nothing(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        pretrain(tmp_path / "run", *more)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_trains_on_a_mixture_and_on_a_test_split(tmp_path: Path) -> None:
    folder = tmp_path / "base" / "folder" / "a"
    (folder / "img").mkdir(parents=True)
    for t in range(2):
        cv2.imwrite(str(folder / "img" / f"{t}.png"), np.full((60, 80, 3), 90, np.uint8))
    (folder / "groundtruth.txt").write_text("30,20,20,15\n" * 2)
    options = {"weights": [1, 1], "options": {"synthetic": json.loads(OPTIONS)}}
    options["options"]["synthetic"]["train_on_test"] = True
    out = tmp_path / "run"
    main(
        [
            *("pretrain", "transt-tiny", "folder+synthetic", str(out)),
            *("--root", str(tmp_path / "base"), "--dataset-options", json.dumps(options)),
            *("--steps", "1", "--batch-size", "4", "--threads", "1"),
            *("--no-progress-bar", "--device", "cpu"),
        ]
    )
    assert (out / "weights" / "weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("tracker", "published"),
    [("siamrpnpp-tiny", SIAMRPNPP_PAIRS), ("siamattn-tiny", SIAMATTN_PAIRS)],
)
def test_pairs_are_the_trackers_own_but_for_what_is_given(
    tracker: str, published: PairConfig, tmp_path: Path
) -> None:
    words = ["pretrain", tracker, "synthetic", str(tmp_path / "run"), *SHORT, "--no-progress-bar"]
    main([*words, "--device", "cpu", "--steps", "1", "--search-scale", "0"])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    expected = {**dataclasses.asdict(published), "search_scale": 0.0}
    assert config["arguments"]["training"]["pairs"] == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [(["transt-tyni", "synthetic"], "'transt-tiny'"), (["transt-tiny", "lasott"], "'lasot'")],
)
def test_unknown_names(
    names: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["pretrain", *names, str(tmp_path / "run")])
    assert f"did you mean {message}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_full_folder_is_left_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with pytest.raises(SystemExit) as stop:
        pretrain(finished)
    assert stop.value.code == 2
    assert "is not empty" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_a_diverged_run_writes_no_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["--learning-rate", "1e30", "--max-grad-norm", "1e30", "--final-learning-rate", "1e30"]
    with pytest.raises(SystemExit) as stop:
        pretrain(tmp_path / "run", *wild)
    assert stop.value.code == 1
    assert "no weights are written" in capsys.readouterr().err
    assert not (tmp_path / "run" / "weights").exists()
    assert not (tmp_path / "run" / "results.json").exists()


def test_help_shows_the_true_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--steps" in text
    assert f"(default: {PretrainingConfig.max_grad_norm})" in text
    assert "--centre-jitter FLOAT" in text
    assert "transt-tiny" in text
    assert "lasot" in text
