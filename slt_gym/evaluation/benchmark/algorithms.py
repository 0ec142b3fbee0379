"""The rows of a benchmark's table: which algorithm, on which actions, with which settings."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from slt_gym.agents.clip_algorithm import ClipAlgorithm
from slt_gym.agents.policy_tracker import find_algorithm
from slt_gym.errors import InvalidArgumentError, unknown

KINDS = ("learner", "tracker", "random")
# What a row starts from; the table keeps the groups apart.
STARTS = {"scratch": "random weights", "base": "the base tracker", "none": "nothing learnt"}
# What a job fills in itself.
_RESERVED = (
    "self",
    "policy",
    "env",
    "seed",
    "device",
    "policy_kwargs",
    "tensorboard_log",
    "verbose",
)


@dataclass(frozen=True)
class Algorithm:
    """One row.

    Attributes:
        name: What the row is called.
        algorithm: Of a learner the class, or its name: of this library, Stable-Baselines3 or
            sb3-contrib, or ``"module:Class"``. Of a tracker its name, see
            :func:`slt_gym.list_trackers`. Nothing for random actions.
        kind: ``"learner"``; ``"tracker"``, which is tested as it is; ``"random"``: actions drawn
            uniformly from the action space.
        start: What it starts from: ``"scratch"`` (random weights), ``"base"`` (a tracker that was
            trained frame by frame), ``"none"``.
        action: The environment's form of actions.
        action_options: That form's options.
        reward: The environment's reward in training.
        n_envs: Tracks side by side in training; SLT takes as many as it needs.
        policy: A policy's name, or ``"module:Class"``.
        features: Give the policy :class:`slt_gym.agents.TrackerFeaturesExtractor`.
        normalise_reward: Divide rewards by the running standard deviation of the discounted return
            (``VecNormalize``), so that one learning rate fits every reward.
        kwargs: The constructor's further arguments, JSON values; ``"lin_3e-4"`` is a learning rate
            that falls to 0 linearly, ``"cos_3e-4"`` one that rises over a tenth of the run and then
            falls along a cosine, a number as ``action_noise`` the standard deviation of
            Gaussian noise. Of a tracker: fields of its configuration, and ``weights``.
        policy_kwargs: The policy's further arguments, JSON values.
        seeded: Whether its result depends on the seed; others are run once.
    """

    name: str
    algorithm: str | type[Any] = ""
    kind: str = "learner"
    start: str = "scratch"
    action: str = "delta"
    action_options: dict[str, Any] = field(default_factory=dict)
    reward: str | dict[str, float] = "iou_gain"
    n_envs: int = 8
    policy: str = "MultiInputPolicy"
    features: bool = True
    normalise_reward: bool = True
    kwargs: dict[str, Any] = field(default_factory=dict)
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    seeded: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of algorithm", self.kind, KINDS)
        if self.start not in STARTS:
            raise unknown("start of an algorithm", self.start, STARTS)
        if not self.name or any(c in self.name for c in "/\\ .="):
            raise InvalidArgumentError(
                f"an algorithm is called {self.name!r}: accepted are names without blanks, dots, "
                "slashes and equals signs, since its folder is called so"
            )

    @property
    def learns(self) -> bool:
        """Whether it takes steps in the environment."""
        return self.kind == "learner"

    @property
    def title(self) -> str:
        """The class's or the tracker's name."""
        if isinstance(self.algorithm, str):
            return self.algorithm.rpartition(":")[2]
        return self.algorithm.__name__

    def load(self) -> type[Any]:
        """Return a learner's class.

        Raises:
            InvalidArgumentError: There is none of that name.
        """
        if not isinstance(self.algorithm, str):
            return self.algorithm
        return find_algorithm(self.algorithm)

    def describe(self) -> dict[str, Any]:
        """Return its fields as JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if not isinstance(self.algorithm, str):
            # The processes know the script that was started by another name.
            module = self.algorithm.__module__.replace("__mp_main__", "__main__")
            values["algorithm"] = f"{module}:{self.algorithm.__qualname__}"
        return values

    def check(self) -> None:
        """Check that the class is there and takes the arguments.

        Raises:
            InvalidArgumentError: There is no such class, or it has no such argument.
        """
        if not self.learns:
            return
        accepted = inspect.signature(self.load().__init__).parameters
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values()):
            return
        names = [name for name in accepted if name not in _RESERVED and name[0] != "_"]
        for key in self.kwargs:
            if key not in names:
                raise unknown(f"setting of {self.name}", key, [*names, *_FIELDS])


