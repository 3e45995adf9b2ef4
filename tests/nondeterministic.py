"""The operations that have no deterministic kernel on CUDA, made to refuse on the CPU as they do there."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

REFUSED = {
    "avg_pool3d_backward",
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "max_unpool2d",
    "max_unpool3d",
    "upsample_linear1d_backward",
    "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "nll_loss2d_forward",
    "_ctc_loss_backward",
    "put_",
    "histc",
    "bincount",
    "median.dim",
    "nanmedian.dim",
    "kthvalue",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "scatter_reduce_",
}
"""As the documentation of ``torch.use_deterministic_algorithms`` lists them, by their names in ATen."""


class AsOnCuda(TorchDispatchMode):
    """Inside the block these operations refuse where deterministic algorithms are asked for, in torch's words."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        refused = name in REFUSED or f"{name}.{function._overloadname}" in REFUSED
        if refused and torch.are_deterministic_algorithms_enabled():
            raise RuntimeError(
                f"{name}_cuda does not have a deterministic implementation, but you set "
                "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation, …"
            )
        return function(*args, **(kwargs or {}))
