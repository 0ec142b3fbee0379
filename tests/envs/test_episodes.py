"""What environments tell of their episodes, ground truth included."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from slt_gym.envs import TrackingVectorEnv

VIDEO = {"num_frames": 20, "width": 160, "height": 120, "num_sequences": 4}
KWARGS = {"geometry": "transt-tiny", "num_frames": 3, "dataset_options": VIDEO}


def test_an_episode_tells_what_the_next_action_is_about() -> None:
    env = gym.make("slt_gym:SLTTrack-Synthetic-v0", action="moves", **KWARGS)
    ask = env.get_wrapper_attr
    assert ask("episodes") == [None]
    env.reset(options={"sequence": "train-000000"})
    (episode,) = ask("episodes")
    assert (episode.next_frame, episode.at_frame_start) == (1, True)
    truth = episode.truth
    _, _, _, _, info = env.step(0)
    assert (episode.next_frame, episode.at_frame_start) == (1, False)
    np.testing.assert_array_equal(episode.truth, info["gt_box"])
    np.testing.assert_array_equal(episode.truth, truth)
    np.testing.assert_array_equal(episode.box, info["box"])
    env.step(10)
    assert (episode.next_frame, episode.at_frame_start) == (2, True)
    assert not np.array_equal(episode.truth, truth)
    env.step(10)
    assert episode.done
    assert episode.truth is None


def test_a_vector_environment_has_an_episode_for_each_track() -> None:
    env = gym.make_vec("slt_gym:SLTTrack-Synthetic-v0", 4, tracks_per_clip=2, **KWARGS)
    assert isinstance(env, TrackingVectorEnv)
    assert env.episodes == [None] * 4
    _, infos = env.reset(seed=0)
    assert [episode.frames.clip.sequence.name for episode in env.episodes] == list(
        infos["sequence"]
    )
    assert env.episodes[0] is not env.episodes[1]
    np.testing.assert_array_equal(env.episodes[0].truth, env.episodes[1].truth)
    env.close()
