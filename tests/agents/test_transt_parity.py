"""TransT and SLT-TransT's update against values recorded from the published code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from slt_gym.agents import SLT, create_tracker
from slt_gym.agents.distribution import ProposalDistribution
from slt_gym.agents.rollout import ClipRollout, advantages
from slt_gym.agents.transt import TransT
from slt_gym.envs import make_sb3_env
from slt_gym.geometry import iou

Weights = dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def network(transt_weights: Weights) -> TransT:
    network = TransT()
    network.load_state_dict(transt_weights["plain"], strict=True)
    return network.eval()


@pytest.fixture(scope="module")
def outputs(network: TransT) -> dict[str, np.ndarray]:
    """Run the network on the recorded inputs, once; keep what the published file keeps."""
    rng = np.random.default_rng(7)
    crops = {
        "template": torch.from_numpy(rng.standard_normal((1, 3, 128, 128)).astype(np.float32)),
        "search": torch.from_numpy(rng.standard_normal((2, 3, 256, 256)).astype(np.float32)),
    }
    found = {f"input.{name}": crop for name, crop in crops.items()}
    branch = ["template"]

    def keep_of_branch(name: str) -> Any:
        return lambda module, inputs, output: found.update({f"{branch[0]}.{name}": output})

    def keep_tokens(name: str) -> Any:
        if name == "decoder":
            return lambda module, inputs, output: found.update({name: output})
        names = f"{name}.template", f"{name}.search"
        return lambda module, inputs, output: found.update(zip(names, output, strict=True))

    body, fusion = network.backbone[0].body, network.featurefusion_network
    per_branch = {name: getattr(body, name) for name in ("conv1", "layer1", "layer2", "layer3")}
    per_branch["input_proj"] = network.input_proj
    fused = {f"encoder{i}": layer for i, layer in enumerate(fusion.encoder.layers)}
    fused["decoder"] = fusion.decoder.norm
    handles = [
        module.register_forward_hook(keep(name))
        for keep, modules in ((keep_of_branch, per_branch), (keep_tokens, fused))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        features = network.encode(crops["template"])
        branch[0] = "search"
        logits, boxes = network.predict(features.expand(2, -1, -1), crops["search"])
    for handle in handles:
        handle.remove()
    found["pred_logits"], found["pred_boxes"] = logits, boxes
    for name, grid in (("template", 16), ("search", 32)):
        position = getattr(network, f"{name}_pos")
        found[f"{name}.pos"] = position.T.reshape(1, 256, grid, grid)
    return {name: value.numpy() for name, value in found.items()}


@pytest.fixture(scope="module")
def recorded(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "parity" / "transt.npz") as file:
        return {name: file[name] for name in file.files}


def relative_error(value: np.ndarray, expected: np.ndarray) -> float:
    assert value.shape == expected.shape
    return float(np.abs(value - expected).max() / np.abs(expected).max())


def test_keys_and_shapes_are_the_manifests(
    network: TransT, transt_manifest: dict[str, list[int]]
) -> None:
    state = network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == transt_manifest
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 23_016_006


@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes"])
def test_outputs_are_the_published_ones(
    outputs: dict[str, np.ndarray], recorded: dict[str, np.ndarray], name: str
) -> None:
    for crop in ("template", "search"):
        first = outputs[f"input.{crop}"].reshape(-1)[:8]
        np.testing.assert_array_equal(first, recorded[f"input.{crop}.first8"])
    assert relative_error(outputs[name], recorded[name]) < 1e-4
    assert relative_error(outputs[name], recorded[f"f64.{name}"]) < 1e-4
    # The cells differ by little with these weights: compare the differences, too.
    spread = recorded[name] - recorded[name].mean(axis=1, keepdims=True)
    assert relative_error(outputs[name] - outputs[name].mean(axis=1, keepdims=True), spread) < 1e-2


def test_intermediates_are_the_published_ones(
    outputs: dict[str, np.ndarray], recorded: dict[str, np.ndarray]
) -> None:
    compared = 0
    for key, expected in recorded.items():
        kind, _, name = key.partition(".")
        if kind != "sub":
            continue
        value = outputs[name]
        if value.ndim == 4:
            value = value[:, ::16, ::8, ::8]
            # The published code repeats the template (and the encoding) for each search crop.
            value = np.broadcast_to(value, (2, *value.shape[1:]))
        else:
            value = value.transpose(1, 0, 2)[::16, :, ::8]  # tokens come first there
        assert relative_error(value, expected) < 1e-4, name
        statistics = (
            outputs[name].mean(),
            outputs[name].std(),
            outputs[name].min(),
            outputs[name].max(),
        )
        np.testing.assert_allclose(statistics, recorded[f"stat.{name}"], rtol=1e-3, atol=1e-4)
        compared += 1
    assert compared == 21


def read_frame(root: Path, number: int) -> np.ndarray:
    return np.ascontiguousarray(
        cv2.imread(str(root / "Crossing" / "img" / f"{number:04d}.jpg"))[..., ::-1]
    )


@pytest.fixture(scope="module")
def tracks(transt_files: dict[str, Path], real_sequences: Path) -> dict[str, np.ndarray]:
    """Boxes and scores ``(10, 5)`` over Crossing's first ten frames, with both sets of weights."""
    found = {}
    for name, path in transt_files.items():
        tracker = create_tracker("transt", weights=path)
        rows = [[205.0, 151.0, 17.0, 50.0, 1.0]]
        tracker.init(read_frame(real_sequences, 1), rows[0][:4])
        for number in range(2, 11):
            box = tracker.update(read_frame(real_sequences, number))
            rows.append([*box, tracker.score])
        found[name] = np.array(rows)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "weights"),
    [("transt", "plain"), ("slt_transt", "plain"), ("slt_transt_tweaked", "tweaked")],
)
def test_boxes_are_the_published_ones(
    tracks: dict[str, np.ndarray], transt_golden: dict[str, Any], name: str, weights: str
) -> None:
    expected = np.array([row["box"] for row in transt_golden[name]])
    assert expected.shape == (10, 4)
    np.testing.assert_allclose(tracks[weights][:, :4], expected, rtol=0, atol=1e-3)


