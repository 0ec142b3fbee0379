"""How a replay buffer of references finds its environment where it is not handed over."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback

from slt_gym.agents.replay import ReferenceReplayBuffer
from slt_gym.errors import InvalidArgumentError


class ReplayEnvCallback(BaseCallback):
    """Let a model's :class:`ReferenceReplayBuffer` read from the environment it is trained in.

    For programs that make the environment themselves, such as rl-baselines3-zoo, whose settings
    cannot name it:

        replay_buffer_class: "get_class_by_name('slt_gym.agents.ReferenceReplayBuffer')"
        callback: slt_gym.agents.ReplayEnvCallback

    Raises:
        InvalidArgumentError: When training starts: the model has another replay buffer, or none.
    """

    def _on_training_start(self) -> None:
        buffer = getattr(self.model, "replay_buffer", None)
        if not isinstance(buffer, ReferenceReplayBuffer):
            raise InvalidArgumentError(
                f"the model's replay buffer is {buffer!r}: ReplayEnvCallback serves models with "
                "replay_buffer_class=ReferenceReplayBuffer"
            )
        buffer.set_env(self.training_env)

    def _on_step(self) -> bool:
        return True
