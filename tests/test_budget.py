"""Rounding or bug: the error budget, on good backends and on maps that are wrong in small ways."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from attribution import (
    Activations,
    Attribution,
    FilterVisualization,
    GradCAM,
    InputError,
    Occlusion,
    Technique,
    explain,
)
from attribution.comparison.rounding import PLAIN, Judgement, budget_factor, judge, judge_all, shaken, shaken_model
from attribution.techniques.filter_visualization import FIRST_STEP
from tests.conftest import build, logit, noise

TECHNIQUES: dict[str, Technique] = {
    "activations": Activations(layers=("stem", "body")),
    "grad_cam": GradCAM(layers=("stem", "body")),
    "occlusion": Occlusion(window=7, stride=5, baseline=(1.0, -0.5, 0.3)),
    "filter_visualization": FilterVisualization(layer="body", channels=(0, 3), steps=2, size=(17, 23)),
}
BACKENDS = ["hooks", "captum"]
HALVES = [torch.float16, torch.bfloat16]
EPS = torch.finfo(torch.float32).eps
ONE = torch.tensor([4.0, -2.0], dtype=torch.float64)


@cache
def ask(model: str, name: str, dtype: torch.dtype, backend: str = "hooks") -> Attribution:
    """The same weights in every dtype."""
    return answer(name, build(model).to(dtype), noise(2, 3, 17, 23).to(dtype), backend)


@cache
def twins(model: str, name: str, dtype: torch.dtype) -> list[Attribution]:
    found = []
    for seed in (1, 2):
        inputs = shaken(noise(2, 3, 17, 23), dtype, torch.Generator().manual_seed(seed))
        found.append(answer(name, shaken_model(build(model), dtype, seed=seed), inputs, "hooks"))
    return found


def answer(name: str, model: torch.nn.Module, inputs: Tensor, backend: str) -> Attribution:
    technique = TECHNIQUES[name]
    target = logit([[3, 1], [0, 2]]) if technique.needs_target else None
    return explain(model, inputs if technique.needs_inputs else None, technique, backend=backend, target=target)


def judged(model: str, name: str, result: Attribution, dtype: torch.dtype = torch.float32) -> list[Judgement]:
    return judge_all(result, ask(model, name, torch.float64), twins(model, name, dtype))


class Saliency(Activations):
    name = "saliency"


def verdicts(found: list[Judgement]) -> set[str]:
    return {judgement.verdict for judgement in found}


def test_the_factors() -> None:
    factors = {name: budget_factor(technique, torch.float32) for name, technique in TECHNIQUES.items()}
    assert factors == {"activations": 16, "grad_cam": 16, "occlusion": 16, "filter_visualization": 128}
    assert budget_factor(FilterVisualization.notebook(layer="body", channels=(0,)), torch.float32) == 16
    for name, technique in TECHNIQUES.items():
        assert all(budget_factor(technique, half) == factors[name] / 4 for half in HALVES)


def test_shaking_moves_every_weight_by_its_last_digits() -> None:
    model = build("residual")
    found = shaken_model(model, torch.float32, seed=0)
    for (name, value), (_, other) in zip(model.state_dict().items(), found.state_dict().items(), strict=True):
        if not value.is_floating_point():
            assert torch.equal(value, other), name
            continue
        assert other.dtype == torch.float64
        moved = (other - value.double()).abs()
        assert (moved <= 6 * EPS * value.abs()).all(), name
        assert moved.any() == value.any(), name
    wide = shaken(torch.ones(10_000), torch.bfloat16, torch.Generator().manual_seed(0))
    assert (wide - 1).std() == pytest.approx(2**-7, rel=0.05)
    assert torch.equal(
        shaken_model(model, torch.float32, seed=0)(noise(1, 3, 9, 9).double()), found(noise(1, 3, 9, 9).double())
    )
    assert not torch.equal(
        shaken_model(model, torch.float32, seed=1)(noise(1, 3, 9, 9).double()), found(noise(1, 3, 9, 9).double())
    )
    assert next(model.parameters()).dtype == torch.float32


def test_the_rule_at_its_edge() -> None:
    off, mark = ONE + torch.tensor([0.0, 0.5]), ONE + torch.tensor([0.125, 0.0])
    edge = judge("x", off, ONE, [ONE, mark], factor=4.0, dtype=torch.float32)
    assert edge == Judgement("x", 0.5, 4.0, 0.5, "rounding", sharp=False)
    assert edge.scaled == 0.125
    assert judge("x", off, ONE, [ONE, mark], factor=3.99, dtype=torch.float32).verdict == "bug"
    assert judge("x", ONE + 8 * EPS, ONE, [ONE], factor=2.0, dtype=torch.float32).verdict == "rounding"
    assert judge("x", ONE + 8.1 * EPS, ONE, [ONE], factor=2.0, dtype=torch.float32).verdict == "bug"
    assert judge("x", ONE + 8.1 * EPS, ONE, [ONE], factor=2.0, dtype=torch.float32, size=4.1).verdict == "rounding"


def test_a_wide_budget_is_no_sharp_verdict() -> None:
    assert judge("x", ONE, ONE, [ONE + 0.0099], factor=4.0, dtype=torch.float32).sharp
    assert not judge("x", ONE, ONE, [ONE + 0.0101], factor=4.0, dtype=torch.float32).sharp
    assert not judge("x", ONE, ONE, [ONE], factor=16.0, dtype=torch.float32, size=1e5).sharp
    zero = judge("x", ONE * 0, ONE * 0, [], factor=16.0, dtype=torch.float32)
    assert (zero.verdict, zero.sharp) == ("rounding", False)
    false = judge("x", ONE, ONE * 0, [], factor=16.0, dtype=torch.float32)
    assert (false.verdict, false.scaled) == ("bug", float("inf"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_a_bug(bad: float) -> None:
    for a, b in ((ONE * bad, ONE), (ONE, ONE * bad), (ONE * bad, ONE * bad)):
        assert judge("x", a, b, [], factor=1e9, dtype=torch.float32).verdict == "bug"


def test_another_shape_is_a_bug() -> None:
    assert judge("x", ONE[:1], ONE, [], factor=1e9, dtype=torch.float32).verdict == "bug"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", TECHNIQUES)
def test_good_backends_round(model_name: str, name: str, backend: str) -> None:
    found = judged(model_name, name, ask(model_name, name, torch.float32, backend))
    assert len(found) == {"activations": 4, "grad_cam": 8, "occlusion": 4, "filter_visualization": 2}[name]
    assert verdicts(found) == {"rounding"}, found
    assert all(judgement.sharp for judgement in found), found
    assert any(judgement.error > 0 for judgement in found), "float32 is not float64"


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", ["activations", "grad_cam", "occlusion"])
def test_half_rounds_too(model_name: str, name: str, dtype: torch.dtype) -> None:
    half = ask(model_name, name, dtype)
    assert verdicts(judged(model_name, name, half, dtype)) == {"rounding"}
    single = replace(half, raw={layer: map_.float() for layer, map_ in half.raw.items()}, computes_in=torch.float32)
    assert verdicts(judged(model_name, name, single)) == {"bug"}, "half is not float32"
    upside_down = replace(half, raw={layer: map_.flip(-2) for layer, map_ in half.raw.items()})
    assert "bug" in verdicts(judged(model_name, name, upside_down, dtype))


def grown(oracle: Attribution, change: Callable[[Tensor], Tensor]) -> Attribution:
    """The float64 answer as float32 would give it, changed."""
    raw = {name: change(map_).float() for name, map_ in oracle.raw.items()}
    return replace(oracle, raw=raw, computes_in=torch.float32)


def jitter(map_: Tensor) -> Tensor:
    return map_ * (1 + EPS * noise(*map_.shape, dtype=torch.float64))


def one_value(map_: Tensor) -> Tensor:
    map_ = map_.clone()
    map_.view(-1)[map_.abs().argmax()] *= 1.001
    return map_


BUGS: dict[str, Callable[[Tensor], Tensor]] = {
    "a tenth of a percent too large": lambda map_: map_ * 1.001,
    "one value a tenth of a percent off": one_value,
    "shifted by a pixel": lambda map_: map_.roll(1, dims=-1),
    "sign flipped": lambda map_: -map_,
    "images mixed up": lambda map_: map_.roll(1, dims=0),
    "targets mixed up": lambda map_: map_.roll(1, dims=1),
    "normalised": lambda map_: (map_ - map_.min()) / (map_.max() - map_.min()),
    "rounded to bfloat16": lambda map_: map_.bfloat16(),
    "products in TF32": lambda map_: map_ * (1 + 2**-11),
    "zero": torch.zeros_like,
    "one row short": lambda map_: map_[..., :-1, :],
}


@pytest.mark.parametrize("name", TECHNIQUES)
def test_noise_in_the_last_digit_is_rounding(model_name: str, name: str) -> None:
    assert verdicts(judged(model_name, name, grown(ask(model_name, name, torch.float64), jitter))) == {"rounding"}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("name", TECHNIQUES)
def test_bugs_are_called_so(model_name: str, name: str, bug: str) -> None:
    oracle, plain = ask(model_name, name, torch.float64), ask(model_name, name, torch.float32, "captum")
    wrong = grown(oracle, BUGS[bug])
    expected = {"bug", "rounding"} if bug.startswith("one value") else {"bug"}
    assert verdicts(judged(model_name, name, wrong)) == expected
    assert verdicts(judge_all(wrong, oracle, plain=plain)) == expected


def test_another_layer_is_a_bug(model_name: str) -> None:
    oracle = ask(model_name, "grad_cam", torch.float64)
    swapped = replace(oracle, raw={"stem": oracle.raw["body"], "body": oracle.raw["body"]})
    found = judged(model_name, "grad_cam", grown(swapped, jitter))
    assert {judgement.name.partition(" ")[0] for judgement in found if judgement.verdict == "bug"} == {"stem"}
    body = explain(build(model_name), noise(2, 3, 17, 23), GradCAM(layers=("body_relu",)), target=[[3, 1], [0, 2]])
    near = replace(oracle, raw={**oracle.raw, "body": body.raw["body_relu"]}, computes_in=torch.float32)
    assert "bug" in verdicts(judged(model_name, "grad_cam", near))


@pytest.mark.parametrize("name", ["grad_cam", "occlusion"])
def test_another_class_is_a_bug(model_name: str, name: str) -> None:
    model, inputs = build(model_name), noise(2, 3, 17, 23)
    other = explain(model, inputs, TECHNIQUES[name], target=logit([[3, 4], [0, 1]]))
    found = judged(model_name, name, other)
    layers = 2 if name == "grad_cam" else 1
    assert [judgement.verdict for judgement in found] == ["rounding", "bug"] * 2 * layers


def test_a_class_asked_twice_is_judged_twice() -> None:
    technique, inputs = TECHNIQUES["grad_cam"], noise(1, 3, 17, 23)
    single, double = (
        explain(build("cnn", dtype), inputs.to(dtype), technique, target=[[3, 3]])
        for dtype in (torch.float32, torch.float64)
    )
    assert len(judge_all(single, double, plain=single)) == 4


def test_a_missing_layer_is_a_bug() -> None:
    oracle = ask("cnn", "grad_cam", torch.float64)
    less = replace(oracle, raw={"body": oracle.raw["body"]}, computes_in=torch.float32)
    found = judged("cnn", "grad_cam", less)
    assert [judgement.verdict for judgement in found] == ["rounding"] * 4 + ["bug"]


def test_the_starting_noise_proves_nothing(model_name: str) -> None:
    oracle = ask(model_name, "filter_visualization", torch.float64)
    still = replace(oracle, raw={**oracle.raw, FIRST_STEP: oracle.technique.start(build(model_name))})
    assert verdicts(judged(model_name, "filter_visualization", still)) == {"bug"}


@pytest.mark.parametrize("name", TECHNIQUES)
def test_hooks_is_at_most_twice_as_far_off_as_captum(model_name: str, name: str) -> None:
    oracle, plain = ask(model_name, name, torch.float64), ask(model_name, name, torch.float32, "captum")
    found = judge_all(ask(model_name, name, torch.float32), oracle, plain=plain)
    assert verdicts(found) == {"rounding"}, found
    assert PLAIN == 2


def test_what_cannot_be_judged_is_refused() -> None:
    single, double = (ask("cnn", "occlusion", dtype) for dtype in (torch.float32, torch.float64))
    with pytest.raises(InputError, match=r"no error budget is stated for 'saliency'.*plain"):
        budget_factor(Saliency(), torch.float32)
    with pytest.raises(InputError, match=r"torch\.int64 does not round"):
        budget_factor(Occlusion(), torch.int64)
    with pytest.raises(InputError, match=r"computes in torch\.float32"):
        judge_all(single, ask("cnn", "occlusion", torch.float64, "captum"), plain=single)
    with pytest.raises(InputError, match=r"computes in torch\.float32"):
        judge_all(single, double, [single])
    with pytest.raises(InputError, match="either"):
        judge_all(single, double)
    with pytest.raises(InputError, match="either"):
        judge_all(single, double, [double], plain=single)
    with pytest.raises(InputError, match="stands an answer with"):
        judge_all(single, double, [ask("cnn", "grad_cam", torch.float64)])
    with pytest.raises(InputError, match=r"beside it.*shapes"):
        judge("x", ONE, ONE, [ONE[:1]], factor=16.0, dtype=torch.float32)
    with pytest.raises(InputError, match="off by nan"):
        judge("x", ONE, ONE, [ONE * float("nan")], factor=16.0, dtype=torch.float32)
