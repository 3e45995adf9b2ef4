"""What is run is the user's model or does what it does; and nothing of it stays after the call."""

import gc
import weakref
from contextlib import suppress

from torch import Tensor, nn

from attribution.errors import AttributionError
from attribution.result import Attribution
from attribution.testing.checks.check import Template, check, require
from attribution.testing.checks.subject import IMAGES, Subject
from attribution.testing.footprint.guard import guard
from attribution.testing.models.awkward import Planned, Watch, awkward
from attribution.testing.models.deceptive import COPIED, SELF_REFERRING, Saving, fronted


@check("Untouched model")
def check_a_copy_that_differs_is_not_used(subject: Subject) -> None:
    """The answer is that of the same function told plainly, in eval and in train mode, and nothing is written."""
    inputs, target = subject.noise(), [[1, 3]] * IMAGES
    for case, (deceptive, plain) in COPIED.items():
        expected = subject.ask(subject.on(fronted(plain())), inputs, target)
        for mode in ("eval", "train"):
            model = subject.on(fronted(deceptive())).train(mode == "train")
            with guard(model, inputs):
                found = subject.ask(model, inputs, target)
            difference = subject.difference(expected, found)
            require(not difference, f"{case}, {mode} mode: {difference}", "the map of the plain model")


@check("Maps: device and dtype")
def check_models_that_hold_themselves_are_freed(subject: Subject) -> None:
    """Also after a forward that failed; the results stay."""
    kept: list[Attribution] = []
    seen: dict[str, tuple[weakref.ref[nn.Module], weakref.ref[Tensor]]] = {}
    for refer in (*SELF_REFERRING, None):
        model = subject.on(Saving().eval())
        if refer is not None:
            refer(model)
        kept.append(subject.ask(model))
        name = "a plain model" if refer is None else f"a model that {refer.__name__.replace('_', ' ')}"
        seen[name] = weakref.ref(model), weakref.ref(next(model.parameters()))
        del model
    seen["a model whose forward failed"] = _failed(subject)
    alive = [*seen]
    for _ in range(3):  # a model's end may be that of a copy, whose own circle the next collection finds
        if alive:
            gc.collect()
        alive = [name for name in alive if any(reference() is not None for reference in seen[name])]
    require(not alive, f"{', '.join(alive)}: still in memory beside {len(kept)} results", "freed with the last name")


def _failed(subject: Subject) -> tuple[weakref.ref[nn.Module], weakref.ref[Tensor]]:
    watch = Watch()
    model = subject.on(awkward("in-place ReLU", watch=watch))
    watch.plan(Planned("in the forward"))
    with suppress(Planned, AttributionError):
        subject.ask(model)
    watch.plan(None)  # the error leads to the frames that it passed
    return weakref.ref(model), weakref.ref(next(model.parameters()))


CHECKS: tuple[Template, ...] = (
    check_a_copy_that_differs_is_not_used,
    check_models_that_hold_themselves_are_freed,
)
