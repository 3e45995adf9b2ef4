"""One node of a traced graph, run on values."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg
from torch.nn import functional as F


def execute(
    node: fx.Node, values: Mapping[fx.Node, Any], modules: Mapping[str, nn.Module], *, copied: bool = False
) -> Any:
    """One node as it is; ``copied``: on a copy of its first argument."""
    args: Any
    kwargs: Any
    args, kwargs = (map_arg(part, lambda used: values[used]) for part in (node.args, node.kwargs))
    if copied:
        args = (args[0].clone(), *args[1:])
    if _of_groups(node, modules):
        args, kwargs = (map_aggregate(part, _plain) for part in (args, kwargs))
    if node.op == "call_module":
        return modules[str(node.target)](*args, **kwargs)
    if node.op == "call_function":
        return node.target(*args, **kwargs)  # type: ignore[operator]
    if node.op == "call_method":
        name = "reshape" if node.target == "view" and not isinstance(args[1], torch.dtype) else str(node.target)
        return getattr(args[0], name)(*args[1:], **kwargs)  # a view of what the model has contiguous may be none here
    value: Any = modules[""]
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def _of_groups(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether it normalises groups of channels.

    Of maps with channels last torch takes E[x²] − E[x]² for their variance, which loses (mean / deviation)² · eps.
    """
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.GroupNorm)
    return node.target in (F.group_norm, torch.group_norm)


def _plain(value: Any) -> Any:
    return value.contiguous() if isinstance(value, Tensor) else value
