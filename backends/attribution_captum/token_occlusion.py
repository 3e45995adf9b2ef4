"""Token occlusion by Captum's ``Occlusion`` of a grid that says which tokens are there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from captum.attr import Occlusion as CaptumOcclusionMethod
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import LayerError, ModelError
from attribution.running.execution import first_line
from attribution.technique import Maps
from attribution.techniques import TokenOcclusion
from attribution_captum.layer import typed
from attribution_captum.segments import at_once


class CaptumTokenOcclusion(Attributor[TokenOcclusion]):
    """`TokenOcclusion` with tokens that are there and that no other one sees; Captum folds in float32.

    Captum covers a grid of ones with zeros. A token under a zero is no key of any attention: its weights are taken out
    of every row, and the rest of the row adds up to 1. Behind the last block it is taken away, so that no mean has it.
    Where blocks compute nothing else between tokens, that is what they compute without it.
    """

    technique_type: ClassVar[type[TokenOcclusion]] = TokenOcclusion
    backend: ClassVar[str] = "captum"
    computes_in: ClassVar[torch.dtype | None] = torch.float32

    def compute(self, run: Run[TokenOcclusion]) -> Maps:
        """(N, T, h, w) of the input."""
        technique, x, columns = run.technique, run.inputs.first, list[Tensor]()
        tokens = technique.grid(run.model, run.inputs)
        windows = len(technique.lattice(tokens))
        run.note("windows", windows)
        run.note("tokens", f"{tokens[0]} + {' · '.join(map(str, tokens[1:]))}")
        window, step = technique.sizes(tokens)
        grid = torch.ones((len(run.inputs), *tokens[1:]), dtype=x.dtype, device=x.device)
        with torch.no_grad(), typed():
            run.scores(run.forward(run.inputs))
            while run.target is None or len(columns) < run.target.shape[1]:
                columns.append(
                    CaptumOcclusionMethod(_Hidden(run, tokens, len(columns))).attribute(
                        grid,
                        sliding_window_shapes=window,
                        strides=step,
                        additional_forward_args=(torch.arange(len(run.inputs), device=x.device),),
                        perturbations_per_eval=at_once(run, windows),
                    )
                )
        return {run.inputs.key(run.inputs.explained[0]): torch.stack(columns, dim=1)}


class _Hidden:
    """One target's score of each row, as a function of which tokens are there."""

    def __init__(self, run: Run[Any], tokens: tuple[int, ...], column: int) -> None:
        self._run, self._tokens, self._column = run, tokens, column
        chain = [each for each in layers.covering(run.model, run.inputs, tokens) if each.queries > 1]
        self._name = layers.block_of(run.model, run.inputs, chain[-1])
        self._last = run.model.get_submodule(self._name)
        output = next(stop.output for stop in layers.survey(run.model, run.inputs) if stop.module is self._last)
        shape = (output[0] if isinstance(output, list) else output).shape
        self._examples = 0 if shape[0] == 1 else 1  # where the sequence comes first

    def __call__(self, grid: Tensor, examples: Tensor) -> Tensor:
        """(B,), of rows with as many tokens together."""
        leading = grid.new_ones(len(grid), self._tokens[0])
        there = torch.cat([leading, grid.flatten(1)], dim=1) > 0
        counts, scores, order = there.sum(dim=1), list[Tensor](), list[Tensor]()
        for count in counts.unique():
            rows = (counts == count).nonzero()[:, 0]
            with (
                layers.opened(self._run.model, _hiding(there[rows]), []),
                _removed(self._last, there[rows], self._examples),
            ):
                output = self._forward(examples[rows])
            scores.append(self._run.scores(output, examples[rows])[:, self._column])
            order.append(rows)
        return torch.cat(scores)[torch.cat(order).argsort()]

    def _forward(self, examples: Tensor) -> Any:
        try:
            return self._run.forward(self._run.inputs[examples], examples)
        except ModelError as error:
            if error.__cause__ is None:
                raise
            raise LayerError(
                f"what follows {self._name!r} takes all tokens or none: {first_line(error.__cause__)}. A residual "
                "connection outside of it is a reason"
            ) from error


def _hiding(there: Tensor) -> layers.See:
    """Rows of weights without the tokens that are not there (B, tokens); what remains adds up to 1 again.

    A hidden token's own row stays as it is: nobody reads what it gathers, but it must stay finite. A row of which the
    hidden tokens have all that the dtype can tell becomes NaN, which no answer holds.
    """

    def see(module: nn.Module | None, weights: Tensor) -> Tensor:
        if weights.shape[-1] != there.shape[1]:  # between other tokens, or those that are left behind the blocks
            return weights
        heads = 1 if weights.ndim == 4 else len(weights) // len(there)  # some have them beside the examples
        keys = there.repeat_interleave(heads, dim=0).view(-1, *[1] * (weights.ndim - 2), there.shape[1])
        seen = weights * keys
        seen = seen / seen.sum(dim=-1, keepdim=True)
        return torch.where(keys.mT, seen, weights) if weights.shape[-2] == there.shape[1] else seen

    return see


@contextmanager
def _removed(last: nn.Module, there: Tensor, examples: int) -> Iterator[None]:
    """Take the tokens that are not there away from what a block gives."""
    owner, armed, handle = threading.get_ident(), True, None

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        keys = () if isinstance(output, Tensor) else (0,)
        found = layers.item(output, keys)
        if not armed or threading.get_ident() != owner or not isinstance(found, Tensor):
            return None
        left = found.movedim(examples, 0)[there].view(len(there), -1, *found.shape[2:])
        return layers.replaced(output, keys, left.movedim(0, examples))

    try:
        handle = last.register_forward_hook(after)
        yield
    finally:
        armed = False  # an interrupt may have hidden the handle
        if handle is not None:
            handle.remove()
