"""Which layers of a model compute attention, between how many tokens, and where those lie on the image."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.isolation.notes import notes
from attribution.layers.names import find, never_ran
from attribution.layers.opened import opened
from attribution.layers.trace import first_forward, missing, survey

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One attention, as it ran on one image.

    Attributes:
        name: Of the innermost module that computes it, ``name#k`` where that runs several times.
        module: That module.
        call: Which of its runs, from 0.
        heads: How many.
        queries: Tokens that look; 1 for a pooling attention.
        keys: Tokens that are looked at.
        windows: Whether the tokens were cut into groups that do not see each other.
    """

    name: str
    module: nn.Module
    call: int
    heads: int
    queries: int
    keys: int
    windows: bool


@dataclass(eq=False)
class Attentions:
    """What was seen of a model on one image.

    Attributes:
        layers: In the order in which they ran.
        changed: Modules with a softmax over tokens whose rows are changed before they multiply anything.
        first: By layer, whether the output depends on what its first token gathers.
    """

    layers: list[AttentionLayer] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    first: dict[str, bool] = field(default_factory=dict)


def attentions(model: nn.Module, inputs: Inputs) -> Attentions:
    """Every attention that runs on these inputs. One forward of the first example, kept in the model's notes.

    Raises:
        LayerError: There is none.
        ModelError: The model fails on these inputs.
    """
    known: dict[tuple[object, ...], Attentions] = notes(model).setdefault("attentions", {})
    if inputs.kind not in known or not inputs.told_by_kind:
        known[inputs.kind] = _seen(model, inputs)
    return known[inputs.kind]


def _seen(model: nn.Module, inputs: Inputs) -> Attentions:
    names, found = {module: name for name, module in model.named_modules()}, Attentions()
    calls: Counter[nn.Module] = Counter()

    def note(module: nn.Module | None, weights: Tensor) -> Tensor:
        shape, owner = tuple(weights.shape), model if module is None else module
        windows = len(shape) > 4 or (len(shape) == 4 and shape[0] > 1)
        queries, keys = shape[-2:]
        heads = shape[-3] if len(shape) > 2 else 1
        found.layers.append(AttentionLayer(names[owner], owner, calls[owner], heads, queries, keys, windows))
        calls[owner] += 1
        return weights

    with opened(model, note) as mode:
        _, failure = first_forward(model, inputs)
    kind = type(model).__name__
    if failure is not None or not found.layers:
        hint = "; the attention of a compiled graph or of a kernel of its own is not seen" if failure is None else ""
        raise missing(model, inputs, LayerError(
            f"{kind} computes no attention that can be seen: no scaled_dot_product_attention, no "
            f"nn.MultiheadAttention, no softmax over tokens whose rows multiply values{hint}"
        ))  # fmt: skip
    if any(not each.name for each in found.layers):
        raise LayerError(
            f"{kind} computes attention in its own forward, outside of any module that has a name; wrap it in a module"
        )
    found.layers = [
        replace(each, name=f"{each.name}#{each.call}") if calls[each.module] > 1 else each for each in found.layers
    ]
    sizes = {each.keys for each in found.layers}
    found.changed = [names[module or model] for module, shape in mode.unused if set(shape[-2:]) <= sizes | {shape[-2]}]
    return found


def attention_of(model: nn.Module, inputs: Inputs, names: Sequence[str]) -> list[AttentionLayer]:
    """The attentions that names mean: of a module itself, or all inside it, in the order in which they run.

    Raises:
        LayerError: A layer does not exist, never runs, or computes no attention.
    """
    seen, chosen = attentions(model, inputs).layers, list[AttentionLayer]()
    for text in names:
        name, module = find(model, text)
        if name.keys or name.entry:
            raise LayerError(f"layer {text!r}: an attention has neither items nor an input; give the module's name")
        inside = {*module.modules()}
        own = [each for each in seen if each.module in inside and name.call in (None, each.call)]
        if not own:
            if not any(stop.module in inside for stop in survey(model, inputs)):
                raise missing(model, inputs, never_ran(text))
            raise LayerError(f"layer {text!r} computes no attention; these do: {some(each.name for each in seen)}")
        chosen += own
    return [each for each in seen if each in chosen]


