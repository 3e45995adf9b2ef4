"""A forward that ends at a layer: nothing behind it runs."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from attribution.inputs.inputs import Inputs
from attribution.layers.items import arguments, item, only_tensor
from attribution.layers.names import find, never_ran, not_a_tensor, runs_often
from attribution.layers.trace import missing, survey


class Halt(BaseException):
    """Ends a forward whose rest nobody asked for; a model's own ``except Exception`` must not catch it."""


def outputs_until(
    modules: Sequence[nn.Module], call: Callable[[], object], *, entries: bool = False
) -> dict[nn.Module, Any]:
    """What modules put out in a forward, which ends once each of them ran; hooks that were set before see it first.

    Args:
        modules: Of the model that ``call`` runs, in this thread.
        call: The forward.
        entries: What they are given instead, by position or keyword; the last of them does not run.
    """
    halt, found = Halt(), dict[nn.Module, Any]()
    owner, armed = threading.get_ident(), True

    def note(module: nn.Module, output: Any) -> None:
        if not armed or threading.get_ident() != owner:
            return
        found.setdefault(module, output)
        if len(found) == len({*modules}):
            raise halt

    def before(module: nn.Module, args: Any, options: Any) -> None:
        note(module, arguments(args, options))

    def after(module: nn.Module, args: Any, output: Any) -> None:
        note(module, output)

    handles = []
    try:
        for module in modules:  # no comprehension: each is removed if the next fails
            if entries:
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(after))
        call()
    except Halt as reached:
        if reached is not halt:
            raise
        reached.__traceback__ = None  # it holds the forward's frames, they hold it
    finally:
        armed = False  # an interrupt may have hidden a handle
        for handle in handles:
            handle.remove()
    return found


def ended_at(model: nn.Module, layer: str, x: Inputs) -> Tensor:
    """The output of a layer, with graph where gradients are on.

    Raises:
        LayerError: The layer does not exist, never runs, runs several times, or gives no tensor.
    """
    name, module = find(model, layer)
    stop = next((stop for stop in survey(model, x) if stop.module is module), None)
    if stop is None:
        raise missing(model, x, never_ran(layer))
    if stop.calls > 1 or name.call is not None:
        raise runs_often(name, stop.calls)
    found = outputs_until([module], lambda: x.into(model), entries=name.entry).get(module)
    keys = name.keys or (only_tensor(found) if name.entry and isinstance(found, Mapping) else ())
    tensor = item(found, keys)
    if not isinstance(tensor, Tensor):
        raise not_a_tensor(name, found)
    return tensor
