"""What Captum's rules for ReLUs see of a model, and what they would pass over in silence."""

import inspect
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType, SimpleNamespace
from typing import Any

import captum.attr
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from attribution.attributor import Run
from attribution.errors import ModelError
from attribution.running.execution import in_backward
from attribution_captum.layer import typed

_RULED = captum.attr.GuidedBackprop.__mro__[1]
"""Captum's class for both rules."""


class _Operations(TorchDispatchMode):
    """Notices operations of rectifiers outside of ``nn.ReLU``, whoever asks for them."""

    def __init__(self, inside: list[Any]) -> None:
        super().__init__()
        self._inside = inside
        self.outside: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.removesuffix("_")
        if name == "relu" and not self._inside:
            self.outside.append("ReLU")
        if name == "hardtanh" and (args[1:2] or (-1,))[0] == 0:
            self.outside.append("ReLU6")
        return func(*args, **(kwargs or {}))


class _Whole(nn.Module):
    """A score as a module, through whose children Captum looks for ReLUs."""

    def __init__(self, model: nn.Module, score: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self._score = model, score

    def clear(self) -> None:
        """Let go of the model: Captum's hooks lead here from the graph, which the model may hold, a circle unseen."""
        self._modules.clear()
        vars(self).pop("_score", None)

    def forward(self, *given: Tensor) -> Tensor:
        """(N,)."""
        return self._score(*given)


@contextmanager
def watched(run: Run[Any], score: Callable[..., Tensor]) -> Iterator[nn.Module]:
    """A score as a module for Captum, which sees its ``nn.ReLU`` only; no hook outlives the block.

    Captum rectifies the gradient of a ReLU's input, also what comes from others that read it; it looks the gradient of
    the output up by device, where another call of the same module may have put its own; and it shows a ReLU in place a
    copy. So each is given a copy of its own before, and what it made of that is written where it would have been.

    Raises:
        ModelError: In the forward: a rectifier is no ``nn.ReLU``. At the end: no ReLU lies on the way back.
    """
    given: list[Tensor] = []
    hooks: list[Any] = []
    met, owner, armed = 0, threading.get_ident(), True

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not armed or threading.get_ident() != owner or not args:
            return None
        given.append(args[0])
        own = args[0].clone() if args[0].requires_grad else args[0].clone().requires_grad_()
        if own.requires_grad:
            own.register_hook(meet)
            hooks.append(own._backward_hooks)
        return (own, *args[1:])

    def after(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if not armed or threading.get_ident() != owner or not args:
            return None
        first = given.pop()
        return first.copy_(output) if module.inplace else None

    def meet(gradient: Tensor) -> None:
        nonlocal met
        met += 1

    def seen(*tensors: Tensor) -> Tensor:
        with _Operations(given) as ran:
            found = score(*tensors)
        outside = ran.outside + _scripted(run.model)
        if outside:
            raise ModelError(
                f"Captum sees nn.ReLU modules only, and {outside[0]} ran that is none; use backend='hooks'"
            )
        return found

    handles, whole = [], _Whole(run.model, seen)
    try:
        for module in run.model.modules():
            if isinstance(module, nn.ReLU):
                handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        with typed(), _hookable():
            yield whole
        if not met:
            raise ModelError(
                f"{type(run.technique).__name__} changes the backward of ReLUs, and none lies between the inputs and "
                "the score: its map would be the plain gradient; use Saliency or SmoothGrad"
            )
    finally:
        armed = False
        for handle in handles:
            handle.remove()
        whole.clear()
        for each in hooks:  # Captum's lead to the model; see `clear`
            each.clear()


@contextmanager
def _hookable() -> Iterator[None]:
    """What is said where a ReLU has no gradient, in our words.

    Raises:
        ModelError: The model switched gradients off, or something on the way gives none.
    """
    try:
        yield
    except RuntimeError as error:
        if "cannot register a hook" in str(error):
            found = "a ReLU ran where gradients are off, and Captum cannot hook it there"
            raise ModelError(f"{found}; use backend='hooks'") from error
        raise
    except AttributeError as error:  # its hook reads the device of a gradient that is none
        if in_backward(error) and "'NoneType' object has no attribute 'device'" in str(error):
            raise ModelError("no gradient of the score reaches a ReLU; look for what has none in the model") from error
        raise


def _scripted(model: nn.Module) -> list[str]:
    """ReLUs in scripts, which are no modules of Python's, and which torch may fuse so that no operation is theirs."""
    scripts = (module for module in model.modules() if isinstance(module, torch.jit.ScriptModule))
    return ["a scripted ReLU" for each in scripts if re.search(r"aten::(relu|hardtanh)", str(each.inlined_graph))]


@cache
def quiet(method: type[Any]) -> type[Any]:
    """One of Captum's classes without its announcement that hooks are set; warning filters are the whole process's.

    Its ``attribute`` is Captum's own, of the same code, with a ``warnings`` of its own to speak to.
    """
    function = inspect.unwrap(_RULED.attribute)
    silent = {**function.__globals__, "warnings": SimpleNamespace(warn=lambda *_, **__: None)}
    attribute = FunctionType(function.__code__, silent, function.__name__, function.__defaults__, function.__closure__)
    attribute.__wrapped__ = attribute  # type: ignore[attr-defined]  # through which Captum calls itself
    between = type(_RULED.__name__, (_RULED,), {"attribute": attribute})
    return type(method.__name__, (method, between), {})
