"""Batch norms in eval mode, and the activations that stand beside them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def is_batch_norm(module: nn.Module) -> bool:
    """A batch norm in eval mode with statistics of its own (timm's fused form included)."""
    it: Any = module
    if is_timm(module, "BatchNormAct2d"):
        known = type(it.act) is nn.Identity or activation(it.act) is not None
        known = known and type(it.drop) is nn.Identity
    else:
        known = type(module) is nn.BatchNorm2d
    return known and not module.training and module.running_mean is not None


def is_timm(module: nn.Module, name: str) -> bool:
    """Whether a module is of timm's class of that name."""
    return type(module).__name__ == name and type(module).__module__.startswith("timm.layers.")


def activation(module: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None:
    """Not in place and in place; ``None`` for what is no known activation."""
    if type(module) is nn.ReLU:
        return torch.relu, torch.relu_
    if type(module) in (nn.ReLU6, nn.Hardtanh):
        low, high = module.min_val, module.max_val
        return lambda x: x.clamp(low, high), lambda x: x.clamp_(low, high)
    if type(module) in (nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.LeakyReLU, nn.ELU, nn.Mish, nn.CELU, nn.SELU):
        forward = type(module).forward
        return lambda x: forward(module, x.clone() if module.inplace else x), lambda x: forward(module, x)
    if type(module) in (nn.GELU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.PReLU, nn.LogSigmoid, nn.Softsign):
        return module.forward, module.forward
    return None