def whole(layer: AttentionLayer) -> AttentionLayer:
    """The same layer.

    Raises:
        LayerError: Its tokens were cut into windows.
    """
    if layer.windows:
        raise LayerError(
            f"the attention of {layer.name!r} is computed in windows of {layer.keys} tokens that do not see each "
            "other: no token has a row over the image. Choose a layer with global attention, or Grad-CAM"
        )
    return layer


def check_chain(model: nn.Module, inputs: Inputs, chain: Sequence[AttentionLayer], *, every: bool) -> None:
    """Refuse layers whose maps cannot be multiplied one with the next.

    Args:
        model: Isolated.
        inputs: Of the call.
        chain: In the order in which they run.
        every: Whether these are meant to be all blocks of the model.

    Raises:
        LayerError: Windows, or different numbers of tokens. Where ``every`` block is meant: a module that runs several
            times, or a block that shows no attention as it is used.
    """
    for layer in chain:
        whole(layer)
    *inner, last = chain
    uneven = [each for each in inner if (each.queries, each.keys) != (last.keys,) * 2]
    if uneven or last.queries not in (1, last.keys):
        sizes = some(f"{each.name!r} {each.queries} × {each.keys}" for each in (*uneven, last))
        raise LayerError(
            f"attention maps of different sizes have no product: {sizes}. Name layers between the same tokens"
        )
    seen = attentions(model, inputs)
    if not every:
        return
    if seen.changed:
        raise LayerError(
            f"the attention weights of {some(map(repr, seen.changed))} are changed between their softmax and the "
            "values, as talking heads do: their rows are no weights of a mean. Name the layers that can be used"
        )
    if repeated := [each.name for each in chain if each.name.endswith("#1")]:
        raise LayerError(
            f"{repeated[0].removesuffix('#1')!r} computes attention several times; name the runs that follow each other"
        )
    if silent := _silent(model, inputs, seen):
        raise LayerError(
            f"no attention is seen in {some(map(repr, silent))}, though other blocks of this kind have one: a kernel "
            "of its own may compute it. Switch that off, or name the layers that can be used"
        )


def _silent(model: nn.Module, inputs: Inputs, seen: Attentions) -> list[str]:
    """Blocks that ran and show no attention, while others of their class beside them do."""
    ran, names = {stop.module for stop in survey(model, inputs)}, {module: n for n, module in model.named_modules()}
    attending = {each.module for each in seen.layers}
    found = []
    for parent in model.modules():
        blocks = [child for child in parent.children() if child in ran and not isinstance(child, _CONTAINERS)]
        with_one = {child: bool(attending.intersection(child.modules())) for child in blocks}
        kinds = {type(child) for child in blocks if with_one[child]}
        found += [names[child] for child in blocks if type(child) in kinds and not with_one[child]]
    return found


def block_of(model: nn.Module, inputs: Inputs, layer: AttentionLayer) -> str:
    """The block of an attention: the largest module that computes this one and no other, and is not the whole model.

    Of a model with one attention, the largest below the list of blocks, if there is one.
    """
    attending = {each.module for each in attentions(model, inputs).layers}
    name, parts = layer.name.partition("#")[0], layer.name.partition("#")[0].split(".")
    for count in range(1, len(parts) + 1):
        text = ".".join(parts[:count])
        module, around = model.get_submodule(text), model.get_submodule(".".join(parts[: count - 1]))
        alone = len(attending.intersection(module.modules())) == 1
        if alone and (len(attending) > 1 or isinstance(around, _CONTAINERS)) and not isinstance(module, _CONTAINERS):
            return text
    return name


def some(names: Iterable[str]) -> str:
    """The first four names, and how many more there are."""
    given = list(names)
    return ", ".join(given[:4]) + (f" and {len(given) - 4} more" if len(given) > 4 else "")
