"""Single-object tracking as reinforcement learning.

Importing this package registers the environments with Gymnasium and nothing more: PyTorch is
imported by the first use of a tracker.

    import gymnasium as gym
    import slt_gym

    env = gym.make("SLTTrack-LaSOT-v0", root="/data/LaSOT")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slt_gym.envs.registration import register_envs
from slt_gym.version import __version__

if TYPE_CHECKING:
    from slt_gym.agents import create_tracker, list_trackers

__all__ = ["__version__", "create_tracker", "list_trackers"]

register_envs()


def __getattr__(name: str) -> Any:
    """Import the names that need PyTorch on their first use."""
    if name in ("create_tracker", "list_trackers"):
        from slt_gym import agents  # noqa: PLC0415  (imports torch)

        return getattr(agents, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names beside the loaded ones."""
    return sorted({*globals(), *__all__})
