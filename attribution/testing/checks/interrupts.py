"""Ctrl-C at any line of a call, in the attributor, in the core and in torch."""

import random
import threading
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from attribution.result import Attribution
from attribution.testing.checks.check import Template, check, require
from attribution.testing.checks.subject import IMAGES, Subject
from attribution.testing.footprint.interruption import Place, interrupted, places
from attribution.testing.footprint.snapshot import Snapshot
from attribution.testing.models.small import small_residual

_INTERRUPTS = 12
"""Per model."""


def faults(subject: Subject, *, count: int, seed: int = 0) -> Iterator[str]:
    """Interrupt calls at ``count`` places of each model, half in the attributor's module; what is wrong after, if so.

    The first fault of a model ends with it.
    """
    for name, model in (("a model", subject.on(small_residual())), ("a model that cannot be copied", _locked(subject))):
        inputs = subject.noise().requires_grad_()
        ask = partial(subject.put, subject.attributor(model), inputs, [[1, 3]] * IMAGES)
        ask()  # what is imported on first use, and found out once
        for place, number in _drawn(places(ask), subject.cls.__module__, count, random.Random(seed)):
            with torch.set_grad_enabled(torch.is_grad_enabled()):  # a fault ends with the check
                fault = _fault(subject, ask, model, inputs, partial(interrupted, ask, place, number))
            if fault:
                yield f"{name}, interrupted at {place}: {fault}"
                break


def _fault(
    subject: Subject, ask: Callable[[], Attribution], model: nn.Module, inputs: Tensor, stopped: Callable[[], bool]
) -> str:
    try:
        logits, answer, before = _run(model, inputs), ask(), Snapshot(model, inputs)
        stopped()
        if changes := before.changes():
            return str(changes[0])
        if not torch.equal(_run(model, inputs), logits):
            return "other logits after"
        return subject.difference(answer, ask())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what stops a forward early may be no Exception
        return f"{type(error).__name__} after: {error}"


@torch.no_grad()
def _run(model: nn.Module, inputs: Tensor) -> Tensor:
    logits: Tensor = model(inputs.detach().clone())
    return logits


def _drawn(passed: dict[Place, int], own: str, count: int, draw: random.Random) -> list[tuple[Place, int]]:
    """Half of the places in the attributor's module, half elsewhere; each at one of the times that it is passed."""
    mine = [place for place in passed if place.module == own]
    others = [place for place in passed if place.module != own]
    chosen = draw.sample(mine, min(count // 2, len(mine)))
    chosen += draw.sample(others, min(count - len(chosen), len(others)))
    return [(place, draw.randint(1, passed[place])) for place in chosen]


def _locked(subject: Subject) -> nn.Module:
    """Nothing of it can be copied; its parts are in both modes."""
    model = subject.on(small_residual()).train()
    model.lock = threading.Lock()  # type: ignore[assignment]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


@check("Untouched model")
def check_an_interrupt_anywhere_leaves_no_trace(subject: Subject) -> None:
    """The thirteen fields are as found, the model runs as before, and the next answer is the same."""
    wrong = next(faults(subject, count=_INTERRUPTS), "")
    require(not wrong, wrong, "everything as before the call")


CHECKS: tuple[Template, ...] = (check_an_interrupt_anywhere_leaves_no_trace,)
