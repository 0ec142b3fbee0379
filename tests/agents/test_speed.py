"""What makes sequence-level training faster or smaller must not change its results."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger
from tiny import draw_observation, make_network, make_slt, make_spaces
from torch import Tensor, nn

from slt_gym.agents import SLT, TrackerNetwork, TransTPolicy, convolution, resnet
from slt_gym.agents.convolution import conv_bn
from slt_gym.agents.features import find_equal_crops, map_features
from slt_gym.agents.precision import allow_tf32
from slt_gym.agents.recomputation import set_checkpointing
from slt_gym.agents.registry import get_tracker_entry
from slt_gym.agents.siamattn import heads
from slt_gym.agents.siamrpnpp import backbone
from slt_gym.agents.trdimp import backbone as trdimp_backbone
from slt_gym.errors import InvalidArgumentError

TINY = ("siamattn-tiny", "siamrpnpp-tiny", "transt-tiny", "trdimp-tiny")


def build(name: str) -> tuple[TrackerNetwork, Tensor, Tensor]:
    """Return a tiny network with statistics of its own, two templates and two search crops."""
    entry = get_tracker_entry(name)
    torch.manual_seed(0)
    network = entry.build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    rng = np.random.default_rng(0)
    crops = (
        torch.from_numpy(rng.integers(0, 256, (2, 3, size, size), np.uint8))
        for size in (entry.geometry.template_size, entry.geometry.search_size)
    )
    return network.eval(), *crops


def backward(network: TrackerNetwork, template: Tensor, search: Tensor) -> dict[str, Tensor]:
    """Return the gradients of the policy's and of the tracker's own losses."""
    network.zero_grad()
    proposals = network.propose(network.encode(template), search)
    logits = network.action_logits(proposals, torch.tensor([[0.4, 0.4, 0.2, 0.2]] * 2))
    own = network.losses(proposals, torch.tensor([[0.4, 0.45, 0.2, 0.25]] * 2))
    loss = -logits.log_softmax(-1)[:, 7].mean()
    (loss + sum(own[name] for name in network.slt_weights if name != "policy")).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def measure_kept(function: Callable[[], Any]) -> int:
    """Return the bytes that are kept for the backward pass, each storage counted once."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("size", [3, 12])  # one smaller, one larger than the kernel
@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm_in_the_convolution_changes_nothing(size: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, bias=bias).double()
    bn = nn.BatchNorm2d(6).double().eval()
    for tensor in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
        nn.init.uniform_(tensor, 0.5, 2)
    x = torch.randn(2, 4, size, size, dtype=torch.float64, requires_grad=True)
    inputs = [x, *conv.parameters(), *bn.parameters()]
    seen: list[int] = []
    out, expected = conv_bn(x, conv, bn), bn(conv(x))
    torch.testing.assert_close(out, expected)
    hook = conv.register_forward_hook(lambda *_: seen.append(1))
    assert torch.equal(conv_bn(x, conv, bn), expected)
    hook.remove()
    assert seen == [1]
    pull = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, inputs, pull), torch.autograd.grad(expected, inputs, pull)
    )


def test_batch_norm_in_training_keeps_its_statistics() -> None:
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)
    x = torch.randn(4, 3, 8, 8)
    out = conv_bn(x, conv, bn)
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)
    mean = conv(x).mean(dim=(0, 2, 3))
    torch.testing.assert_close(bn.running_mean, 0.1 * mean)


def test_folding_keeps_less_for_the_backward_pass() -> None:
    conv, bn = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16).eval()
    x = torch.randn(2, 16, 32, 32)
    folded = measure_kept(lambda: conv_bn(x, conv, bn).relu_())
    apart = measure_kept(lambda: bn(conv(x)).relu_())
    assert folded < 0.8 * apart


