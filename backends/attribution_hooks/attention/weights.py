"""The weights of chosen attentions in one forward, and the way back through them from one query's row."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Run
from attribution.errors import ModelError
from attribution.inputs.inputs import Inputs
from attribution.techniques.attention.family import AttentionMap, Reading

Keep = Callable[[Tensor], Tensor]


class Weights:
    """What was kept of each attention of a forward, by layer."""

    def __init__(self, names: Sequence[str], count: int) -> None:
        self._names, self._count = names, count
        self.kept: dict[str, Tensor] = {}
        self.done = False

    def values(self) -> list[Tensor]:
        """In the order of the layers.

        Raises:
            ModelError: Another one ran for these examples than for the first of them.
        """
        if missing := [name for name in self._names if name not in self.kept]:
            raise ModelError(f"no attention of {missing[0]!r} is seen for these inputs, though there is for the first")
        return [self.kept[name] for name in self._names]

    def by_head(self, weights: Tensor) -> Tensor:
        """(N, heads, queries, keys), also of heads that lie beside the examples.

        Raises:
            ModelError: There is no such row for each example.
        """
        found = weights if weights.ndim == 4 else weights.reshape(self._count, -1, *weights.shape[-2:])
        if len(found) != self._count:
            raise ModelError(
                f"attention weights of shape {tuple(weights.shape)} are not those of {self._count} examples"
            )
        return found


@contextmanager
def weights(run: Run[Any], keep: Keep | None) -> Iterator[Weights]:
    """Keep the weights of the technique's layers in the first forward inside the block, which later ones repeat.

    Args:
        run: With a technique whose layers are filled in.
        keep: What to keep of (N, heads, queries, keys); ``None``: the very tensor that multiplies the values, with a
            graph that begins at the first attention at the latest.
    """
    names = run.technique.layers
    asked = layers.attention_of(run.model, run.inputs, names)
    found, calls = Weights(names, len(run.inputs)), Counter[nn.Module]()
    known = {(layer.module, layer.call): layer.name for layer in asked}

    def see(module: nn.Module | None, given: Tensor) -> Tensor:
        if found.done or module is None:
            return given
        name = known.get((module, calls[module]))
        calls[module] += 1
        if name is None:
            return given
        if keep is None:
            found.kept[name] = given = given if given.requires_grad else given.detach().requires_grad_()
        else:
            found.kept[name] = keep(found.by_head(given))
        return given

    with layers.opened(run.model, see, {layer.module: None for layer in asked}):
        yield found


def fused(weights: Tensor, technique: AttentionMap) -> Tensor:
    """Over the heads: (N, heads, …) → (N, …), in at least float32."""
    wide = torch.promote_types(weights.dtype, torch.float32)
    if technique.heads == "mean":
        return weights.mean(dim=1, dtype=wide)
    return (weights.amax(dim=1) if technique.heads == "max" else weights[:, int(technique.heads)]).to(wide)


def gradients(score: Tensor, kept: Sequence[Tensor], *, keep: bool) -> list[Tensor]:
    """Of (N,) scores with respect to each tensor; zero where there is none.

    Raises:
        LayerError: None of them has an influence.
    """
    found: list[Tensor | None] = [None]
    if score.requires_grad:
        found = list(torch.autograd.grad(score.sum(), [*kept], retain_graph=keep, allow_unused=True))
    if all(each is None for each in found):
        raise layers.no_influence("the attention")
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, kept, strict=True)]


def bytes_of(model: nn.Module, technique: AttentionMap, inputs: Inputs, *, heads: bool, copies: int) -> int:
    """Of the weights of an example that are kept, all heads or one."""
    size = inputs.first.element_size() * copies
    asked = layers.attention_of(model, inputs, technique.layers)
    return sum(size * (each.heads if heads else 1) * each.queries * each.keys for each in asked)


def read(run: Run[Any]) -> Reading:
    """How the technique's rows lie on the input, which is noted."""
    reading: Reading = run.technique.reading(run.model, run.inputs)
    for key, note in reading.notes.items():
        run.note(key, note)
    return reading


def start(reading: Reading, last: Tensor) -> Tensor:
    """(N, queries): the part of each query of the last layer in the row that is shown."""
    count, queries = len(last), last.shape[-2]
    row = last.new_zeros(count, queries)
    if reading.query == "mean":
        row[:, reading.leading :] = 1 / (queries - reading.leading)
    else:
        row[:, reading.query] = 1
    return row
