"""TrDiMP, its tracker and SLT-TrDiMP's update against values recorded from the published code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from slt_gym.agents import SLT, create_tracker
from slt_gym.agents.features import map_features
from slt_gym.agents.network import Proposals, normalise_levels
from slt_gym.agents.rollout import ClipRollout
from slt_gym.agents.trdimp import TrDiMP, TrDiMPTracker, network
from slt_gym.agents.trdimp.backbone import Backbone
from slt_gym.agents.trdimp.filter import correlate
from slt_gym.agents.trdimp.losses import draw_proposals, proposal_densities
from slt_gym.agents.trdimp.network import draw_shifts
from slt_gym.agents.trdimp.refinement import ascend, from_relative, to_relative
from slt_gym.data import open_dataset
from slt_gym.envs import make_sb3_env
from slt_gym.geometry import Window, get_geometry, iou
from slt_gym.geometry.trdimp import TrDiMPGeometry, crop_float

pytestmark = pytest.mark.slow

GEOMETRY = TrDiMPGeometry()


@pytest.fixture(scope="module")
def manifest(shared: Path) -> dict[str, list[int]]:
    return json.loads((shared / "parity" / "trdimp_manifest.json").read_text())


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "parity" / "trdimp_track.json").read_text())


@pytest.fixture(scope="module")
def weights(
    fill: ModuleType, manifest: dict[str, list[int]], golden: dict[str, Any]
) -> dict[str, dict[str, Tensor]]:
    plain = {key: fill.fill(key, tuple(shape)) for key, shape in manifest.items()}
    tweaked = fill.apply_tweak(dict(plain), golden["_doc"]["tweak"])
    return {
        name: {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}
        for name, arrays in (("plain", plain), ("tweaked", tweaked))
    }


@pytest.fixture(scope="module", autouse=True)
def features_computed_once() -> Iterator[None]:
    """Run the backbone once on each image of this file: both sets of weights have the same one.

    Of images that were seen with gradients the graph is kept, too: `model`'s network alone asks.
    """
    known: dict[tuple[bool, int], tuple[Tensor, Tensor]] = {}
    forward = Backbone.forward

    def look_up(self: Backbone, images: Tensor) -> tuple[Tensor, ...]:
        keys = [(torch.is_grad_enabled(), hash(image.numpy().tobytes())) for image in images]
        for key, image in zip(keys, images.split(1), strict=True):
            if key not in known:
                known[key] = forward(self, image)
        return tuple(torch.cat(layer) for layer in zip(*[known[key] for key in keys], strict=True))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "forward", look_up)
        yield


def relative_error(value: Tensor, expected: np.ndarray) -> float:
    found = value.detach().numpy()
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@dataclass
class Recorded:
    """The recorded values, and the inputs that they were made from."""

    values: dict[str, np.ndarray]
    train: Tensor  # (2 sequences, 2 images, 3, 352, 352)
    test: Tensor  # (2 sequences, 3, 352, 352)
    boxes: Tensor  # (2 sequences, 2 images, 4)
    proposals: Tensor  # (2 sequences, 5, 4)


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Recorded:
    with np.load(shared / "parity" / "trdimp.npz") as file:
        values = {name: file[name] for name in file.files}
    doc = json.loads(str(values.pop("meta")))["_doc"]
    rng = np.random.default_rng(7)
    train = rng.standard_normal((2, 2, 3, 352, 352)).astype(np.float32)
    test = rng.standard_normal((1, 2, 3, 352, 352)).astype(np.float32)
    return Recorded(
        values,
        torch.from_numpy(train).transpose(0, 1),
        torch.from_numpy(test)[0],
        torch.tensor(doc["train_bb"]).transpose(0, 1),
        torch.tensor(doc["proposals"]),
    )


@pytest.fixture(scope="module")
def outputs(weights: dict[str, dict[str, Tensor]], recorded: Recorded) -> dict[str, Tensor]:
    """Everything that the file records, in its layout: images before sequences."""
    net = TrDiMP()
    net.load_state_dict(weights["plain"], strict=True)
    net.eval()
    boxes = recorded.boxes
    with torch.no_grad():
        features = net.encode_samples(recorded.train, boxes)
        proposals = net.propose(features, recorded.test)
        backbone, classifier = net.feature_extractor, net.classifier
        layers = {
            "train": backbone(recorded.train.transpose(0, 1).flatten(0, 1)),
            "test": backbone(recorded.test),
        }
        found = {
            f"{part}.layer{i + 2}": layer
            for part, pair in layers.items()
            for i, layer in enumerate(pair)
        }
        for part, images in (("train", 2), ("test", 1)):
            tokens = classifier.features(found[f"{part}.layer3"])
            found[f"{part}.clf"] = tokens.transpose(1, 2).reshape(images, 2, 512, 22, 22)
            tokens = tokens.unflatten(0, (images, 2))
            memory = features["keys"], features["values"]
            decoded = torch.stack([classifier.transformer.decode(t, memory) for t in tokens])
            found[f"decoder.{part}"] = decoded.transpose(2, 3).reshape(images, 2, 512, 22, 22)
        label = net.transformer_label(boxes)
        found["train_label"] = label.transpose(0, 1).unflatten(-1, (22, 22))
        found["encoder.memory"] = features["values"][..., 1:] / label.flatten(1)[..., None]
        found["filter.init"] = features["filters"][:, 0]
        found["filter.final"] = features["filters"][:, -1]
        for i, scores in enumerate(proposals.iterates):
            found[f"scores.iter{i}"] = scores.reshape(1, 2, 23, 23)
        maps = classifier.filter_optimizer.maps(boxes, 23)
        for name, values in zip(("label_map", "target_mask", "spatial_weight"), maps, strict=True):
            found[name] = values.transpose(0, 1).reshape(4, 1, 23, 23)
        tokens = found["decoder.train"].transpose(0, 1).flatten(3).transpose(2, 3)
        found["filter_losses"] = torch.stack(
            [filter_loss(net, tokens, f, maps) for f in features["filters"].unbind(1)]
        )
        for i in (3, 4):
            found[f"iou.modulation{i}"] = features[f"modulation{i}"]
        found["iou.feat3"], found["iou.feat4"] = net.bb_regressor.features(*layers["test"])

        def predict(box: Tensor) -> Tensor:
            return net.bb_regressor(proposals.iou_features, box)

        found["iou.pred"] = predict(recorded.proposals)
        refined = ascend(predict, recorded.proposals, net.config)
        found["iou.refined_boxes"], found["iou.refined_last_pred"] = refined
    size = recorded.proposals[:, :1, 2:]
    relative = to_relative(recorded.proposals, size).requires_grad_()
    overlap = predict(from_relative(relative, size)).sum()
    (found["iou.grad_rel"],) = torch.autograd.grad(overlap, relative)
    return found


def filter_loss(
    net: TrDiMP, tokens: Tensor, filters: Tensor, maps: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Compute what the filter's optimizer minimises, the mean over the sequences."""
    label, mask, weight = maps
    scores = correlate(tokens, filters, 22)
    residual = weight * (torch.where(scores > 0, scores, mask * scores) - label)
    regularisation = net.classifier.filter_optimizer.filter_reg**2
    fit = residual.square().sum() / tokens.shape[1]
    return (fit + regularisation.squeeze() * filters.square().sum()) / len(tokens)


