"""Which classes are explained: every form of a target, and what is refused."""

from functools import partial
from typing import Any

import torch

from attribution.errors import InputError, TargetError
from attribution.scores.targets import Target
from attribution.testing.checks.check import Template, check, raises, require
from attribution.testing.checks.subject import (
    CLASSES,
    Subject,
    explains_no_class,
    needs_target,
    part,
)
from attribution.testing.models.awkward import Watch, awkward
from attribution.testing.models.small import small_cnn

_NESTED = [[3, 1], [0, 2]]


def _columns(subject: Subject, target: Target, expected: list[list[int]]) -> None:
    """The answer holds ``expected`` classes, and each column equals the answer for this class alone."""
    model, inputs = subject.on(small_cnn()), subject.noise()
    result = subject.ask(model, inputs, target)
    found = None if result.target is None else result.target.tolist()
    require(found == expected, f"target={target!r} recorded as {found}", f"{expected}")
    for column in range(len(expected[0])):
        alone = subject.ask(model, inputs, [[row[column]] for row in expected])
        difference = subject.difference(part(result, range(len(inputs)), [column]), alone)
        require(not difference, f"target={target!r}, column {column}: {difference}", "the map of this class alone")


@check("Targets: forms", needs_target)
def check_target_int_means_every_image(subject: Subject) -> None:
    """3 → [[3], [3]]."""
    _columns(subject, 3, [[3], [3]])


@check("Targets: forms", needs_target)
def check_target_flat_means_one_per_image(subject: Subject) -> None:
    """A list or a tensor (N,)."""
    _columns(subject, [3, 1], [[3], [1]])
    _columns(subject, torch.tensor([0, 4]), [[0], [4]])


@check("Targets: forms", needs_target)
def check_target_nested_means_several_per_image(subject: Subject) -> None:
    """A nested list or a tensor (N, T), for different classes per image."""
    _columns(subject, _NESTED, _NESTED)


@check("Targets: forms", needs_target)
def check_target_all_means_every_class(subject: Subject) -> None:
    """T = K, in the order of the classes."""
    _columns(subject, "all", [list(range(CLASSES))] * 2)


@check("Targets: forms", needs_target)
def check_target_none_means_the_prediction(subject: Subject) -> None:
    """The argmax of the logits, per image."""
    with torch.no_grad():
        predicted = subject.on(small_cnn())(subject.noise()).argmax(dim=1, keepdim=True).tolist()
    _columns(subject, None, predicted)


@check("Targets: forms", needs_target)
def check_target_changes_the_map(subject: Subject) -> None:
    """Explaining another class is another answer."""
    model = subject.on(small_cnn())
    maps = [subject.ask(model, target=target).raw for target in (0, 1)]
    same = [key for key in maps[0] if torch.equal(maps[0][key], maps[1][key])]
    require(not same, f"the same map {same} for two classes", "maps that depend on the class")


@check("Targets: what the result holds", needs_target)
def check_scores_are_those_of_the_clean_inputs(subject: Subject) -> None:
    """The technique's own score of the model's logits."""
    model, inputs = subject.on(small_cnn()), subject.noise()
    result = subject.ask(model, inputs, _NESTED)
    with torch.no_grad():
        expected = subject.technique.default_score.score_of(model(inputs)).gather(1, subject.on(torch.tensor(_NESTED)))
    close = result.scores is not None and torch.allclose(result.scores, expected, rtol=1e-5, atol=1e-6)
    require(close, f"scores {result.scores}", f"{expected}")


_Kinds = type[BaseException] | tuple[type[BaseException], ...]


def _refused(subject: Subject, wrong: dict[str, Any], kind: _Kinds, forwards: int) -> None:
    watch = Watch()
    attributor = subject.attributor(subject.on(awkward("in-place ReLU", watch=watch)))
    inputs = subject.noise() if subject.technique.needs_inputs else None
    if forwards:
        attributor.attribute(inputs, 0)  # what is found out once for a model is not counted
    for case, target in wrong.items():
        watch.forwards = 0
        raises(kind, partial(attributor.attribute, inputs, target), f"target={case}")
        require(watch.forwards <= forwards, f"target={case}: refused after {watch.forwards} forwards", f"{forwards}")


@check("Targets: forms", needs_target)
def check_wrong_targets_are_refused_before_any_work(subject: Subject) -> None:
    """Forms that no model could make sense of."""
    wrong = {
        "-1": -1,
        "True": True,
        "1.0": 1.0,
        "'cat'": "cat",
        "[1, 2, 3] for 2 images": [1, 2, 3],
        "[[1], [2, 3]]": [[1], [2, 3]],
        "a float tensor": torch.tensor([1.0, 2.0]),
    }
    _refused(subject, wrong, TargetError, forwards=0)


@check("Targets: forms", needs_target)
def check_a_class_out_of_range_is_refused(subject: Subject) -> None:
    """Seen once the logits are, before any gradient or window; two forwards prove the copy."""
    _refused(subject, {"5 of 5 classes": CLASSES, "[[0, 9], [1, 1]]": [[0, 9], [1, 1]]}, TargetError, forwards=4)


@check("Targets: forms", explains_no_class)
def check_a_target_is_refused_where_none_is_explained(subject: Subject) -> None:
    """It could only be a misunderstanding."""
    _refused(subject, {"1": 1, "'all'": "all"}, (TargetError, InputError), forwards=0)


CHECKS: tuple[Template, ...] = (
    check_target_int_means_every_image,
    check_target_flat_means_one_per_image,
    check_target_nested_means_several_per_image,
    check_target_all_means_every_class,
    check_target_none_means_the_prediction,
    check_target_changes_the_map,
    check_scores_are_those_of_the_clean_inputs,
    check_wrong_targets_are_refused_before_any_work,
    check_a_class_out_of_range_is_refused,
    check_a_target_is_refused_where_none_is_explained,
)
