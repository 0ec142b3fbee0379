"""SiamAttn and SLT-SiamAttn's update against values recorded from the published code."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

from slt_gym.agents import SLT, create_tracker
from slt_gym.agents.rollout import advantages
from slt_gym.agents.siamattn import SiamAttn
from slt_gym.agents.siamattn import network as module
from slt_gym.agents.siamattn.attention import channel_affinity
from slt_gym.agents.siamattn.losses import cut_masks
from slt_gym.agents.siamattn.tracker import SiamAttnTracker
from slt_gym.envs import make_sb3_env
from slt_gym.geometry import crop_mask, iou

pytestmark = pytest.mark.slow

Weights = tuple[dict[str, torch.Tensor], Path]


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    return read_golden(shared, "siamattn")


@pytest.fixture(scope="module")
def weights(shared: Path, fill: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The filled weights, and a file with them as SiamAttn's own repository names them."""
    state = fill_weights(shared, fill, "siamattn")
    path = tmp_path_factory.mktemp("siamattn") / "siamattn.pth"
    original = {f"module.{k}".replace("refine_head", "bbox_head"): v for k, v in state.items()}
    torch.save(original, path)
    return state, path


@pytest.fixture(scope="module")
def network(weights: Weights) -> SiamAttn:
    network = SiamAttn()
    network.load_state_dict(weights[0], strict=True)
    return network.eval()


def test_keys_and_shapes_are_the_manifests(network: SiamAttn, weights: Weights) -> None:
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert shapes == {key: value.shape for key, value in weights[0].items()}
    assert sum(p.numel() for p in network.parameters()) == 140_242_881
    assert sum(p.requires_grad for p in network.parameters()) == 327


