"""The table of environment ids."""

from __future__ import annotations

import gymnasium as gym

# The middle part of the id, and the name that slt_gym.data.open_dataset takes.
DATASETS = (
    ("LaSOT", "lasot"),
    ("GOT10k", "got10k"),
    ("Folder", "folder"),
    ("Synthetic", "synthetic"),
)


def list_env_ids() -> list[str]:
    """Return the ids of this library's environments, in the table's order."""
    return [f"SLTTrack-{title}-v0" for title, _ in DATASETS]


def register_envs() -> None:
    """Register every id with Gymnasium; ids that are there already are left alone."""
    for env_id, (_, dataset) in zip(list_env_ids(), DATASETS, strict=True):
        if env_id not in gym.registry:
            gym.register(
                id=env_id,
                entry_point="slt_gym.envs.tracking_env:TrackingEnv",
                vector_entry_point="slt_gym.envs.vector_env:TrackingVectorEnv",
                kwargs={"dataset": dataset},
            )
