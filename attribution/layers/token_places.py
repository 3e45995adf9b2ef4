"""Where the tokens of an attention lie on the input, and whether one of them stands for the class."""

from collections import Counter
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.layers.attention import AttentionLayer, attentions
from attribution.layers.grids import token_grids
from attribution.layers.opened import opened
from attribution.layers.trace import first_forward, survey
from attribution.running.nested import tensors


def covering(model: nn.Module, inputs: Inputs, tokens: tuple[int, ...] | None) -> list[AttentionLayer]:
    """Every attention whose keys cover the input; another one, of a text for example, is passed over.

    Args:
        model: Isolated.
        inputs: Of the call.
        tokens: (leading, *places), if the user says how they lie.
    """
    seen = attentions(model, inputs).layers
    if tokens is not None:
        found = [each for each in seen if each.keys == tokens[0] + prod(tokens[1:])]
    else:
        found = [each for each in seen if each.windows or len(_grids(model, inputs, each.keys)) == 1]
    return found or seen


def grid_of(
    model: nn.Module, inputs: Inputs, chosen: Sequence[AttentionLayer], tokens: tuple[int, ...] | None
) -> tuple[int, ...]:
    """(leading, *places): how the keys that all these layers attend to lie on the input.

    Raises:
        LayerError: Layers of different numbers of keys, or nothing tells how they lie, or not as ``tokens`` says.
    """
    name, keys = chosen[-1].name, chosen[-1].keys
    if other := [each for each in chosen if each.keys != keys]:
        raise LayerError(f"layers of {keys} and {other[0].keys} tokens share no grid; ask for them one by one")
    if tokens is not None:
        if tokens[0] + prod(tokens[1:]) != keys:
            raise LayerError(f"layer {name!r} attends to {keys} tokens; tokens={tokens!r} is another number")
        return tokens
    grids = _grids(model, inputs, keys)
    if len(grids) != 1:
        words = f"may lie as {' or '.join(map(str, grids))}" if grids else "make no grid of the input"
        raise LayerError(f"the {keys} tokens of {name!r} {words}; say how: tokens=(leading, h, w)")
    return grids[0]


def reads_first(model: nn.Module, inputs: Inputs, tokens: int) -> bool:
    """Whether the output depends on what the first of so many tokens gathers last, as a class token. Kept in the notes.

    It is asked once, by forwards of the first example in which tokens gather nothing in the last attention between
    these tokens. Where an attention with a query of its own pools them later, no token is a class token. Where the
    output depends on no token, as before a head of zeros, the first one is taken for it.
    """
    seen = attentions(model, inputs)
    between = [each for each in seen.layers if each.keys == tokens]
    if not between or between[-1].queries != tokens or between[-1].windows:
        return False
    layer, known = between[-1], seen.first
    if layer.name not in known:
        plain = _without(model, inputs, layer, slice(0, 0))
        first = _differ(plain, _without(model, inputs, layer, slice(0, 1)))
        known[layer.name] = first or not _differ(plain, _without(model, inputs, layer, slice(1, None)))
    return known[layer.name]


def _grids(model: nn.Module, inputs: Inputs, tokens: int) -> list[tuple[int, ...]]:
    """(leading, *places) that so many tokens may be: see `token_grids`."""
    shapes = [stop.shape for stop in survey(model, inputs) if stop.parametrised and stop.shape]
    return token_grids(tokens, tuple(inputs.places()), shapes)


def _without(model: nn.Module, inputs: Inputs, layer: AttentionLayer, part: slice) -> list[Tensor]:
    """What the model returns where some queries of a layer gather nothing."""
    calls: Counter[nn.Module] = Counter()

    def see(module: nn.Module | None, weights: Tensor) -> Tensor:
        owner = model if module is None else module
        calls[owner] += 1
        if owner is not layer.module or calls[owner] != layer.call + 1:
            return weights
        emptied = weights.clone()
        emptied[..., part, :] = 0
        return emptied

    with opened(model, see):
        return [*tensors(first_forward(model, inputs)[0])]


def _differ(a: list[Tensor], b: list[Tensor]) -> bool:
    return any(not torch.equal(x, y) for x, y in zip(a, b, strict=True))
