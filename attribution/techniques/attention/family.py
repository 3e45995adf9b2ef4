"""``AttentionMap``: what techniques have in common that read which tokens attend to which."""

from abc import ABC
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor, nn

from attribution import numbers
from attribution.errors import InputError, LayerError
from attribution.inputs.inputs import Inputs
from attribution.layers import AttentionLayer, attention_of, check_chain, covering, grid_of, reads_first, whole
from attribution.technique import Kind, Maps, Technique
from attribution.techniques.cam.family import enlarged
from attribution.techniques.parameters import choice, flag, integer, layer_names, tokens

Heads = Literal["mean", "max"] | int
Query = Literal["mean"] | int | None
Tokens = tuple[int, ...] | None


@dataclass(frozen=True)
class Reading:
    """How rows of weights become a map.

    Attributes:
        leading: Tokens in front of the grid.
        places: Of the grid, row by row behind them.
        query: Whose row is shown; of a technique that shows no row ``"mean"``.
    """

    leading: int
    places: tuple[int, ...]
    query: Literal["mean"] | int = "mean"

    def placed(self, rows: Tensor) -> Tensor:
        """(…, tokens) → (…, h, w) without leading tokens."""
        placed: Tensor = rows[..., self.leading :].unflatten(-1, self.places)
        return placed

    @property
    def notes(self) -> dict[str, str]:
        """What the provenance says of it."""
        grid = " · ".join(map(str, self.places))
        return {"tokens": f"{self.leading} + {grid}", "query": str(self.query)}


@dataclass(frozen=True, kw_only=True)
class AttentionMap(Technique, ABC):
    """A map over the grid of tokens, from the attention weights A[h, i, j] of query i on key j in head h.

    A layer's rows add up to 1 over the keys. Raw maps are (N, T, h, w), one place for each token of the grid; tokens in
    front of it (class, distillation, registers) have no place.

    Args:
        layers: Modules that compute attention, or that hold such modules. Empty: see the technique.
        heads: How the heads of a layer become one: their ``"mean"``, their ``"max"``, or the head of this number from
            0.
        upsample: To the places of the inputs, bilinear, without aligned corners.
        tokens: ``(leading, h, w)``: how the tokens lie on the input, row by row after ``leading`` tokens without a
            place. ``None``: the grid that the model computes of which there are as many places but for at most 8
            tokens, else square patches that divide the input.

    Raises:
        InputError: A field is of the wrong type.
        LayerError: When run: the model computes no attention that can be seen, a layer computes none or computes it in
            windows, layers cannot be chained, or nothing tells where the tokens lie.
    """

    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = False
    needs_attention: ClassVar[bool] = True
    compares_scores: ClassVar[bool] = False
    takes_gradients: ClassVar[bool] = False
    chained: ClassVar[bool] = True
    """Whether maps of several layers make one, so that they must lie between the same tokens."""

    layers: tuple[str, ...] = ()
    heads: Heads = "mean"
    upsample: bool = True
    tokens: Tokens = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        object.__setattr__(self, "layers", layer_names(owner, self.layers))
        object.__setattr__(self, "upsample", flag(owner, "upsample", self.upsample))
        object.__setattr__(self, "heads", _word_or_number(owner, "heads", self.heads, ("mean", "max")))
        object.__setattr__(self, "tokens", tokens(owner, self.tokens))

    def named(self, model: nn.Module) -> tuple[str, ...]:
        """The layers."""
        return self.layers

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """Fill in the layers, by their names in the order in which they run."""
        chosen = attention_of(model, inputs, self.layers) if self.layers else self._default(model, inputs)
        if self.chained:
            check_chain(model, inputs, chosen, every=not self.layers)
        for layer in map(whole, chosen):
            if not isinstance(self.heads, str) and self.heads >= layer.heads:
                raise LayerError(f"layer {layer.name!r} has heads 0 to {layer.heads - 1}; heads is {self.heads}")
        grid_of(model, inputs, chosen, self.tokens)
        return replace(self, layers=tuple(each.name for each in chosen))

    def reading(self, model: nn.Module, inputs: Inputs) -> Reading:
        """How the rows of a resolved technique lie on the input; one rule for every backend."""
        leading, *places = grid_of(model, inputs, attention_of(model, inputs, self.layers), self.tokens)
        return Reading(leading, tuple(places))

    def _default(self, model: nn.Module, inputs: Inputs) -> list[AttentionLayer]:
        """Every attention whose keys cover the input; another one, of a text for example, is passed over."""
        return covering(model, inputs, self.tokens)

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """Upsampling to the places of the inputs."""
        return {layer: enlarged(map_, inputs) for layer, map_ in raw.items()} if self.upsample else raw

    @classmethod
    def example(cls) -> Self:
        """The blocks that the conformance kit puts into its models."""
        return cls(layers=("head.attention.0", "head.attention.1"))


@dataclass(frozen=True, kw_only=True)
class AttentionOfQuery(AttentionMap, ABC):
    """An `AttentionMap` that is the row of one query in the last layer.

    Args:
        layers: See `AttentionMap`, as heads, upsample and tokens.
        heads: How heads become one.
        upsample: To the size of the inputs.
        tokens: How the tokens lie on the input.
        query: Whose row is shown: a token's number from 0, or ``"mean"`` over the tokens of the grid. ``None``: the
            first token where the model's output depends on what it gathers, as on a class token, else the mean.

    Raises:
        InputError: A field is of the wrong type.
        LayerError: When run: see `AttentionMap`; or the last layer has no such query.
    """

    query: Query = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.query is not None:
            object.__setattr__(self, "query", _word_or_number(type(self).__name__, "query", self.query, ("mean",)))

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """Fill in the layers, by their names in the order in which they run."""
        found = super().resolve(model, inputs)
        found.reading(model, inputs)
        return found

    def reading(self, model: nn.Module, inputs: Inputs) -> Reading:
        """How the query's row of a resolved technique lies on the input; one rule for every backend."""
        found, query = super().reading(model, inputs), self.query
        last = attention_of(model, inputs, self.layers)[-1]
        beyond = isinstance(query, int) and query >= last.queries
        if beyond or (last.queries == 1 and query == "mean"):
            raise LayerError(f"layer {last.name!r} has queries 0 to {last.queries - 1}; query is {query!r}")
        if not isinstance(query, int) and last.queries not in (1, last.keys):
            raise LayerError(
                f"layer {last.name!r} has {last.queries} queries that are none of its {last.keys} keys; say whose row: "
                f"query=0 to {last.queries - 1}"
            )
        if query is None:
            one = last.queries == 1 or (found.leading > 0 and reads_first(model, inputs, last.keys))
            query = 0 if one else "mean"
        return replace(found, query=query)


def _word_or_number(owner: str, name: str, value: object, words: tuple[str, ...]) -> str | int:
    if numbers.integer(value) is not None:
        return integer(owner, name, value, least=0)
    if not isinstance(value, str) or value not in words:
        raise InputError(f"{owner}.{name} is {value!r}; give {' or '.join(map(repr, words))} or a number from 0")
    return choice(owner, name, value, words)