def run_and_keep(network: SiamAttn, rois: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run the network on the recorded inputs; keep what the published file keeps."""
    found: dict[str, torch.Tensor] = {}
    branch = ["z"]
    handles = []

    def keep(module: torch.nn.Module, *names: str) -> None:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            outputs = output if isinstance(output, list | tuple) else [output]
            found.update({n.format(branch[0]): x for n, x in zip(names, outputs, strict=True)})

        handles.append(module.register_forward_hook(hook))

    def keep_input(module: torch.nn.Module, name: str) -> None:
        handles.append(
            module.register_forward_pre_hook(lambda m, inputs: found.update({name: inputs[0]}))
        )

    def keep_pair(module: torch.nn.Module, name: str) -> None:
        """Keep what a module makes of the template first, then of the search region."""
        sides = iter("zx")
        handles.append(
            module.register_forward_hook(
                lambda m, inputs, output: found.update({f"{next(sides)}.{name}": output})
            )
        )

    stages = ("stem", "layer1", "layer2", "layer3", "layer4")
    keep(network.backbone, *("{}." + name for name in stages))
    keep(network.neck, "{}.neck2", "{}.neck3", "{}.neck4")
    keep(network.rpn_head, "cls", "loc")
    for i in range(3):
        keep_pair(network.feature_enhance.pams[i], f"pam{i}")
        keep_pair(network.feature_enhance.deform_convs[i], f"enh{i}")
        head = getattr(network.rpn_head, f"rpn{i + 2}")
        keep(head.cls, f"rpn{i + 2}.cls")
        keep(head.loc, f"rpn{i + 2}.loc")
        keep_input(head.cls.head, f"rpn{i + 2}.cls_feat")
    pool = network.refine_head.roi_pool_b
    keep_input(pool.offset_fc, "roi_b.pool0")
    keep(pool.offset_fc, "roi_b.offset")
    keep(pool, "roi_b.pool1")
    keep(network.mask_head.roi_pool_m, "roi_m.pool1")
    template, search = draw_inputs()
    with torch.no_grad():
        features = network.encode(template)
        branch[0] = "x"
        proposals = network.propose(features, search)
        found["bbox_pred"] = network.refine(proposals, rois)
        found["mask_pred"] = network.segment(proposals, rois)[:, None]
        found["b_fused"] = proposals.box_map
        found["m_fused"] = network.feature_fusion.fuse_mask(proposals.maps)
        for i in range(3):
            found[f"z.neck{i + 2}"] = features[:, i]  # the template's centre
            for side in "zx":
                found[f"{side}.camA{i}"] = channel_affinity(found[f"{side}.neck{i + 2}"])
    for handle in handles:
        handle.remove()
    found["roi_b.pool0"] = found["roi_b.pool0"].reshape(4, 256, 4, 4)
    found["roi_b.offset"] = found["roi_b.offset"].reshape(4, 2, 4, 4)
    return found


def test_outputs_and_intermediates_are_the_published_ones(network: SiamAttn, shared: Path) -> None:
    with np.load(shared / "parity" / "siamattn.npz") as file:
        recorded = {name: file[name] for name in file.files}
    found = run_and_keep(network, torch.from_numpy(recorded["rois"]))
    statistics = [key.removesuffix(".stat") for key in recorded if key.endswith(".stat")]
    assert len(statistics) == 52
    check_recorded(found, recorded, statistics)
    pooled = ("roi_b.pool0", "roi_b.offset", "roi_b.pool1")
    for name in ("cls", "loc", *pooled, "bbox_pred", "mask_pred"):
        assert relative_error(found[name].numpy(), recorded[name]) < 1e-4, name
    every = found["roi_m.pool1"].reshape(-1)[::61].numpy()
    assert relative_error(every, recorded["roi_m.pool1.stride61"]) < 1e-4


@pytest.fixture(scope="module")
def tracker(weights: Weights) -> SiamAttnTracker:
    return create_tracker("siamattn", weights=weights[1])  # type: ignore[return-value]


@pytest.mark.parametrize(("protocol", "count"), [("test_py_init", 5), ("raw_init", 2)])
def test_boxes_and_masks_are_the_published_ones(
    tracker: SiamAttnTracker,
    golden: dict[str, Any],
    real_sequences: Path,
    protocol: str,
    count: int,
) -> None:
    recorded = {kind: golden[f"{kind}_tracker"][protocol] for kind in ("baseline", "slt")}
    assert recorded["slt"]["boxes_xywh"] == recorded["baseline"]["boxes_xywh"]
    frames = read_frames(real_sequences, count)
    # The raw protocol counts inclusive pixels: its centre lies half a pixel before ours.
    x, y, w, h = golden["baseline_tracker"]["gt0"]
    shift = 0.5 if protocol == "raw_init" else 0.0
    tracker.init(frames[0], (x - shift, y - shift, w, h))
    config = tracker.network.config
    variants = {"baseline": config, "slt": replace(config, centre_mask=True, mask_threshold=0.45)}
    for i, frame in enumerate(frames[1:], start=1):
        box = tracker.update(frame)
        np.testing.assert_allclose(box, recorded["baseline"]["boxes_xywh"][i], rtol=0, atol=1e-2)
        score = recorded["baseline"]["best_score"][i]
        assert tracker.score == pytest.approx(score, abs=1e-4)
        if i % 3 != 1:
            continue  # masks take as long as tracking does
        for kind, variant in variants.items():
            tracker.network.config = variant
            assert tracker.segment().sum() == recorded[kind]["mask_pixels"][i]
            np.testing.assert_allclose(
                tracker.polygon().reshape(-1), recorded[kind]["polygon"][i], atol=1e-2
            )
        tracker.network.config = config


def draw_masks(states: States, shapes: list[list[int]]) -> torch.Tensor:
    """Fill the true boxes of the sampled tracks in masks of the frames, and crop them."""
    masks = []
    for row, boxes in zip(states.windows, states.gt, strict=True):
        for k in (2, 3):
            mask = np.zeros(shapes[k - 2][:2], bool)
            x, y, w, h = boxes[k].astype(int)
            mask[y : y + h, x : x + w] = True
            masks.append(crop_mask(mask, row[k], 255))
    return torch.from_numpy(np.array(masks))


@dataclass
class Update:
    """One update of SLT-SiamAttn from the recorded states, in the published chunks."""

    states: States
    log_probs: np.ndarray
    boxes: np.ndarray  # (T, 2 sampled tracks, 4), frame pixels
    terms: dict[str, list[float]]
    misaligned: list[float]
    rois: np.ndarray  # (10, 16, 4)
    deltas: np.ndarray
    mask_sums: np.ndarray
    norms: dict[str, float]


@pytest.fixture(scope="module")
def update(  # noqa: PLR0915
    golden: dict[str, Any], weights: Weights, real_sequences: Path
) -> Update:
    recorded = golden["slt"]["rank3_fix"]
    states = States.read(recorded, real_sequences, "siamattn")
    env = make_sb3_env(
        "SLTTrack-Folder-v0", n_envs=4, root=str(real_sequences), geometry="siamattn", threads=1
    )
    policy = {"weights": str(weights[1]), "official_quirks": True}
    model = SLT("SiamAttnPolicy", env, n_clips=2, policy_kwargs=policy, device="cpu")
    env.close()
    network = model.policy.network
    rollout = states.rollout(recorded)
    advantage = advantages(rollout, "greedy")
    masks = draw_masks(states, recorded["image_shapes"])
    regions: list[Any] = []
    sample = module.sample_regions
    draws, other_draws = PublishedDraws(), PublishedDraws()
    proposals: list[Any] = []
    misaligned: list[float] = []
    terms: dict[str, list[float]] = {}
    flat = np.arange(10)
    for first in (0, 5):
        rows = slice(first, first + 5)
        used = ((flat >= first) & (flat < first + 5)).reshape(5, 2, 1)
        aligned = torch.tensor(recorded["mask_weight_used"][rows]) > 0
        official = torch.tensor(golden["slt"]["rank3"]["mask_weight_used"][rows]) > 0
        kept: dict[str, Any] = {}

        def losses(own: Any, gt_box: torch.Tensor, rng: Any) -> dict[str, torch.Tensor]:
            proposals.append(own)
            found = network.losses(own, gt_box, draws, mask=masks[rows], has_mask=aligned)  # noqa: B023
            kept["regions"] = regions.pop()  # noqa: B023
            with torch.no_grad():
                masked = {"mask": masks[rows], "has_mask": official}  # noqa: B023
                again = network.losses(own, gt_box, other_draws, **masked)
            regions.pop()
            misaligned.append(float(again["mask"]))
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(network, "training_losses", losses)
            patch.setattr(
                module, "sample_regions", lambda *args: regions.append(sample(*args)) or regions[-1]
            )
            out = model.loss(rollout, advantage, used, slice(0, 2))
        (0.5 * out["loss"]).backward()
        for name, value in out.items():
            terms.setdefault(name, []).append(float(value.detach()))
        drawn = kept["regions"]
        terms.setdefault("rois", []).append(drawn.rois)
        terms.setdefault("deltas", []).append(drawn.deltas)
        terms.setdefault("sums", []).append(cut_masks(masks[rows], drawn.rois, 64).sum((1, 2)))
    norms = module_norms(network, list(recorded["grad_norm"]))
    log_probs, boxes = [], []
    index = torch.from_numpy(states.selected[:, 2:].reshape(-1))
    box = torch.from_numpy(states.to_crop(states.boxes)[:, 2:].reshape(-1, 4))
    views = [window for row in states.windows for window in row[2:]]
    with torch.no_grad():
        for i, own in enumerate(proposals):
            rows = slice(5 * i, 5 * i + 5)
            logits = network.action_logits(own, box[rows]).log_softmax(-1)
            log_probs.append(logits.gather(1, index[rows, None])[:, 0])
            chosen = network.resolve(own, index[rows], box[rows]).numpy()
            boxes += [v.to_frame(b) for v, b in zip(views[rows], chosen, strict=True)]
    rois, deltas, sums = (torch.cat(terms.pop(key)) for key in ("rois", "deltas", "sums"))
    return Update(
        states,
        torch.cat(log_probs).numpy(),
        np.stack(boxes).reshape(5, 2, 4),
        terms,
        misaligned,
        rois[:, 1:].reshape(10, 16, 4).numpy(),
        deltas.reshape(10, 16, 4).numpy(),
        sums.reshape(10, 16).numpy(),
        norms,
    )


class TestUpdate:
    @pytest.fixture
    def recorded(self, golden: dict[str, Any]) -> dict[str, Any]:
        return golden["slt"]["rank3_fix"]

    def test_the_same_boxes_and_overlaps_come_out(
        self, update: Update, recorded: dict[str, Any]
    ) -> None:
        states = update.states
        means = states.crops[:, 2:].mean(axis=(2, 3, 4)).reshape(-1)
        np.testing.assert_allclose(means, recorded["x_crop_mean"], rtol=1e-4)
        np.testing.assert_allclose(update.boxes, states.results[:, 2:], rtol=0, atol=1e-2)
        overlaps = iou(update.boxes, states.gt[:, 2:]).T
        np.testing.assert_allclose(overlaps, recorded["explore_iou"], atol=1e-4)

    def test_log_probabilities_are_the_published_ones(
        self, update: Update, recorded: dict[str, Any]
    ) -> None:
        assert str(update.log_probs.dtype) == recorded["prob_dtype"]
        np.testing.assert_allclose(update.log_probs, recorded["selected_logprob"], rtol=1e-4)

    def test_regions_and_their_targets_are_the_published_ones(
        self, update: Update, recorded: dict[str, Any]
    ) -> None:
        np.testing.assert_allclose(update.rois, recorded["rois"], rtol=0, atol=5e-3)
        np.testing.assert_allclose(update.deltas, recorded["roi_targets"], rtol=0, atol=2e-3)
        np.testing.assert_array_equal(update.mask_sums, recorded["mask_targets_sum"])

    def test_losses_are_the_published_ones(
        self, update: Update, recorded: dict[str, Any], golden: dict[str, Any]
    ) -> None:
        terms = update.terms
        assert np.mean(terms["policy_gradient_loss"]) == pytest.approx(
            recorded["policy_loss"], rel=1e-4
        )
        for ours, theirs in (("regression", "reg"), ("refinement", "refine"), ("mask", "mask")):
            assert terms[ours] == pytest.approx(recorded[f"{theirs}_loss_chunks"], rel=1e-4)
        assert np.mean(terms["loss"]) == pytest.approx(recorded["total_loss"], rel=1e-4)
        # The published order of the masks' weights mixes sequences up; the loss itself agrees.
        theirs = golden["slt"]["rank3"]["mask_loss_chunks"]
        assert update.misaligned == pytest.approx(theirs, rel=1e-4)

    def test_gradients_are_the_published_ones(
        self, update: Update, recorded: dict[str, Any]
    ) -> None:
        assert update.norms == pytest.approx(recorded["grad_norm"], rel=1e-3)
        total = np.sqrt(np.square(list(update.norms.values())).sum())
        assert total == pytest.approx(recorded["grad_norm_total"], rel=1e-3)
