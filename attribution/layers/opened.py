"""Attention weights, seen on the way from their softmax to the values that they multiply."""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from attribution.isolation import function_modes

See = Callable[[nn.Module | None, Tensor], Tensor]
"""Called with the innermost module that runs and the weights (…, queries, keys); gives what multiplies the values."""

_SOFTMAX = frozenset({F.softmax, torch.softmax, Tensor.softmax})
_PRODUCTS = frozenset(
    {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum, torch.functional.einsum}
)
_SAME_VALUES = frozenset(
    {F.dropout, torch.dropout, Tensor.to, Tensor.type_as, Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.clone,
     Tensor.contiguous, Tensor.view, Tensor.reshape, torch.reshape, Tensor.flatten, torch.flatten, Tensor.unflatten,
     Tensor.unsqueeze, torch.unsqueeze, Tensor.squeeze, torch.squeeze, Tensor.expand}
)  # fmt: skip
"""Steps between a softmax and its product in eval mode that leave the rows as they are, where their length is kept."""


class _Opened(TorchFunctionMode):
    """Computes attention in plain steps, so that its weights are tensors that can be seen, changed and differentiated.

    ``scaled_dot_product_attention`` is computed as its documentation defines it. Of ``multi_head_attention_forward``
    torch's own code runs, with these steps in place of the fused ones: what a function calls runs outside of the mode.
    Attention that is written out is known by its softmax over the last axis, whose rows multiply something. The fast
    paths of ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer`` switch themselves off under any such mode.

    """

    def __init__(self, see: See, running: list[nn.Module]) -> None:
        super().__init__()
        self._see, self._running = see, running
        self._rows: dict[int, tuple[Tensor, nn.Module | None]] = {}
        self._given: dict[int, Tensor] = {}  # of rows that live on, what their products were given
        own = {**F.multi_head_attention_forward.__globals__, "has_torch_function": lambda *_: False,
               "scaled_dot_product_attention": self._attention, "softmax": self._softmax}  # fmt: skip
        plain: Any = F.multi_head_attention_forward
        self._several_heads = FunctionType(plain.__code__, own, plain.__name__, plain.__defaults__, plain.__closure__)
        self._several_heads.__kwdefaults__ = plain.__kwdefaults__

    @property
    def unused(self) -> list[tuple[nn.Module | None, tuple[int, ...]]]:
        """Shapes of softmaxes of at least 3 axes whose rows multiplied nothing as they were, each with its module."""
        return [(module, tuple(rows.shape)) for rows, module in self._rows.values()]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._several_heads(*args, **kwargs)
        if func in _SOFTMAX:
            rows = func(*args, **kwargs)
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if rows.ndim > 2 and dim in (-1, rows.ndim - 1):
                self._rows[id(rows)] = rows, self._innermost
            return rows
        if not self._rows and not self._given:
            return func(*args, **kwargs)
        if func in _PRODUCTS:
            return func(*(self._multiplying(each) for each in args), **kwargs)
        found = func(*args, **kwargs)
        if func in _SAME_VALUES and args and id(args[0]) in self._rows and found is not args[0]:
            rows, module = self._rows[id(args[0])]
            if isinstance(found, Tensor) and found.shape[-2:] == rows.shape[-2:]:
                del self._rows[id(args[0])]
                self._rows[id(found)] = found, module
        return found

    @property
    def _innermost(self) -> nn.Module | None:
        return self._running[-1] if self._running else None

    def _multiplying(self, operand: Any) -> Any:
        if isinstance(operand, list | tuple):  # as einsum takes them
            return [self._multiplying(each) for each in operand]
        if id(operand) in self._given:  # a second product, of relative positions for example
            return self._given[id(operand)]
        if id(operand) not in self._rows:
            return operand
        rows, _ = self._rows.pop(id(operand))
        seen = self._see(self._innermost, rows)  # not that of the softmax, which may be a module of its own
        if seen is not rows:
            self._given[id(rows)] = seen
            weakref.finalize(rows, self._given.pop, id(rows), None)
        return seen

    def _softmax(self, logits: Tensor, dim: int) -> Tensor:
        return self._see(self._innermost, logits.softmax(dim=dim))

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if enable_gqa:  # several heads of queries share one of keys and values
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], dim=-3) for x in (key, value))
        logits = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
        if is_causal:
            attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        weights = logits
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            weights = logits.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            weights = logits + attn_mask
        rows = weights.softmax(dim=-1)
        if attn_mask is not None:  # a query that may look at nothing gets nothing, as torch has it
            rows = rows.masked_fill(weights.isneginf().all(dim=-1, keepdim=True), 0.0)
        rows = self._see(self._innermost, rows)
        return (F.dropout(rows, dropout_p) if dropout_p else rows).to(value.dtype) @ value


@contextmanager
def opened(model: nn.Module, see: See, modules: Iterable[nn.Module] | None = None) -> Iterator[_Opened]:
    """Show the weights of every attention that a model computes inside the block, in this thread.

    Args:
        model: Isolated.
        see: See `See`. An error that it raises passes through the model's forward.
        modules: Which modules are told; ``None``: all of them. Of another one the nearest of these around it is told.
    """
    running: list[nn.Module] = []
    mode, owner = _Opened(see, running), threading.get_ident()

    def enter(module: nn.Module, args: Any) -> None:
        if threading.get_ident() == owner:
            running.append(module)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if running and threading.get_ident() == owner:
            running.pop()

    handles = []
    try:
        for module in model.modules() if modules is None else modules:
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
        with function_modes.on(mode):
            yield mode
    finally:
        for handle in handles:
            handle.remove()
