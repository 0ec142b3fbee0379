"""Train SLT-TransT and test it on held-out sequences.

Without arguments: the synthetic job. A laptop-sized TransT that ships with the package, trained
frame by frame until it had converged, is trained on procedural video by sequence-level training,
and compared with itself, with as much more time of frame-level training, and with sequence-level
training whose policy term is off. Needs no data, two cores and about ten minutes.

    python examples/train_slt_transt.py --dataset lasot --root DIR --weights transt.pth

is the paper's recipe (Kim et al., ECCV 2022) with the paper's constants, from the published
weights of TransT. ``--dataset folder`` takes any folder of sequences in OTB's layout, in small
clips that a laptop can do.
"""

from __future__ import annotations

from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.agents.schedules import CosineSchedule, StepSchedule
from slt_gym.cli.job import Recipe, run_script
from slt_gym.evaluation.experiment import Experiment

# The synthetic job's constants were chosen on the split "val".
SYNTHETIC = Experiment(
    tracker="transt-tiny",
    weights="pretrained",
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
    updates=100,
    slt={
        "n_clips": 8,
        "micro_batch": 8,
        "learning_rate": CosineSchedule(4e-4, 1e-5, warmup=0.1),
        "reward_to_go": True,
        "policy_weight": 10.0,
        "max_grad_norm": 5.0,
    },
    # The base's last phase once more; its BatchNorm statistics stay, as in SLT.
    control=PretrainingConfig(learning_rate=4e-4, max_grad_norm=1.0, freeze_batch_norm=True),
    parallel=25,
)
RECIPE = Recipe(
    tracker="transt",
    synthetic=SYNTHETIC,
    # SLT-TransT: 120 epochs of 125 updates, a tenth of the rate after 100 of them.
    updates=120 * 125,
    slt={"n_clips": 8, "learning_rate": StepSchedule(1e-5, 0.1, 100 / 120)},
    train={"num_frames": 24},
)

if __name__ == "__main__":
    run_script(RECIPE, __doc__)
