"""The table of datasets, and the one function that opens them."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from slt_gym.data.sequence import SequenceDataset
from slt_gym.errors import InvalidArgumentError, unknown


@dataclass(frozen=True)
class _Row:
    """Where a dataset's class is defined, and whether it lies on disk."""

    module: str
    cls: str
    has_root: bool = True


# A new dataset is one file and one row. Modules are imported when their dataset is opened.
_TABLE = {
    "folder": _Row("slt_gym.data.folder", "FolderDataset"),
    "got10k": _Row("slt_gym.data.got10k", "GOT10kDataset"),
    "lasot": _Row("slt_gym.data.lasot", "LaSOTDataset"),
    "synthetic": _Row("slt_gym.data.synthetic", "SyntheticDataset", has_root=False),
}


def list_datasets() -> list[str]:
    """Return the names that :func:`open_dataset` takes, sorted."""
    return sorted(_TABLE)


def open_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    split: str = "train",
    **options: Any,
) -> SequenceDataset:
    """Open a dataset by name.

    Args:
        name: One of :func:`list_datasets`; capitals and dashes do not matter (``"GOT-10k"``).
        root: The dataset's folder; None looks at ``$SLT_GYM_<NAME>``, then at
            ``$SLT_GYM_DATA/<name>``.
        split: ``"train"``, ``"val"`` or ``"test"``; some datasets have more.
        **options: What the dataset's class takes besides, such as ``holdout`` of LaSOT.

    Raises:
        DatasetNotFoundError: The folder is missing or does not hold the dataset.
        InvalidArgumentError: The name, the split or an option is unknown; or ``root`` is given for
            a dataset that is not on disk.
    """
    key = str(name).lower().replace("-", "").replace("_", "")
    if key not in _TABLE:
        raise unknown("dataset", name, _TABLE)
    row = _TABLE[key]
    cls = getattr(import_module(row.module), row.cls)
    arguments: dict[str, Any] = {"split": split}
    if row.has_root:
        arguments["root"] = root
    elif root is not None:
        raise InvalidArgumentError(
            f"{key} takes no root, but root={str(root)!r} was given: it is not read from disk"
        )
    parameters = inspect.signature(cls).parameters
    accepted = [option for option in parameters if option not in ("root", "split")]
    checks_itself = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in accepted and not checks_itself:
            if not accepted:
                raise InvalidArgumentError(f"{key} has no options, but {option!r} was given")
            raise unknown(f"option of {key}", option, accepted)
    dataset: SequenceDataset = cls(**arguments, **options)
    return dataset
