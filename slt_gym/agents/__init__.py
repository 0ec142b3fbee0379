"""Trackers as policies, and the algorithms that train them (PyTorch and Stable-Baselines3)."""

import slt_gym.agents.siamattn
import slt_gym.agents.siamrpnpp
import slt_gym.agents.transt
import slt_gym.agents.trdimp  # noqa: F401  (registers its trackers)
from slt_gym.agents.actor_critic import TrackerActorCriticPolicy
from slt_gym.agents.cloning import BehaviourCloning
from slt_gym.agents.creation import create_tracker, list_trackers
from slt_gym.agents.extractor import TrackerFeaturesExtractor
from slt_gym.agents.network import Proposals, TrackerNetwork
from slt_gym.agents.policy import (
    SiamAttnPolicy,
    SiamRPNppPolicy,
    TrackerPolicy,
    TransTPolicy,
    TrDiMPPolicy,
)
from slt_gym.agents.pretraining import pretrain
from slt_gym.agents.registry import register_tracker
from slt_gym.agents.replay import ReferenceReplayBuffer
from slt_gym.agents.replay_env import ReplayEnvCallback
from slt_gym.agents.slt import SLT
from slt_gym.agents.tracker import Tracker
from slt_gym.agents.weights import load_weights, save_weights

__all__ = [
    "SLT",
    "BehaviourCloning",
    "Proposals",
    "ReferenceReplayBuffer",
    "ReplayEnvCallback",
    "SiamAttnPolicy",
    "SiamRPNppPolicy",
    "TrDiMPPolicy",
    "Tracker",
    "TrackerActorCriticPolicy",
    "TrackerFeaturesExtractor",
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
