"""``slt-gym trajectories``: an expert's episodes as a Minari dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from slt_gym.agents.trajectories import record_trajectories
from slt_gym.cli.arguments import choose_device, parse_options
from slt_gym.envs.registration import list_env_ids
from slt_gym.errors import InvalidArgumentError, unknown

_OWN = ("n_envs", "threads", "seed", "weights", "device", "progress_bar")


@dataclass(frozen=True)
class Arguments:
    """Record a tracker's episodes in an environment as a Minari dataset.

    Needs Minari: pip install "slt-gym[offline]". The dataset is written to $MINARI_DATASETS_PATH,
    by default ~/.minari/datasets; minari.load_dataset(DATASET_ID) opens it. Images are written as
    they are: 246 KB a step with the geometry transt, 35 KB with transt-tiny, and up to half as much
    again for the chunks of HDF5.

    Attributes:
        env_id: The environment's id, such as SLTTrack-Synthetic-v0.
        dataset_id: The dataset's new id: namespace, name and version, such as
            slt-gym/synthetic/oracle-v0.
        expert: Who acts: oracle, which knows the ground truth, or another tracker's name.
        weights: Of an expert that is a network: a folder of weights, a published checkpoint's file,
            or "pretrained" for weights that ship with the package, which is the default.
        episodes: How many to record.
        env_kwargs: The environment's arguments, a JSON object such as
            '{"geometry": "transt-tiny"}'.
        n_envs: Tracks that run side by side.
        threads: Threads that decode frames; 0 takes one for each core.
        seed: Of the clips that are drawn.
        device: Where a network runs: auto (a GPU if there is one), cpu, cuda, or cuda:1 and so on.
        progress_bar: Show a progress bar with the rate and the remaining time.
    """

    env_id: Annotated[Positional[str], arg(metavar="ENV_ID")]
    dataset_id: Annotated[Positional[str], arg(metavar="DATASET_ID")]
    expert: Annotated[str, arg(metavar="NAME")] = "oracle"
    weights: Annotated[str | None, arg(metavar="PATH")] = None
    episodes: int = 100
    env_kwargs: Annotated[str, arg(metavar="JSON")] = "{}"
    n_envs: int = 8
    threads: int = 0
    seed: int = 0
    device: str = "auto"
    progress_bar: bool = True


def execute(arguments: Arguments, command: str) -> None:
    """Record the dataset.

    Args:
        arguments: The command's.
        command: The command line.

    Raises:
        InvalidArgumentError: An argument is not accepted; nothing is written.
        DatasetNotFoundError: The environment's data are not there; nothing is written.
        CheckpointError: The weights cannot be read; nothing is written.
        SltGymError: Minari is not installed.
    """
    del command
    if arguments.env_id.removeprefix("slt_gym:") not in list_env_ids():
        raise unknown("environment", arguments.env_id, list_env_ids())
    env_kwargs = parse_options("--env-kwargs", arguments.env_kwargs)
    for name in _OWN:
        if name in env_kwargs:
            raise InvalidArgumentError(f"--env-kwargs has {name!r}, which has its own argument")
    dataset = record_trajectories(
        arguments.dataset_id,
        arguments.env_id,
        arguments.expert,
        arguments.episodes,
        n_envs=arguments.n_envs,
        threads=arguments.threads,
        seed=arguments.seed,
        weights=arguments.weights,
        device=choose_device(arguments.device),
        progress_bar=arguments.progress_bar,
        **env_kwargs,
    )
    print(
        f"recorded {dataset.total_episodes} episodes, {dataset.total_steps} steps, "
        f"{dataset.storage.get_size():.1f} MB: {dataset.storage.data_path}"
    )
