"""A model as two parts: steps that a window changes only locally, and the rest, which always runs whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from attribution.lowered import folding, writes
from attribution.lowered.convolutions import plain
from attribution.lowered.nodes import execute
from attribution.lowered.tracing import Untraceable as Untraceable
from attribution.lowered.tracing import hooked, trace
from attribution.techniques.perturbation.lattice import Lattice
from attribution_hooks.incremental import functions, steps
from attribution_hooks.incremental.numbers import Readings, readings
from attribution_hooks.incremental.plan import Op, Plan
from attribution_hooks.incremental.steps import Step


class Known:
    """What was found out about one model that spares vain attempts and repeated plans; no number of an answer.

    Attributes:
        dull: Questions (shape and lattice) that are not worth the engine → why.
    """

    def __init__(self) -> None:
        self._untraceable: str | None = None
        self._planned: tuple[object, tuple[Plan, list[Readings]]] | None = None
        self.dull: dict[object, str] = {}

    def reason(self, question: object) -> str | None:
        """Why the engine is not worth another attempt; ``None`` where it is."""
        return self._untraceable or self.dull.get(question)

    def traced(self, model: nn.Module) -> fx.Graph:
        """The model's graph, traced anew.

        Raises:
            Untraceable: See `trace`.
        """
        if (why := hooked(model)) is not None:
            raise Untraceable(why)
        try:
            return trace(model)
        except Untraceable as reason:
            self._untraceable = str(reason)
            raise

    def planned(self, program: "Program", lattice: Lattice) -> tuple[Plan, list[Readings]]:
        """How a lattice runs through a program; the last one is kept, since the next image may ask the same."""
        ops, exits = tuple(program.ops), tuple(program.exits.values())
        fills = tuple(step.fill for step in program.steps)
        question = (ops, fills, exits, lattice, program.rest_macs)
        if (kept := self._planned) is not None and kept[0] == question:
            return kept[1]
        plan = Plan.of(ops, lattice, program.rest_macs)
        found = plan, readings(plan, fills, exits)
        self._planned = question, found
        return found


@dataclass
class Program:
    """A traced model, its layers recognised on one set of images.

    Attributes:
        modules: By qualified name.
        steps: The local part, in order; the first is the image. Steps are known by their position.
        sizes: Height and width of each step's output.
        exits: Node of the rest's input → step that gives it.
        rest: Nodes that run whole, in order, each with the nodes that nothing reads after it.
        copied: Those of the rest that would write into a step's output, and get a copy of it.
        output: What the model returns, as nodes.
        rest_macs: Of convolutions and linear layers in the rest, per image.
        nodes: Modules, functions and methods that the model calls.
        stopped_by: The first layer of the rest, for people.
    """

    modules: Mapping[str, nn.Module]
    steps: list[Step] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    exits: dict[fx.Node, int] = field(default_factory=dict)
    rest: list[tuple[fx.Node, list[fx.Node]]] = field(default_factory=list)
    copied: set[fx.Node] = field(default_factory=set)
    output: Any = None
    rest_macs: int = 0
    nodes: int = 0
    stopped_by: str = ""

    @property
    def ops(self) -> list[Op]:
        """What a plan needs to know of the steps."""
        return [
            Op(step.inputs, size, step.macs, step.kernel, step.stride, step.dilation, step.padding)
            for step, size in zip(self.steps, self.sizes, strict=True)
        ]

    @property
    def weighs(self) -> bool:
        """Whether the rest has weights, which each of its runs reads."""
        called = [self.modules[str(node.target)] for node, _ in self.rest if node.op == "call_module"]
        held = any(next(module.parameters(), None) is not None for module in called)
        return held or any(node.op == "get_attr" for node, _ in self.rest)

    @property
    def reads(self) -> int:
        """Bytes of weights in the rest, where a row multiplies each once at most: reading them is what takes time."""
        called = dict.fromkeys(str(node.target) for node, _ in self.rest if node.op == "call_module")
        weights = [weight for name in called for weight in self.modules[name].parameters()]
        each = self.rest_macs <= sum(weight.numel() for weight in weights)
        return sum(weight.nbytes for weight in weights) if each else 0

    def clean(self, images: Tensor) -> tuple[list[Tensor], Any]:
        """Each step's output for whole images (N, C, H, W), and what the model returns."""
        maps = [plain(images.contiguous(memory_format=torch.channels_last))]
        for step in self.steps[1:]:
            maps.append(step.whole(*(maps[source] for source in step.inputs)))
        return maps, self.finish({node: maps[source] for node, source in self.exits.items()})

    def finish(self, values: dict[fx.Node, Any]) -> Any:
        """What the model returns, from whole maps of its exits; ``values`` is used up."""
        for node, unused in self.rest:
            values[node] = execute(node, values, self.modules, copied=node in self.copied)
            for other in unused:
                values.pop(other, None)
        return map_arg(self.output, lambda node: values[node])


