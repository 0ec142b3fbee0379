"""The table of datasets, and the one function that opens them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from slt_gym.data.mixture import MixtureDataset
from slt_gym.data.pack.manifest import changed_options, find_pack
from slt_gym.data.relabelled import RelabelledDataset
from slt_gym.data.sequence import SequenceDataset
from slt_gym.errors import InvalidArgumentError, unknown


@dataclass(frozen=True)
class _Row:
    """Where a dataset's class is defined, and whether it lies on disk and has only a test split."""

    module: str
    cls: str
    has_root: bool = True
    test_only: bool = False


# A new dataset is one file and one row. Modules are imported when their dataset is opened.
_TABLE = {
    "coco": _Row("slt_gym.data.coco", "COCODataset"),
    "folder": _Row("slt_gym.data.folder", "FolderDataset"),
    "got10k": _Row("slt_gym.data.got10k", "GOT10kDataset"),
    "lasot": _Row("slt_gym.data.lasot", "LaSOTDataset"),
    "lasotext": _Row("slt_gym.data.lasot_ext", "LaSOTExtDataset", test_only=True),
    "nfs": _Row("slt_gym.data.nfs", "NFSDataset", test_only=True),
    "otb100": _Row("slt_gym.data.otb", "OTB100Dataset", test_only=True),
    "synthetic": _Row("slt_gym.data.synthetic", "SyntheticDataset", has_root=False),
    "tnl2k": _Row("slt_gym.data.tnl2k", "TNL2KDataset"),
    "trackingnet": _Row("slt_gym.data.trackingnet", "TrackingNetDataset"),
    "uav123": _Row("slt_gym.data.uav", "UAV123Dataset", test_only=True),
    "uav20l": _Row("slt_gym.data.uav", "UAV20LDataset", test_only=True),
    "vid": _Row("slt_gym.data.vid", "VIDDataset"),
    "video": _Row("slt_gym.data.video", "VideoDataset"),
    "vot2018": _Row("slt_gym.data.vot", "VOT2018Dataset", test_only=True),
    "vot2020": _Row("slt_gym.data.vot", "VOT2020Dataset", test_only=True),
    "youtubebb": _Row("slt_gym.data.youtubebb", "YouTubeBBDataset"),
}


def list_datasets() -> list[str]:
    """Return the names that :func:`open_dataset` takes, sorted."""
    return sorted(_TABLE)


Root = str | os.PathLike[str] | None


def open_dataset(
    name: str,
    root: Root | Mapping[str, Root] = None,
    split: str = "train",
    *,
    train_on_test: bool = False,
    **options: Any,
) -> SequenceDataset:
    """Open a dataset, or a mixture of datasets, by name.

    Args:
        name: One of :func:`list_datasets`; capitals and dashes do not matter (``"GOT-10k"``). A
            mixture is several, with "+" between them: ``"lasot+got10k"``.
        root: The dataset's folder, or a pack of it; None looks at ``$SLT_GYM_<NAME>``, then at
            ``$SLT_GYM_DATA/<name>``. Of a mixture: the folder that holds the datasets' folders by
            lower-case name, or a dict of roots by name.
        split: ``"train"``, ``"val"`` or ``"test"``; some datasets have more.
        train_on_test: Open the test split, and call it ``"train"``.
        **options: What the dataset's class takes besides, such as ``holdout`` of LaSOT. A mixture
            takes ``weights`` (see :class:`slt_gym.data.mixture.MixtureDataset`), and ``options``, a
            dict of the datasets' own options by name, ``split`` and ``train_on_test`` among them.

    Raises:
        DatasetNotFoundError: The folder is missing or does not hold the dataset.
        InvalidArgumentError: The name, the split or an option is unknown; ``root`` is given for a
            dataset that is not on disk; or a mixture to train on has a test split in it.
    """
    if train_on_test:
        if split != "train":
            raise InvalidArgumentError(
                f"train_on_test={train_on_test!r} was given with split={split!r}: it goes with "
                "split='train' alone"
            )
        return RelabelledDataset(open_dataset(name, root, "test", **options), split)
    if "+" in str(name):
        return _open_mixture(name, root, split, **options)
    key = find_name(name)
    row = _TABLE[key]
    if isinstance(root, Mapping):
        raise InvalidArgumentError(
            f"root={root!r} is a dict, which a mixture takes: {key} takes one folder"
        )
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
    if row.has_root and (pack := find_pack(key, root)) is not None:
        from slt_gym.data.pack.reader import PackDataset  # noqa: PLC0415 (LMDB, for packs only)

        return PackDataset(pack, key, split, changed_options(cls, options))
    dataset: SequenceDataset = cls(**arguments, **options)
    return dataset


def is_on_disk(name: str) -> bool:
    """Tell whether a dataset is read from files.

    Raises:
        InvalidArgumentError: There is no such dataset.
    """
    return _TABLE[find_name(name)].has_root


def find_name(name: object) -> str:
    """Return a dataset's name as :func:`list_datasets` has it.

    Raises:
        InvalidArgumentError: There is no such dataset.
    """
    key = str(name).lower().replace("-", "").replace("_", "")
    if key not in _TABLE:
        raise unknown("dataset", name, _TABLE)
    return key


def _open_mixture(
    name: str,
    root: Root | Mapping[str, Root],
    split: str,
    *,
    weights: list[float] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    **others: Any,
) -> MixtureDataset:
    for other in others:
        raise unknown(f"option of the mixture {name}", other, ("weights", "options"))
    keys = [find_name(part.strip()) for part in name.split("+")]
    roots = _by_name("root", root, keys) if isinstance(root, Mapping) else {}
    own = _by_name("options", options or {}, keys)
    datasets = []
    for key in keys:
        if root is not None and not isinstance(root, Mapping) and _TABLE[key].has_root:
            roots[key] = Path(root) / key
        dataset = open_dataset(key, roots.get(key), **{"split": split, **own.get(key, {})})
        if split == "train" and dataset.split == "test":
            raise InvalidArgumentError(
                f"the mixture {name} is to train on, and has the test split of {key} in it: "
                f"'train_on_test': True in place of 'split': 'test' trains on it anyway"
            )
        datasets.append(dataset)
    return MixtureDataset(datasets, weights, split)


def _by_name(what: str, given: object, keys: list[str]) -> dict[str, Any]:
    """Return a mixture's argument by its datasets' names."""
    if not isinstance(given, Mapping):
        raise InvalidArgumentError(
            f"{what}={given!r} of a mixture: accepted are dicts by the datasets' names"
        )
    found = {}
    for name, value in given.items():
        key = find_name(name)
        if key not in keys:
            raise unknown(f"dataset in {what} of the mixture", name, keys)
        found[key] = value
    return found
