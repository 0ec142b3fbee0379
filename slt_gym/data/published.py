"""What is known about the published files of datasets: how many sequences, and their oddities."""

from __future__ import annotations

# Sequences of each split; None where it is not a fixed number.
SEQUENCES: dict[str, dict[str, int | None]] = {
    "coco": {"train": None, "val": None},
    "folder": {"test": None},
    "got10k": {
        "train": 9335,
        "val": 180,
        "test": 180,
        "pytracking_train": 7934,
        "pytracking_val": 1401,
        "vottrain": 7086,
        "votval": 1249,
        "vot_clean": 8335,
    },
    "lasot": {"train": 1120, "test": 280, "val": 112, "all": 1400},
    "lasotext": {"test": 150},
    "nfs": {"test": 100},
    "otb100": {"test": 100},
    "tnl2k": {"train": 1300, "test": 700, "all": 2000},
    "trackingnet": {"train": 30_132, "test": 511},
    "uav123": {"test": 123},
    "uav20l": {"test": 20},
    "vid": {"train": None, "val": None},
    "video": {"test": None},
    "vot2018": {"test": 60},
    "vot2020": {"test": 60},
    "youtubebb": {"train": None},
}

# LaSOT's "val" is a part of its "train".
_PARTS = {"lasot": ("train", "test")}
_OFFICIAL = ("train", "val", "test")

_EVERY = "every sequence"
# By dataset and kind of problem, the sequences that are like that in the published files.
_KNOWN: dict[str, dict[str, set[str]]] = {
    # Annotations of no width or height count as not visible.
    "coco": {"first": {_EVERY}},
    "got10k": {
        # Boxes that belong to another resolution.
        "outside": {f"GOT-10k_Train_{k:06d}" for k in (*range(8623, 8638), 9058, 9059)},
        "size": {"GOT-10k_Train_007947"},
    },
    "lasot": {
        "area": {
            *("lion-5", "lizard-16", "microphone-6", "person-7", "pool-14", "tank-17", "tiger-6"),
        },
        "extra": {"monkey-17"},
    },
    # Twelve frames of the test part.
    "tnl2k": {
        "area": {_EVERY},
        "extra": {"advSamp_monitor_bikeyellow", "advSamp_Baseball_game_002-Done"},
    },
}

# Datasets that may have an image or a row too many at the end, and what the reader notes then.
_OFF_BY_ONE = {"nfs": "the last 1 are left out"}


def official_parts(dataset: str) -> tuple[str, ...]:
    """Return the splits of a dataset that together are all of it, each sequence once."""
    return _PARTS.get(dataset) or tuple(s for s in _OFFICIAL if s in SEQUENCES[dataset])


def is_known(dataset: str, kind: str, sequence: str, detail: str) -> bool:
    """Tell whether the published files of a sequence are known to have a kind of problem.

    Args:
        dataset: The dataset's name.
        kind: A key of :data:`slt_gym.data.checking.KINDS`.
        sequence: The sequence's name.
        detail: What was found.
    """
    if kind in ("missing", "extra") and dataset in _OFF_BY_ONE:
        return detail.endswith(_OFF_BY_ONE[dataset])
    names = _KNOWN.get(dataset, {}).get(kind, set())
    return _EVERY in names or sequence in names
