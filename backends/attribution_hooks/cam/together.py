"""One backward for many seeds: by ``torch.func.vmap``, which runs each operation of the graph once for all of them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attribution.running import torch_internals

Backward = Callable[[Tensor], Sequence[Tensor | None]]
"""A seed → a gradient for each tensor that is sought; ``None`` where there is none. It keeps the graph."""

_RULES = ("FuncTorchBatched", "FuncTorchBatchedDecomposition")


def has_rules(backward: Backward, seed: Tensor) -> bool:
    """Whether torch has a rule for many seeds for each operation of a backward, which is run once for it.

    Those without (the backward of attention) it would run seed by seed, and warn the user of it.
    """
    with _Operations() as ran:
        backward(seed)
    return all(any(torch_internals.has_kernel(name, rule) for rule in _RULES) for name in ran.names)


def all_at_once(backward: Backward, seeds: Tensor) -> list[Tensor | None]:
    """What ``backward`` gives for each of the seeds, stacked.

    The batching inside ``torch.autograd.grad`` (``is_grads_batched``) gives the same, but its own rules leave out
    convolutions, batch norms and pools, which it runs seed by seed in silence.

    Raises:
        RuntimeError: The graph looks at values of its gradients, which have none here.
    """
    found: list[bool] = []

    def present(seed: Tensor) -> tuple[Tensor, ...]:
        gradients = backward(seed)
        found[:] = [gradient is not None for gradient in gradients]
        return tuple(gradient for gradient in gradients if gradient is not None) or (seed,)  # something must come out

    stacked = iter(torch.func.vmap(present)(seeds))
    return [next(stacked) if there else None for there in found]


class _Operations(TorchDispatchMode):
    """Names of the operations that run inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))
