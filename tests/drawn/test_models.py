"""Models drawn at random: what two backends say of them is what loops over the model itself say."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from torch import Tensor

from attribution import ClassScore, Execution, GradCAM, explain
from attribution_hooks.incremental import differences as incremental
from tests.drawn import truth
from tests.drawn.case import Case, case

CASES = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)
DENSE = Execution(incremental=False)


def single(drawn: Case) -> Case:
    """The same in float32."""
    return replace(drawn, model=drawn.rounded, inputs=drawn.inputs.float())


def off(found: Tensor, expected: Tensor, size: Tensor) -> float:
    """The largest difference of a class's maps, as a part of ``size`` (N, T); 0 where they are the same."""
    difference = (found.double() - expected.double()).abs().amax(dim=(2, 3))
    return (difference / size.double().clamp(min=torch.finfo(torch.float64).tiny)).max().item()


def occlusion(drawn: Case) -> str:
    """Incremental = dense = one forward per covered image; returns the engine."""
    expected, sizes = truth.occlusion(drawn.model, drawn.inputs, drawn.occlusion, drawn.target, drawn.of)
    sizes = sizes + expected.abs().amax(dim=(2, 3))
    engines, score = [], ClassScore(drawn.target, of=drawn.of)
    for execution in (Execution(), DENSE):
        result = explain(drawn.model, drawn.inputs, drawn.occlusion, target=score, execution=execution)
        engines.append(str(result.provenance["engine"]))
        assert off(result.map, expected, sizes) < 1e-9, f"{engines[-1]} in float64"
    assert engines[1] == "dense"
    rounded = single(drawn)
    loop, _ = truth.occlusion(rounded.model, rounded.inputs, drawn.occlusion, drawn.target, drawn.of)
    rounding = 64 * max(off(loop, expected, sizes), 4 * torch.finfo(torch.float32).eps)
    result = explain(rounded.model, rounded.inputs, drawn.occlusion, target=score)
    assert off(result.map, expected, sizes) < rounding, f"{result.provenance['engine']} in float32"
    return engines[0]


def grad_cam(drawn: Case) -> int:
    """Hooks = Captum = plain autograd, and several targets = one by one; returns how many layers were asked."""
    exact = truth.grad_cam(drawn.model, drawn.inputs, drawn.layers, drawn.target)
    layers = tuple(name for name in drawn.layers if (exact[name][0].abs().amax(dim=(2, 3)) > 0).all())
    if not layers:  # dead, or not on the way to the logits
        return 0
    technique = GradCAM(layers=layers, relu=False, upsample=False, tokens="channels_first")
    for asked, relative in ((drawn, 1e-10), (single(drawn), 1e-4)):
        expected = truth.grad_cam(asked.model, asked.inputs, layers, drawn.target)
        for backend in ("hooks", "captum"):
            result = explain(asked.model, asked.inputs, technique, backend=backend, target=drawn.target)
            for name in layers:
                assert off(result.raw[name], *expected[name]) < relative, f"{backend}, {name}, {asked.inputs.dtype}"
        several = explain(asked.model, asked.inputs, technique, target=drawn.target)
        for column, classes in enumerate(drawn.target.unbind(1)):
            one = explain(asked.model, asked.inputs, technique, target=classes)
            for name in layers:
                size = expected[name][1][:, [column]]
                found = several.raw[name][:, [column]]
                assert off(found, one.raw[name], size) < relative, f"one by one, {name}, {asked.inputs.dtype}"
    return len(layers)


def hold(count: int) -> Counter[str]:
    """``count`` drawn models, held to the loops; how often what was used."""
    seen: Counter[str] = Counter()

    @settings(CASES, max_examples=count)
    @given(st.randoms(use_true_random=False))
    def every(draw: object) -> None:
        drawn = case(draw)  # type: ignore[arg-type]
        note(f"{drawn!r}")
        seen["models"] += 1
        seen[occlusion(drawn)] += 1
        seen["layers"] += grad_cam(drawn)

    every()
    return seen


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine runs however little it gains."""
    monkeypatch.setattr(incremental, "LEAST_GAIN", 0.0)


@pytest.mark.long
@pytest.mark.parametrize("count", [100, pytest.param(5000, marks=pytest.mark.slow)])
def test_drawn_models(count: int) -> None:
    seen = hold(count)
    print(dict(seen))
    assert seen["models"] >= count
    assert seen["incremental"] >= seen["models"] / 3, "else dense was held against dense"
    assert seen["layers"] >= seen["models"] / 2