def test_keys_and_shapes_are_the_manifests(manifest: dict[str, list[int]]) -> None:
    net = TrDiMP()
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == manifest
    transformer = net.classifier.transformer
    assert transformer.encoder.layers[0].self_attn is transformer.decoder.layers[0].self_attn


def test_outputs_are_the_published_ones(outputs: dict[str, Tensor], recorded: Recorded) -> None:
    compared = set()
    for key, values in recorded.values.items():
        kind, _, name = key.partition(".")
        if kind not in ("full", "sub") or name not in outputs:
            continue
        value, expected = outputs[name], values
        if kind == "sub" and name == "encoder.memory":
            # Ours is divided by the label, which is next to nothing far from the target.
            value, label = value.transpose(0, 1)[::16, :, ::8], recorded_label(recorded)
            inside = (label > 1e-3)[::16]
            value, expected = value[inside], expected[inside.numpy()]
        elif kind == "sub":
            value = value[(..., slice(None, None, 16), *[slice(None, None, 6)] * 2)]
        assert relative_error(value, expected) < 1e-4, name
        compared.add(name)
    assert compared == set(outputs)
    assert len(compared) == 30


def recorded_label(recorded: Recorded) -> Tensor:
    """Return the labels of the memory's tokens ``(968, 2)``."""
    full = torch.from_numpy(recorded.values["full.train_label"])  # (images, sequences, 22, 22)
    return full.transpose(1, 2).transpose(2, 3).reshape(968, 2)


def read_frame(root: Path, name: str, number: int) -> np.ndarray:
    path = root / name / "img" / f"{number:04d}.jpg"
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


