"""Weights on disk: a folder of ``config.json`` and ``weights.safetensors``."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from slt_gym.agents.checkpoint import read_checkpoint
from slt_gym.agents.network import TrackerNetwork
from slt_gym.agents.registry import get_tracker_entry
from slt_gym.errors import CheckpointError
from slt_gym.version import __version__

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"


def save_weights(
    network: TrackerNetwork,
    folder: str | Path,
    tracker: str,
    overrides: dict[str, Any] | None = None,
    made_by: str | None = None,
) -> Path:
    """Write a network's weights as a folder, whole or not at all.

    Args:
        network: What to save.
        folder: Where to; an earlier folder of weights there is replaced.
        tracker: The tracker's name.
        overrides: The fields of its configuration that differ from the defaults.
        made_by: The command that made the weights.

    Returns:
        The folder's path.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= _FILES):
        raise CheckpointError(f"{folder} exists and is not a folder of weights: it is left alone")
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = {
        "tracker": tracker,
        "overrides": overrides or {},
        "slt_gym": __version__,
        "made_by": made_by,
    }
    # Clones, because safetensors refuses tensors that share memory (tied weights).
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in network.state_dict().items()}
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        temporary.chmod(0o755)
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        save_file(tensors, temporary / WEIGHTS_FILE)
        (temporary / WEIGHTS_FILE).chmod(0o644)
        _replace(folder, temporary)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)
    return folder


def _replace(folder: Path, temporary: Path) -> None:
    # Renamed away before it is deleted: no moment shows half a folder.
    old = temporary.with_name(f"{temporary.name}-old")
    if folder.exists():
        folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    if old.exists():
        shutil.rmtree(old)


_FILES = {CONFIG_FILE, WEIGHTS_FILE}


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read the ``config.json`` of a folder of weights.

    Raises:
        CheckpointError: It is missing or garbled.
    """
    path = Path(folder).expanduser() / CONFIG_FILE
    try:
        config = json.loads(path.read_text())
    except OSError:
        raise CheckpointError(
            f"{folder} is not a folder of weights: it has no {CONFIG_FILE}"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict) or "tracker" not in config:
        raise CheckpointError(f"{path} does not name its tracker under the key 'tracker'")
    if not isinstance(config.setdefault("overrides", {}), dict):
        raise CheckpointError(
            f"{path} holds {config['overrides']!r} under the key 'overrides': needed is an object "
            "of fields of the tracker's configuration"
        )
    return config


def stored_overrides(weights: str | Path | None, tracker: str) -> dict[str, Any]:
    """Return the fields of the tracker's configuration that a folder of weights was made with.

    Args:
        weights: As for :func:`load_weights`; a checkpoint's file and None store no fields.
        tracker: The tracker's name.

    Raises:
        CheckpointError: Nothing readable is there, or it belongs to another tracker.
    """
    if weights is None:
        return {}
    path = resolve_weights(weights, tracker)
    return _read_config_of(path, tracker)["overrides"] if path.is_dir() else {}


def _read_config_of(folder: Path, tracker: str) -> dict[str, Any]:
    config = read_config(folder)
    if config["tracker"] != tracker:
        raise CheckpointError(
            f"{folder} holds weights of {config['tracker']!r}, not of {tracker!r}"
        )
    return config


def load_weights(network: TrackerNetwork, weights: str | Path, tracker: str) -> None:
    """Load weights into a network, strictly.

    Args:
        network: What receives them.
        weights: A folder of :func:`save_weights`, a published checkpoint's file
            (``.pth``, ``.pth.tar``), a ``.safetensors`` file, or ``"pretrained"``.
        tracker: The tracker's name.

    Raises:
        CheckpointError: Nothing readable is there, or it belongs to another network.
    """
    path = resolve_weights(weights, tracker)
    if path.is_dir():
        _read_config_of(path, tracker)
        path = path / WEIGHTS_FILE
    if path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read the weights {path}: {error}") from None
    else:
        tensors = read_checkpoint(path)
    _check_fit(network, tensors, path, tracker)
    network.load_state_dict(tensors)


def resolve_weights(weights: str | Path, tracker: str) -> Path:
    """Return the path that ``weights`` stands for.

    Raises:
        CheckpointError: Nothing is there.
    """
    if weights == "pretrained":
        pretrained = get_tracker_entry(tracker).pretrained
        if pretrained is None:
            raise CheckpointError(
                f"no weights of {tracker!r} ship with the package: give the path of a published "
                "checkpoint or of a folder of weights"
            )
        return pretrained
    path = Path(weights).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"there are no weights at {path}: accepted are a folder with {CONFIG_FILE} and "
            f"{WEIGHTS_FILE}, a published .pth or .pth.tar file, or 'pretrained'"
        )
    return path


def _check_fit(
    network: TrackerNetwork, tensors: dict[str, Tensor], path: Path, tracker: str
) -> None:
    ours = network.state_dict()
    counts = {k for k in ours if k.endswith("num_batches_tracked")}  # absent from very old files
    missing = sorted(ours.keys() - tensors.keys() - counts)
    extra = sorted(tensors.keys() - ours.keys())
    wrong = [k for k in ours if k in tensors and ours[k].shape != tensors[k].shape]
    for k in counts - tensors.keys():
        tensors[k] = ours[k]
    problems = []
    if missing:
        problems.append(f"{len(missing)} keys are missing, such as {missing[0]!r}")
    if extra:
        problems.append(f"{len(extra)} keys are not of this network, such as {extra[0]!r}")
    if wrong:
        k = wrong[0]
        problems.append(
            f"{len(wrong)} tensors have another shape, such as {k!r}: "
            f"{tuple(tensors[k].shape)} instead of {tuple(ours[k].shape)}"
        )
    if problems:
        raise CheckpointError(f"{path} does not fit {tracker!r}: {'; '.join(problems)}")
