"""What a fast way says is what the model itself says of covered images, in this very call."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from attribution.running.execution import Execution
from attribution.scores.classes import ClassScore
from attribution.techniques import Occlusion
from attribution.testing.checks.check import Template, check, require, unless_refused
from attribution.testing.checks.subject import CLASSES, Subject, needs_target
from attribution.testing.models.deceptive import NUMBERS, UNDER_A_WINDOW


def occludes(subject: Subject) -> bool:
    """Asks how scores change under windows."""
    return isinstance(subject.technique, Occlusion)


LOGITS = ClassScore("all", of="logit")


def occluded(model: nn.Module, inputs: Tensor, technique: Occlusion, targets: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The map (N, T, H, W) of logits by one forward per covered image, and each class's largest |logit| (T,)."""
    lattice, cover = technique.lattice(*inputs.shape[2:]), technique.cover(inputs)
    total, count = inputs.new_zeros(len(inputs), len(targets), *inputs.shape[2:]), inputs.new_zeros(inputs.shape[2:])
    largest = inputs.new_zeros(len(targets))
    for (top, bottom), (left, right) in lattice.windows:
        count[top:bottom, left:right] += 1
    with torch.no_grad():
        for n, image in enumerate(inputs.split(1)):
            clean = model(image.clone())[0, list(targets)]
            largest = torch.maximum(largest, clean.abs())
            for (top, bottom), (left, right) in lattice.windows:
                covered = image.clone()
                covered[:, :, top:bottom, left:right] = cover
                scores = model(covered)[0, list(targets)]
                largest = torch.maximum(largest, scores.abs())
                total[n, :, top:bottom, left:right] += (clean - scores)[:, None, None]
    return total / count.clamp(min=1), largest


@check("Execution changes no question", occludes)
def check_covered_images_go_through_the_model(subject: Subject) -> None:
    """Also where nothing tells them from clean ones but the model: each class is held to its own size."""
    assert isinstance(subject.technique, Occlusion)
    technique = replace(subject.technique, baseline=-3.0)
    inputs, relative = subject.noise(dtype=torch.float64).tanh(), 1e-10
    if subject.cls.computes_in not in (None, torch.float64):
        relative = 1e-5
    for case, build in UNDER_A_WINDOW.items():
        model = subject.on(build(dtype=torch.float64).eval())
        expected, largest = occluded(subject.on(build(dtype=torch.float64).eval()), inputs, technique, range(CLASSES))
        raw = subject.ask(model, inputs, LOGITS, technique=technique).raw["input"]
        error = (raw - expected).abs().amax(dim=(0, 2, 3))
        scale = expected.abs().amax(dim=(0, 2, 3)) + largest
        worst = int((error / scale).argmax())
        require(
            bool((error <= relative * scale).all()),
            f"{case}: the map of class {worst} off by {error[worst]:.3g} (its scores reach {scale[worst]:.3g})",
            "what a forward per covered image gives",
        )


@check("Execution changes no question", needs_target)
def check_a_number_that_changes_between_calls_is_seen(subject: Subject) -> None:
    """Nothing that one call found out about a model hides what the next call's forward would do."""
    technique, value = subject.technique, 0.5
    if isinstance(technique, Occlusion):  # only covered images meet the number
        technique, value = replace(technique, baseline=-3.0), 1.0
    ask = partial(subject.ask, inputs=subject.noise().tanh(), target=LOGITS, technique=technique)
    for case, make in NUMBERS.items():
        build, change = make()
        model, fresh = subject.on(build().eval()), subject.on(build().eval())
        before = unless_refused(partial(ask, model))
        if before is None:
            continue
        change(model, value)
        after = ask(model)
        change(fresh, value)
        expected = ask(fresh, execution=Execution(incremental=False))
        difference = subject.difference(expected, after)
        stale = "" if subject.difference(before, after) else ", that of the call before"
        require(not difference, f"{case}: {difference}{stale}", "the map of a model that was never asked before")


CHECKS: tuple[Template, ...] = (
    check_covered_images_go_through_the_model,
    check_a_number_that_changes_between_calls_is_seen,
)
