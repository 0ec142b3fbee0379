"""Fixtures of the trackers' and the algorithms' tests."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep sums in one order, and other jobs' cores free."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fill(shared: Path) -> ModuleType:
    """The reference folder's module that makes weights out of keys."""
    spec = importlib.util.spec_from_file_location("fill", shared / "parity" / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def transt_manifest(shared: Path) -> dict[str, list[int]]:
    """The published TransT's keys and shapes, in order."""
    return json.loads((shared / "parity" / "transt_manifest.json").read_text())


@pytest.fixture(scope="session")
def transt_golden(shared: Path) -> dict[str, Any]:
    """What the published TransT and SLT-TransT did, as ``transt_track.json`` records it."""
    return json.loads((shared / "parity" / "transt_track.json").read_text())


@pytest.fixture(scope="session")
def transt_weights(
    fill: ModuleType, transt_manifest: dict[str, list[int]], transt_golden: dict[str, Any]
) -> dict[str, dict[str, torch.Tensor]]:
    """The filled weights, ``plain`` and ``tweaked``."""
    plain = {key: fill.fill(key, tuple(shape)) for key, shape in transt_manifest.items()}
    tweaked = fill.apply_tweak(dict(plain), transt_golden["_doc"]["tweak"])
    return {
        name: {key: torch.from_numpy(np.array(value)) for key, value in weights.items()}
        for name, weights in (("plain", plain), ("tweaked", tweaked))
    }


@pytest.fixture(scope="session")
def transt_files(
    transt_weights: dict[str, dict[str, torch.Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The same in files of the published format."""
    folder = tmp_path_factory.mktemp("transt")
    paths = {name: folder / f"{name}.pth" for name in transt_weights}
    for name, path in paths.items():
        torch.save({"epoch": 1, "net": transt_weights[name]}, path)
    return paths
