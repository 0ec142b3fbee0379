"""TrDiMP, its tracker and SLT-TrDiMP's update against values recorded from the published code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from slt_gym.agents import create_tracker
from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.network import normalise_levels
from slt_gym.agents.trdimp import TrDiMP, TrDiMPTracker, network, trdimp
from slt_gym.agents.trdimp.losses import draw_proposals, proposal_densities
from slt_gym.agents.trdimp.network import draw_shifts
from slt_gym.agents.trdimp.refinement import ascend
from slt_gym.data import open_dataset
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
        for i in (3, 4):
            found[f"iou.modulation{i}"] = features[f"modulation{i}"]
        found["iou.feat3"], found["iou.feat4"] = net.bb_regressor.features(*layers["test"])

        def predict(box: Tensor) -> Tensor:
            return net.bb_regressor(proposals.iou_features, box)

        found["iou.pred"] = predict(recorded.proposals)
        refined = ascend(predict, recorded.proposals, net.config)
        found["iou.refined_boxes"], found["iou.refined_last_pred"] = refined
    return found


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
    assert len(compared) == 28


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
class Update:
    """One update of SLT-TrDiMP, as the golden describes it, done by this library."""

    golden: dict[str, Any]
    boxes: np.ndarray  # (5, 4 tracks, 4), tracks as in the golden
    gt_boxes: np.ndarray  # (5, 2 sequences, 4), frame pixels
    gt_crop: np.ndarray  # (5, 2, 4), pixels of the sampled tracks' crops
    actions: np.ndarray  # (5, 2)
    drawn: list[np.ndarray]
    terms: dict[str, float]
    gradient_norms: dict[str, float | None]


def learn_templates(net: TrDiMP, boxes: np.ndarray, sequences: Path) -> dict[str, Tensor]:
    """Encode the first frames' patches, in floating point and with the generator's shifts."""
    shifts = [GEOMETRY.initial_shifts(draw_shifts(GEOMETRY, net.generator)) for _ in NAMES]
    samples = []
    for name, box, shift in zip(NAMES, boxes, shifts, strict=True):
        window = GEOMETRY.template_window(box)
        patch = crop_float(read_frame(sequences, name, 1), window, 704)
        samples.append(torch.from_numpy(GEOMETRY.initial_samples(patch, shift)))
    stack = torch.stack([normalise_levels(sample) for sample in samples])
    template_box = torch.tensor(np.stack([GEOMETRY.template_box(box) for box in boxes]))
    shift_stack = torch.from_numpy(np.stack(shifts))
    return net.encode_samples(stack, net.sample_boxes(template_box.float(), shift_stack))


def run_update(
    golden: dict[str, Any],
    arrays: dict[str, np.ndarray],
    weights: dict[str, Tensor],
    sequences: Path,
    explore: bool,
) -> Update:
    net = trdimp(official_quirks=True)
    net.load_state_dict(weights)
    net.eval()
    net.generator.manual_seed(0)
    dataset = open_dataset("folder", sequences)
    truth = np.stack([dataset.get(name).boxes[:6] for name in NAMES], axis=1)  # (6, 2, 4)
    features = learn_templates(net, truth[0], sequences)
    detached = {name: tensor.detach() for name, tensor in features.items()}

    # Rows as in the golden: greedy Crossing and Man, then sampled ones.
    tracks = [Explorer(truth[0, i % 2], GEOMETRY.target_scale(truth[0, i % 2])) for i in range(4)]
    boxes, gt_crop, actions, crops, drawn = [], [], [], [], []
    for step in range(1, 6):
        frames = [read_frame(sequences, name, step + 1) for name in NAMES]
        seen = np.stack([track.look(frames[i % 2]) for i, track in enumerate(tracks)])
        crop = normalise_levels(torch.from_numpy(seen))
        crops.append(crop[2:])
        windows = [track.window for track in tracks]
        gt = np.stack([w.to_crop(truth[step, i % 2]) for i, w in enumerate(windows)])
        gt_crop.append(gt[2:] * 352)
        if explore:
            rows = torch.tensor([0, 1, 0, 1])
            with torch.no_grad():
                proposals = net.propose({k: v[rows] for k, v in detached.items()}, crop)
                logits = net.action_logits(proposals, None)
                order = logits.argsort(dim=1, descending=True, stable=True)
                index = torch.where(torch.arange(4) < 2, order[:, 0], order[:, step % 3])
                previous = np.stack([t.window.to_crop(t.box) for t in tracks])
                chosen = net.resolve(proposals, index, torch.from_numpy(previous)).numpy()
            found = [w.to_frame(box) for w, box in zip(windows, chosen, strict=True)]
            actions.append(index[2:].numpy())
        else:
            net.draw_jitter(net.generator)
            found = [np.array(box) for box in golden["boxes"][step - 1]]
            actions.append(np.array(golden["actions"][step - 1]))
        sigmas = net.config.proposal_sigmas
        target = torch.from_numpy(gt * 352).float()
        drawn.append(draw_proposals(target, 128, sigmas, net.generator)[0][2:].numpy())
        for track, box in zip(tracks, found, strict=True):
            track.move(box)
        boxes.append(np.stack(found))

    terms = compute_loss(
        net,
        features,
        torch.cat(crops),
        np.concatenate(actions),
        np.concatenate(gt_crop),
        golden,
        arrays,
    )
    terms["total"].backward()

    def norm(module: torch.nn.Module) -> float | None:
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        return float(sum((g.double() ** 2).sum() for g in grads) ** 0.5) if grads else None

    norms = {name: norm(net.get_submodule(name)) for name in golden["grad_norm_module"]}
    return Update(
        golden,
        np.stack(boxes),
        truth[1:],
        np.stack(gt_crop),
        np.stack(actions),
        drawn,
        {name: float(value.detach()) for name, value in terms.items()},
        {**norms, "total": norm(net)},
    )


def compute_loss(
    net: TrDiMP,
    features: dict[str, Tensor],
    crops: Tensor,
    actions: np.ndarray,
    gt_crop: np.ndarray,
    golden: dict[str, Any],
    arrays: dict[str, np.ndarray],
) -> dict[str, Tensor]:
    """Compute the loss of the sampled tracks; frame-major rows, as published."""
    rows = torch.arange(10) % 2
    proposals = net.propose({k: v[rows] for k, v in features.items()}, crops)
    distribution = ProposalDistribution(net.action_logits(proposals, None))
    log_prob = distribution.log_prob(torch.from_numpy(actions))
    sl = -(torch.tensor(golden["reward"])[rows] * log_prob).mean()
    recorded = [
        torch.from_numpy(arrays[name]).flatten(0, 1)
        for name in ("search_proposals", "proposal_density", "gt_density")
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "draw_proposals", lambda *_: recorded)
        gt_units = torch.from_numpy(gt_crop / 352).float()
        bb_ce = net.losses(proposals, gt_units)["bb_ce"]
    total = net.slt_weights["policy"] * sl + net.slt_weights["bb_ce"] * bb_ce
    return {"total": total, "sl": sl, "bb_ce": bb_ce}


@pytest.fixture(scope="module", params=["slt", "slt_tweaked"])
def update(
    request: pytest.FixtureRequest,
    shared: Path,
    golden: dict[str, Any],
    weights: dict[str, dict[str, Tensor]],
    real_sequences: Path,
) -> Update:
    tweaked = request.param == "slt_tweaked"
    with np.load(shared / "parity" / f"trdimp_{request.param}_arrays.npz") as file:
        arrays = {name: file[name] for name in file.files}
    chosen = weights["tweaked" if tweaked else "plain"]
    # The plain weights' tracks run away; the tweaked ones are explored anew.
    return run_update(golden[request.param], arrays, chosen, real_sequences, explore=tweaked)


class TestUpdate:
    def test_the_same_actions_and_boxes(self, update: Update) -> None:
        assert update.actions.tolist() == update.golden["actions"]
        np.testing.assert_allclose(update.boxes, update.golden["boxes"], rtol=0, atol=1e-2)
        overlap = iou(update.boxes, np.concatenate([update.gt_boxes] * 2, axis=1))
        np.testing.assert_allclose(overlap[:, :2], update.golden["baseline_iou"], atol=1e-4)
        np.testing.assert_allclose(overlap[:, 2:], update.golden["explore_iou"], atol=1e-4)

    def test_the_same_targets_and_proposals(self, update: Update, shared: Path) -> None:
        np.testing.assert_allclose(update.gt_crop, update.golden["search_anno"], atol=1e-3)
        name = "slt_tweaked" if update.golden["reward"][0] else "slt"
        with np.load(shared / "parity" / f"trdimp_{name}_arrays.npz") as file:
            np.testing.assert_allclose(np.stack(update.drawn), file["search_proposals"], atol=5e-3)
            # Given the recorded boxes, the densities.
            gt = torch.tensor(update.golden["search_anno"]).double().flatten(0, 1)
            boxes = torch.from_numpy(file["search_proposals"]).double().flatten(0, 1)
            density, gt_density = proposal_densities(boxes, gt, (0.05, 0.5))
            expected = file["proposal_density"].reshape(10, 128)
            np.testing.assert_allclose(density, expected, rtol=1e-2)
            expected = file["gt_density"].reshape(10, 128)
            np.testing.assert_allclose(gt_density, expected, rtol=1e-2, atol=1e-6)

    def test_the_same_losses(self, update: Update) -> None:
        stats, terms = update.golden["stats"], update.terms
        assert terms["total"] == pytest.approx(stats["Loss/total"], rel=1e-3)
        assert terms["bb_ce"] == pytest.approx(stats["Loss/bb_ce"], rel=1e-3)
        assert terms["sl"] == pytest.approx(stats["ClfTrain/sl_loss"], rel=1e-3)

    def test_the_same_gradients(self, update: Update) -> None:
        expected = {
            **update.golden["grad_norm_module"],
            "total": update.golden["grad_norm_total"],
        }
        assert expected["bb_regressor"] is None
        for name, value in expected.items():
            assert update.gradient_norms[name] == (
                None if value is None else pytest.approx(value, rel=1e-3, abs=1e-8)
            ), name


def test_the_geometry_is_registered() -> None:
    assert get_geometry("trdimp") == GEOMETRY
