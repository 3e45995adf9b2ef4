"""Another backward for the rectifiers of a forward that has run, by hooks on its graph.

Torch's graph has a node for each operation, however it was written: ``nn.ReLU``, ``F.relu``, ``Tensor.relu_``, reused,
in a traced model, inside of ``nn.RNN``. So neither the model nor its forward is changed, and a plain backward can be
taken of the same graph before.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from attribution.attributor import Run
from attribution.errors import ModelError
from attribution.inputs.inputs import Inputs
from attribution.isolation import function_modes
from attribution.isolation.restore import Whole
from attribution.running import nested

Rule = Literal["guided", "deconvolution"]
"""From g at a rectifier's output to ReLU(g) times its derivative at its input, or to ReLU(g)."""

Gradients = tuple[Tensor | None, ...]

_BENDS = {
    "Celu": "CELU", "Clamp": "clamp", "ClampMax": "clamp", "ClampMin": "clamp", "Elu": "ELU", "Gelu": "GELU",
    "Glu": "GLU", "Hardshrink": "hardshrink", "Hardsigmoid": "hardsigmoid", "Hardswish": "hardswish",
    "Hardtanh": "hardtanh", "LeakyRelu": "leaky ReLU", "LogSigmoid": "log sigmoid", "Maximum": "maximum",
    "Mish": "mish", "PreluKernel": "PReLU", "RreluWithNoise": "RReLU", "Sigmoid": "sigmoid", "Silu": "SiLU",
    "Softplus": "softplus", "Softshrink": "softshrink", "Tanh": "tanh", "Threshold": "threshold",
}  # fmt: skip
"""What bends and is no rectifier, by the name of its node without ``Backward0``."""

_CLOSED = {
    "CheckpointFunctionBackward": "a reentrant checkpoint; give the checkpoint use_reentrant=False",
    "CompiledFunctionBackward": "a compiled part; give the model as it was before it was compiled",
}
"""Nodes that hold a part of the network into which nobody can look, and how to do without."""

_HIDDEN = {
    "DifferentiableGraphBackward": re.compile(r"aten::(relu6?|hardtanh)_?\("),
    "CopySlices": re.compile(r"aten::(relu6?|hardtanh)_\("),
}
"""What a script may hide in such nodes, in the text of its graph."""

_WRITING = {F.relu, F.relu6, F.hardtanh, torch.relu_, Tensor.relu_, F.hardtanh_,
            torch.ops.aten.relu_.default, torch.ops.aten.hardtanh_.default}  # fmt: skip


class _ApartFromViews(TorchFunctionMode):
    """A rectifier that writes into a view writes into a copy, whose values then go there.

    The graph has one closed node for whatever is done in place on a view; of a copy it has the source.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Once for each function of torch."""
        kwargs = dict(kwargs or {})
        x = args[0] if args else kwargs.pop("input", None)
        if func not in _WRITING or not isinstance(x, Tensor) or not (x.requires_grad and x._is_view()):
            return func(*args, **(kwargs if args or x is None else {**kwargs, "input": x}))
        copy = x.clone()
        result = func(copy, *args[1:], **kwargs)
        return x.copy_(copy) if result is copy else result


def apart_from_views() -> AbstractContextManager[None]:
    """A block in which no rectifier writes into a view."""
    return function_modes.on(_ApartFromViews())


def rectify(run: Run[Any], output: Any, inputs: Inputs, rule: Rule) -> None:
    """Give every rectifier between the inputs and a model's output a rule for all backwards to come, and note which.

    Args:
        run: Of the call.
        output: Whatever the model returned for ``inputs``.
        inputs: Those that are explained require gradients.
        rule: See `Rule`.

    Raises:
        ModelError: There is no rectifier, or a part of the network into which nobody can look.
    """
    nodes = _between(output, inputs)
    for node in nodes:
        _refuse_closed(node, run.model)
    rectifiers = [node for node in nodes if _rectifies(node)]
    others = Counter(sorted(filter(None, (_bend(node) for node in nodes if not _rectifies(node)))))
    passed = ", ".join(f"{name} × {count}" for name, count in others.items())
    if nodes and not rectifiers:  # without nodes there is no gradient, which is another error
        raise ModelError(
            f"{type(run.technique).__name__} changes the backward of ReLUs, and none ran between the inputs and the "
            f"score (but {passed or 'nothing that bends'}): its map would be the plain gradient; use Saliency"
        )
    for node in rectifiers:
        if rule == "guided":
            node.register_prehook(_rectified)
        else:
            node.register_hook(_drawn)
    run.note("rectifiers", len(rectifiers))
    if passed:
        run.note("passed over", passed)


def _rectified(gradients: Gradients) -> Gradients:
    """Only a rectifier's own: one gradient in, one out."""
    return tuple(None if gradient is None else gradient.clamp(min=0) for gradient in gradients)


def _drawn(made: Gradients, given: Gradients) -> Gradients:
    """Likewise, on the memory of the gradient that the node made, which nobody has seen yet."""
    for own, gradient in zip(made, given, strict=True):
        if own is not None and gradient is not None:
            torch.clamp(gradient, min=0, out=own)
    return made


def _between(output: Any, inputs: Inputs) -> list[Node]:
    """The nodes on all ways from an output to the explained inputs."""
    readers: dict[Node, list[Node]] = {}
    for node in _reached((tensor.grad_fn for tensor in nested.tensors(output)), _below):
        for below in _below(node):
            readers.setdefault(below, []).append(node)
    leaves = [get_gradient_edge(inputs.values[name]).node for name in inputs.explained]
    return [node for node in _reached(leaves, lambda node: readers.get(node, [])) if node not in leaves]


def _below(node: Node) -> list[Node]:
    return [each for each, _ in node.next_functions if each is not None]


def _reached(start: Iterable[Node | None], following: Callable[[Node], list[Node]]) -> list[Node]:
    """Whatever can be come to from some nodes."""
    stack = [node for node in start if node is not None]
    found = dict.fromkeys(stack)
    while stack:
        new = [node for node in dict.fromkeys(following(stack.pop())) if node not in found]
        found |= dict.fromkeys(new)
        stack += new
    return list(found)


def _name(node: Node) -> str:
    return node.name().rpartition("::")[2]


def _rectifies(node: Any) -> bool:
    """A ReLU, or a hardtanh from 0."""
    name = _name(node)
    return name == "ReluBackward0" or (name == "HardtanhBackward0" and node._saved_min_val == 0)


def _bend(node: Node) -> str | None:
    """The name of what bends, or of a function that torch does not know; else ``None``."""
    name = _name(node)
    if isinstance(node, BackwardCFunction):
        return None if name == "BackwardHookFunctionBackward" else name.removesuffix("Backward")
    return _BENDS.get(name.rstrip("0123456789").removesuffix("Backward"))


def _refuse_closed(node: Node, model: nn.Module) -> None:
    """Refuse what may hide a rectifier: torch fuses scripts, and what they do in place on views is in no graph."""
    name = _name(node)
    why = _CLOSED.get(name)
    if name in ("DifferentiableGraphBackward", "CopySlices"):
        modules = (model.inner if isinstance(model, Whole) else model).modules()
        graphs = [str(each.inlined_graph) for each in modules if isinstance(each, torch.jit.ScriptModule)]
        hidden = any(_HIDDEN[name].search(graph) for graph in graphs)
        if hidden or (name == "DifferentiableGraphBackward" and not graphs):
            why = "a script that torch fuses, or that writes into a view; give the model as it was before torch.jit"
    if why:
        raise ModelError(f"a ReLU may be hidden inside of {why}")