# The fields of a row that can be set like an argument of its class.
_FIELDS = (
    *("action", "action_options", "reward", "n_envs"),
    *("policy", "features", "normalise_reward", "policy_kwargs"),
)

_ON_POLICY: dict[str, Any] = {"n_steps": 32, "gamma": 0.3, "learning_rate": 1e-3}
_PPO = {**_ON_POLICY, "batch_size": 128, "n_epochs": 3}
_OFF_POLICY: dict[str, Any] = {
    "gamma": 0.3,
    "learning_rate": 1e-3,
    "buffer_size": 50_000,
    "learning_starts": 500,
    "batch_size": 32,
    "train_freq": 2,
}
# The default coefficient begins at 1, and few updates would not bring it down to scaled rewards.
_SOFT = {**_OFF_POLICY, "ent_coef": "auto_0.01", "target_entropy": -8.0}
_Q_LEARNING = {**_OFF_POLICY, "target_update_interval": 200, "exploration_fraction": 0.5}
# 75 boxes to choose from instead of 729.
_FEW_PROPOSALS = {"grid": 5, "reach": 0.5, "scales": [1 / 1.05, 1.0, 1.05], "ratios": [1.0]}
# The share of a previous box's size that actions scatter by at the start: 0.14.
_SMALL_NOISE = {"log_std_init": -2.0}
# Half the extractor's width takes half the time.
_NARROW = {"features_extractor_kwargs": {"channels": 8}}

# PPO's settings were chosen on the split val of the default environment, with seed 0; SLT's are
# those of its training script; the others' were hardly tuned.
ALGORITHMS: dict[str, Algorithm] = {
    row.name: row
    for row in (
        Algorithm("ppo", "PPO", kwargs=_PPO, policy_kwargs={**_NARROW, **_SMALL_NOISE}),
        Algorithm(
            "a2c",
            "A2C",
            kwargs={**_ON_POLICY, "n_steps": 16},
            policy_kwargs={**_NARROW, **_SMALL_NOISE},
        ),
        Algorithm(
            "trpo",
            "TRPO",
            kwargs={**_ON_POLICY, "batch_size": 256},
            policy_kwargs={**_NARROW, **_SMALL_NOISE},
        ),
        Algorithm(
            "recurrent-ppo",
            "RecurrentPPO",
            policy="MultiInputLstmPolicy",
            kwargs=_PPO,
            policy_kwargs={**_NARROW, **_SMALL_NOISE, "lstm_hidden_size": 64},
        ),
        Algorithm("sac", "SAC", kwargs=_SOFT, policy_kwargs=_NARROW),
        Algorithm("td3", "TD3", kwargs={**_OFF_POLICY, "action_noise": 0.1}, policy_kwargs=_NARROW),
        Algorithm("tqc", "TQC", kwargs=_SOFT, policy_kwargs=_NARROW),
        Algorithm(
            "dqn",
            "DQN",
            action="proposals",
            action_options=_FEW_PROPOSALS,
            kwargs=_Q_LEARNING,
            policy_kwargs=_NARROW,
        ),
        Algorithm(
            "qr-dqn",
            "QRDQN",
            action="proposals",
            action_options=_FEW_PROPOSALS,
            kwargs=_Q_LEARNING,
            policy_kwargs=_NARROW,
        ),
        Algorithm(
            "bc",
            "BehaviourCloning",
            reward="overlap",
            normalise_reward=False,
            kwargs={
                "expert": "oracle",
                "learning_rate": 1e-3,
                "gradient_steps": 6,  # each step is learnt from three times, as in ppo
                "replay_buffer_kwargs": {"threads": 1},
            },
            policy_kwargs=_NARROW,
        ),
        Algorithm(
            "slt",
            "SLT",
            start="base",
            action="box",
            reward="overlap",
            policy="TransTPolicy",
            features=False,
            normalise_reward=False,
            kwargs={
                # As in examples/train_slt_transt.py, like the other settings.
                "learning_rate": "cos_4e-4",
                "reward_to_go": True,
                "policy_weight": 10.0,
                "micro_batch": 8,
                "max_grad_norm": 5.0,
            },
            policy_kwargs={"tracker": "transt-tiny", "weights": "pretrained"},
        ),
        Algorithm(
            "ppo-tracker",
            "PPO",
            start="base",
            action="box",
            policy="slt_gym.agents:TrackerActorCriticPolicy",
            features=False,
            kwargs={**_PPO, "n_epochs": 1},
            policy_kwargs={"tracker": "transt-tiny", "weights": "pretrained"},
        ),
        Algorithm(
            "base",
            "transt-tiny",
            kind="tracker",
            start="base",
            kwargs={"weights": "pretrained"},
            seeded=False,
        ),
        Algorithm("random", kind="random", start="none"),
        Algorithm("static", "static", kind="tracker", start="none", seeded=False),
        Algorithm("oracle", "oracle", kind="tracker", start="none", seeded=False),
    )
}
DEFAULT_ALGORITHMS = (
    *("slt", "ppo-tracker", "base"),
    *("ppo", "a2c", "sac", "dqn", "bc"),
    *("random", "static", "oracle"),
)