@pytest.mark.parametrize("name", TINY)
def test_checkpointing_keeps_less_and_gives_the_same_gradient(name: str) -> None:
    network, template, search = build(name)
    expected = backward(network, template, search)

    def forward() -> Any:
        return network.propose(network.encode(template), search)

    kept = measure_kept(forward)
    set_checkpointing(network, True)
    assert measure_kept(forward) < 0.8 * kept
    again = backward(network, template, search)
    assert again.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(again[key], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_bf16_is_near_float32(name: str) -> None:
    network, template, search = build(name)
    expected = backward(network, template, search)
    with torch.no_grad():
        exact = network.propose(network.encode(template), search)
    network.precision = "bf16"
    with torch.no_grad():
        near = network.propose(network.encode(template), search)
    assert near.scores.dtype == near.boxes.dtype == torch.float32
    assert not torch.equal(near.scores, exact.scores)
    # bfloat16 has 8 binary digits; a network adds up what they leave out.
    spread = exact.scores.std()
    assert (near.scores - exact.scores).abs().mean() < 0.2 * spread
    assert (near.boxes - exact.boxes).abs().mean() < 0.1 * exact.boxes.std()
    gradients = backward(network, template, search)
    ours, theirs = (
        torch.cat([part[key].flatten().double() for key in sorted(expected)])
        for part in (gradients, expected)
    )
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.9


@pytest.fixture
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.usefixtures("double_precision")
def test_networks_run_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, template, search = build(name)
    folded = backward(network, template, search)
    assert {gradient.dtype for gradient in folded.values()} == {torch.float64}
    for module in (convolution, resnet, heads, backbone, trdimp_backbone):
        monkeypatch.setattr(module, "conv_bn", lambda x, conv, bn: bn(conv(x)))
    separate = backward(network, template, search)
    for key, gradient in folded.items():
        scale = float(separate[key].abs().max())
        torch.testing.assert_close(gradient, separate[key], rtol=0, atol=1e-9 * scale + 1e-15)


@pytest.mark.parametrize("name", TINY)
def test_proposals_are_taken_by_rows(name: str) -> None:
    network, template, search = build(name)
    rows = torch.tensor([1, 0, 1])
    with torch.no_grad():
        features = network.encode(template)
        taken = network.propose(features, search).take(rows)
        expected = network.propose(map_features(lambda f: f[rows], features), search[rows])
        box = torch.tensor([[0.4, 0.4, 0.2, 0.2]] * 3)
        torch.testing.assert_close(taken.scores, expected.scores, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(taken.boxes, expected.boxes, rtol=1e-4, atol=1e-4)
        index = torch.tensor([3, 5, 7])
        resolved = []
        for proposals in (taken, expected):
            network.set_seed(0)
            resolved.append(network.resolve(proposals, index, box))
            network.losses(proposals, box)
        torch.testing.assert_close(*resolved, rtol=1e-3, atol=1e-4)


def test_equal_crops_are_found_within_a_clip() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (3, 3, 8, 8), np.uint8)
    shown = [0, 0, 1, 0, 0, 2, 2, 2, 2]  # three clips of three tracks
    box = np.array([[k, 0, 1, 1] for k in shown], np.float32)
    box[7, 0] = 5  # the same pixels, and another estimate
    first, source = find_equal_crops(crops[shown], box, 3)
    assert first.tolist() == [0, 2, 3, 5, 6, 7]
    assert source.tolist() == [0, 0, 1, 2, 2, 3, 4, 5, 4]


def test_shared_crops_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = TransTPolicy(*make_spaces(), tracker="transt-tiny")
    policy.network.load_state_dict(make_network().state_dict())
    observation = draw_observation(6)
    for key, rows in observation.items():
        rows[1::2] = rows[::2]
        if key != "template":
            rows[3] = np.flip(rows[3], -1)
    features = policy.encode(observation["template"])
    greedy = np.array([True, False] * 3)
    seen: list[int] = []
    propose = policy.network.propose

    def watch(features: Tensor, search: Tensor) -> Any:
        seen.append(len(search))
        return propose(features, search)

    monkeypatch.setattr(policy.network, "propose", watch)
    policy.compute_with()
    answers = []
    for tracks_per_clip in (1, 2):
        policy.set_seed(0)
        answers.append(policy.act(features, observation, greedy, tracks_per_clip))
    assert seen == [6, 4]
    (actions, index, distribution), (again, other, same) = answers
    assert torch.equal(index, other)
    np.testing.assert_allclose(actions, again, atol=1e-5)
    torch.testing.assert_close(distribution.log_probs, same.log_probs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"activation_checkpointing": True}])
def test_options_reach_the_network_and_survive_saving(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model = make_slt(**options)
    model.learn(1)
    model.save(tmp_path / "model")
    for each in (model, SLT.load(tmp_path / "model")):
        network = each.policy.network
        assert network.precision == options.get("precision", "float32")
        parts = [part for part in network.modules() if hasattr(part, "activation_checkpointing")]
        assert len(parts) == 4  # three layers and the fusion
        for part in parts:
            assert part.activation_checkpointing == ("activation_checkpointing" in options)


def test_tf32_is_allowed_only_meanwhile() -> None:
    def flags() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = flags()
    with allow_tf32(True):
        assert flags() == (True, True)
    assert flags() == before
    with allow_tf32(False):
        assert flags() == before


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="bf16, float32, tf32"):
        make_slt(precision="fp16")


def test_what_exploration_keeps_are_uint8_crops() -> None:
    model = make_slt(n_clips=2, n_samples=2)
    model.set_logger(Logger(None, []))
    _, callback = model._setup_learn(1)
    rollout = model.collect_rollout(callback)
    assert rollout is not None
    assert rollout.search.dtype == rollout.template.dtype == np.uint8
    arrays = [array for array in vars(rollout).values() if array is not None]
    crops = rollout.search.nbytes + rollout.template.nbytes
    assert crops > 0.99 * sum(array.nbytes for array in arrays)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_compiled_network_proposes_the_same() -> None:
    policy = TransTPolicy(*make_spaces(), tracker="transt-tiny")
    policy.network.load_state_dict(make_network().state_dict())
    observation = draw_observation(2)
    with torch.no_grad():
        features = policy.encode(observation["template"])
        crops = features, observation["search"], observation["box"]
        expected, _ = policy.propose(*crops)
        policy.compute_with(compile=True)
        proposals, _ = policy.propose(*crops)
    torch.testing.assert_close(proposals.scores, expected.scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(proposals.boxes, expected.boxes, rtol=1e-4, atol=1e-5)
