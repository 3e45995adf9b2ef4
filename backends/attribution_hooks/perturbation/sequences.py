"""Forwards of a transformer in which some of its tokens are left out."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor

from attribution import layers
from attribution.attributor import Run
from attribution.errors import LayerError, ModelError
from attribution.layers import Form
from attribution.running.execution import first_line


class Sequences:
    """Hands the first block of a model some of its tokens, and all blocks what belongs to these.

    Args:
        run: Of the call.
        tokens: (leading, *places), how they lie.

    Attributes:
        entry: The name of the first block.
        positions: Whether blocks are given more that has a row for each token, as rotary positions are.

    Raises:
        LayerError: The first block is given no tokens (N, tokens, D) or (tokens, N, D).
    """

    def __init__(self, run: Run[Any], tokens: tuple[int, ...]) -> None:
        self._run, self._leading, self._count = run, tokens[0], tokens[0] + prod(tokens[1:])
        chain = layers.covering(run.model, run.inputs, tokens)
        names = dict.fromkeys(layers.block_of(run.model, run.inputs, layer) for layer in chain)
        self.entry, self._blocks = next(iter(names)), [run.model.get_submodule(name) for name in names]
        given = {stop.module: stop.arguments for stop in layers.survey(run.model, run.inputs)}
        first = given.get(self._blocks[0], {})
        found = {key: axis for key, form in first.items() if (axis := _sequence_axis(form, self._count)) is not None}
        if not found:
            raise LayerError(
                f"block {self.entry!r} is given no tokens as (N, {self._count}, D), of which some could stay"
            )
        self._key, self._axis = next(iter(found.items()))
        self.positions = any(self._beside(given.get(block, {})) for block in self._blocks)

    def forward(self, kept: Tensor, examples: Tensor) -> Any:
        """Whatever the model returns for examples (B,) of which these tokens (B, n) stay, leading ones first.

        Raises:
            LayerError: It takes all tokens or none.
        """
        try:
            with self._left(kept):
                return self._run.forward(self._run.inputs[examples], examples)
        except ModelError as error:
            if error.__cause__ is None:
                raise
            raise LayerError(
                f"what follows {self.entry!r} takes all {self._count} tokens or none: {first_line(error.__cause__)}. "
                "Positions that blocks make themselves are a reason"
            ) from error

    @contextmanager
    def _left(self, kept: Tensor) -> Iterator[None]:
        owner, armed, handles = threading.get_ident(), True, []

        def before(module: Any, args: Any, options: Any) -> Any:
            if not armed or threading.get_ident() != owner:
                return None
            entry = module is self._blocks[0]
            given = {
                key: self._of(key, value, kept, entry=entry) for key, value in layers.arguments(args, options).items()
            }
            return tuple(given[key] for key in range(len(args))), {key: given[key] for key in options}

        try:
            for block in self._blocks:  # no comprehension: each is removed if the next fails
                handles += [block.register_forward_pre_hook(before, with_kwargs=True)]
            yield
        finally:
            armed = False  # an interrupt may have hidden a handle
            for handle in handles:
                handle.remove()

    def _of(self, key: Any, value: Any, kept: Tensor, *, entry: bool) -> Any:
        if key == self._key:
            rows = torch.arange(len(kept), device=value.device)[:, None]
            return (value[rows, kept] if self._axis else value[kept.mT, rows.mT]) if entry else value
        return self._rows(value, kept[0]) if self.positions else value

    def _rows(self, value: Any, kept: Tensor) -> Any:
        """Of what has a row for each token, or for each place, the rows that stay."""
        if isinstance(value, list | tuple):
            held = [self._rows(each, kept) for each in value]
            return type(value)(*held) if hasattr(value, "_fields") else type(value)(held)
        if not isinstance(value, Tensor) or not self._beside(value.shape):
            return value
        if value.shape[-2] != self._count:
            return value.index_select(-2, kept[self._leading :] - self._leading)
        rows = value.index_select(-2, kept)
        return rows.index_select(-1, kept) if value.ndim > 2 and value.shape[-1] == self._count else rows

    def _beside(self, form: Any) -> bool:
        """Whether a shape, or one inside of what a block is given, has a row for each token or place."""
        if isinstance(form, Mapping):
            return any(self._beside(each) for key, each in form.items() if key != self._key)
        if isinstance(form, list):
            return any(map(self._beside, form))
        shape = form.shape if isinstance(form, Form) else form
        return isinstance(shape, tuple) and len(shape) > 1 and shape[-2] in (self._count, self._count - self._leading)


def _sequence_axis(form: Any, count: int) -> int | None:
    """Which axis of what one example gives is that of its tokens: 1, or 0 where the sequence comes first."""
    if not isinstance(form, Form) or len(form.shape) != 3:
        return None
    return {(1, count): 1, (count, 1): 0}.get(form.shape[:2])
