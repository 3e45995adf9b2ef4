"""The questions a user asks: explain, one technique or several, and load; ``comparison/`` asks several backends."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from attribution import registry
from attribution.calls import answers
from attribution.errors import InputError, OutputError, TargetError, UnknownAttributorError, named
from attribution.isolation.known import known
from attribution.members import Member
from attribution.result import Attribution
from attribution.running.execution import Execution
from attribution.scores.reading import Asked
from attribution.settled import asked_last, note_asked
from attribution.technique import Technique


def explain(
    model: nn.Module,
    inputs: Any,
    technique: Technique,
    *,
    backend: str = "hooks",
    target: Asked = None,
    execution: Execution = Execution(),
) -> Attribution:
    """Compute a technique by a backend; only ``backend=`` changes between two of them.

    Args:
        model: An eager module; what it returns is read by ``target``, by default as logits (N, K).
        inputs: On the model's device: float (N, C, H, W), or (N, F), (N, C, T), (N, C, D, H, W); a tuple of arguments,
            a mapping of keyword arguments, or `Inputs`; ``None`` for `FilterVisualization`.
        technique: What to compute, e.g. ``GradCAM(layers=("features.28",))``.
        backend: ``"hooks"``, ``"captum"`` or an installed plugin's.
        target: An int for all images, one int per image, (N, T) ints, ``"all"``, or ``None`` for the prediction; a
            score, such as ``RegionScore(channel=12)``; or a function of the model's output that gives (N,) or (N, T).
        execution: How to run it.

    Raises:
        AttributionError: Bad input, before any work; the model is as found.
    """
    if known.prepared and (member := asked_last(model, technique, backend, target, execution)) is not None:
        return answers([member], inputs)[0]
    if not isinstance(technique, Technique):
        raise InputError(f"technique is {technique!r}; give an instance such as GradCAM()")
    member = Member(registry.get(technique, backend)(model, technique, execution), target)
    if known.prepared and registry.lasting(member.asker):
        note_asked(member)
    return answers([member], inputs)[0]


def explain_many(
    model: nn.Module,
    inputs: Any,
    techniques: Mapping[str, Technique],
    *,
    backend: str = "hooks",
    target: Asked = None,
    execution: Execution = Execution(),
) -> dict[str, Attribution]:
    """Compute several techniques by a backend, together where they can share forwards and gradients.

    The inputs are read once, and the model is isolated and proved once. What goes through the model together is up to
    the backend; ``provenance["pass"]`` says what did. Answers equal those of `explain` within rounding, and bit for bit
    where techniques share their layers and targets. Each technique keeps its own default score.

    Args:
        model: As for `explain`.
        inputs: As for `explain`.
        techniques: By names of your choice, e.g. ``{"grad_cam": GradCAM(), "layer_cam": LayerCAM()}``.
        backend: As for `explain`.
        target: As for `explain`; it is not asked of techniques that explain no score, such as `Activations`.
        execution: As for `explain`; ``memory_budget`` holds for what goes through the model at once, and so for all.

    Returns:
        The answers by name, in the order of ``techniques``.

    Raises:
        AttributionError: A technique cannot be computed. Its name is the error's ``label`` and stands in the text;
            nothing is returned of the others, and the model is as found.
    """
    asked = checked(techniques)
    targets, members = targets_of(asked, target), []
    for name, technique in asked.items():
        with named(name):
            members.append(Member(registry.get(technique, backend)(model, technique, execution), targets[name], name))
    return dict(zip(asked, answers(members, inputs), strict=True))


def checked(techniques: Mapping[str, Technique]) -> dict[str, Technique]:
    """Techniques by name.

    Raises:
        InputError: They are something else, or there are none.
    """
    example = "give a dict such as {'grad_cam': GradCAM(), 'layer_cam': LayerCAM()}"
    if not isinstance(techniques, Mapping) or not techniques:
        raise InputError(f"techniques are {techniques!r}; {example}")
    for name, technique in techniques.items():
        if not isinstance(name, str) or not name or not isinstance(technique, Technique):
            raise InputError(f"techniques hold {name!r}: {technique!r}; {example}")
    return dict(techniques)


def targets_of(techniques: Mapping[str, Technique], target: Asked) -> dict[str, Asked]:
    """What each technique is asked about: the target, or nothing where it explains no score.

    Raises:
        TargetError: None explains one.
    """
    if target is not None and not any(technique.needs_target for technique in techniques.values()):
        raise TargetError(f"none of {', '.join(techniques)} explains a score; leave target out (found {target!r})")
    return {name: target if technique.needs_target else None for name, technique in techniques.items()}


def load(path: str | Path) -> Attribution:
    """Read what `Attribution.save` wrote; techniques of plugins are found through the registry.

    Raises:
        OutputError: The file cannot be read, or no installed distribution knows its technique.
    """
    name = Attribution.header(path)["technique"]
    try:
        kind = registry.technique(name)
    except UnknownAttributorError as error:
        raise OutputError(f"{path} holds the technique {name!r}, which no installed distribution brings") from error
    return Attribution.load(path, kind)
