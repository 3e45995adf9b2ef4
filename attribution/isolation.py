"""A model to work on that is not the user's: same parameters, own hooks, flags and mode."""

import copy
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attribution.execution import Execution


@dataclass
class _Shadows(threading.local):
    """One shadow per model and thread, so that one thread's hooks never see another's forward."""

    known: WeakKeyDictionary[nn.Module, tuple[object, nn.Module]] = field(default_factory=WeakKeyDictionary)


_shadows = _Shadows()
_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_locks_guard = threading.Lock()


def unwrap(model: nn.Module) -> nn.Module:
    """The eager module inside ``torch.compile``, ``DistributedDataParallel`` and ``DataParallel``."""
    while True:
        modules = vars(model).get("_modules")
        if isinstance(modules, dict) and isinstance(inner := modules.get("_orig_mod"), nn.Module):
            model = inner
        elif isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        else:
            return model


@contextmanager
def isolated(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The model to run, in eval mode, and how it was had: ``"shadow"`` or ``"guarded"``.

    A shadow is a structural copy that shares every parameter and buffer: no memory for weights, and nothing
    done to its hooks or flags reaches the user's model. A model that cannot be copied so (it holds a lock, or
    its ``forward`` was replaced by a closure) is run itself under a lock, its mode restored on every exit.
    """
    model = unwrap(model)
    shadow = _shadow(model)
    if shadow is not None:
        with _buffers_kept(model):
            yield shadow, "shadow"
        return
    with _locks_guard:
        lock = _locks.setdefault(model, threading.RLock())
    with lock:
        training = {module: module.training for module in model.modules()}
        try:
            model.eval()
            with _buffers_kept(model):
                yield model, "guarded"
        finally:
            for module, mode in training.items():
                module.training = mode


@contextmanager
def modes(execution: Execution, device: torch.device) -> Iterator[None]:
    """Torch's modes as a run needs them, whatever the caller set: gradients on, autocast as asked.

    They are restored after, and so are the random number generators, for models that draw also in eval mode.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        enabled = execution.autocast is not None
        stack.enter_context(torch.autocast(device.type, dtype=execution.autocast, enabled=enabled, cache_enabled=False))
        if execution.deterministic:
            stack.callback(torch.use_deterministic_algorithms, deterministic, warn_only=warn_only)
            torch.use_deterministic_algorithms(True)
        yield


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers that a forward writes into (counters, caches) get their values back."""
    before = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers() if not buffer.is_inference()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, version, values in before:
                if buffer._version != version:
                    buffer.copy_(values)


def _shadow(model: nn.Module) -> nn.Module | None:
    print_ = _fingerprint(model)
    known = _shadows.known.get(model)
    if known is not None and known[0] == print_ and _same_attributes(model, known[1]):
        return known[1]
    if any("forward" in vars(module) for module in model.modules()):
        return None
    shared: list[Tensor] = [*model.parameters(), *model.buffers()]
    try:
        shadow = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    except Exception:  # whatever a part of the model raises, it cannot be copied
        return None
    shadow.eval()
    _shadows.known[model] = (print_, shadow)
    return shadow


def _fingerprint(model: nn.Module) -> object:
    """Changes whenever the shadow would no longer be a copy: structure, tensors, hooks."""
    return tuple(
        (
            name,
            id(module),
            tuple(map(id, module._parameters.values())),
            tuple(map(id, module._buffers.values())),
            tuple(module._forward_hooks),  # the handles' numbers, which are never used twice
            tuple(module._forward_pre_hooks),
        )
        for name, module in model.named_modules(remove_duplicate=False)
    )


_REGISTRIES = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}


def _same_attributes(model: nn.Module, shadow: nn.Module) -> bool:
    """Whether all plain attributes of the copy still are those of the model; a doubt counts as a change."""
    for mine, theirs in zip(model.modules(), shadow.modules(), strict=True):
        a, b = (
            {name: value for name, value in vars(module).items() if name not in _REGISTRIES}
            for module in (mine, theirs)
        )
        if not _same(a, b):
            return False
    return True


def _same(a: object, b: object) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, partial) and isinstance(b, partial):
        return a.func is b.func and _same(a.args, b.args) and _same(a.keywords, b.keywords)
    return isinstance(a, bool | int | float | str | bytes) and a == b
