"""What the host made, on its way to a device."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution.running.offload import NEVER_BESIDE


def upload(
    numbers: "Tensor | np.ndarray[Any, Any]", device: torch.device | None, dtype: torch.dtype | None = None
) -> Tensor:
    """Numbers of the host on a device, in one copy for which the host does not wait.

    A device copies by itself from page-locked memory only. From other memory the host waits until all that was asked
    of the device is done. torch keeps page-locked memory until the copy is done.
    """
    tensor = numbers if isinstance(numbers, Tensor) else torch.from_numpy(np.ascontiguousarray(numbers))
    tensor = tensor.to(dtype)
    if device is None or device.type in NEVER_BESIDE:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