def choose_algorithms(names: Sequence[str], settings: Iterable[str] = ()) -> list[Algorithm]:
    """Return the rows that a command line asks for.

    Args:
        names: Of ``ALGORITHMS``, or ``module:Class`` for another class with Stable-Baselines3's
            interface, called like its class; ``name=module:Class`` calls it so.
        settings: Changes, each ``row.key=value``, with a JSON value or text: ``key`` is an
            argument of the class, a field of :class:`Algorithm`, or ``policy_kwargs.argument``.

    Raises:
        InvalidArgumentError: A name, a row or a key is unknown, or a change is not one.
    """
    rows: dict[str, Algorithm] = {}
    for word in names:
        row = _find_row(word)
        if row.name in rows:
            raise InvalidArgumentError(
                f"two algorithms are called {row.name!r}: give each one once, and "
                "name=module:Class to a class"
            )
        rows[row.name] = row
    if not rows:
        raise InvalidArgumentError(f"no algorithm is given: accepted are {', '.join(ALGORITHMS)}")
    for text in settings:
        name, key, value = _parse_setting(text)
        if name not in rows:
            raise unknown(f"algorithm in the setting {text!r}:", name, rows)
        rows[name] = change(rows[name], key, value)
    for row in rows.values():
        row.check()
    return list(rows.values())


def change(row: Algorithm, key: str, value: Any) -> Algorithm:
    """Return a row with another setting; ``key`` as in :func:`choose_algorithms`.

    Raises:
        InvalidArgumentError: The row's class has no such argument.
    """
    first, dot, rest = key.partition(".")
    if dot:
        if first not in ("policy_kwargs", "action_options"):
            raise unknown(f"setting of {row.name}", key, [*_FIELDS, "policy_kwargs.argument"])
        nested: Mapping[str, Any] = getattr(row, first)
        changes: dict[str, Any] = {first: {**nested, rest: value}}
        return dataclasses.replace(row, **changes)
    if key in _FIELDS:
        expected = type(getattr(row, key))
        if key != "reward" and not isinstance(value, expected):
            raise InvalidArgumentError(
                f"setting {key} of {row.name} is {value!r}: accepted is a value of the kind of "
                f"{getattr(row, key)!r}"
            )
        return dataclasses.replace(row, **{key: value})
    changed = dataclasses.replace(row, kwargs={**row.kwargs, key: value})
    changed.check()
    return changed


def is_clip_algorithm(cls: type[Any]) -> bool:
    """Tell whether a class builds its environment itself, with several tracks for each clip."""
    return issubclass(cls, ClipAlgorithm)


def load_class(name: str) -> type[Any]:
    """Import ``module:Class``.

    Raises:
        InvalidArgumentError: There is no such class.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidArgumentError(
            f"cannot import {name!r} ({error}): expected is module:Class"
        ) from None


def _find_row(word: str) -> Algorithm:
    name, equals, path = word.rpartition("=")
    if ":" in path:
        row = Algorithm(name or path.rpartition(":")[2].lower(), path)
        row.load()
        return row
    if equals:
        raise InvalidArgumentError(f"algorithm {word!r}: expected is a name, or name=module:Class")
    if word not in ALGORITHMS:
        raise unknown("algorithm", word, [*ALGORITHMS, "module:Class"])
    return ALGORITHMS[word]


def _parse_setting(text: str) -> tuple[str, str, Any]:
    place, equals, value = text.partition("=")
    name, dot, key = place.partition(".")
    if not (equals and dot and key and value):
        raise InvalidArgumentError(
            f"setting {text!r} is not one: expected is algorithm.key=value, such as "
            "ppo.learning_rate=3e-4"
        )
    try:
        return name, key, json.loads(value)
    except ValueError:
        return name, key, value
