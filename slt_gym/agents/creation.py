"""Making trackers by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from slt_gym.agents.baselines import BASELINES, create_baseline
from slt_gym.agents.registry import get_tracker_entry, list_networks
from slt_gym.agents.tracker import ProposalTracker, Tracker
from slt_gym.agents.weights import load_weights, stored_overrides
from slt_gym.errors import CheckpointError, InvalidArgumentError, unknown


def list_trackers() -> list[str]:
    """Return the names that :func:`create_tracker` accepts, sorted."""
    return sorted({*list_networks(), *BASELINES})


def create_tracker(
    name: str, weights: str | Path | None = None, device: str = "cpu", **overrides: Any
) -> Tracker:
    """Make a tracker.

    Args:
        name: See :func:`slt_gym.list_trackers`: a network's, or a baseline's.
        weights: A folder with ``config.json`` and ``weights.safetensors``, a published
            checkpoint's file, ``"pretrained"`` for weights that ship with the package, or None for
            random weights. A baseline takes none.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: a GPU if there is one.
        **overrides: Fields of the tracker's configuration, such as ``window_influence``; options
            of a baseline.

    Raises:
        InvalidArgumentError: No such tracker, field or device.
        CheckpointError: The weights cannot be read, or belong to another network.
    """
    if name in BASELINES:
        if weights is not None:
            raise InvalidArgumentError(f"{name} has no weights, but {str(weights)!r} was given")
        return create_baseline(name, **overrides)
    if name not in list_networks():
        raise unknown("tracker", name, list_trackers())
    device = choose_device(str(device))
    entry = get_tracker_entry(name)
    network = entry.build(**{**stored_overrides(weights, name), **overrides})
    if weights is not None:
        load_weights(network, weights, name)
    return (entry.tracker or ProposalTracker)(name, network, entry.geometry, device)


def choose_device(name: str) -> str:
    """Return the PyTorch device that ``name`` stands for: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        InvalidArgumentError: There is no such device here.
    """
    kind, _, index = name.partition(":")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda") or (":" in name and (kind == "cpu" or not index.isdecimal())):
        raise InvalidArgumentError(
            f"unknown device {name!r}: accepted are auto, cpu, cuda, and cuda:1 and so on"
        )
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise InvalidArgumentError(
            f"device {name!r} is not here: PyTorch sees {torch.cuda.device_count()} CUDA devices"
        )
    return name


def choose_weights(name: str, weights: str | None) -> str | None:
    """Return the weights to track with, where random ones are of no use.

    Args:
        name: The tracker's name; of an unknown one :func:`create_tracker` speaks.
        weights: As :func:`create_tracker` takes them; None takes those that ship with the package.

    Returns:
        What :func:`create_tracker` takes; None for a baseline that was given none.

    Raises:
        CheckpointError: None were given, and none ship with the package.
    """
    if name not in list_networks():
        return weights
    if weights in (None, "pretrained") and get_tracker_entry(name).pretrained is None:
        raise CheckpointError(
            f"no weights of {name!r} ship with the package, and random ones follow nothing: give "
            "weights (--weights), the path of a published checkpoint (.pth, .pth.tar) or of a "
            "folder of weights"
        )
    return weights or "pretrained"
