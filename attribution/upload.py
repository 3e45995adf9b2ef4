"""What the host made, on its way to a device."""

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device | None, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of the host on a device, without waiting for the device.

    A device copies by itself from page-locked memory only. From other memory the host waits until all that was asked
    of the device is done.
    """
    tensor = tensor.to(dtype)
    if device is None or device.type in ("cpu", "meta", "mps"):  # Apple's devices share the host's memory
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
