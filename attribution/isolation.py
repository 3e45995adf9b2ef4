"""A model to work on that is not the user's: same parameters, own hooks, flags and mode."""

import copy
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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
        if isinstance(inner := vars(model).get("_modules", {}).get("_orig_mod"), nn.Module):
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
        yield shadow, "shadow"
        return
    with _locks_guard:
        lock = _locks.setdefault(model, threading.RLock())
    with lock:
        training = {module: module.training for module in model.modules()}
        try:
            model.eval()
            yield model, "guarded"
        finally:
            for module, mode in training.items():
                module.training = mode


@contextmanager
def modes(execution: Execution, device: torch.device) -> Iterator[None]:
    """Torch's modes as a run needs them, whatever the caller set: gradients on, autocast as asked, restored after."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        enabled = execution.autocast is not None
        stack.enter_context(torch.autocast(device.type, dtype=execution.autocast, enabled=enabled, cache_enabled=False))
        if execution.deterministic:
            stack.callback(torch.use_deterministic_algorithms, deterministic, warn_only=warn_only)
            torch.use_deterministic_algorithms(True)
        yield


def _shadow(model: nn.Module) -> nn.Module | None:
    print_ = _fingerprint(model)
    known = _shadows.known.get(model)
    if known is not None and known[0] == print_:
        return known[1]
    if any("forward" in vars(module) for module in model.modules()):
        return None
    shared: list[Tensor] = [*model.parameters(), *model.buffers()]
    try:
        shadow = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    except (TypeError, RuntimeError, NotImplementedError, AttributeError):
        return None
    shadow.eval()
    _shadows.known[model] = (print_, shadow)
    return shadow


def _fingerprint(model: nn.Module) -> object:
    """Changes whenever the shadow would no longer be a copy: structure, tensors, hooks, plain attributes."""
    return tuple(
        (
            name,
            id(module),
            tuple(map(id, module._parameters.values())),
            tuple(map(id, module._buffers.values())),
            tuple(map(id, module._forward_hooks.values())),
            tuple(map(id, module._forward_pre_hooks.values())),
            tuple(
                (key, id(value)) for key, value in vars(module).items() if not key.startswith("_") and key != "training"
            ),
        )
        for name, module in model.named_modules(remove_duplicate=False)
    )
