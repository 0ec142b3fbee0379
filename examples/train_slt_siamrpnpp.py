"""Train SLT-SiamRPN++ and test it on held-out sequences.

Without arguments: the synthetic job. A laptop-sized SiamRPN++ is trained on procedural video frame
by frame, with the losses and pairs of SiamRPN++, then by sequence-level training, and compared with
itself, with as much more time of frame-level training, and with sequence-level training whose
policy term is off. Needs no data and two cores.

    python examples/train_slt_siamrpnpp.py --dataset got10k+trackingnet+lasot --root DIR \
        --weights siamrpnpp.pth

is the paper's recipe (Kim et al., ECCV 2022) with the paper's constants, from the published
weights of SiamRPN++; DIR holds the datasets' folders. ``--dataset folder`` takes any folder of
sequences in OTB's layout, in small clips that a laptop can do.
"""

from __future__ import annotations

from slt_gym.agents.pretraining import PretrainingConfig
from slt_gym.agents.schedules import CosineSchedule
from slt_gym.cli.job import Recipe, run_script
from slt_gym.evaluation.experiment import Experiment

# The synthetic job's constants were chosen on the split "val".
SYNTHETIC = Experiment(
    tracker="siamrpnpp-tiny",
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
    updates=60,
    slt={
        "n_clips": 8,
        "micro_batch": 4,
        "learning_rate": CosineSchedule(1.5e-4, 1e-5, warmup=0.1),
        "reward_to_go": True,
        "policy_weight": 10.0,
    },
    base=PretrainingConfig(steps=600, learning_rate=1e-3, max_grad_norm=10.0),
    # The base's schedule goes on from its end; its BatchNorm statistics stay, as in SLT.
    control=PretrainingConfig(learning_rate=4e-4, max_grad_norm=10.0, freeze_batch_norm=True),
    parallel=25,
)
RECIPE = Recipe(
    tracker="siamrpnpp",
    synthetic=SYNTHETIC,
    # SLT-SiamRPN++: 20 epochs of 10,000 clips. Adam, its falling rate, the gradients' norm and the
    # losses' weights are the network's own.
    updates=20 * 1250,
    slt={"n_clips": 8},
    train={"num_frames": 24, "sampler": "pysot"},
)

if __name__ == "__main__":
    run_script(RECIPE, __doc__)
