"""What the tests ask of every installed technique: its own example, on small models with ``stem``, ``body``, ``head``.

A technique that is installed later is asked in every test that takes this table, without an edit here. Those that
read attention, which these models have not, are left out of it: the conformance kit gives its models some, and asks
them all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from attribution import available, registry
from attribution.technique import Technique
from tests.draw import some

BACKENDS = ("captum", "hooks")

_KINDS = {name: registry.technique(name) for name in sorted({name for name, _ in available()})}
TECHNIQUES: dict[str, Technique] = {name: kind.example() for name, kind in _KINDS.items() if not kind.needs_attention}

PAIRS: list[tuple[str, str]] = [
    (name, backend) for name in TECHNIQUES for backend in BACKENDS if (name, backend) in available()
]
"""Every technique by either backend, where the backend has it."""

OF_ATTENTION: list[tuple[str, str]] = [(name, backend) for name, backend in available() if name not in TECHNIQUES]
"""Those that are asked about transformers only."""

SOME_PAIRS = some(
    [pytest.param(pair, id=".".join(pair)) for pair in PAIRS],
    0.2,
    whole=("activations", "filter_visualization", "grad_cam.", "occlusion"),
)
"""The same as parameters of a test that is run with many models: one technique of each kind, and some of the others."""

COMPARED: dict[str, Technique] = {
    name: each for name, each in TECHNIQUES.items() if all((name, backend) in PAIRS for backend in BACKENDS)
}
"""Those that both backends compute."""

OF_INPUTS: dict[str, Technique] = {name: each for name, each in TECHNIQUES.items() if each.needs_inputs}
"""Those that explain something that the user gives."""

OF_LAYERS: dict[str, Technique] = {
    name: each for name, each in TECHNIQUES.items() if hasattr(each, "layers") or hasattr(each, "layer")
}
"""Those that look at layers that the user names."""


OF_RECTIFIERS = ("deconvolution", "guided_backprop", "guided_grad_cam")
"""Those that refuse a net without a ReLU, and by Captum also one whose rectifiers are no ``nn.ReLU``: the depthwise."""


def by_backends(argument: str, questions: Mapping[str, Any] | Sequence[Technique]) -> pytest.MarkDecorator:
    """A test's ``argument`` and ``backend``: each question by either backend, where the backend has its technique.

    Args:
        argument: That takes a question's name, or of a sequence the technique.
        questions: Techniques, or tuples that begin with one.
    """
    found = []
    for key, question in questions.items() if isinstance(questions, Mapping) else [(each, each) for each in questions]:
        technique = question if isinstance(question, Technique) else question[0]
        name = key if isinstance(key, str) else technique.name
        found += [
            pytest.param(key, backend, id=f"{name}-{backend}")
            for backend in BACKENDS
            if (technique.name, backend) in available()
        ]
    return pytest.mark.parametrize((argument, "backend"), found)


def placed(technique: Technique, names: Mapping[str, str]) -> Technique:
    """The same technique, asked of a model that calls its layers otherwise; two that become one are asked once."""
    changes: dict[str, Any] = {}
    if hasattr(technique, "layers"):
        changes["layers"] = tuple(dict.fromkeys(names.get(layer, layer) for layer in technique.layers or ()))
    if hasattr(technique, "layer"):
        changes["layer"] = names.get(technique.layer, technique.layer)
    return replace(technique, **changes)


def all_placed(names: Mapping[str, str]) -> dict[str, Technique]:
    """The whole table for a model that calls its layers otherwise."""
    return {name: placed(each, names) for name, each in TECHNIQUES.items()}


def given(technique: Technique, inputs: Any, target: Any = 1) -> tuple[Any, Any]:
    """Inputs and target, each ``None`` where the technique takes none."""
    return inputs if technique.needs_inputs else None, target if technique.needs_target else None
