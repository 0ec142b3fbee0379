"""Train SLT-SiamAttn and test it on held-out sequences.

Without arguments: the synthetic job. A laptop-sized SiamAttn is trained on procedural video frame
by frame, with the losses and pairs of SiamAttn, then by sequence-level training, and compared with
itself, with as much more time of frame-level training, and with sequence-level training whose
policy term is off. Needs no data and two cores.

    python examples/train_slt_siamattn.py --dataset trackingnet+lasot+coco --root DIR \
        --dataset-options '{"weights": [3, 3, 2]}' --weights siamattn.pth

is the paper's recipe (Kim et al., ECCV 2022) with the paper's constants, from the published
weights of SiamAttn, with the masks of COCO; DIR holds the datasets' folders. The paper also takes
YouTube-VOS and its masks, which are not read here. ``--dataset folder`` takes any folder of
sequences in OTB's layout, in small clips that a laptop can do.
"""

from __future__ import annotations

from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.agents.schedules import CosineSchedule
from slt_gym.cli.job import Recipe, run_script
from slt_gym.evaluation.experiment import Experiment

# The synthetic job's constants were chosen on the split "val".
SYNTHETIC = Experiment(
    tracker="siamattn-tiny",
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
            "num_sequences": 100,
        },
    },
    updates=30,
    slt={
        "n_clips": 8,
        "micro_batch": 4,
        "learning_rate": CosineSchedule(1.5e-4, 1e-5, warmup=0.1),
        "reward_to_go": True,
        "policy_weight": 10.0,
    },
    base=PretrainingConfig(steps=600, batch_size=16, learning_rate=1e-3, max_grad_norm=10.0),
    # The base's schedule goes on from its end; its BatchNorm statistics stay, as in SLT.
    control=PretrainingConfig(
        batch_size=16, learning_rate=4e-4, max_grad_norm=10.0, freeze_batch_norm=True
    ),
    parallel=25,
)
RECIPE = Recipe(
    tracker="siamattn",
    synthetic=SYNTHETIC,
    # SLT-SiamAttn: 20 epochs of 10,000 clips. Adam, its falling rate, the gradients' norm and the
    # losses' weights are the network's own.
    updates=20 * 833,
    slt={"n_clips": 12},
    # Stills and short videos are padded with changed copies of their last frame.
    train={"num_frames": 24, "sampler": "pysot", "augment": {"mode": "padding"}},
)

if __name__ == "__main__":
    run_script(RECIPE, __doc__)
