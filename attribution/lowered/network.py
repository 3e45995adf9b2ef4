"""``Network``: what a model computes, with batch norms folded into packed convolutions."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from attribution.lowered import folding, writes
from attribution.lowered.convolutions import Packed, packable
from attribution.lowered.nodes import execute
from attribution.lowered.norms import activation
from attribution.lowered.tracing import Untraceable, trace

_RELUS = (F.relu, torch.relu, "relu")
_ADDS = (operator.add, operator.iadd, torch.add)
_LIBRARIES = ("torch.", "torchvision.", "timm.")
"""Whose modules say by ``inplace`` that they write into what they read."""

Values = dict[fx.Node, Any]
Step = Callable[[Values], Any]
"""What takes a node's place: its value, from the values before it."""


@dataclass
class Network:
    """A traced model, and what runs in the place of some of its nodes.

    Attributes:
        modules: The model's own, by qualified name; nothing of them is changed.
        nodes: In order, each with those that nothing reads after it.
        steps: Of the nodes that are run otherwise.
        output: What the model returns, as nodes.
        packed: Convolutions.
        folded: Batch norms.
    """

    modules: Mapping[str, nn.Module]
    nodes: list[tuple[fx.Node, list[fx.Node]]] = field(default_factory=list)
    steps: dict[fx.Node, Step] = field(default_factory=dict)
    output: Any = None
    packed: int = 0
    folded: int = 0

    def __call__(self, images: Tensor) -> Any:
        """What the model returns for images, into which nothing is written."""
        layout = torch.channels_last if images.ndim == 4 and images.shape[1] > 1 else torch.contiguous_format
        given, values = images.clone(memory_format=layout), Values()
        for node, unused in self.nodes:
            if node.op == "placeholder":
                values[node] = given
            elif (step := self.steps.get(node)) is not None:
                values[node] = step(values)
            else:
                values[node] = execute(node, values, self.modules)
            for other in unused:
                values.pop(other, None)
        return map_arg(self.output, lambda node: values[node])


def lower(model: nn.Module) -> Network:
    """A network of a model's own modules, but for the convolutions that are packed.

    Args:
        model: Eval mode; it is not run.

    Raises:
        Untraceable: It cannot be taken apart, or has no convolution to pack.
    """
    if not any(map(packable, model.modules())):
        raise Untraceable("no convolution of images in float32 on a CPU")
    graph = trace(model)
    network = Network(dict(model.named_modules()))
    _Lowering(graph, network).walk()
    if not network.packed:
        raise Untraceable("no convolution that the model calls can be packed")
    return network


class _Lowering:
    """One walk along a graph."""

    def __init__(self, graph: fx.Graph, network: Network) -> None:
        self._nodes, self._network = list(graph.nodes), network
        self._order = {node: place for place, node in enumerate(self._nodes)}
        self._writes = [self._order[node] for node in self._nodes if self._may_write(node)]
        self._folds = folding.folds(graph, network.modules)
        self._reads: dict[fx.Node, list[fx.Node]] = {}
        self._own: set[fx.Node] = set()  # their value is memory that only their one reader sees

    def walk(self) -> None:
        network, kept = self._network, list[fx.Node]()
        for node in self._nodes:
            if node.op == "output":
                network.output = node.args[0]
            elif node not in network.steps:
                self._replace(node)
        map_arg(network.output, kept.append)
        reads = {node: self._reads.get(node, node.all_input_nodes) for node in self._nodes if node.op != "output"}
        last = {used: node for node, given in reads.items() for used in given}
        network.nodes = [
            (node, [used for used in dict.fromkeys(given) if last[used] is node and used not in kept])
            for node, given in reads.items()
        ]

    def _replace(self, node: fx.Node) -> None:
        module = self._module(node)
        if node.kwargs or len(node.args) != 1 or not isinstance(source := node.args[0], fx.Node):
            return
        if isinstance(module, nn.Conv2d) and packable(module):
            self._pack(node, source, module)
        elif source in self._own and (act := _activation(node, module)) is not None:
            self._step(node, [source], lambda values: act(values[source]))

    def _pack(self, node: fx.Node, source: fx.Node, module: nn.Conv2d) -> None:
        found = folding.norm_after(node, self._network.modules) if node in self._folds else None
        packed = Packed.of(module, self._folds.get(node))
        self._network.packed += 1
        end = node
        if found is not None:
            self._network.folded += 1
            end, norm = found
            act = activation(norm.act) if hasattr(norm, "act") else None
            if act is not None:
                self._step(node, [source], lambda values: packed(values[source]))
                self._step(end, [node], lambda values: act[1](values[node]))
                return
        reader = next(iter(end.users)) if len(end.users) == 1 else None
        if reader is not None and (other := self._added(node, end, reader)) is not None:
            for passed in (node, end):
                self._step(passed, [], lambda values: None)
            self._step(reader, [source, other], lambda values: packed.plus(values[source], values[other]))
            return
        chain, silu = [end] if end is not node else [], False
        if reader is not None and type(self._module(reader)) is nn.SiLU and len(reader.args) == 1:
            chain, silu = [*chain, reader], True
        self._step(node, [source], lambda values: packed(values[source], silu=silu))  # here: it may be written into
        for passed in chain:
            self._pass_on(passed, passed.all_input_nodes[0])

    def _pass_on(self, node: fx.Node, source: fx.Node) -> None:
        self._step(node, [source], lambda values: values[source])

    def _step(self, node: fx.Node, reads: list[fx.Node], step: Step) -> None:
        self._network.steps[node], self._reads[node] = step, reads
        if len(node.users) == 1:
            self._own.add(node)

    def _added(self, conv: fx.Node, end: fx.Node, reader: fx.Node) -> fx.Node | None:
        """What else ``reader`` adds to a convolution, if that may be run there: nothing was written in between.

        A module of the user's may write without a word.
        """
        if reader.op != "call_function" or reader.target not in _ADDS or reader.kwargs or reader in self._network.steps:
            return None
        first, second = reader.args if len(reader.args) == 2 else (None, None)
        other = second if first is end else first
        if not isinstance(other, fx.Node) or other is end or (reader.target is operator.iadd and first is not end):
            return None
        between = range(self._order[conv] + 1, self._order[reader])
        return None if any(place in between for place in self._writes) else other

    def _may_write(self, node: fx.Node) -> bool:
        if not node.op.startswith("call_"):
            return False
        module = self._module(node)
        foreign = module is not None and not type(module).__module__.startswith(_LIBRARIES)
        return foreign or writes.written(node, self._network.modules) is not None

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._network.modules.get(str(node.target)) if node.op == "call_module" else None


def _activation(node: fx.Node, module: nn.Module | None) -> Callable[[Tensor], Tensor] | None:
    """What a node does, in place."""
    if module is not None:
        found = activation(module)
        return None if found is None else found[1]
    return torch.relu_ if node.target in _RELUS else None