def build(
    model: nn.Module, graph: fx.Graph, images: Tensor, *, products: bool = False
) -> tuple[Program, list[Tensor], Any]:
    """Run a traced model once on whole images, recognising its local layers on the way.

    Args:
        model: Eval mode.
        graph: Of the model.
        images: (N, C, H, W); nothing is written into them.
        products: Whether convolutions may be those of matrices, which hold weights of their own.

    Returns:
        The program, each step's output for the images, and what the model returns for them.

    Raises:
        Untraceable: The model changes maps that are read again.
    """
    modules = dict(model.named_modules())
    builder = _Builder(Program(modules), images, folding.folds(graph, modules), products=products)
    for node in graph.nodes:
        builder.add(node)
    builder.check(graph)
    return builder.done()


class _Builder:
    """One walk along a graph."""

    def __init__(
        self, program: Program, images: Tensor, folds: Mapping[fx.Node, folding.Fold], *, products: bool
    ) -> None:
        self.products = products
        self.program = program
        self.images = images
        self.values: dict[fx.Node, Any] = {}
        self.local: dict[fx.Node, int] = {}
        self.maps: list[Tensor] = []
        self.folds = folds
        self.folded = {next(iter(node.users)) for node in folds}
        self.whole: list[fx.Node] = []
        self.memory: set[int] = set()
        self.versions: list[int] = []
        self.writers: dict[fx.Node, set[int]] = {}

    def add(self, node: fx.Node) -> None:
        self.program.nodes += node.op.startswith("call_")
        if node.op == "placeholder":
            image = plain(self.images.clone(memory_format=torch.channels_last))
            self._keep(node, Step((), lambda: image, lambda: image), image)
        elif node.op == "output":
            self.program.output = node.args[0]
        elif node.op == "get_attr":
            self._run_whole(node)
        else:
            self._note_writing(node)
            found = self._recognised(node)
            if found is None:
                self._run_whole(node)
            elif isinstance(found, int):
                self.local[node] = found
                self.values[node] = self.maps[found]
            else:
                self._keep(node, found, found.whole(*(self.maps[i] for i in found.inputs)))

    def _keep(self, node: fx.Node, step: Step, output: Tensor) -> None:
        self.local[node] = len(self.program.steps)
        self.program.steps.append(step)
        rows, columns = (2, 3) if step.layout == "nchw" else (1, 2)
        self.program.sizes.append((output.shape[rows], output.shape[columns]))
        self.maps.append(output)
        self.memory |= writes.places(output)
        self.versions.append(output._version)
        self.values[node] = output

    def _note_writing(self, node: fx.Node) -> None:
        target = writes.written(node, self.program.modules)
        if target is not None and (changed := writes.places(self.values[target]) & self.memory):
            self.writers[node] = changed
            self.program.copied.add(node)

    def check(self, graph: fx.Graph) -> None:
        """Steps and copies leave their inputs as they are; nothing may depend on that.

        Raises:
            Untraceable: It does.
        """
        late = writes.read_after(graph, self.values, self.writers)
        if late is not None:
            raise Untraceable(f"{late.target} reads what was changed in place before")
        if [map_._version for map_ in self.maps] != self.versions:
            raise Untraceable(f"{self.program.stopped_by} or what follows writes into its input")

    def _recognised(self, node: fx.Node) -> Step | int | None:
        used = node.all_input_nodes
        if not any(n in self.local for n in used):
            return None
        if node.op == "call_module":
            if len(node.args) != 1 or node.kwargs or node.args[0] not in self.local:
                return None
            source = self.local[node.args[0]]  # type: ignore[index]
            module = self.program.modules[str(node.target)]
            if node in self.folded:
                return steps.after_norm(module, source)
            layout, fold = self.program.steps[source].layout, self.folds.get(node)
            return steps.of_module(module, source, layout, self.maps[source], fold, products=self.products)
        return functions.of_call(node, self.local, self.program.steps, self.values)

    def _run_whole(self, node: fx.Node) -> None:
        for used in node.all_input_nodes:
            if used in self.local:
                self.program.exits[used] = self.local[used]
        self.values[node] = output = execute(
            node, self.values, self.program.modules, copied=node in self.program.copied
        )
        self.whole.append(node)
        if node.op == "get_attr":
            return
        self.program.stopped_by = self.program.stopped_by or f"{node.target}"
        module = self.program.modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear) and isinstance(output, Tensor):
            per_output = module.weight.numel() // module.weight.shape[0]
            self.program.rest_macs += output.numel() // len(output) * per_output

    def done(self) -> tuple[Program, list[Tensor], Any]:
        program = self.program
        ends: list[fx.Node] = []
        map_arg(program.output, ends.append)
        program.exits.update({node: self.local[node] for node in ends if node in self.local})
        last = {used: node for node in self.whole for used in node.all_input_nodes}
        program.rest = [
            (node, [used for used in node.all_input_nodes if last[used] is node and used not in ends])
            for node in self.whole
        ]
        return program, self.maps, map_arg(program.output, lambda node: self.values[node])
