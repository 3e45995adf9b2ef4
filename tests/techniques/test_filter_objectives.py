"""Objectives of one's own: by both backends as by a plain loop."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import (
    ChannelsObjective,
    DirectionObjective,
    FilterVisualization,
    FunctionObjective,
    InputError,
    LayerError,
    Objective,
    SumObjective,
    compare,
    explain,
)
from tests.conftest import BACKENDS, build, noise
from tests.techniques.filters import PLAIN, Measure, looped

SIZE = (17, 23)
V = noise(8, dtype=torch.float64, seed=3)


def largest(output: Tensor) -> Tensor:
    return output.flatten(1).logsumexp(dim=1)


def means(a: Tensor) -> Tensor:
    return a.mean(dim=(2, 3))[0]


def cosine(a: Tensor) -> Tensor:
    rows = [
        (a[0, :, i, j] @ V) / (a[0, :, i, j].norm() * V.norm()) for i in range(a.shape[2]) for j in range(a.shape[3])
    ]
    return torch.stack(rows).mean()


# objective → the same of the layer's output, in other words
ASKED: dict[str, tuple[Any, Measure]] = {
    "function": (largest, lambda a: a.exp().sum().log()),
    "named function": (FunctionObjective(largest, "largest"), lambda a: a.exp().sum().log()),
    "channel": (ChannelsObjective(3), lambda a: means(a)[3]),
    "slice": (ChannelsObjective(slice(1, 6, 2)), lambda a: (means(a)[1] + means(a)[3] + means(a)[5]) / 3),
    "sum of channels": (ChannelsObjective((0, 4), reduce="sum"), lambda a: means(a)[0] + means(a)[4]),
    "dot": (DirectionObjective(V, by="dot"), lambda a: means(a) @ V),
    "cosine": (DirectionObjective(tuple(V.tolist())), cosine),
    "sign": (-ChannelsObjective(2), lambda a: -means(a)[2]),
    "numbers": (1 - ChannelsObjective(1) / 4 + 0.5, lambda a: 1.5 - means(a)[1] / 4),
    "sum": (2 * ChannelsObjective(1) - DirectionObjective(V, by="dot"), lambda a: 2 * means(a)[1] - means(a) @ V),
    "sum with a function": (
        ChannelsObjective(1) + FunctionObjective(largest),
        lambda a: means(a)[1] + a.exp().sum().log(),
    ),
}


def ask(**fields: Any) -> FilterVisualization:
    return FilterVisualization(**{"layer": "body", "steps": 4, "size": SIZE, **PLAIN, **fields})


def check(model: Any, technique: FilterVisualization, measures: list[Measure], backend: str, **how: Any) -> None:
    result = explain(model, None, technique, backend=backend)
    start = technique.start(model)
    assert len(start) == len(measures) == len(result.map)
    for index, measure in enumerate(measures):
        image, told = looped(
            start[index : index + 1],
            lambda x, measure=measure: measure(model[:4](x)),  # type: ignore[misc]
            steps=technique.steps,
            step_size=technique.step_size,
            **how,
        )
        assert (result.map[index] - image[0]).abs().max() <= 1e-10 * image.abs().max()
        found = result.extras["objective"][:, index]
        assert (found - torch.tensor(told, dtype=torch.float64)).abs().max() <= 1e-10 * max(map(abs, told))


@BACKENDS
@pytest.mark.parametrize("name", ASKED)
def test_an_objective_alone(name: str, backend: str) -> None:
    objective, measure = ASKED[name]
    check(build("cnn", torch.float64), ask(objectives=(objective,)), [measure], backend)


@BACKENDS
def test_objectives_together(backend: str) -> None:
    """Each image climbs its own; neighbours do not matter, nor does the batch."""
    model = build("cnn", torch.float64)
    names = ("function", "slice", "cosine")
    technique = ask(objectives=tuple(ASKED[name][0] for name in names))
    check(model, technique, [ASKED[name][1] for name in names], backend)
    wrong = [ASKED[name][1] for name in reversed(names)]
    with pytest.raises(AssertionError):
        check(model, technique, wrong, backend)  # the mutant: objectives of other images


@BACKENDS
@pytest.mark.parametrize("mutant", [None, "without", "added"])
def test_a_penalty_of_ones_own(backend: str, mutant: str | None) -> None:
    def bright(images: Tensor) -> Tensor:
        return (images - 0.5).square().sum(dim=(1, 2, 3))

    model = build("cnn", torch.float64)
    technique = ask(channels=(3,), penalty=bright, spread=2.0, l2=0.3, step_size=0.1)

    def held(x: Tensor) -> Tensor:
        sign = {"without": 0.0, "added": -1.0}.get(mutant or "", 1.0)
        return sign * (x / 2 - 0.5).square().sum() + 0.3 * (x / 2).square().sum() / 2

    image, _ = looped(
        technique.start(model),
        lambda x: means(model[:4](x))[3],  # type: ignore[index]
        steps=technique.steps,
        step_size=technique.step_size,
        penalty=held,
        spread=2.0,
    )
    found = explain(model, None, technique, backend=backend).map
    if mutant is None:
        assert (found - image).abs().max() <= 1e-10 * image.abs().max()
    else:
        assert (found - image).abs().max() > 1e-2


def test_a_neuron_of_an_objective() -> None:
    model = build("cnn", torch.float64)
    technique = ask(objectives=(ChannelsObjective((1, 2)), DirectionObjective(V)), neuron=(2, 3))
    measures: list[Measure] = [
        lambda a: (a[0, 1, 2, 3] + a[0, 2, 2, 3]) / 2,
        lambda a: (a[0, :, 2, 3] @ V) / (a[0, :, 2, 3].norm() * V.norm()),
    ]
    for backend in ("hooks", "captum"):
        check(model, technique, measures, backend)


@pytest.mark.parametrize("channels", [(0, 4), (7,)])
def test_an_objective_of_a_channel_is_the_channel(channels: tuple[int, ...]) -> None:
    """At the same random numbers: those of the places in ``objectives``."""
    model = build("residual", torch.float64) if max(channels) < 6 else build("cnn", torch.float64)
    start = noise(len(channels), 3, *SIZE, dtype=torch.float64)
    fields: dict[str, Any] = {"layer": "body", "steps": 3, "size": SIZE, "initial": start, **PLAIN}
    by_channel = explain(model, None, FilterVisualization(channels=channels, **fields))
    objectives = tuple(ChannelsObjective(channel) for channel in channels)
    by_objective = explain(model, None, FilterVisualization(objectives=objectives, **fields))
    assert (by_channel.map - by_objective.map).abs().max() <= 1e-10
    other = explain(model, None, FilterVisualization(channels=(1,), **{**fields, "initial": start[:1]}))
    assert (by_channel.map[:1] - other.map).abs().max() > 1e-3


def test_the_backends_agree_at_the_defaults() -> None:
    model = build("residual", torch.float64)
    technique = FilterVisualization(layer="body", objectives=(largest, ChannelsObjective((0, 2))), steps=6, size=SIZE)
    comparison = compare(model, None, technique)
    assert comparison.holds
    (pairs,) = comparison.agreements.values()
    assert any("largest" in pair.name for pair in pairs)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"objectives": (3,)}, r"FilterVisualization\.objectives is \(3,\)"),
        ({"objectives": ChannelsObjective(1), "channels": (1,)}, "has channels and objectives"),
        ({"objectives": largest, "neuron": "center"}, "a function reads the whole output"),
        ({"objectives": ()}, "give at least one channel"),
        ({"channels": (0,), "penalty": 3.0}, r"FilterVisualization\.penalty is 3\.0"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_fields_that_do_not_fit(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        FilterVisualization(layer="body", **fields)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ChannelsObjective(()),
        lambda: ChannelsObjective((1, 1)),
        lambda: ChannelsObjective(slice(2, None)),
        lambda: ChannelsObjective(1, reduce="max"),  # type: ignore[arg-type]
        lambda: DirectionObjective((0.0, 0.0)),
        lambda: DirectionObjective((1.0, float("nan"))),
        lambda: FunctionObjective(3),  # type: ignore[arg-type]
        lambda: SumObjective((ChannelsObjective(1),), (1.0, 2.0)),
        lambda: ChannelsObjective(1) * float("inf"),
        lambda: ChannelsObjective(1) / 0,
        lambda: ChannelsObjective(1) / ChannelsObjective(2),  # type: ignore[operator]
        lambda: ChannelsObjective(1) * ChannelsObjective(2),  # type: ignore[operator]
        lambda: ChannelsObjective(1) + float("nan"),
        lambda: ChannelsObjective(1) + "2",  # type: ignore[operator]
    ],
)
def test_objectives_that_are_none(make: Callable[[], Objective]) -> None:
    with pytest.raises(InputError):
        make()


@BACKENDS
def test_what_does_not_fit_the_layer_is_said(backend: str) -> None:
    model = build("cnn", torch.float64)
    for objective, error, says in (
        (ChannelsObjective((0, 8)), LayerError, "no channel 8"),
        (DirectionObjective((1.0, 2.0)), LayerError, "8 channels.* 2 numbers"),
        (lambda a: a.mean(dim=(2, 3)), InputError, r"gives \(1, 8\) .*expected one float per image"),
        (lambda a: 3.0, InputError, "gives float"),
    ):
        with pytest.raises(error, match=says):
            explain(model, None, ask(objectives=(objective,)), backend=backend)
    with pytest.raises(InputError, match=r"penalty gives \(\) for images \(1, 3, 17, 23\)"):
        explain(model, None, ask(channels=(0,), penalty=lambda x: x.sum()), backend=backend)


def test_techniques_are_compared_by_value() -> None:
    image = noise(3, *SIZE)
    technique = ask(objectives=(DirectionObjective(V),), initial=image)
    same = ask(objectives=(DirectionObjective(V.clone()),), initial=image.clone())
    assert technique == same
    assert hash(technique) == hash(same)
    for other in (
        replace(technique, initial=image + 1e-6),
        replace(technique, initial=image.double()),
        replace(technique, initial=None),
        replace(technique, objectives=(DirectionObjective(-V),)),
        replace(technique, steps=5),
    ):
        assert technique != other
    image.zero_()
    assert technique == same, "its start image is nobody else's"


def test_a_file_keeps_objectives_and_images(tmp_path: Any) -> None:
    from attribution import load

    model, image = build("cnn"), noise(3, *SIZE)
    objectives = (ChannelsObjective(slice(0, 3)), -DirectionObjective(V) + 2 * ChannelsObjective(1) - 3, largest)
    technique = ask(objectives=objectives, initial=image, penalty=lambda x: x.flatten(1).sum(dim=1))
    result = explain(model, None, technique)
    read = load(result.save(tmp_path / "filters.safetensors"))
    assert isinstance(read.technique, FilterVisualization)
    assert read.technique.objectives[:2] == technique.objectives[:2]
    assert read.technique.initial is not None
    assert torch.equal(read.technique.initial, image)
    assert read.technique.titles == technique.titles
    assert read.technique.titles[2] == "largest"
    assert torch.equal(read.map, result.map)
    read.figure()
    with pytest.raises(InputError, match="'largest' was not saved with the file; give it again"):
        explain(model, None, replace(read.technique, penalty=None))
    plain = ask(channels=(1, 2), initial=image)
    assert load(explain(model, None, plain).save(tmp_path / "plain.safetensors")).technique == plain