@pytest.mark.parametrize("name", ["slt_trdimp", "slt_trdimp_tweaked"])
def test_boxes_and_flags_are_the_published_ones(
    weights: dict[str, dict[str, Tensor]],
    golden: dict[str, Any],
    real_sequences: Path,
    tmp_path: Path,
    name: str,
) -> None:
    tweaked = name.endswith("tweaked")
    path = tmp_path / "trdimp.pth.tar"
    torch.save({"net": weights["tweaked" if tweaked else "plain"]}, path)
    overrides = golden["_doc"]["tweak_params"] if tweaked else {}
    tracker = create_tracker("trdimp", weights=path, seed=0, **overrides)
    assert isinstance(tracker, TrDiMPTracker)
    rows = golden[name]
    tracker.init(read_frame(real_sequences, "Crossing", 1), rows[0]["box"])
    boxes = tracker._samples.samples[1]
    np.testing.assert_allclose(boxes, rows[0]["target_boxes"], atol=1e-4)
    first = tracker._filter.flatten()[:8]
    assert relative_error(first, np.array(rows[0]["target_filter"]["first8"])) < 1e-4
    for row in rows[1:]:
        box = tracker.update(read_frame(real_sequences, "Crossing", row["frame"]))
        np.testing.assert_allclose(box, row["box"], rtol=0, atol=1e-2)
        assert tracker.flag == row["flag"]
        assert tracker.score == pytest.approx(row["max_score"], rel=1e-4)
        assert tracker._samples.count == row["stored"]
        assert len(tracker._transformer_memory.tokens) == row["memory"]
        assert float(tracker._filter.std()) == pytest.approx(row["filter_std"], rel=1e-3)


NAMES = ("Crossing", "Man")


@dataclass
class Explorer:
    """Published exploration, whose scale follows from the cropped window instead of the box."""

    box: np.ndarray
    scale: float
    window: Window | None = None

    def look(self, frame: np.ndarray) -> np.ndarray:
        """Return the float crop of the next window."""
        position = self.box[:2] + (self.box[2:] - 1) / 2
        size = frame.shape[1], frame.shape[0]
        self.window = GEOMETRY.window_at((position[0], position[1]), self.scale, size)
        return crop_float(frame, self.window, 352)

    def move(self, box: np.ndarray) -> None:
        assert self.window is not None
        ratio = np.sqrt(box[2:].prod() / self.box[2:].prod())
        self.scale = self.window.side / 352 * ratio
        self.box = box


@dataclass
class Exploration:
    """Five steps of the published exploration, done by this library's network."""

    rollout: ClipRollout
    boxes: np.ndarray  # (5, 4 tracks, 4), frame pixels, tracks as in the golden
    log_probs: np.ndarray  # (6 filters, 5, 2)
    drawn: np.ndarray  # (5, 2, 128, 4), the boxes for the IoU-Net's loss


@dataclass
class Update:
    """One update of SLT-TrDiMP, as the golden describes it, done by this library."""

    golden: dict[str, Any]
    arrays: dict[str, np.ndarray]
    exploration: Exploration
    terms: dict[str, float]
    network: TrDiMP  # with gradients


def learn_templates(
    net: TrDiMP, boxes: np.ndarray, rewards: list[float], sequences: Path
) -> dict[str, Tensor]:
    """Encode the first frames' patches, in floating point and with the generator's shifts.

    Where no reward weighs the log-probabilities, only the IoU-Net's modulation has a gradient.
    """
    features = []
    for name, box, reward in zip(NAMES, boxes, rewards, strict=True):
        shifts = GEOMETRY.initial_shifts(draw_shifts(GEOMETRY, net.generator))
        window = GEOMETRY.template_window(box)
        patch = crop_float(read_frame(sequences, name, 1), window, 704)
        samples = normalise_levels(torch.from_numpy(GEOMETRY.initial_samples(patch, shifts)))
        template_box = torch.from_numpy(GEOMETRY.template_box(box)).float()
        sample_boxes = net.sample_boxes(template_box[None], torch.from_numpy(shifts)[None])
        with torch.set_grad_enabled(reward != 0):
            encoded = net.encode_samples(samples[None], sample_boxes)
        layers = net.feature_extractor(samples[:1])
        modulation = net.bb_regressor.modulate(*layers, sample_boxes[:, 0])
        features.append({**encoded, "modulation3": modulation[0], "modulation4": modulation[1]})
    return {name: torch.cat([clip[name] for clip in features]) for name in features[0]}


