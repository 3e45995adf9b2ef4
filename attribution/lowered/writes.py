"""What changes its input: after ``y = relu_(x)``, x is y, and so is every view of x."""

from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from attribution.running.nested import tensors
from attribution.running.torch_internals import storage_of

_OPERATORS = frozenset({"iadd", "isub", "imul", "itruediv", "ipow"})


def written(node: fx.Node, modules: Mapping[str, nn.Module]) -> fx.Node | None:
    """The node whose value this one writes into, or may; ``None`` where it leaves everything as it is."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    if not isinstance(first, fx.Node):
        return None
    if node.op == "call_module":
        found = getattr(modules[str(node.target)], "inplace", False) is True
    elif node.op == "call_method":
        found = _in_place(str(node.target))
    else:
        name = getattr(node.target, "__name__", "").partition(".")[0]  # "add_.Tensor" of torch.ops
        flagged = node.kwargs.get("inplace") is True or any(value is True for value in node.args[1:])
        found = name in _OPERATORS or _in_place(name) or flagged
    return first if found else None


def _in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def places(value: Any) -> set[int]:
    """Which memory a node's value uses; known by its storage, since memory without bytes (meta, empty) has no place."""
    return {storage_of(tensor) for tensor in tensors(value)}


def read_after(graph: fx.Graph, values: Mapping[fx.Node, Any], writers: Mapping[fx.Node, set[int]]) -> fx.Node | None:
    """The first node that reads, by an earlier name, what was written before it.

    Args:
        graph: Of the model.
        values: Of each node, all from one run.
        writers: Node → the memory that it writes into.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    readers: dict[int, list[tuple[int, int, fx.Node]]] = {}
    for node, position in order.items():
        for used in node.all_input_nodes:
            for place in places(values.get(used)):
                readers.setdefault(place, []).append((position, order[used], node))
    for writer, changed in writers.items():
        for place in changed:
            for position, source, node in readers.get(place, ()):
                if position > order[writer] > source:
                    return node
    return None
