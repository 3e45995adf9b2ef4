"""A model to work on that is not the user's: same parameters, own hooks, flags and mode."""

import copy
import sys
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from attribution.errors import ModelError
from attribution.inputs.inputs import Inputs
from attribution.isolation import notes, proof
from attribution.isolation.known import Block
from attribution.isolation.known import known as _known
from attribution.isolation.reach import Reach, says_itself
from attribution.isolation.restore import Whole, flags_of, keep_values, name_backward_hooks, run_itself, turn
from attribution.isolation.structural_copy import Shadow, entangled, own_modes
from attribution.isolation.torch_modes import devices_of, note_random
from attribution.isolation.undo import Undo, undoing
from attribution.isolation.unsupported import explained, refuse, scripted
from attribution.running.execution import lost

_PARALLEL = (nn.parallel.DistributedDataParallel, nn.DataParallel)

Example = Callable[[nn.Module], Inputs]
"""The first example of a call, given a model to make it for."""


def unwrap(model: nn.Module) -> nn.Module:
    """The eager module inside ``torch.compile``, ``DistributedDataParallel`` and ``DataParallel``."""
    while True:
        modules = vars(model).get("_modules")
        modules = modules if isinstance(modules, dict) else {}
        if isinstance(inner := modules.get("_orig_mod"), nn.Module):
            model = inner
        elif "module" in modules and isinstance(model, _PARALLEL):  # an abstract class, which asks around
            model = model.module
        else:
            return model


def admit(model: nn.Module) -> None:
    """Refuse what has no values. Nothing is looked at twice: a shadow tells when a model changed.

    Raises:
        ModelError: The model was never run and has lazy parameters, or it lies on the meta device.
    """
    if model not in _known.shadows and (inner := unwrap(model)) not in _known.shadows:
        refuse(inner)


def isolate(
    undo: Undo, model: nn.Module, example: Example | None = None, known: Shadow | None = None
) -> tuple[nn.Module, str]:
    """The model to run until ``undo`` runs, in eval mode, and how it was had: see `isolated`.

    Args:
        undo: Of the run. Torch's inference mode is off by now.
        model: The user's.
        example: Asked where a copy must be proved first: once per copy.
        known: What `current` has found of the model just now.

    Raises:
        ModelError: See `admit`.
    """
    inner = unwrap(model)
    wrapper = "" if inner is model else f", unwrapped from {type(model).__name__}"
    shadow = _shadow(inner, known)
    if shadow is None or shadow.own_modes:
        own = _own_copy(inner, example)
        if own is not None:
            name_backward_hooks(own.modules())
            notes.begin(own)
            return own, f"copy{wrapper}"
    if shadow is not None and (shadow.proved or _proved(inner, shadow, example)):
        _hold(undo, shadow)
        anew = "" if shadow.reusable or not shadow.hooked else ", made anew: hooks hold what cannot be compared"
        return shadow.model, f"shadow{wrapper}{anew}"
    turn.take(undo)
    run_itself(undo, inner, _beside(inner))
    whole = Whole(inner) if scripted(inner) else inner
    notes.begin(whole)
    return whole, f"guarded{wrapper}"


@contextmanager
def isolated(model: nn.Module, example: Example | None = None) -> Iterator[tuple[nn.Module, str]]:
    """The model to run, in eval mode, and how it was had: ``"shadow"``, ``"copy"`` or ``"guarded"``, of which wrapper.

    A shadow is a structural copy that shares every parameter: no memory for weights, and nothing done to its
    hooks, flags or buffers reaches the user's model. It is used once it was found to say of an example what the model
    itself says. A model in train mode whose own ``train`` or ``eval`` does more than set flags (merge weights, fill a
    cache) is copied whole, with its weights, for that call. A model that cannot be copied (it holds a lock, its
    ``forward`` was replaced by a closure, a function of it uses its modules), or whose copy says something else, is
    run itself under a lock, its mode, attributes, hooks and buffers restored on every exit. TorchScript is run as one
    layer, since nothing in it takes a hook.

    Args:
        model: The user's.
        example: The first image; without one nothing is proved.

    Raises:
        ModelError: See `admit`; or what was asked cannot be had of such a model: the text says why.
    """
    with undoing() as undo, explained(unwrap(model)):
        with torch.inference_mode(False):
            found = isolate(undo, model, example, current(unwrap(model)))
        yield found


@contextmanager
def prepared(model: nn.Module) -> Iterator[None]:
    """Spare the comparison of a model with its copy, which each call makes, in a loop over many small batches.

    Inside the block, in this thread, values of parameters and buffers may change. Modules, hooks, attributes and
    tensors may not be replaced; leaving the block compares once. Nothing is locked, switched or held between calls. A
    question that is asked again does not look again at what no value decides, such as the form of its inputs.

    Args:
        model: As it is given to `explain` inside.

    Raises:
        ModelError: When the block is left: the model changed in another way, or its own forward changes attributes.
            Answers of the block may be of the model as it was before.
    """
    admit(model)
    inner = unwrap(model)
    shadow = _shadow(inner, current(inner))
    block = _known.prepared.setdefault(inner, Block())
    block.depth += 1
    try:
        yield
    finally:
        block.depth -= 1
        if not block.depth:
            del _known.prepared[inner]
    if shadow is not None and shadow.reusable and not shadow.fits(inner):
        _known.shadows.pop(inner, None)
        raise ModelError(
            "modules, hooks, attributes or tensors of the model were replaced inside attribution.prepared(model), by "
            "the caller or by its own forward; answers of the block may be of the model as it was. Leave prepared out"
        )


