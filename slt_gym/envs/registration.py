"""The table of environment ids."""

from __future__ import annotations

import gymnasium as gym

# The middle part of the id, the name that slt_gym.data.open_dataset takes, and the split unless
# one is given: benchmarks that are for testing only are walked.
DATASETS = (
    ("LaSOT", "lasot", "train"),
    ("LaSOText", "lasotext", "test"),
    ("TrackingNet", "trackingnet", "train"),
    ("GOT10k", "got10k", "train"),
    ("COCO", "coco", "train"),
    ("VID", "vid", "train"),
    ("YouTubeBB", "youtubebb", "train"),
    ("OTB100", "otb100", "test"),
    ("UAV123", "uav123", "test"),
    ("UAV20L", "uav20l", "test"),
    ("NFS", "nfs", "test"),
    ("TNL2K", "tnl2k", "train"),
    ("VOT2018", "vot2018", "test"),
    ("VOT2020", "vot2020", "test"),
    ("Folder", "folder", "train"),
    ("Video", "video", "train"),
    ("Synthetic", "synthetic", "train"),
)


def list_env_ids() -> list[str]:
    """Return the ids of this library's environments, in the table's order."""
    return [f"SLTTrack-{title}-v0" for title, *_ in DATASETS]


def find_env_id(dataset: str) -> str:
    """Return the id of a dataset's environment, by the name that ``open_dataset`` takes."""
    return next(f"SLTTrack-{title}-v0" for title, name, _ in DATASETS if name == dataset)


def register_envs() -> None:
    """Register every id with Gymnasium; ids that are there already are left alone."""
    for env_id, (_, dataset, split) in zip(list_env_ids(), DATASETS, strict=True):
        if env_id not in gym.registry:
            gym.register(
                id=env_id,
                entry_point="slt_gym.envs.tracking_env:TrackingEnv",
                vector_entry_point="slt_gym.envs.vector_env:TrackingVectorEnv",
                kwargs={"dataset": dataset, "split": split},
            )
