"""In which precision an accelerator multiplies float32: torch's flags, read and set by its current interface only.

Torch refuses to answer by ``allow_tf32`` once anybody has used ``fp32_precision``. The latter always answers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.running import torch_internals

_COARSE = {"tf32": torch.float16, "bf16": torch.bfloat16}
"""What a flag may say → the dtype with as many digits."""


_cudnn: Any = torch.backends.cudnn
_mkldnn: Any = torch.backends.mkldnn

FLAGS: dict[str, Callable[[], Any]] = {
    "convolution": lambda: _cudnn.conv,
    "matmul": lambda: torch.backends.cuda.matmul,
    "recurrent": lambda: _cudnn.rnn,
}
"""Kind of product → torch's object that holds its flag as ``fp32_precision``: ``"ieee"``, ``"tf32"`` or ``"none"``.

``"none"`` means that nobody asked for less than float32. Torch's own default for convolutions is ``"tf32"``.
"""


def follows_flags(device: torch.device) -> bool:
    """Whether a device goes by these flags: CUDA, and one that torch does not know, which has no others."""
    kind = device.type
    return kind != "cpu" and kind in ("cuda", torch_internals.simulated_device())


def tf32(inputs: Tensor | Inputs, *products: str) -> torch.dtype | None:
    """float16, whose significand TF32 has, where float32 inputs may be multiplied in TF32; ``None`` where they are not.

    Args:
        inputs: Their device and dtype count.
        products: Kinds of `FLAGS` that count; none given: convolutions and matrices.
    """
    if inputs.dtype != torch.float32 or not follows_flags(inputs.device):
        return None
    said = [FLAGS[kind]().fp32_precision for kind in products or ("convolution", "matmul")]
    coarse = [_COARSE[each] for each in said if each in _COARSE]
    return max(coarse, key=lambda dtype: torch.finfo(dtype).eps, default=None)


def exact(device: torch.device) -> bool:
    """Whether products of float32 matrices are those of their factors as they are: on a CPU that nobody let round them.

    An accelerator may round them to TF32 by a flag or of its own.
    """
    return device.type == "cpu" and _mkldnn.matmul.fp32_precision not in _COARSE


def told(device: torch.device) -> str | None:
    """The flags, as in ``"convolution tf32, matmul ieee, recurrent tf32"``; ``None`` where they do not count."""
    if not follows_flags(device):
        return None
    return ", ".join(f"{kind} {flag().fp32_precision.replace('none', 'ieee')}" for kind, flag in FLAGS.items())