def settled(model: nn.Module) -> dict[Hashable, Any] | None:
    """What the calls inside of `prepared` have settled of an eager model, by question; ``None`` outside."""
    block = _known.prepared.get(model)
    return None if block is None else block.settled


def hold_again(undo: Undo, model: nn.Module, shadow: Shadow) -> bool:
    """Take a copy that an earlier call inside of `prepared` had, as `isolate` would; whether it can be had still."""
    if shadow.busy or _known.shadows.get(model) is not shadow:
        return False
    shadow.twins.refresh()
    _hold(undo, shadow)
    return True


def current(model: nn.Module) -> Shadow | None:
    """The copy of an eager model that still is one, if there is any. The model is neither run nor changed."""
    known = _known.shadows.get(model)
    if known is None or known.busy:
        return None
    return known if model in _known.prepared or known.fits(model) or known.reset().fits(model) else None


def _shadow(model: nn.Module, known: Shadow | None) -> Shadow | None:
    if known is not None:
        known.twins.refresh()
        return known
    _known.shadows.pop(model, None)
    refuse(model)
    if model in _known.apart or scripted(model) or any("forward" in vars(module) for module in model.modules()):
        return None
    try:
        with turn.lock:  # another thread may be proving its copy of this model meanwhile
            # a part may be made anew for its copy, and draw its weights
            restart = note_random(Undo(), devices_of(model))
            try:
                shadow = Shadow(model)
            finally:
                restart()
    except (TypeError, ValueError):  # it holds what has no copy, or its code does
        _set_apart(model)
        return None
    except Exception as error:  # whatever a part of the model raises, it cannot be copied now
        if lost(error):
            raise
        return None
    if shadow.reusable:
        _known.shadows[model] = shadow
    return shadow


def _proved(model: nn.Module, shadow: Shadow, example: Example | None) -> bool:
    """Whether a copy may stand in for the model. One in train mode is not run for it, unless its copy is in doubt."""
    if example is None or not (shadow.doubtful or not _training(model)):
        return True
    held = shadow.held_by_hooks(model)
    found = proof.same(model, shadow.model, _beside(model), example(shadow.model), held)
    shadow.proved = found is True
    shadow.restart()
    if found is False:
        _known.shadows.pop(model, None)
        _set_apart(model)
    return found is not False


def _hold(undo: Undo, shadow: Shadow) -> None:
    """A copy that saw an interrupt may hold anything, half-set hooks too, and serves no more.

    A forward that freezes parameters freezes those that the copy shares with the user's model, so that flags are given
    back.
    """
    restore = flags_of(shadow.parameters)

    def free() -> None:
        restore()
        if shadow.hooked:  # what hooks have kept of this run is not held until the next
            shadow.reset()
        error = sys.exc_info()[1]
        shadow.busy = error is not None and not isinstance(error, Exception)

    undo.add(free)
    shadow.busy = True
    if shadow.shared:
        keep_values(undo, shadow.shared)


def _training(model: nn.Module) -> bool:
    return any(getattr(module, "training", False) for module in model.modules())


def _own_copy(model: nn.Module, example: Example | None) -> nn.Module | None:
    """A copy with its own weights, put into eval mode by the model's own code, where that does more than set flags."""
    if model in _known.apart or scripted(model):
        return None
    if not any(own_modes(module) for module in model.modules() if getattr(module, "training", False)):
        return None
    mine, memo = list(model.modules()), dict[int, Any]()
    try:
        restart = note_random(Undo(), devices_of(model))
        try:
            own = copy.deepcopy(model, memo)
        finally:
            restart()
    except Exception as error:  # it cannot be copied: the flags alone
        if lost(error):
            raise
        return None
    reach = Reach(own, mine)
    if entangled(reach, mine, {*map(id, own.modules()), *map(id, memo.values())}, map(id, model.buffers())):
        return None
    doubtful = reach.doubtful or any(says_itself(type(module)) for module in mine)
    if example is not None and doubtful and proof.same(model, own, _beside(model), example(own)) is False:
        _set_apart(model)
        return None
    try:
        return own.eval()
    except Exception:  # it refuses: the flags alone
        return None


def _set_apart(model: nn.Module) -> None:
    _known.apart[model] = [weakref.ref(module) for module in _unregistered(model)]


def _beside(model: nn.Module) -> list[nn.Module]:
    """The modules that a model runs without having registered them."""
    known = _known.apart.get(model)
    if known is None:
        return _unregistered(model)
    return [module for module in (reference() for reference in known) if module is not None]


def _unregistered(model: nn.Module) -> list[nn.Module]:
    own = {*map(id, model.modules())}
    return [module for module in Reach(model).modules if id(module) not in own]
