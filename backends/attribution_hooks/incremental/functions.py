"""Functions and methods in a graph that are local: the counterpart of `steps.of_module` for what is no module."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from attribution_hooks.incremental import steps
from attribution_hooks.incremental.steps import Layout, Step, pointwise

_JOINS: dict[Any, Callable[[Any, Any], Tensor]] = {
    operator.add: operator.add,
    operator.iadd: operator.add,
    torch.add: operator.add,
    "add": operator.add,
    "add_": operator.add,
    operator.sub: operator.sub,
    operator.isub: operator.sub,
    torch.sub: operator.sub,
    operator.mul: operator.mul,
    operator.imul: operator.mul,
    torch.mul: operator.mul,
    "mul": operator.mul,
    operator.truediv: operator.truediv,
    operator.itruediv: operator.truediv,
}
_ACTIVATIONS: dict[Any, Callable[..., Tensor]] = {
    F.relu: F.relu,
    torch.relu: F.relu,
    "relu": F.relu,
    "relu_": F.relu,
    F.relu6: F.relu6,
    F.silu: F.silu,
    F.gelu: F.gelu,
    F.hardswish: F.hardswish,
    F.hardsigmoid: F.hardsigmoid,
    F.hardtanh: F.hardtanh,
    F.leaky_relu: F.leaky_relu,
    F.elu: F.elu,
    F.mish: F.mish,
    F.softplus: F.softplus,
    torch.sigmoid: torch.sigmoid,
    F.sigmoid: torch.sigmoid,
    "sigmoid": torch.sigmoid,
    torch.tanh: torch.tanh,
    F.tanh: torch.tanh,
    "tanh": torch.tanh,
    torch.clamp: torch.clamp,
    "clamp": torch.clamp,
}
_POOLS: dict[Any, Literal["max", "avg"]] = {F.max_pool2d: "max", torch.max_pool2d: "max", F.avg_pool2d: "avg"}
_POOL_ARGUMENTS = {
    "max": ("kernel", "stride", "padding", "dilation", "ceil_mode"),
    "avg": ("kernel", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
}


def of_call(
    node: fx.Node, local: Mapping[fx.Node, int], known: Sequence[Step], values: Mapping[fx.Node, Any]
) -> Step | int | None:
    """A function or method as a step, its source where it changes nothing, ``None`` where it is not known to be local.

    Args:
        node: Reads at least one local node.
        local: Node → step.
        known: The steps so far.
        values: What the nodes gave for whole images.
    """
    sources = [local[used] for used in node.all_input_nodes if used in local]
    layouts = {known[source].layout for source in sources}
    if len(layouts) != 1:
        return None
    layout = layouts.pop()
    if node.target is torch.cat:
        return _cat(node, local, layout)
    if node.target in _JOINS:
        return _join(node, local, layout, values)
    if len(node.all_input_nodes) != 1 or not node.args or node.args[0] not in local:
        return None
    source = sources[0]
    keywords = {name: value for name, value in node.kwargs.items() if name != "inplace"}
    if node.target in _ACTIVATIONS:
        function, rest = _ACTIVATIONS[node.target], _constants(node.args[1:], node)
        return pointwise(source, lambda x: function(x, *rest, **keywords), layout) if rest is not None else None
    if node.target in (F.dropout, F.dropout2d):
        training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
        return source if training is False else None
    if node.target == "contiguous":
        return source
    image: Any = node.args[0]
    return _pool(node, source, values[image]) if layout == "nchw" else None


def _constants(args: Sequence[Any], node: fx.Node) -> tuple[Any, ...] | None:
    """Arguments of an activation, without a functional's ``inplace`` flag, which is its only bool."""
    kept = tuple(value for value in args if not isinstance(value, bool))
    return kept if all(isinstance(value, int | float) for value in kept) else None


def _cat(node: fx.Node, local: Mapping[fx.Node, int], layout: Layout) -> Step | None:
    parts = node.args[0] if node.args else ()
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    channels = 1 if layout == "nchw" else 3
    if not isinstance(parts, list | tuple) or dim not in (channels, channels - 4):
        return None
    if not all(isinstance(part, fx.Node) and part in local for part in parts):
        return None

    def call(*maps: Tensor) -> Tensor:
        return torch.cat(maps, dim=channels)

    return Step(tuple(local[part] for part in parts if isinstance(part, fx.Node)), call, call, layout=layout)


def _join(node: fx.Node, local: Mapping[fx.Node, int], layout: Layout, values: Mapping[fx.Node, Any]) -> Step | None:
    if len(node.args) != 2 or node.kwargs:
        return None
    function = _JOINS[node.target]
    a: Any
    b: Any
    a, b = node.args
    if a in local and b in local:
        x, y = values[a], values[b]
        if x.shape[2:] != y.shape[2:] if layout == "nchw" else x.shape[1:3] != y.shape[1:3]:
            return None
        alike = x.shape == y.shape and x.dtype == y.dtype
        inplace = {operator.add: Tensor.add_, operator.mul: Tensor.mul_}.get(function) if alike else None
        return Step((local[a], local[b]), function, function, layout=layout, inplace=inplace)
    source, other = (a, b) if a in local else (b, a)
    if isinstance(other, fx.Node) and other.op != "get_attr":
        return None  # known of the clean image only
    constant = values[other] if isinstance(other, fx.Node) else other
    if isinstance(constant, Tensor):
        places = constant.shape[-2:] if layout == "nchw" else constant.shape[-3:-1]
        if any(size != 1 for size in places) or constant.ndim > 4 or (constant.ndim == 4 and len(constant) > 1):
            return None
    elif not isinstance(constant, int | float):
        return None
    if source is a:
        return pointwise(local[source], lambda x: function(x, constant), layout)
    return pointwise(local[source], lambda x: function(constant, x), layout)


def _pool(node: fx.Node, source: int, x: Tensor) -> Step | None:
    kind = _POOLS.get(node.target)
    if kind is None:
        return None
    given: dict[str, Any] = dict(zip(_POOL_ARGUMENTS[kind], node.args[1:], strict=False))
    given.update({"kernel" if key == "kernel_size" else key: value for key, value in node.kwargs.items()})
    if given.pop("return_indices", False):
        return None
    return steps.pooling(source, kind, (x.shape[2], x.shape[3]), **given)
