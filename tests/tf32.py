"""TF32 on a CPU: factors of convolutions and matrix products are rounded to its eleven digits, as a GPU does."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attribution.running import precision

_FACTORS: dict[str, tuple[str, tuple[int, ...]]] = {
    "convolution": ("convolution", (0, 1)),
    "convolution_backward": ("convolution", (0, 1, 2)),
    "mm": ("matmul", (0, 1)),
    "bmm": ("matmul", (0, 1)),
    "addmm": ("matmul", (1, 2)),
    "baddbmm": ("matmul", (1, 2)),
}
"""Operation → the kind of its product, and which of its arguments are factors."""


def rounded(x: Tensor) -> Tensor:
    """To the nearest number of ten binary digits behind the point, half to even."""
    bits = x.view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class Tf32(TorchDispatchMode):
    """Inside the block products of these kinds round the factors in float32; ``products`` counts them."""

    def __init__(self, *kinds: str) -> None:
        super().__init__()
        self.kinds, self.products = kinds, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind, factors = _FACTORS.get(function.overloadpacket.__name__, ("", ()))
        if kind in self.kinds and args[factors[0]].dtype == torch.float32:
            self.products += 1
            args = [rounded(arg) if place in factors else arg for place, arg in enumerate(args)]
        return function(*args, **(kwargs or {}))


@contextmanager
def as_on_a_gpu(*kinds: str, known: bool = True) -> Iterator[Tf32]:
    """The CPU computes as a GPU whose flags allow TF32 for these kinds of products; and is ``known`` to be one."""
    said = {kind: SimpleNamespace(fp32_precision="tf32" if kind in kinds else "ieee") for kind in precision.FLAGS}
    with pytest.MonkeyPatch.context() as patch, Tf32(*kinds) as mode:
        patch.setattr(precision, "FLAGS", {kind: partial(said.get, kind) for kind in said})
        patch.setattr(precision, "follows_flags", lambda device: known)
        yield mode
