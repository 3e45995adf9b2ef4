"""Numbers on their way from the host to the model's device."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def uploaded(numbers: "np.ndarray[Any, Any]", device: torch.device) -> Tensor:
    """The same numbers on a device, in one copy for which the host does not wait.

    From page-locked memory, which torch keeps until the copy is done; a copy from other memory would wait.
    """
    sent = torch.from_numpy(np.ascontiguousarray(numbers))
    return sent if device.type == "cpu" else sent.pin_memory().to(device, non_blocking=True)
