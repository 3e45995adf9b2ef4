"""``Trunk``: what the modules before a layer gave in one forward, and forwards in which they give it again."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Run
from attribution.layers import Stop
from attribution.running.nested import tensors
from attribution_hooks.capture import substituted


class Trunk:
    """The outermost modules that end before a layer gives its output, or the layer itself, with what each gave.

    One that somebody wrote into later is left out, unless the writer is such a module and gave the same tensor.

    Args:
        run: Of the call.
        layer: The name.

    Attributes:
        bytes: Of all that would be kept of one example.
    """

    def __init__(self, run: Run[Any], layer: str) -> None:
        self._model, self._layer = run.model, layer
        stops = _before(run, layer)
        self._modules = {stop.name: stop.module for stop in stops}
        self._ended: dict[nn.Module, Any] = {}
        self.bytes = sum(stop.bytes for stop in stops)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Keep what they give in the forward inside the block, in this thread."""
        ended, versions, reached = dict[str, Any](), dict[int, int](), False
        owner, handles = threading.get_ident(), []

        def note(name: str, output: Any) -> None:
            given = [*tensors(output)]
            if reached or threading.get_ident() != owner or any(tensor.is_inference() for tensor in given):
                return  # nobody can tell who wrote into a tensor of inference mode
            ended[name] = output
            versions.update((id(tensor), tensor._version) for tensor in given)

        def hook_for(name: str) -> Any:
            return lambda module, args, output: note(name, output)

        def reach(_: Tensor) -> None:
            nonlocal reached
            for name in [name for name in ended if any(name.startswith(f"{other}.") for other in ended)]:
                del ended[name]
            reached = True

        try:
            for name, module in self._modules.items():
                handles.append(module.register_forward_hook(hook_for(name)))
            with substituted(self._model, self._layer, reach):
                yield
            whole = reached
        finally:
            reached = True  # an interrupt may have hidden a handle
            for handle in handles:
                handle.remove()
        kept = {name: each for name, each in ended.items() if whole and not _written(each, versions)}
        self._ended = {self._modules[name]: each for name, each in kept.items()}

    @contextmanager
    def left_out(self, values: Tensor, rows: int) -> Iterator[None]:
        """In the one forward inside the block, in this thread, the layer gives these values, in its own form.

        Until then the modules give what they gave, for so many rows. From there on each is the model's own.
        """
        owner, armed, kept = threading.get_ident(), True, list[nn.Module]()

        def standing_in(module: nn.Module, output: Any) -> Any:
            plain = module.forward

            def forward(*args: Any, **options: Any) -> Any:
                if armed and threading.get_ident() == owner:
                    return _repeated(output, rows)
                return plain(*args, **options)

            return forward

        def reach(_: Tensor) -> Tensor:
            nonlocal armed
            armed = False
            return values.clone()

        try:
            for module, output in self._ended.items():
                kept.append(module)
                vars(module)["forward"] = standing_in(module, output)
            with substituted(self._model, self._layer, reach):
                yield
        finally:
            armed = False
            for module in kept:
                vars(module).pop("forward", None)


def _before(run: Run[Any], layer: str) -> Sequence[Stop]:
    """The modules that may end before a layer does, without those inside of others; all, where it runs several times.

    Of a layer that runs several times, or of its input, nobody knows yet which ones do.
    """
    (name, module), stops = layers.find(run.model, layer), layers.survey(run.model, run.inputs)
    plain = {stop.name: stop for stop in stops if stop.calls == 1 and _replaceable(stop.module)}
    own = next((stop for stop in stops if stop.module is module), None)
    if own is None or own.calls > 1 or name.entry:
        return [*plain.values()]
    found = {name: stop for name, stop in plain.items() if stop.order <= own.order}
    return [stop for name, stop in found.items() if not any(above in found for above in _above(name))]


def _above(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _written(output: Any, versions: Mapping[int, int]) -> bool:
    return any(tensor._version != versions[id(tensor)] for tensor in tensors(output))


def _replaceable(module: nn.Module) -> bool:
    script = isinstance(module, torch.jit.ScriptModule)
    return not script and "forward" not in vars(module) and module._compiled_call_impl is None


def _repeated(value: Any, rows: int) -> Any:
    """The same for so many rows, of tensors without a copy, which nobody can write into."""
    if isinstance(value, Tensor):
        if value.shape[:1] != (1,):
            return value.clone()
        return value.clone() if rows == 1 else value.expand(rows, *value.shape[1:])
    if isinstance(value, Mapping):
        new = {key: _repeated(each, rows) for key, each in value.items()}
        return new if type(value) is dict else type(value)(new)  # type: ignore[call-arg]
    if isinstance(value, list | tuple):
        held = [_repeated(each, rows) for each in value]
        return type(value)(*held) if hasattr(value, "_fields") else type(value)(held)
    return value