@pytest.fixture
def fake_modules() -> Iterator[dict[str, type]]:
    """Stand-ins for the published trainer's classes, importable while a file is written."""
    classes = {}
    for module, name in (
        ("ltr.admin.settings", "Settings"),
        ("ltr.admin.local", "EnvironmentSettings"),
        ("ltr.admin.model_constructor", "NetConstructor"),
        ("ltr.admin.stats", "AverageMeter"),
        ("dlframework.common.utils.stats", "StatValue"),
    ):
        for depth in range(1, module.count(".") + 2):
            path = ".".join(module.split(".")[:depth])
            sys.modules.setdefault(path, ModuleType(path))
        classes[name] = type(name, (), {"__module__": module})
        setattr(sys.modules[module], name, classes[name])
    yield classes
    forget_fake_modules()


def forget_fake_modules() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("ltr", "dlframework")]:
        del sys.modules[name]


def fill_object(cls: type, **attributes: Any) -> Any:
    thing = cls()
    vars(thing).update(attributes)
    return thing


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_published_checkpoint_makes_a_tracker(
    transt_weights: Weights, fake_modules: dict[str, type], tmp_path: Path, zipped: bool
) -> None:
    settings = fill_object(
        fake_modules["Settings"],
        env=fill_object(fake_modules["EnvironmentSettings"], workspace_dir="/somewhere"),
        window_influence=0.49,
        self_reference=[],
    )
    settings.self_reference.append(settings)
    meters = {
        "Loss/total": fill_object(fake_modules["AverageMeter"], avg=np.float64(7.5), count=3),
        "old": fill_object(
            fake_modules["StatValue"], val=torch.tensor(2.0), history=[np.float32(1)]
        ),
    }
    checkpoint = {
        "epoch": 120,
        "actor_type": "SLTTransTActor",
        "net_type": "TransT",
        "net": transt_weights["plain"],
        "net_info": None,
        "constructor": fill_object(
            fake_modules["NetConstructor"],
            fun_name="transt_resnet50",
            fun_module="ltr.models.tracking.transt",
            args=(settings,),
            kwds={},
        ),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-5}]},
        "stats": {"train": meters},
        "settings": settings,
    }
    path = tmp_path / "slt_transt.pth.tar"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    forget_fake_modules()
    tracker = create_tracker("transt", weights=str(path))
    assert not any(name.startswith(("ltr", "dlframework")) for name in sys.modules)
    state = tracker.network.state_dict()  # type: ignore[attr-defined]
    for key, value in transt_weights["plain"].items():
        assert torch.equal(state[key], value), key


@dataclass
class Update:
    """One update of SLT-TransT, as the golden describes it, done by this library."""

    golden: dict[str, Any]
    rollout: ClipRollout
    boxes: np.ndarray  # (T, 4 tracks, 4), tracks as in the golden
    gt_boxes: np.ndarray
    log_probs: np.ndarray  # (T, 2)
    dtype: torch.dtype
    search_mean: float
    terms: dict[str, float]
    gradient_norms: dict[str, float]
    conv1_norm: float


