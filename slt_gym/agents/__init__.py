"""Trackers as policies, and the algorithms that train them (PyTorch and Stable-Baselines3)."""

import slt_gym.agents.transt  # noqa: F401  (registers its trackers)
from slt_gym.agents.network import Proposals, TrackerNetwork
from slt_gym.agents.policy import TrackerPolicy, TransTPolicy
from slt_gym.agents.pretraining import pretrain
from slt_gym.agents.registry import list_trackers, register_tracker
from slt_gym.agents.slt import SLT
from slt_gym.agents.tracker import Tracker, create_tracker
from slt_gym.agents.weights import load_weights, save_weights

__all__ = [
    "SLT",
    "Proposals",
    "Tracker",
    "TrackerNetwork",
    "TrackerPolicy",
    "TransTPolicy",
    "create_tracker",
    "list_trackers",
    "load_weights",
    "pretrain",
    "register_tracker",
    "save_weights",
]
