"""Environments: one track, many tracks, and their adapter to Stable-Baselines3.

The names are imported on first use, so that registering the environments' ids costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slt_gym.envs.actions import action_to_box, box_to_action
    from slt_gym.envs.rendering import draw_overlay
    from slt_gym.envs.sb3 import make_sb3_env
    from slt_gym.envs.tracking_env import TrackingEnv
    from slt_gym.envs.vector_env import TrackingVectorEnv

__all__ = [
    "TrackingEnv",
    "TrackingVectorEnv",
    "action_to_box",
    "box_to_action",
    "draw_overlay",
    "make_sb3_env",
]

_MODULES = {
    "TrackingEnv": "tracking_env",
    "TrackingVectorEnv": "vector_env",
    "action_to_box": "actions",
    "box_to_action": "actions",
    "draw_overlay": "rendering",
    "make_sb3_env": "sb3",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names beside the loaded ones."""
    return sorted({*globals(), *__all__})
