"""Every other installed backend of the same technique is asked the same."""

from functools import partial

import torch
from torch import nn

from attribution import registry
from attribution.errors import BackendNotInstalledError
from attribution.testing.checks.check import Template, require, unless_refused
from attribution.testing.checks.subject import Subject
from attribution.testing.models.small import small_cnn, small_depthwise, small_residual

_MODELS = {"cnn": small_cnn, "residual": small_residual, "depthwise": small_depthwise}


def others(subject: Subject) -> list[str]:
    """The other backends of the technique that can be loaded."""
    found = []
    for backend in registry.backends(subject.technique.name):
        try:
            cls = registry.get(subject.technique, backend)
        except BackendNotInstalledError:
            continue
        if cls is not subject.cls and cls.technique_type is subject.cls.technique_type:
            found.append(backend)
    return found


def _agrees(subject: Subject, *, model_name: str, dtype: torch.dtype) -> None:
    model: nn.Module = subject.on(_MODELS[model_name](dtype=dtype))
    inputs, target = subject.noise(dtype=dtype), [[3, 1], [0, 2]]
    own = unless_refused(lambda: subject.ask(model, inputs, target))
    for backend in others(subject):
        other = Subject(registry.get(subject.technique, backend), subject.technique, subject.device)
        theirs = unless_refused(partial(other.ask, model, inputs, target))
        difference = subject.difference(own, theirs) if own is not None and theirs is not None else ""
        require(not difference, f"disagreement with backend {backend!r}: {difference}", "the same raw maps")


CHECKS: tuple[Template, ...] = tuple(
    Template(
        f"agrees_with_other_backends[{name}-{str(dtype).removeprefix('torch.')}]",
        "Agreement: what is compared",
        partial(_agrees, model_name=name, dtype=dtype),
        lambda subject: bool(others(subject)),
    )
    for name in _MODELS
    for dtype in (torch.float32, torch.float64)
)
