"""``Substitution``: what the model says where a layer gives something else, without what runs before the layer."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Run
from attribution.run import MASK, medians
from attribution.running.execution import first_line, lost, out_of_memory
from attribution.running.nested import tensors
from attribution.running.precision import tf32
from attribution_hooks.cam.closed_form import hooked
from attribution_hooks.capture import substituted

ROUNDING = 64
"""How many units in the last place of the largest score asked for two forwards of the same values may be apart."""


class Substitution:
    """Forwards of examples in which a layer gives other values.

    The modules that end before the layer does would give the same again. So they give what they gave once, and their
    forwards are left out. What is computed between modules runs all the same. For each example this is believed only
    where two of its rows are what the whole model says of them.

    Args:
        run: Its score is settled.
        layer: The name.

    Attributes:
        short: Whether forwards begin behind the layer.
    """

    def __init__(self, run: Run[Any], layer: str) -> None:
        self._run, self._layer = run, layer
        self._ended: Mapping[nn.Module, Any] = {}
        self._example = -1
        self.short = run.asked.of_layer is None and not hooked(run.model)

    def whole(self, values: Tensor, examples: Tensor) -> Tensor:
        """(B, K), by the whole model: the values are in the layer's own form."""
        with substituted(self._run.model, self._layer, lambda _: values.clone()):
            return self._run.matrix(self._run.forward(self._run.inputs[examples], examples), examples)

    def of(self, values: Tensor, example: int, axis: int) -> Tensor:
        """(B, K) of one example, in the shortest way that was found to be right."""
        count = values.shape[axis]
        if self.short and example != self._example:
            self._begin(values.narrow(axis, 0, min(2, count)), example, axis)
        examples = torch.full((count,), example, device=self._run.inputs.device)
        if not self.short:
            return self.whole(values, examples)
        with _left_out(self._ended, count):
            return self.whole(values, examples)

    def _begin(self, values: Tensor, example: int, axis: int) -> None:
        examples = torch.full((values.shape[axis],), example, device=self._run.inputs.device)
        own = self.whole(values, examples)
        try:
            self._ended = _ended_before(self._run, self._layer, example)
            with _left_out(self._ended, len(examples)):
                found = self.whole(values, examples)
            self.short = alike(self._run, own, found, examples, ROUNDING * _eps(self._run, own))
            reason = "the model says something else where modules before the layer are left out"
        except Exception as error:  # the model's own code, which may write into what a module gave
            if lost(error) or out_of_memory(error):
                raise
            self.short, reason = False, f"modules before the layer cannot be left out: {first_line(error)}"
        if not self.short:
            self._run.note(f"reason {self._layer}", reason)
        self._example = example


def alike(run: Run[Any], own: Tensor, found: Tensor, examples: Tensor, unit: float) -> bool:
    """Whether two matrices (B, K) give the same scores of what is asked for, each entry within ``unit`` of the largest.

    Masked classes, of which a score may be anything, count at most `MASK` times what is asked for and the median.
    """
    if own.shape != found.shape or own.dtype != found.dtype:
        return False
    score, target = run.settled
    target = target[examples.to(target.device)]
    sizes = own.abs().nan_to_num(0.0, 0.0, 0.0)
    size = sizes.gather(1, target).amax(1)
    size = torch.minimum(sizes.amax(1), MASK * torch.maximum(medians(sizes), size))
    if run.scale is not None:
        size = torch.maximum(size, run.scale[examples.to(run.scale.device)].amax(1).to(size))
    before, after = score.score_of(own), score.score_of(found)
    room = score.room((unit * size)[:, None].expand_as(own), before, after).gather(1, target)
    return bool(((before - after).gather(1, target).abs() <= room).all())  # NaN is never near


def _eps(run: Run[Any], like: Tensor) -> float:
    return torch.finfo(run.execution.autocast or tf32(like) or like.dtype).eps


def _ended_before(run: Run[Any], layer: str, example: int) -> dict[nn.Module, Any]:
    """The outermost modules that end before the layer gives its output, or the layer itself, with what each gave.

    One that somebody wrote into later is left out, unless the writer is such a module and gave the same tensor.
    """
    stops = {stop.name: stop.module for stop in layers.survey(run.model, run.inputs) if stop.calls == 1}
    plain = {name: each for name, each in stops.items() if _replaceable(each)}
    ended, versions, reached = dict[str, Any](), dict[int, int](), False
    owner, handles = threading.get_ident(), []

    def note(name: str, output: Any) -> None:
        if not reached and threading.get_ident() == owner:
            ended[name] = output
            versions.update((id(tensor), tensor._version) for tensor in tensors(output))

    def hook_for(name: str) -> Any:
        return lambda module, args, output: note(name, output)

    def reach(_: Tensor) -> None:
        nonlocal reached
        inner = [name for name in ended if any(name.startswith(f"{other}.") for other in ended)]
        for name in inner:
            del ended[name]
        for name in [name for name, each in ended.items() if _written(each, versions)]:
            del ended[name]
        reached = True

    examples = torch.full((1,), example, device=run.inputs.device)
    try:
        for name, module in plain.items():
            handles.append(module.register_forward_hook(hook_for(name)))
        with substituted(run.model, layer, reach):
            run.forward(run.inputs[examples], examples)
    finally:
        reached = True  # an interrupt may have hidden a handle
        for handle in handles:
            handle.remove()
    return {plain[name]: each for name, each in ended.items()}


def _written(output: Any, versions: Mapping[int, int]) -> bool:
    return any(tensor._version != versions[id(tensor)] for tensor in tensors(output))


def _replaceable(module: nn.Module) -> bool:
    script = isinstance(module, torch.jit.ScriptModule)
    return not script and "forward" not in vars(module) and module._compiled_call_impl is None


@contextmanager
def _left_out(ended: Mapping[nn.Module, Any], rows: int) -> Iterator[None]:
    """In every forward inside the block, in this thread, modules give what they gave, for so many rows."""
    owner, armed, kept = threading.get_ident(), True, list[nn.Module]()

    def standing_in(module: nn.Module, output: Any) -> Any:
        plain = module.forward

        def forward(*args: Any, **options: Any) -> Any:
            if armed and threading.get_ident() == owner:
                return _repeated(output, rows)
            return plain(*args, **options)

        return forward

    try:
        for module, output in ended.items():
            kept.append(module)
            vars(module)["forward"] = standing_in(module, output)
        yield
    finally:
        armed = False
        for module in kept:
            vars(module).pop("forward", None)


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