def explore(net: TrDiMP, features: dict[str, Tensor], truth: np.ndarray, path: Path) -> Exploration:
    # Rows as in the golden: greedy Crossing and Man, then sampled ones.
    tracks = [Explorer(truth[0, i % 2], GEOMETRY.target_scale(truth[0, i % 2])) for i in range(4)]
    rows = torch.tensor([0, 1, 0, 1])
    features = map_features(lambda f: f.detach()[rows], features)
    steps: dict[str, list[Any]] = {}
    for step in range(1, 6):
        frames = [read_frame(path, name, step + 1) for name in NAMES]
        seen = np.stack([track.look(frames[i % 2]) for i, track in enumerate(tracks)])
        search = normalise_levels(torch.from_numpy(seen))
        windows = [track.window for track in tracks]
        previous, gt = (
            np.stack([w.to_crop(box) for w, box in zip(windows, part, strict=True)])
            for part in ([t.box for t in tracks], truth[step, [0, 1, 0, 1]])
        )
        proposals = net.propose(features, search)  # the update asks for the same graphs
        with torch.no_grad():
            order = net.action_logits(proposals, None).argsort(dim=1, descending=True, stable=True)
            index = torch.where(torch.arange(4) < 2, order[:, 0], order[:, step % 3])
            chosen = net.resolve(detach(proposals), index, torch.from_numpy(previous)).numpy()
            log_prob = [
                net.action_logits(Proposals(scores, proposals.boxes), None).log_softmax(dim=1)
                for scores in proposals.iterates
            ]
        for track, window, box in zip(tracks, windows, chosen, strict=True):
            track.move(window.to_frame(box))
        target = torch.from_numpy(gt * 352).float()
        drawn = draw_proposals(target, 128, net.config.proposal_sigmas, net.generator)[0]
        for name, value in (
            ("search", search[2:].numpy()),
            ("box", previous[2:]),
            ("index", index[2:].numpy()),
            ("gt_box", gt[2:]),
            ("boxes", [track.box for track in tracks]),
            ("log_probs", torch.stack(log_prob)[:, [2, 3], index[2:]].numpy()),
            ("drawn", drawn[2:].numpy()),
        ):
            steps.setdefault(name, []).append(value)
    found = {name: np.stack(values) for name, values in steps.items()}
    overlap = iou(found["boxes"], truth[1:, [0, 1, 0, 1]]) / 5  # (5, 4)
    rollout = ClipRollout(
        template=np.zeros((2, 0)),  # encoded already
        rewards=overlap[:, 2:, None],
        greedy_rewards=overlap[:, :2],
        alive=np.ones((5, 2, 1), bool),
        **{name: found[name][:, :, None] for name in ("search", "box", "index", "gt_box")},
    )
    log_probs = found["log_probs"].swapaxes(0, 1)
    return Exploration(rollout, found["boxes"], log_probs, found["drawn"])


def detach(proposals: Any) -> Any:
    features = tuple(f.detach() for f in proposals.iou_features)
    return dataclasses.replace(proposals, iou_features=features)


@pytest.fixture(scope="module")
def model(weights: dict[str, dict[str, Tensor]], real_sequences: Path) -> SLT:
    """SLT-TrDiMP around the published network."""
    env = make_sb3_env(
        "SLTTrack-Folder-v0", n_envs=4, root=str(real_sequences), geometry="trdimp", threads=1
    )
    kwargs = {"official_quirks": True}
    model = SLT("TrDiMPPolicy", env, n_clips=2, policy_kwargs=kwargs, device="cpu")
    env.close()
    model.policy.network.load_state_dict(weights["plain"])
    return model


@pytest.fixture(scope="module", params=["slt", "slt_tweaked"])
def update(
    request: pytest.FixtureRequest,
    shared: Path,
    golden: dict[str, Any],
    weights: dict[str, dict[str, Tensor]],
    model: SLT,
    real_sequences: Path,
) -> Update:
    expected = golden[request.param]
    with np.load(shared / "parity" / f"trdimp_{request.param}_arrays.npz") as file:
        arrays = {name: file[name] for name in file.files}
    net: Any = model.policy.network
    chosen = weights["tweaked" if request.param == "slt_tweaked" else "plain"]
    net.load_state_dict({key: chosen[key] for key in golden["_doc"]["tweak"]}, strict=False)
    net.zero_grad()
    net.generator.manual_seed(0)
    dataset = open_dataset("folder", real_sequences)
    truth = np.stack([dataset.get(name).boxes[:6] for name in NAMES], axis=1)  # (6, 2, 4)
    features = learn_templates(net, truth[0], expected["reward"], real_sequences)
    exploration = explore(net, features, truth, real_sequences)
    recorded = [
        torch.from_numpy(arrays[name]).flatten(0, 1)
        for name in ("search_proposals", "proposal_density", "gt_density")
    ]
    # The recorded rewards are float32 differences of two means: the loss is compared given them.
    advantage = np.broadcast_to(np.array(expected["reward"])[None, :, None], (5, 2, 1))
    rollout = exploration.rollout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(net, "encode", lambda template: features)
        patch.setattr(network, "draw_proposals", lambda *_: recorded)
        terms = model.loss(rollout, advantage, rollout.alive, slice(0, 2))
    terms["loss"].backward(retain_graph=True)
    losses = {name: float(value.detach()) for name, value in terms.items()}
    return Update(expected, arrays, exploration, losses, net)


