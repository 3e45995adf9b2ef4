"""What a map costs, counted: multiply-adds in units of one forward."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from attribution.errors import ModelError
from attribution.inputs.inputs import Inputs
from attribution.isolation.context import isolated, prepared
from attribution.running.torch_internals import packed_convolution


class Macs(TorchDispatchMode):
    """Counts multiply-adds by torch's own formulas; torch's `FlopCounterMode` would hook every module."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if packed_convolution is not None and func._overloadpacket is packed_convolution:  # torch has no formula for it
            packed = func(*args, **kwargs)
            weight = args[1 + (func._overloadname == "binary")]
            self.total += packed.numel() // packed.shape[1] * weight.numel()
            return packed
        if formula is None:
            with self:  # inference mode hands composite operations over whole
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        output = func(*args, **kwargs)
        self.total += formula(*args, **kwargs, out_val=output) // 2
        return output


def in_forwards(call: Callable[[], object], model: nn.Module, inputs: Inputs) -> float:
    """Multiply-adds of convolutions and matrix products in a call, backward passes too, per those of one forward.

    Args:
        call: Which asks the model of one photo.
        model: As found on every exit.
        inputs: The photo.

    Returns:
        NaN of a model that has none.
    """
    with isolated(model) as (found, _), torch.no_grad(), Macs() as bare:
        inputs.into(found)
    whole = Macs()
    with suppress(ModelError), prepared(model), whole:  # it refuses a forward that changes the model at the end
        call()
    return whole.total / bare.total if bare.total else float("nan")
