"""Where models run: the host, an accelerator, or a simulated one that stands for it in a rehearsal."""

from typing import Any

import torch

SIMULATED = "sim"
"""Type of the simulated device, ``tests/simulated_device``. It computes on the host, so its times say nothing."""


def on_host(device: str) -> bool:
    """Whether models run on the CPU itself."""
    return torch.device(device).type == "cpu"


def module(device: str) -> Any:
    """What is to an accelerator what ``torch.cuda`` is to CUDA."""
    return torch.get_device_module(torch.device(device))