class TestUpdate:
    def test_the_same_actions_and_boxes(self, update: Update) -> None:
        golden, found = update.golden, update.exploration
        assert found.rollout.index[..., 0].tolist() == golden["actions"]
        np.testing.assert_allclose(found.boxes, golden["boxes"], rtol=0, atol=1e-2)
        overlap = 5 * found.rollout.rewards[..., 0]
        np.testing.assert_allclose(overlap, golden["explore_iou"], atol=1e-4)
        overlap = 5 * found.rollout.greedy_rewards
        np.testing.assert_allclose(overlap, golden["baseline_iou"], atol=1e-4)

    def test_the_same_policy_after_each_iteration(self, update: Update) -> None:
        expected = np.array(update.golden["selected_logprob_per_iterate"], float)
        # A filter of zeros: the published scores are 0 / 0, ours are all alike.
        ours = np.where(np.isnan(expected), np.nan, update.exploration.log_probs)
        np.testing.assert_allclose(ours, expected, rtol=1e-3)
        assert np.isfinite(expected[1:]).all()

    def test_the_same_targets_and_proposals(self, update: Update) -> None:
        golden, arrays, found = update.golden, update.arrays, update.exploration
        gt_box = found.rollout.gt_box[:, :, 0] * 352
        np.testing.assert_allclose(gt_box, golden["search_anno"], atol=1e-3)
        np.testing.assert_allclose(found.drawn, arrays["search_proposals"], atol=5e-3)
        # Given the recorded boxes, the densities.
        gt = torch.tensor(golden["search_anno"]).double().flatten(0, 1)
        boxes = torch.from_numpy(arrays["search_proposals"]).double().flatten(0, 1)
        density, gt_density = proposal_densities(boxes, gt, (0.05, 0.5))
        expected = arrays["proposal_density"].reshape(10, 128)
        np.testing.assert_allclose(density, expected, rtol=1e-2)
        expected = arrays["gt_density"].reshape(10, 128)
        np.testing.assert_allclose(gt_density, expected, rtol=1e-2, atol=1e-6)

    def test_the_same_losses(self, update: Update) -> None:
        stats, terms = update.golden["stats"], update.terms
        assert terms["loss"] == pytest.approx(stats["Loss/total"], rel=1e-3)
        assert terms["bb_ce"] == pytest.approx(stats["Loss/bb_ce"], rel=1e-3)
        assert terms["policy_gradient_loss"] == pytest.approx(stats["ClfTrain/sl_loss"], rel=1e-3)

    def test_the_same_gradients(self, update: Update) -> None:
        golden, net = update.golden, update.network

        def norm(part: torch.nn.Module) -> float | None:
            """Return the gradient's norm; None where nothing learns."""
            learning = [p for p in part.parameters() if p.requires_grad]
            grads = [p.grad.double() for p in learning if p.grad is not None]
            return float(sum(g.square().sum() for g in grads)) ** 0.5 if learning else None

        assert norm(net) == pytest.approx(golden["grad_norm_total"], rel=1e-3)
        assert golden["grad_norm_module"]["bb_regressor"] is None
        for name, value in golden["grad_norm_module"].items():
            expected = None if value is None else pytest.approx(value, rel=1e-3, abs=1e-8)
            assert norm(net.get_submodule(name)) == expected, name
        for name, value in golden["grad_tensors"].items():
            grad = net.get_parameter(name).grad
            found = 0.0 if grad is None else float(grad.norm())
            assert found == pytest.approx(value, rel=1e-3, abs=1e-8), name


def test_the_geometry_is_registered() -> None:
    assert get_geometry("trdimp") == GEOMETRY
