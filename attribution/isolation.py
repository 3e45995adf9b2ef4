"""A model to work on that is not the user's: same parameters, own hooks, flags and mode."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from attribution.errors import ModelError
from attribution.execution import Execution
from attribution.shadow import Shadow


@dataclass
class _Shadows(threading.local):
    """One shadow per model and thread, so that one thread's hooks never see another's forward."""

    known: WeakKeyDictionary[nn.Module, Shadow] = field(default_factory=WeakKeyDictionary)


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


def admit(model: nn.Module) -> None:
    """Refuse what takes no hooks or has no values. Nothing is looked at twice: a shadow tells when a model changed.

    Raises:
        ModelError: The model holds TorchScript, or was never run and has lazy parameters.
    """
    if unwrap(model) in _shadows.known:
        return
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ModelError("model is TorchScript, which takes no hooks; give the eager module it was made from")
    lazy = (UninitializedParameter, UninitializedBuffer)
    if any(isinstance(tensor, lazy) for tensor in (*model.parameters(), *model.buffers())):
        raise ModelError("model has lazy parameters without values yet; run it once before it is explained")


@contextmanager
def isolated(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The model to run, in eval mode, and how it was had: ``"shadow"`` or ``"guarded"``.

    A shadow is a structural copy that shares every parameter: no memory for weights, and nothing done to its
    hooks, flags or buffers reaches the user's model. A model that cannot be copied so (it holds a lock, or its
    ``forward`` was replaced by a closure) is run itself under a lock, its mode and buffers restored on every exit.

    Raises:
        ModelError: See `admit`.
    """
    model = unwrap(model)
    shadow = _shadow(model)
    if shadow is not None:
        with _kept(shadow.shared):
            yield shadow.model, "shadow"
        return
    with _locks_guard:
        lock = _locks.setdefault(model, threading.RLock())
    with lock:
        training = {module: module.training for module in model.modules()}
        try:
            model.eval()
            with _kept(model.buffers()):
                yield model, "guarded"
        finally:
            for module, mode in training.items():
                module.training = mode


def alone(tensor: Tensor) -> bool:
    """Whether a tensor is the only one on its memory, and fills it: nobody else can read or write its values."""
    storage = tensor.untyped_storage() if tensor.layout == torch.strided else None
    return (
        storage is not None
        and storage.nbytes() == tensor.nbytes
        and torch._C._storage_Use_Count(storage._cdata) <= 2  # the tensor, and ``storage``
    )


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
def _kept(buffers: Iterable[Tensor]) -> Iterator[None]:
    """Buffers that a forward writes into (counters, caches) get their values back."""
    before = [(buffer, buffer._version, buffer.clone()) for buffer in buffers if not buffer.is_inference()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, version, values in before:
                if buffer._version != version:
                    buffer.copy_(values)


def _shadow(model: nn.Module) -> Shadow | None:
    known = _shadows.known.get(model)
    if known is not None and known.fits(model):
        known.refresh()
        return known
    _shadows.known.pop(model, None)
    admit(model)
    if any("forward" in vars(module) for module in model.modules()):
        return None
    try:
        shadow = Shadow(model)
    except Exception:  # whatever a part of the model raises, it cannot be copied
        return None
    if shadow.reusable:
        _shadows.known[model] = shadow
    return shadow
