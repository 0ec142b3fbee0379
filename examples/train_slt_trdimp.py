"""Train SLT-TrDiMP and test it on held-out sequences.

Without arguments: the synthetic job. A laptop-sized TrDiMP is trained on procedural video frame by
frame, then by sequence-level training, and compared with itself, with as much more time of
frame-level training, and with sequence-level training whose policy term is off. Needs no data and
two cores.

    python examples/train_slt_trdimp.py --dataset lasot+got10k+trackingnet --root DIR \
        --dataset-options '{"options": {"got10k": {"split": "vottrain"},
                                        "trackingnet": {"chunks": [6, 7, 8, 9, 10, 11]}}}' \
        --weights trdimp.pth.tar

is the paper's recipe (Kim et al., ECCV 2022) with the paper's constants and data, from the
published weights of TrDiMP; DIR holds the datasets' folders. One thing differs: the published
training leaves the IoU-Net untrained, by accident; here it learns (``official_quirks=True`` among
the policy's arguments freezes it). ``--dataset folder`` takes any folder of sequences in OTB's
layout, in small clips that a laptop can do.
"""

from __future__ import annotations

from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.agents.schedules import CosineSchedule
from slt_gym.cli.job import Recipe, run_script
from slt_gym.evaluation.experiment import Experiment

# The synthetic job's constants were chosen on the split "val".
SYNTHETIC = Experiment(
    tracker="trdimp-tiny",
    weights=None,
    env_id="SLTTrack-Synthetic-v0",
    train_kwargs={
        "num_frames": 17,
        "dataset_options": {"width": 256, "height": 192, "num_frames": 48},
    },
    test_kwargs={
        "split": "test",
        "dataset_options": {
            "width": 256,
            "height": 192,
            "num_frames": 41,
            "num_sequences": 200,
        },
    },
    updates=30,
    slt={
        "n_clips": 8,
        "micro_batch": 4,
        "learning_rate": CosineSchedule(4e-5, 1e-5, warmup=0.1),
        "reward_to_go": True,
    },
    base=PretrainingConfig(
        steps=400, batch_size=16, learning_rate=1e-3, warmup_steps=50, max_grad_norm=5.0
    ),
    # The base's schedule goes on from its end; its BatchNorm statistics stay, as in SLT.
    control=PretrainingConfig(
        batch_size=16, learning_rate=4e-4, max_grad_norm=5.0, freeze_batch_norm=True
    ),
    parallel=25,
)
RECIPE = Recipe(
    tracker="trdimp",
    synthetic=SYNTHETIC,
    # SLT-TrDiMP: 40 epochs of 5,000 clips. Adam, its falling rate, the gradients' norm and the
    # losses' weights are the network's own.
    updates=40 * 625,
    slt={"n_clips": 8, "micro_batch": 4},
    train={"num_frames": 24},
)

if __name__ == "__main__":
    run_script(RECIPE, __doc__)
