"""A model to work on that is not the user's: same parameters, own hooks, flags and mode."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from attribution.errors import LayerError, ModelError
from attribution.execution import Execution
from attribution.shadow import Shadow, to_eval


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
    """Refuse what has no values. Nothing is looked at twice: a shadow tells when a model changed.

    Raises:
        ModelError: The model was never run and has lazy parameters, or it lies on the meta device.
    """
    model = unwrap(model)
    if model in _shadows.known:
        return
    _refuse_lazy(model)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ModelError(
            "model has parameters on the meta device, which have no values; build it on a real device, or use "
            "model.to_empty(device='cpu') and load its weights"
        )


@contextmanager
def isolated(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The model to run, in eval mode, and how it was had: ``"shadow"`` or ``"guarded"``, and out of which wrapper.

    A shadow is a structural copy that shares every parameter: no memory for weights, and nothing done to its
    hooks, flags or buffers reaches the user's model. A model that cannot be copied so (it holds a lock, or its
    ``forward`` was replaced by a closure) is run itself under a lock, its mode, attributes and buffers restored on
    every exit. TorchScript is run as one layer, since nothing in it takes a hook.

    Raises:
        ModelError: See `admit`; or what was asked cannot be had of such a model: the text says why.
    """
    inner = unwrap(model)
    wrapper = "" if inner is model else f", unwrapped from {type(model).__name__}"
    with _explained(inner):
        shadow = _shadow(inner)
        if shadow is not None:
            with _kept(shadow.shared):
                yield shadow.model, f"shadow{wrapper}"
            return
        with _locks_guard:
            lock = _locks.setdefault(inner, threading.RLock())
        with lock, _restored(inner), _kept(inner.buffers()):
            yield (_Whole(inner) if _scripted(inner) else inner), f"guarded{wrapper}"


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


class _Whole(nn.Module):
    """A model as one layer: it runs, and its parameters are known, but nothing in it can be named or hooked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._parameters.update(model.named_parameters())
        self._buffers.update(model.named_buffers())
        vars(self)["_inner"] = model  # no child

    def forward(self, x: Tensor) -> object:
        return vars(self)["_inner"](x)

    def __deepcopy__(self, memo: object) -> "_Whole":
        raise TypeError("TorchScript has no modules to take apart")


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """The model itself in eval mode, what was compiled in it eager; its modules' attributes are given back."""
    modules = list(model.modules())
    training = [(module, module.training) for module in modules if hasattr(module, "training")]  # frozen TorchScript
    held = [vars(module) for module in modules]
    held += [row for own in held for name in ("_parameters", "_buffers") if isinstance(row := own.get(name), dict)]
    before = [dict(row) for row in held]
    try:
        to_eval(modules)
        for module in modules:
            if isinstance(children := vars(module).get("_modules"), dict) and "_orig_mod" in children:
                vars(module)["forward"] = children["_orig_mod"]  # hooks on compiled code may never fire
        yield
    finally:
        for module, mode in training:
            module.training = mode
        for row, items in zip(held, before, strict=True):
            for name in [name for name in row if name not in items]:
                del row[name]
            for name, value in items.items():
                if name not in row or row[name] is not value:
                    row[name] = value


@contextmanager
def _explained(model: nn.Module) -> Iterator[None]:
    """Why a model of a special kind cannot give what was asked, in place of what that led to."""
    try:
        yield
    except (LayerError, RuntimeError, AssertionError) as error:
        reason = _reason(model, error)
        if reason is None:
            raise
        raise ModelError(reason) from error


_FAILURES = {
    "use_reentrant": "the model uses torch.utils.checkpoint with use_reentrant=True, through which torch takes no "
    "gradient of a layer or an image; give the checkpoint use_reentrant=False",
    "Inference tensors": "the model has weights that were made under torch.inference_mode, which take part in no "
    "gradient; build or load it outside of inference_mode, or give copy.deepcopy(model)",
    "modified by an inplace operation": "the model cannot be differentiated: an in-place operation overwrites what its "
    "gradient needs; make that operation out of place",
    "Guard failed": "the exported model takes other shapes only where its export declared them dynamic; export it with "
    "a dynamic batch, e.g. dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)",
}
"""What torch says → what it means for the user."""

_NO_GRADIENT = ("gradient is cut", "cuts the gradient", "can require gradients", "not require grad", "derivative")


def _reason(model: nn.Module, error: Exception) -> str | None:
    hookless, text = _hookless(model), str(error)
    if hookless and isinstance(error, LayerError):
        return (
            f"model is {hookless}, whose layers take no hooks; give the eager module it was made from, or use Occlusion"
        )
    for module in model.modules():
        name = f"{type(module).__module__}.{type(module).__name__}"
        if ".quantized" not in name:
            continue
        if any(words in text for words in _NO_GRADIENT):
            return f"model is quantised: no gradient passes {name}; give the float model, or use Occlusion"
        if "Quantized" in text:
            return f"model is quantised: a layer of it gives integers ({name}); name a layer that gives floats"
    return next((reason for words, reason in _FAILURES.items() if words in text), None)


def _hookless(model: nn.Module) -> str | None:
    """What a model is called whose layers are no modules that run."""
    if _scripted(model):
        return "TorchScript"
    if isinstance(model, fx.GraphModule):
        calls = [str(node.target) for node in model.graph.nodes if node.op == "call_module"]
        return None if any(not name.startswith("_") for name in calls) else "an exported graph"
    return None


def _scripted(model: nn.Module) -> bool:
    return any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())


def _refuse_lazy(model: nn.Module) -> None:
    lazy = (UninitializedParameter, UninitializedBuffer)
    if any(isinstance(tensor, lazy) for tensor in (*model.parameters(), *model.buffers())):
        raise ModelError("model has lazy parameters without values yet; run it once before it is explained")


def _shadow(model: nn.Module) -> Shadow | None:
    known = _shadows.known.get(model)
    if known is not None and known.fits(model):
        known.refresh()
        return known
    _shadows.known.pop(model, None)
    _refuse_lazy(model)
    if _scripted(model) or any("forward" in vars(module) for module in model.modules()):
        return None
    try:
        shadow = Shadow(model)
    except Exception:  # whatever a part of the model raises, it cannot be copied
        return None
    if shadow.reusable:
        _shadows.known[model] = shadow
    return shadow
