"""Several techniques at once: each has the answer that it has alone."""

from typing import Any

from torch import nn

from attribution.calls import answers
from attribution.members import Member
from attribution.result import Attribution
from attribution.technique import Technique
from attribution.testing.checks.check import Template, check, require
from attribution.testing.checks.subject import IMAGES, Subject, equal, knows_several_layers
from attribution.testing.models.small import small_cnn, small_residual


def _together(subject: Subject, model: nn.Module, target: Any, *techniques: Technique) -> list[Attribution]:
    """Answers to techniques of one call, labelled by letters."""
    asked = target if subject.technique.needs_target else None
    members = [
        Member(subject.attributor(model, technique=technique), asked, label)
        for label, technique in zip("abc", techniques, strict=False)
    ]
    return answers(members, subject.noise() if subject.technique.needs_inputs else None)


@check("Several techniques")
def check_together_is_as_alone(subject: Subject) -> None:
    """`compute_many`, where there is one, gives what `compute` gives: maps, score and extras, on memory of its own."""
    for model, target in ((small_cnn(), [[3, 1]] * IMAGES), (small_residual(), None)):
        model = subject.on(model)
        alone = subject.ask(model, target=target)
        first, second = _together(subject, model, target, subject.technique, subject.technique)
        for result in (first, second):
            difference = subject.difference(alone, result, exact=True)
            require(not difference, f"one of two at once: {difference}", "the bits that it has alone")
            same = result.score == alone.score and result.extras.keys() == alone.extras.keys()
            same = same and all(equal(alone.extras[name], tensor) for name, tensor in result.extras.items())
            require(same, "another score, or other extras, of one of two at once", "those that it has alone")
        shared = {map_.data_ptr() for map_ in first.raw.values()} & {map_.data_ptr() for map_ in second.raw.values()}
        require(not shared, "maps of two techniques on one memory", "maps that are nobody else's")


@check("Several techniques", knows_several_layers)
def check_together_each_has_its_own_layers(subject: Subject) -> None:
    """One technique's layers are nobody else's."""
    model = subject.on(small_cnn())
    techniques = [subject.asking(*layers) for layers in (("stem",), ("body",), ("body", "stem"))]
    for technique, result in zip(techniques, _together(subject, model, 1, *techniques), strict=True):
        difference = subject.difference(subject.ask(model, technique=technique), result)
        require(not difference, f"{technique!r} beside other layers: {difference}", "the maps that it has alone")


CHECKS: tuple[Template, ...] = (check_together_is_as_alone, check_together_each_has_its_own_layers)
