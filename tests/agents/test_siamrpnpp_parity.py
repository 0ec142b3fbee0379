"""SiamRPN++ and SLT-SiamRPN++'s update against values recorded from the published code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from siam import (
    PublishedDraws,
    States,
    check_recorded,
    draw_inputs,
    fill_weights,
    module_norms,
    read_frames,
    read_golden,
    relative_error,
)
from stable_baselines3.common.logger import KVWriter, Logger

from slt_gym.agents import SLT, create_tracker
from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.network import Proposals
from slt_gym.agents.siamrpnpp import SiamRPNpp
from slt_gym.agents.siamrpnpp.losses import classification_loss, label_anchors
from slt_gym.agents.tracker import Tracker
from slt_gym.envs import make_sb3_env
from slt_gym.geometry import iou

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    return read_golden(shared, "siamrpnpp")


@pytest.fixture(scope="module")
def weights(
    shared: Path, fill: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], Path]:
    """The filled weights, and a file of the published format with them."""
    state = fill_weights(shared, fill, "siamrpnpp")
    path = tmp_path_factory.mktemp("siamrpnpp") / "siamrpnpp.pth"
    torch.save({"epoch": 1, "state_dict": state, "optimizer": {}}, path)
    return state, path


@pytest.fixture(scope="module")
def network(weights: tuple[dict[str, torch.Tensor], Path]) -> SiamRPNpp:
    network = SiamRPNpp()
    network.load_state_dict(weights[0], strict=True)
    return network.eval()


def test_keys_and_shapes_are_the_manifests(
    network: SiamRPNpp, weights: tuple[dict[str, torch.Tensor], Path]
) -> None:
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert shapes == {key: value.shape for key, value in weights[0].items()}
    assert sum(p.numel() for p in network.parameters()) == 53_950_624
    assert sum(p.requires_grad for p in network.parameters()) == 203


def test_outputs_and_intermediates_are_the_published_ones(network: SiamRPNpp, shared: Path) -> None:
    with np.load(shared / "parity" / "siamrpnpp.npz") as file:
        recorded = {name: file[name] for name in file.files}
    found: dict[str, torch.Tensor] = {}
    branch = ["z"]

    def keep(module: Any, inputs: Any, output: list[torch.Tensor]) -> None:
        names = ("stem", "layer1", "layer2", "layer3", "layer4")
        found.update({f"{branch[0]}.{n}": x for n, x in zip(names, output, strict=True)})

    def keep_neck(module: Any, inputs: Any, output: list[torch.Tensor]) -> None:
        for level, x in enumerate(output, start=2):
            # Of the template, the centre.
            kept = x[..., 4:11, 4:11] if branch[0] == "z" else x
            found[f"{branch[0]}.neck{level}"] = kept

    handles = [
        network.backbone.register_forward_hook(keep),
        network.neck.register_forward_hook(keep_neck),
    ]
    for level in (2, 3, 4):
        head = getattr(network.rpn_head, f"rpn{level}")
        for part in ("cls", "loc"):
            name = f"rpn{level}.{part}"
            handles.append(
                getattr(head, part).register_forward_hook(
                    lambda module, inputs, output, name=name: found.update({name: output})
                )
            )
        handles.append(
            head.cls.head.register_forward_pre_hook(
                lambda module, inputs, name=f"rpn{level}.cls_feat": found.update({name: inputs[0]})
            )
        )
    template, search = draw_inputs()
    with torch.no_grad():
        features = network.encode(template)
        branch[0] = "x"
        found["cls"], found["loc"] = network.predict(features, search)
    for handle in handles:
        handle.remove()
    names = [key.removesuffix(".stat") for key in recorded if key.endswith(".stat")]
    assert len(names) == 27
    check_recorded(found, recorded, names)
    for name in ("cls", "loc"):
        assert relative_error(found[name].numpy(), recorded[name]) < 1e-4


@pytest.fixture(scope="module")
def tracker(weights: tuple[dict[str, torch.Tensor], Path]) -> Tracker:
    return create_tracker("siamrpnpp", weights=weights[1])


@pytest.mark.parametrize(("protocol", "count"), [("test_py_init", 5), ("raw_init", 2)])
def test_boxes_are_the_published_ones(
    tracker: Tracker, golden: dict[str, Any], real_sequences: Path, protocol: str, count: int
) -> None:
    recorded = golden["baseline_tracker"][protocol]
    assert golden["slt_tracker"][protocol]["boxes_xywh"] == recorded["boxes_xywh"]
    frames = read_frames(real_sequences, count)
    # The raw protocol counts inclusive pixels: its centre lies half a pixel before ours.
    x, y, w, h = golden["baseline_tracker"]["gt0"]
    shift = 0.5 if protocol == "raw_init" else 0.0
    tracker.init(frames[0], (x - shift, y - shift, w, h))
    for frame, box, score in zip(
        frames[1:], recorded["boxes_xywh"][1:], recorded["best_score"][1:], strict=False
    ):
        np.testing.assert_allclose(tracker.update(frame), box, rtol=0, atol=1e-2)
        assert tracker.score == pytest.approx(score, abs=1e-4)


class Records(KVWriter):
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.values.update(key_values)

    def close(self) -> None:
        pass


@dataclass
class Update:
    """One update of SLT-SiamRPN++ from the recorded states, done by this library."""

    golden: dict[str, Any]
    states: States
    proposals: Proposals
    distribution: ProposalDistribution
    boxes: np.ndarray  # (T, 2 sampled tracks, 4), frame pixels
    logged: dict[str, float]
    norms: dict[str, float]
    parameters: dict[str, torch.Tensor]
    rates: list[float]


def run_update(golden: dict[str, Any], path: Path, sequences: Path) -> Update:
    states = States.read(golden, sequences, "siamrpnpp")
    env = make_sb3_env(
        "SLTTrack-Folder-v0", n_envs=4, root=str(sequences), geometry="siamrpnpp", threads=1
    )
    model = SLT(
        "SiamRPNppPolicy",
        env,
        n_clips=2,
        policy_kwargs={"weights": str(path), "official_quirks": True},
        device="cpu",
    )
    env.close()
    records = Records()
    model.set_logger(Logger(None, [records]))
    model._rng = PublishedDraws()  # type: ignore[assignment]
    seen: list[Any] = []
    propose = model.policy.propose

    def watch(*args: Any) -> Any:
        seen.append((propose(*args), args[2]))
        return seen[-1][0]

    model.policy.propose = watch  # type: ignore[method-assign]
    norms: dict[str, float] = {}
    network = model.policy.network
    step = model.policy.optimizer.step

    def step_and_measure() -> None:
        norms.update(module_norms(network, list(golden["grad_norm"])))
        step()

    model.policy.optimizer.step = step_and_measure  # type: ignore[method-assign]
    model.train(states.rollout(golden))
    model.logger.dump(0)
    (proposals, distribution), box = seen[0]
    with torch.no_grad():
        index = torch.from_numpy(states.selected[:, 2:].reshape(-1))
        resolved = network.resolve(proposals, index, torch.as_tensor(box)).numpy()
    boxes = [
        window.to_frame(chosen)
        for window, chosen in zip(
            [w for row in states.windows for w in row[2:]], resolved, strict=True
        )
    ]
    return Update(
        golden,
        states,
        proposals,
        distribution,
        np.stack(boxes).reshape(-1, 2, 4),
        {k: float(v) for k, v in records.values.items()},
        norms,
        {k: dict(network.named_parameters())[k].detach() for k in golden["param_after_step"]},
        [group["lr"] for group in model.policy.optimizer.param_groups],
    )


@pytest.fixture(scope="module", params=["wide"])
def update(
    request: pytest.FixtureRequest,
    golden: dict[str, Any],
    weights: tuple[dict[str, torch.Tensor], Path],
    real_sequences: Path,
) -> Update:
    return run_update(golden["slt"][request.param], weights[1], real_sequences)


class TestUpdate:
    def test_the_same_crops_are_seen(self, update: Update) -> None:
        states, golden = update.states, update.golden
        means = states.crops[:, 2:].mean(axis=(2, 3, 4)).reshape(-1)
        np.testing.assert_allclose(means, golden["x_crop_mean"], rtol=1e-4)
        np.testing.assert_allclose(
            states.templates.mean(axis=(1, 2, 3)), golden["z_crop_mean"], rtol=1e-6
        )

    def test_the_same_boxes_and_overlaps_come_out(self, update: Update) -> None:
        results, gt = update.states.results[:, 2:], update.states.gt[:, 2:]
        # The recorded boxes are cut to the frame, which none of these leaves.
        np.testing.assert_allclose(update.boxes, results, rtol=0, atol=1e-2)
        np.testing.assert_allclose(iou(update.boxes, gt).T, update.golden["explore_iou"], atol=1e-4)

    def test_the_policy_is_the_published_one(self, update: Update) -> None:
        golden = update.golden
        index = torch.tensor(golden["action_tensor"]).reshape(-1)
        log_prob = update.distribution.log_prob(index)
        assert str(log_prob.dtype) == f"torch.{golden['prob_dtype']}"
        np.testing.assert_allclose(log_prob.detach().numpy(), golden["selected_logprob"], rtol=1e-4)
        ranked = update.distribution.log_probs.argsort(dim=-1, descending=True, stable=True)
        rank = np.repeat(golden["k"], 2)
        assert ranked[torch.arange(10), torch.from_numpy(rank)].tolist() == index.tolist()

    def test_losses_are_the_published_ones(self, update: Update) -> None:
        golden = update.golden
        # The recorded reward is a small float32 difference of two means.
        assert update.logged["train/policy_gradient_loss"] == pytest.approx(
            golden["policy_loss"], rel=1e-4
        )
        assert update.logged["train/regression"] == pytest.approx(golden["reg_loss"], rel=1e-4)
        assert update.logged["train/loss"] == pytest.approx(golden["total_loss"], rel=1e-4)

    def test_gradients_and_the_step_are_the_published_ones(self, update: Update) -> None:
        golden = update.golden
        total = golden["grad_norm_total"]
        assert update.logged["train/grad_norm"] == pytest.approx(total, rel=1e-3)
        clipped = {k: v * min(1, 10 / total) for k, v in golden["grad_norm"].items()}
        assert update.norms == pytest.approx(clipped, rel=1e-3)
        for key, values in golden["param_after_step"].items():
            ours = update.parameters[key].reshape(-1)[: len(values)].numpy()
            np.testing.assert_allclose(ours, values, rtol=0, atol=2e-7, err_msg=key)
        assert sorted(set(update.rates)) == pytest.approx(sorted(set(golden["opt_lr"])))

    def test_anchors_are_labelled_as_published(self, update: Update, network: SiamRPNpp) -> None:
        golden, states = update.golden, update.states
        gt = torch.from_numpy(255 * states.to_crop(states.gt))  # (T, 4, 4)
        gt[..., :2] += gt[..., 2:] / 2 - 127
        rng = np.random.RandomState(0)
        labels = [label_anchors(network.anchors, row, rng) for row in gt]
        positive = torch.stack([label.positive[2:] for label in labels]).flatten(0, 1)
        negative = torch.stack([label.negative[2:] for label in labels]).flatten(0, 1)
        assert [row.nonzero()[:, 0].tolist() for row in positive] == golden["positives"]
        counts = torch.stack([positive.sum(1), negative.sum(1)], dim=1)
        assert counts.tolist() == golden["label_cls_counts"]
        labels[0].positive, labels[0].negative = positive, negative
        loss = classification_loss(update.proposals.scores, labels[0])
        assert float(loss.detach()) == pytest.approx(golden["cls_loss"], rel=1e-4)
