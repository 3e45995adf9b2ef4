"""The questions a user asks: explain and load; ``comparison/`` asks several backends at once."""

from pathlib import Path
from typing import Any

from torch import nn

from attribution import registry
from attribution.errors import InputError, OutputError, UnknownAttributorError
from attribution.result import Attribution
from attribution.running.execution import Execution
from attribution.scores.reading import Asked
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
    if not isinstance(technique, Technique):
        raise InputError(f"technique is {technique!r}; give an instance such as GradCAM()")
    return registry.get(technique, backend)(model, technique, execution).attribute(inputs, target)


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
