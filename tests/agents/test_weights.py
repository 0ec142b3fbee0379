from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import draw_observation, make_network

import slt_gym.agents.weights as weights_module
from slt_gym.agents import create_tracker, load_weights, save_weights
from slt_gym.agents.checkpoint import read_checkpoint
from slt_gym.errors import CheckpointError, InvalidArgumentError, SltGymError

TINY = "transt-tiny"


def equal_states(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_comes_back(tmp_path: Path) -> None:
    network = make_network(seed=1)
    folder = save_weights(network, tmp_path / "a" / "run", TINY, {"dropout": 0.2}, "make base")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["tracker"] == TINY
    assert config["overrides"] == {"dropout": 0.2}
    assert config["made_by"] == "make base"
    other = make_network(seed=2)
    assert not equal_states(network, other)
    load_weights(other, folder, TINY)
    assert equal_states(network, other)
    load_weights(third := make_network(seed=3), folder / "weights.safetensors", TINY)
    assert equal_states(network, third)


def test_a_tracker_takes_weights_and_their_configuration(tmp_path: Path) -> None:
    network = make_network(seed=1, hidden_dim=32)
    folder = save_weights(network, tmp_path / "w", TINY, {"hidden_dim": 32})
    tracker = create_tracker(TINY, weights=str(folder))
    assert equal_states(network, tracker.network)
    frame = draw_observation(1)["search"][0].transpose(1, 2, 0)
    boxes = []
    for model in (tracker, create_tracker(TINY, weights=folder)):
        model.init(frame, (30, 30, 20, 20))
        boxes.append(model.update(frame))
        assert 0 < model.score < 1
    np.testing.assert_array_equal(*boxes)


def test_saving_again_replaces_the_folder(tmp_path: Path) -> None:
    save_weights(make_network(seed=1), tmp_path / "w", TINY)
    save_weights(make_network(seed=2), tmp_path / "w", TINY)
    load_weights(loaded := make_network(seed=3), tmp_path / "w", TINY)
    assert equal_states(loaded, make_network(seed=2))
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize("where", ["write", "rename"])
def test_a_save_that_fails_leaves_the_old_folder_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder = save_weights(make_network(seed=1), tmp_path / "w", TINY)
    before = read_folder(folder)
    if where == "write":

        def fail(tensors: Any, path: Path) -> None:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(weights_module, "save_file", fail)
    else:
        rename = Path.rename

        def refuse(self: Path, target: Path) -> Path:
            if Path(target) == folder and not self.name.endswith("-old"):
                raise OSError(5, "Input/output error")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match=r"No space|Input/output"):
        save_weights(make_network(seed=2), folder, TINY)
    assert read_folder(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("…")
    (tmp_path / "file").write_text("…")
    for name in ("thesis", "file"):
        with pytest.raises(CheckpointError, match=r"is not a folder of weights: it is left alone"):
            save_weights(make_network(), tmp_path / name, TINY)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    network = make_network(seed=1)
    network.bbox_embed.layers[0] = network.class_embed.layers[0]
    save_weights(network, tmp_path / "w", TINY)
    load_weights(loaded := make_network(seed=2), tmp_path / "w", TINY)
    assert torch.equal(loaded.bbox_embed.layers[0].weight, network.class_embed.layers[0].weight)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", ["net", "state_dict", "bare", "module.", "net module."])
def test_published_forms_load(tmp_path: Path, form: str, zipped: bool) -> None:
    network = make_network(seed=1)
    content: Any = network.state_dict()
    if "module." in form:
        content = {f"module.{key}": value for key, value in content.items()}
    if form.startswith("net"):
        content = {"net": content, "epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}}
    if form == "state_dict":
        content = {"state_dict": content, "epoch": 3}
    path = tmp_path / "published.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    load_weights(loaded := make_network(seed=2), path, TINY)
    assert equal_states(network, loaded)


def test_very_old_files_have_no_batch_counters(tmp_path: Path) -> None:
    network = make_network(seed=1)
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth")
    load_weights(loaded := make_network(seed=2), tmp_path / "old.pth", TINY)
    assert equal_states(network, loaded)


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", ["system", "eval", "nested", "import"])
def test_nothing_in_a_file_is_executed(tmp_path: Path, kind: str, zipped: bool) -> None:
    trace = tmp_path / "trace"
    payload = {
        "system": Runs(os.system, f"touch {trace}"),
        "eval": Runs(eval, f"open({str(trace)!r}, 'w')"),
        "nested": Runs(pickle.loads, pickle.dumps(Runs(os.system, f"touch {trace}"))),
        "import": Runs(getattr, Runs(__import__, "os"), "sep"),
    }[kind]
    path = tmp_path / "published.pth"
    state = make_network().state_dict()
    torch.save({"net": state, "x": payload}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"published\.pth: it names .*nothing was executed"):
        read_checkpoint(path)
    assert not trace.exists()
    network = make_network(seed=5)
    with pytest.raises(CheckpointError):
        load_weights(network, path, TINY)
    assert equal_states(network, make_network(seed=5))


def break_file(path: Path, how: str) -> None:
    if how == "text":
        path.write_text("<html>Please log in to download</html>\n")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "image":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("how", ["truncated", "text", "empty", "image"])
def test_broken_files_are_named(tmp_path: Path, how: str, zipped: bool) -> None:
    path = tmp_path / "transt.pth"
    torch.save({"net": make_network().state_dict()}, path, _use_new_zipfile_serialization=zipped)
    break_file(path, how)
    with pytest.raises(
        CheckpointError, match=r"transt\.pth: it is not a whole PyTorch file"
    ) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", ["truncated", "text", "empty", "image"])
def test_broken_folders_are_named(tmp_path: Path, how: str) -> None:
    folder = save_weights(make_network(), tmp_path / "w", TINY)
    break_file(folder / "weights.safetensors", how)
    with pytest.raises(CheckpointError, match=r"cannot read the weights .*w/weights\.safetensors"):
        load_weights(make_network(), folder, TINY)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, r"w is not a folder of weights: it has no config\.json"),
        ("{", r"config\.json is not JSON"),
        ("[1]", r"config\.json does not name its tracker under the key 'tracker'"),
        ("{}", r"config\.json does not name its tracker"),
        ('{"tracker": "transt-tiny", "overrides": 3}', r"config\.json holds 3 under .*'overrides'"),
        ('{"tracker": "transt"}', r"w holds weights of 'transt', not of 'transt-tiny'"),
    ],
)
def test_broken_configurations_are_named(tmp_path: Path, config: str | None, words: str) -> None:
    folder = save_weights(make_network(), tmp_path / "w", TINY)
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=words):
        create_tracker(TINY, weights=folder)
    with pytest.raises(CheckpointError, match=words):
        load_weights(make_network(), folder, TINY)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.zeros(2)], r"holds a list: needed is a dict of tensors"),
        (torch.zeros(2), r"holds a Tensor: needed is a dict"),
        ({"epoch": 3}, r"holds no tensors"),
        ({0: torch.zeros(2)}, r"holds no tensors under names"),
        ({"net": {}}, r"holds no tensors"),
    ],
)
def test_files_without_a_network_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"x\.pth {words}"):
        read_checkpoint(path)