class Recorder(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.boxes: list[np.ndarray] = []
        self.gt_boxes: list[np.ndarray] = []

    def _on_step(self) -> bool:
        # Ours: greedy and sampled of Crossing, then of Man; theirs: greedy ones, then sampled ones.
        infos = [self.locals["infos"][i] for i in (0, 2, 1, 3)]
        self.boxes.append(np.stack([info["box"] for info in infos]))
        self.gt_boxes.append(np.stack([info["gt_box"] for info in infos]))
        return True


def run_update(golden: dict[str, Any], weights: Path, sequences: Path) -> Update:
    env = make_sb3_env(
        "SLTTrack-Folder-v0",
        n_envs=4,
        root=str(sequences),
        tracks_per_clip=2,
        num_frames=6,
        reward="overlap",
        geometry="transt",
        threads=1,
    )
    names = ("Crossing", "Crossing", "Man", "Man")
    env.set_options([{"sequence": name, "start": 0, "stride": 1} for name in names])
    model = SLT(
        "TransTPolicy",
        env,
        n_clips=2,
        micro_batch=2,
        policy_kwargs={"weights": str(weights), "official_quirks": True},
        device="cpu",
    )
    drawn: list[torch.Tensor] = []

    def take_next_best(self: ProposalDistribution, generator: Any = None) -> torch.Tensor:
        rank = (len(drawn) + 1) % 3
        index = self.log_probs.argsort(dim=-1, descending=True, stable=True)[:, rank]
        drawn.append(self.log_prob(index)[1::2])
        return index

    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProposalDistribution, "sample", take_next_best)
        _, callback = model._setup_learn(1, recorder)
        model._at_start = True  # the reset has happened, with the clips chosen above
        rollout = model.collect_rollout(callback)
    env.close()
    assert rollout is not None
    # The recorded rewards are float32 differences of two means: the loss is compared given them.
    advantage = np.broadcast_to(np.array(golden["reward"])[None, :, None], (5, 2, 1))
    terms = model.loss(rollout, advantage, rollout.alive, slice(0, 2))
    terms["loss"].backward()
    network = model.policy.network

    def norm(module: torch.nn.Module) -> float:
        return float(sum((p.grad.double() ** 2).sum() for p in module.parameters()) ** 0.5)

    modules = {name: norm(getattr(network, name)) for name in golden["grad_norm_module"]}
    mean, std = (np.array(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return Update(
        golden,
        rollout,
        np.stack(recorder.boxes),
        np.stack(recorder.gt_boxes),
        torch.stack(drawn).numpy(),
        drawn[0].dtype,
        float(((rollout.search / 255 - mean) / std).mean()),
        {name: float(value.detach()) for name, value in terms.items()},
        {**modules, "total": norm(network)},
        norm(network.backbone[0].body.conv1),  # type: ignore[attr-defined]
    )


@pytest.fixture(scope="module", params=["slt", "slt_tweaked"])
def update(
    request: pytest.FixtureRequest,
    transt_golden: dict[str, Any],
    transt_files: dict[str, Path],
    real_sequences: Path,
) -> Update:
    weights = transt_files["tweaked" if request.param == "slt_tweaked" else "plain"]
    return run_update(transt_golden[request.param], weights, real_sequences)


@pytest.mark.slow
class TestUpdate:
    def test_the_same_actions_are_taken(self, update: Update) -> None:
        assert update.rollout.index[..., 0].tolist() == update.golden["actions"]
        assert str(update.dtype) == update.golden["dtype_logprob"]
        np.testing.assert_allclose(update.log_probs, update.golden["selected_logprob"], rtol=1e-4)

    def test_the_same_crops_are_seen(self, update: Update) -> None:
        assert update.search_mean == pytest.approx(update.golden["search_images_mean"], rel=1e-4)
        template = update.rollout.template
        assert template.shape == (2, 3, 128, 128)

    def test_the_same_boxes_come_out(self, update: Update) -> None:
        np.testing.assert_allclose(update.boxes, update.golden["boxes"], rtol=0, atol=5e-3)
        recorded = iou(np.array(update.golden["boxes"]), update.gt_boxes)  # (5, 4)
        np.testing.assert_allclose(iou(update.boxes, update.gt_boxes), recorded, atol=1e-4)

    def test_overlaps_are_the_rewards(self, update: Update) -> None:
        # reward="overlap" divides by the five tracked frames.
        rollout, golden = update.rollout, update.golden
        explore, baseline = np.array(golden["explore_iou"]), np.array(golden["baseline_iou"])
        np.testing.assert_allclose(5 * rollout.rewards[..., 0], explore, atol=1e-4)
        np.testing.assert_allclose(5 * rollout.greedy_rewards, baseline, atol=1e-4)
        advantage = advantages(rollout, "greedy")[0, :, 0]
        # A small difference of two float32 means: measured by the means.
        error = np.abs(advantage - golden["reward"]) / baseline.mean(axis=0)
        assert error.max() < 1e-4
        assert (np.sign(advantage) == np.sign(golden["reward"])).all()

    def test_annotations_lie_in_the_crops(self, update: Update) -> None:
        annotations = 256 * update.rollout.gt_box[:, :, 0]
        np.testing.assert_allclose(annotations, update.golden["search_anno"], rtol=0, atol=5e-3)

    def test_the_loss_is_the_published_one(self, update: Update) -> None:
        stats = update.golden["stats"]
        assert update.terms == pytest.approx(
            {
                "loss": stats["Loss/total"],
                "policy_gradient_loss": stats["Loss/sl_clf"],
                "l1": stats["Loss/bbox"],
                "giou": stats["Loss/giou"],
            },
            rel=1e-4,
        )

    def test_gradients_are_the_published_ones(self, update: Update) -> None:
        golden = update.golden
        assert update.gradient_norms == pytest.approx(
            {**golden["grad_norm_module"], "total": golden["grad_norm_total"]}, rel=1e-4
        )
        # One layer, and the deepest: the amplified heads' rounding shows most there.
        assert update.conv1_norm == pytest.approx(golden["grad_norm_backbone_conv1"], rel=5e-4)
