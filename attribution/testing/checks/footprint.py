"""Every way out leaves the thirteen fields as found, in eval and in train mode, for every awkward model."""

import copy
import pickle
import warnings
from contextlib import suppress
from functools import partial

import torch
from torch import nn

from attribution.testing.checks.check import Template, check, require
from attribution.testing.checks.subject import Subject
from attribution.testing.footprint.guard import guard
from attribution.testing.models.awkward import AWKWARD, Planned, Watch, awkward
from attribution.testing.models.small import small_residual

_EXITS = ("normal", "raise_in_forward", "raise_in_backward", "keyboard_interrupt")
_CALLS = 3


def _leaves_no_trace(subject: Subject, *, way_out: str, mode: str) -> None:
    with warnings.catch_warnings(), suppress(Exception):  # modules imported on first use may set filters
        subject.ask(subject.on(awkward("in-place ReLU")))
    for habit in AWKWARD:
        watch = Watch()
        model = _prepared(subject, habit, watch, mode)
        inputs = subject.noise().requires_grad_()
        inputs.grad = torch.ones_like(inputs)
        attributor = subject.attributor(model)
        _plan(watch, way_out)
        arrived: BaseException | None = None
        with guard(model, inputs):
            try:
                for _ in range(1 if way_out == "normal" else _CALLS):
                    subject.put(attributor, inputs)
                if way_out == "raise_in_backward" and not watch.raised:  # a technique without a backward pass
                    watch.plan(Planned("in a later forward"), after=1)
                    subject.put(attributor, inputs)
                    subject.put(attributor, inputs)
            except (Planned, KeyboardInterrupt) as error:
                arrived = error
            except Exception as error:
                arrived = error
                _own(error, habit)
        require(watch.raised == (arrived is not None), f"{habit}: {way_out}: the exception swallowed", "it arrives")
        if watch.raised:
            watch.plan(None)
            with guard(model, inputs):
                subject.put(attributor, inputs)


def _plan(watch: Watch, way_out: str) -> None:
    if way_out == "raise_in_forward":
        watch.plan(Planned("in the forward"), after=1)
    elif way_out == "raise_in_backward":
        watch.plan(Planned("in the backward"), backward=True)
    elif way_out == "keyboard_interrupt":
        watch.plan(KeyboardInterrupt())


def _prepared(subject: Subject, habit: str, watch: Watch, mode: str) -> nn.Module:
    """One part is in the other mode, one is frozen, and half of the parameters have a ``.grad``."""
    model = subject.on(awkward(habit, watch=watch)).train(mode == "train")
    model.get_submodule("norm").train(mode != "train")
    next(model.get_submodule("head").parameters()).requires_grad_(False)
    for parameter in list(model.parameters())[::2]:
        parameter.grad = torch.ones_like(parameter)
    return model


def _own(error: BaseException, habit: str) -> None:
    """The planned exception is what arrived, or its cause."""
    chain: BaseException | None = error
    while chain is not None and not isinstance(chain, Planned | KeyboardInterrupt):
        chain = chain.__cause__ or chain.__context__
    require(chain is not None, f"{habit}: {type(error).__name__}: {error}", "the model's own exception, or no error")


@check("Untouched model")
def check_the_model_works_as_before(subject: Subject) -> None:
    """Its outputs, a copy, a pickle and a training step are the same after."""
    model, twin, inputs = subject.on(small_residual()), subject.on(small_residual()), subject.noise()
    subject.ask(model, inputs)
    copy.deepcopy(model)
    pickle.loads(pickle.dumps(model.state_dict()))
    pickle.dumps(copy.deepcopy(model.get_submodule("stem")))
    with torch.no_grad():
        require(torch.equal(model(inputs), twin(inputs)), "other logits after the call", "the same bits")
    losses = []
    for net in (model.train(), twin.train()):
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            loss = net(inputs).square().mean()
            loss.backward()
            optimiser.step()
        losses.append(loss.item())
    require(losses[0] == losses[1], f"a loss of {losses[0]} in training after", f"{losses[1]}")


CHECKS: tuple[Template, ...] = (
    *(
        Template(
            f"leaves_no_trace[{way_out}-{mode}]",
            "Untouched model",
            partial(_leaves_no_trace, way_out=way_out, mode=mode),
            lambda subject: True,
        )
        for way_out in _EXITS
        for mode in ("eval", "train")
    ),
    check_the_model_works_as_before,
)
