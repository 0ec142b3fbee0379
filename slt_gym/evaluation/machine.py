"""What a run ran on (imports everything whose version it names)."""

from __future__ import annotations

import os
import platform
from typing import Any

import cv2
import gymnasium
import numpy
import stable_baselines3
import torch
import torchvision

from slt_gym.version import __version__


def describe_machine(device: str) -> dict[str, Any]:
    """Return what a run's numbers depend on besides its arguments: versions and hardware.

    Args:
        device: PyTorch's, such as ``"cpu"`` or ``"cuda:0"``.
    """
    on_gpu = device.startswith("cuda")
    return {
        "device": device,
        "hardware": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "cpus": os.cpu_count(),
        "versions": {
            "slt_gym": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "gymnasium": gymnasium.__version__,
            "stable_baselines3": stable_baselines3.__version__,
            "numpy": numpy.__version__,
            "opencv": cv2.__version__,
        },
    }
