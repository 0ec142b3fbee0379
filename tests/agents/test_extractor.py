from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.preprocessing import preprocess_obs
from tiny import ENV_ID, VIDEO, draw_observation, make_spaces

from slt_gym.agents import TrackerFeaturesExtractor
from slt_gym.envs import make_sb3_env
from slt_gym.errors import InvalidArgumentError

POLICY = {"features_extractor_class": TrackerFeaturesExtractor}


def make_extractor(
    space: spaces.Space | None = None, seed: int = 0, **kwargs: Any
) -> TrackerFeaturesExtractor:
    torch.manual_seed(seed)
    return TrackerFeaturesExtractor(space or make_spaces()[0], **kwargs)


def to_tensors(observation: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.as_tensor(value) for key, value in observation.items()}


def hide_target(corner: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
    """Put a blurred, noisy template into grey noise, its corner at ``(x, y)``."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (1, 3, 12, 12))
    template = torch.nn.functional.interpolate(torch.tensor(coarse), size=48, mode="bilinear")
    search = torch.as_tensor(rng.uniform(110, 146, (1, 3, 96, 96)))
    x, y = corner
    search[:, :, y : y + 48, x : x + 48] = template
    images = {"template": template, "search": search}
    return {
        "box": torch.tensor([[0.25, 0.25, 0.5, 0.5]]),
        **{key: image.to(torch.uint8) for key, image in images.items()},
    }


@pytest.mark.parametrize("corner", [(24, 24), (12, 20), (40, 12), (28, 44)])
def test_the_offset_is_where_the_template_is_found_before_any_training(
    corner: tuple[int, int],
) -> None:
    extractor = make_extractor(channels=32)
    extractor.sharpness.data.fill_(1000.0)  # the soft arg-max becomes the arg-max
    offsets = [extractor(hide_target(corner, seed))[0, :2] for seed in range(5)]
    # From the middle of the crop, in quarters of the previous estimate, half the crop's side.
    expected = ((torch.tensor(corner) + 24) / 96 - 0.5) / 0.125
    # The median, within the map's cell of four pixels.
    error = (torch.stack(offsets).median(dim=0).values - expected).abs()
    assert (error <= 4 / 96 / 0.125 + 1e-4).all()


def test_the_offset_counts_from_the_previous_estimate_in_its_own_sizes() -> None:
    extractor = make_extractor()
    observation = hide_target((30, 20), 0)
    first = extractor(observation)[0, :2]
    moved = {**observation, "box": torch.tensor([[0.3, 0.4, 0.25, 0.125]])}
    centre = torch.tensor([0.3 + 0.125, 0.4 + 0.0625])
    expected = 4 * (first * 0.125 + 0.5 - centre) / torch.tensor([0.25, 0.125])
    torch.testing.assert_close(extractor(moved)[0, :2], expected)
    flat = {**observation, "box": torch.zeros(1, 4)}
    assert torch.isfinite(extractor(flat)).all()


def test_the_offset_can_be_learnt() -> None:
    extractor = make_extractor()
    observation = hide_target((30, 20), 0)
    extractor(observation)[0, 0].backward()
    gradients = {name: p.grad for name, p in extractor.named_parameters()}
    assert gradients["sharpness"].abs() > 0
    assert gradients["encoder.0.weight"].abs().sum() > 0
    assert gradients["read_out.0.weight"].abs().sum() == 0  # the similarities' own branch


@pytest.mark.parametrize("normalize_images", [True, False])
def test_normalised_images_make_no_difference(normalize_images: bool) -> None:
    space, _ = make_spaces()
    extractor = make_extractor()
    raw = to_tensors(draw_observation(3))
    given = preprocess_obs(raw, space, normalize_images)
    torch.testing.assert_close(extractor(given), extractor(raw), atol=1e-4, rtol=1e-4)


def test_light_and_contrast_make_no_difference() -> None:
    extractor = make_extractor()
    observation = {k: v.float() for k, v in to_tensors(draw_observation(3)).items()}
    brighter = {**observation, "search": 0.5 * observation["search"] + 40}
    torch.testing.assert_close(extractor(brighter), extractor(observation), atol=1e-4, rtol=1e-4)


def test_flat_crops_give_finite_features_and_gradients() -> None:
    extractor = make_extractor()
    observation = to_tensors(draw_observation(2))
    flat = {**observation, "search": torch.full_like(observation["search"], 7)}
    features = extractor(flat)
    features.sum().backward()
    assert torch.isfinite(features).all()
    assert all(torch.isfinite(p.grad).all() for p in extractor.parameters())


def test_each_sample_is_read_by_itself() -> None:
    extractor = make_extractor()
    observation = to_tensors(draw_observation(4))
    row = {key: value[2:3] for key, value in observation.items()}
    torch.testing.assert_close(extractor(row), extractor(observation)[2:3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("geometry", "sizes"),
    [("transt", (128, 256)), ("siamrpnpp", (127, 255)), ("trdimp-tiny", None)],
)
def test_every_geometry_is_read(geometry: str, sizes: tuple[int, int] | None) -> None:
    space, _ = make_spaces(geometry)
    if sizes:
        assert (space["template"].shape[-1], space["search"].shape[-1]) == sizes
    extractor = make_extractor(space)
    batch = {key: torch.as_tensor(value)[None] for key, value in space.sample().items()}
    features = extractor(batch)
    assert features.shape == (1, extractor.features_dim)
    for k, key in enumerate(extractor.keys):
        torch.testing.assert_close(features[:, 3 + 4 * k : 7 + 4 * k], batch[key])
    assert extractor.keys == (["box", "template_box"] if "trdimp" in geometry else ["box"])


def test_other_environments_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"TrackerFeaturesExtractor.*SLTTrack-"):
        TrackerFeaturesExtractor(spaces.Box(0, 255, (3, 64, 64), np.uint8))
    without = spaces.Dict({k: v for k, v in make_spaces()[0].items() if k != "template"})
    with pytest.raises(InvalidArgumentError, match=r"SLTTrack-"):
        TrackerFeaturesExtractor(without)


@pytest.mark.parametrize("action", ["box", "delta", "moves", "proposals"])
def test_every_form_of_action_is_served(action: str) -> None:
    env = make_sb3_env(
        ENV_ID,
        n_envs=2,
        geometry="transt-tiny",
        action=action,
        num_frames=4,
        threads=1,
        dataset_options=VIDEO,
    )
    model = PPO("MultiInputPolicy", env, policy_kwargs=POLICY, seed=0, device="cpu")
    actions, _ = model.predict(env.reset())
    assert all(env.action_space.contains(action) for action in actions)
    env.close()


def test_off_policy_algorithms_take_it() -> None:
    env = make_sb3_env(
        ENV_ID, n_envs=1, geometry="transt-tiny", num_frames=4, threads=1, dataset_options=VIDEO
    )
    model = SAC("MultiInputPolicy", env, policy_kwargs=POLICY, buffer_size=8, device="cpu")
    assert isinstance(model.actor.features_extractor, TrackerFeaturesExtractor)
    assert isinstance(model.critic.features_extractor, TrackerFeaturesExtractor)
    env.close()