def test_checkpoints_of_other_networks_are_refused(tmp_path: Path) -> None:
    state = make_network(seed=1).state_dict()
    key = "input_proj.weight"
    for change, words in (
        ({"drop": key}, r"1 keys are missing, such as 'input_proj\.weight'"),
        ({"add": "neck.weight"}, r"1 keys are not of this network, such as 'neck\.weight'"),
        (
            {"reshape": key},
            r"1 tensors have another shape, such as 'input_proj\.weight': "
            r"\(48, 1, 1, 1\) instead of \(48, 96, 1, 1\)",
        ),
    ):
        changed = dict(state)
        if "drop" in change:
            del changed[key]
        if "add" in change:
            changed["neck.weight"] = torch.zeros(1)
        if "reshape" in change:
            changed[key] = changed[key][:, :1]
        path = tmp_path / "other.pth"
        torch.save({"net": changed}, path)
        network = make_network(seed=2)
        with pytest.raises(
            CheckpointError, match=rf"other\.pth does not fit 'transt-tiny': {words}"
        ):
            load_weights(network, path, TINY)
        # Refused as a whole: no tensor was taken over.
        assert equal_states(network, make_network(seed=2))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"no weights at .*absent\.pth: accepted are a folder"
    ):
        create_tracker(TINY, weights=tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*absent\.pth"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match=r"no weights of 'transt' ship with the package"):
        create_tracker("transt", weights="pretrained")
    with pytest.raises(
        InvalidArgumentError, match=r"unknown tracker 'transtt'.*did you mean 'transt'"
    ):
        create_tracker("transtt", weights=tmp_path / "absent.pth")


@pytest.mark.parametrize("device", ["gpu", "", "cpu:0", "cuda:", "cuda:one", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"device '{device}'"):
        create_tracker(TINY, device=device)


def test_trackers_want_a_frame_and_a_box() -> None:
    tracker = create_tracker(TINY)
    frame = np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(SltGymError, match=r"update was called before init"):
        tracker.update(frame)
    for box in ([1, 2, 3], [1, 2, 0, 4], [1, 2, 3, np.nan], [[1, 2, 3, 4]], "box", None):
        with pytest.raises(InvalidArgumentError, match=r"is not x, y, w, h in pixels"):
            tracker.init(frame, box)
    for wrong in (frame[..., 0], frame.astype(np.float32), [[1]], frame[..., :2], frame[:0]):
        with pytest.raises(InvalidArgumentError, match=r"needed is RGB uint8 of shape \(H, W, 3\)"):
            tracker.init(wrong, [1, 2, 3, 4])
    tracker.init(frame, [10, 10, 12, 12])
    assert tracker.score == 1.0
    with pytest.raises(InvalidArgumentError, match=r"RGB uint8"):
        tracker.update(frame[..., 0])


def test_torchscript_is_refused_before_it_is_loaded(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "program.pth"
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("was loaded"))
    with pytest.raises(CheckpointError, match=r"program\.pth is a TorchScript program"):
        read_checkpoint(path)
