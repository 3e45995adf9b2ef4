"""A model to work on that is not the user's: same parameters, own hooks, flags and mode."""

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attribution.guarded import Whole, kept, restored
from attribution.kinds import explained, refuse, scripted
from attribution.layers.survey import forget
from attribution.shadow import Shadow, closed_over, own_modes


@dataclass
class _Shadows(threading.local):
    """One shadow per model and thread, so that one thread's hooks never see another's forward."""

    known: WeakKeyDictionary[nn.Module, Shadow] = field(default_factory=WeakKeyDictionary)


_shadows = _Shadows()
_guarded = threading.RLock()  # one for all models: two may share modules


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
    refuse(model)


@contextmanager
def isolated(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The model to run, in eval mode, and how it was had: ``"shadow"``, ``"copy"`` or ``"guarded"``, of which wrapper.

    A shadow is a structural copy that shares every parameter: no memory for weights, and nothing done to its
    hooks, flags or buffers reaches the user's model. A model in train mode whose own ``train`` or ``eval`` does more
    than set flags (merge weights, fill a cache) is copied whole, with its weights, for that call. A model that cannot
    be copied (it holds a lock, or its ``forward`` was replaced by a closure) is run itself under a lock, its mode,
    attributes and buffers restored on every exit. TorchScript is run as one layer, since nothing in it takes a hook.

    Raises:
        ModelError: See `admit`; or what was asked cannot be had of such a model: the text says why.
    """
    inner = unwrap(model)
    wrapper = "" if inner is model else f", unwrapped from {type(model).__name__}"
    with explained(inner):
        shadow = _shadow(inner)
        own = _own_copy(inner) if shadow is None or shadow.own_modes else None
        if own is not None:
            yield own, f"copy{wrapper}"
        elif shadow is not None:
            with kept(shadow.shared):
                yield shadow.model, f"shadow{wrapper}"
        else:
            with _guarded, restored(inner), kept(inner.buffers()):
                forget(inner)
                yield (Whole(inner) if scripted(inner) else inner), f"guarded{wrapper}"
                forget(inner)


def alone(tensor: Tensor) -> bool:
    """Whether a tensor is the only one on its memory, and fills it: nobody else can read or write its values."""
    storage = tensor.untyped_storage() if tensor.layout == torch.strided else None
    return (
        storage is not None
        and storage.nbytes() == tensor.nbytes
        and torch._C._storage_Use_Count(storage._cdata) <= 2  # the tensor, and ``storage``
    )


def _shadow(model: nn.Module) -> Shadow | None:
    known = _shadows.known.get(model)
    if known is not None and known.fits(model):
        known.refresh()
        return known
    _shadows.known.pop(model, None)
    refuse(model)
    if scripted(model) or any("forward" in vars(module) for module in model.modules()) or closed_over(model):
        return None
    try:
        shadow = Shadow(model)
    except Exception:  # whatever a part of the model raises, it cannot be copied
        return None
    if shadow.reusable:
        _shadows.known[model] = shadow
    return shadow


def _own_copy(model: nn.Module) -> nn.Module | None:
    """A copy with its own weights, put into eval mode by the model's own code, where that does more than set flags."""
    telling = (module for module in model.modules() if getattr(module, "training", False))
    if scripted(model) or not any(map(own_modes, telling)):
        return None
    try:
        with torch.inference_mode(False):
            return copy.deepcopy(model).eval()
    except Exception:  # it cannot be copied, or refuses: the flags alone
        return None
