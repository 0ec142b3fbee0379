"""Reading published checkpoints without executing anything in them."""

from __future__ import annotations

import _codecs
import collections
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slt_gym.errors import CheckpointError

# Classes of the published trainers: their objects come back as inert bags of attributes.
_INERT_PREFIXES = ("ltr.", "dlframework.", "pytracking.")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("_codecs", "encode"): _codecs.encode,
}
_core: Any = getattr(np, "_core", None) or np.core
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED[_module, "scalar"] = _core.multiarray.scalar
    _ALLOWED[_module, "_reconstruct"] = _core.multiarray._reconstruct


class _Inert:
    """Stands for an object of the published trainers; keeps its attributes, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module in ("torch", "torch.cuda") and name.endswith("Storage"):
            return getattr(torch, name)
        if module.startswith(_INERT_PREFIXES):
            return _Inert
        raise CheckpointError(
            f"it names {module}.{name}, which no published checkpoint needs; nothing was executed"
        )


def _safe_load(file: Any, **kwargs: Any) -> Any:
    return _SafeUnpickler(file, **kwargs).load()


_SAFE_PICKLE = SimpleNamespace(
    Unpickler=_SafeUnpickler, load=_safe_load, __name__="slt_gym.agents.checkpoint"
)


def _rename(key: str) -> str:
    """Strip what data-parallel training puts before a key; follow SiamAttn's renamed head."""
    key = key.removeprefix("module.")
    head, dot, rest = key.partition(".")
    return f"refine_head.{rest}" if head == "bbox_head" and dot else key


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the network's tensors of a published checkpoint, on the CPU.

    Accepted are the files of the PyTracking family (``net``), of the PySOT family
    (``state_dict``, or the bare dict; SiamAttn's with ``bbox_head`` or ``refine_head``), with or
    without the prefix ``module.``, in PyTorch's zip and in its legacy format. Only tensors,
    containers and numbers are rebuilt.

    Raises:
        CheckpointError: The file is missing, is no checkpoint, or names anything else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # PyTorch would hand it to the TorchScript loader, past the unpickler below.
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise CheckpointError(
                    f"{path} is a TorchScript program: needed is a checkpoint, a dict of tensors"
                )
    try:
        content = torch.load(
            path, map_location="cpu", pickle_module=_SAFE_PICKLE, weights_only=False
        )
    except CheckpointError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from None
    except Exception as error:
        raise CheckpointError(
            f"cannot read the checkpoint {path}: it is not a whole PyTorch file "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'})"
        ) from None
    for key in ("net", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise CheckpointError(
            f"the checkpoint {path} holds a {type(content).__name__}: needed is a dict of tensors, "
            "bare or under 'net' or 'state_dict'"
        )
    tensors = {
        _rename(k): v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)
    }
    if not tensors:
        raise CheckpointError(
            f"the checkpoint {path} holds no tensors under names: needed is a dict of them, bare "
            "or under 'net' or 'state_dict'"
        )
    return tensors
