"""Gradient techniques by both backends, held to plain loops in float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attribution import Execution, InputXGradient, IntegratedGradients, Saliency, explain
from attribution.technique import Technique
from attribution.techniques.gradient.quadrature import Rule
from tests.conftest import BACKENDS
from tests.techniques.gradient import oracle
from tests.techniques.gradient.cases import NAMES, Case, cases
from tests.techniques.gradient.oracle import Formula, maps, off

STEPS, BASELINE = 5, 0.25
IG = IntegratedGradients(steps=STEPS, baseline=BASELINE)
RULES: tuple[Rule, ...] = ("gausslegendre", "riemann_left", "riemann_middle", "riemann_right")
TECHNIQUES: dict[str, tuple[Technique, Formula]] = {
    "saliency": (Saliency(), oracle.saliency),
    "input_x_gradient": (InputXGradient(), oracle.input_x_gradient),
    "integrated_gradients": (IG, oracle.integrated_gradients(STEPS, "gausslegendre", BASELINE)),
}


def limit(technique: Technique, backend: str) -> float:
    """Captum weighs the points of integrated gradients in float32."""
    return 1e-7 if technique.name == "integrated_gradients" and backend == "captum" else 1e-10


@BACKENDS
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_both_backends_are_the_loops(technique: str, name: str, batch: int, backend: str) -> None:
    case, (asked, formula) = cases(batch)[name], TECHNIQUES[technique]
    before = [tensor.clone() for tensor in case.inputs]
    result = explain(case.model, case.given, asked, backend=backend, target=case.target)
    assert result.scores is not None
    assert off(dict(result.raw), maps(case, formula, result.scores.shape[1])) <= limit(asked, backend)
    assert all(torch.equal(*pair) for pair in zip(before, case.inputs, strict=True))


@BACKENDS
@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: Rule, backend: str) -> None:
    case = cases(3)["image"]
    asked = replace(IG, rule=rule)
    result = explain(case.model, case.given, asked, backend=backend, target=case.target)
    expected = maps(case, oracle.integrated_gradients(STEPS, rule, BASELINE), 2)
    assert off(dict(result.raw), expected) <= limit(asked, backend)


def test_trapezoid_by_hooks() -> None:
    case = cases(3)["image"]
    result = explain(case.model, case.given, replace(IG, rule="riemann_trapezoid"), target=case.target)
    expected = maps(case, oracle.integrated_gradients(STEPS, "riemann_trapezoid", BASELINE), 2)
    assert off(dict(result.raw), expected) <= 1e-10


@BACKENDS
@pytest.mark.parametrize("execution", [Execution(batch_size=2), Execution(batch_size=4), Execution(memory_budget=1)])
@pytest.mark.parametrize("name", ["two", "region", "callable", "similarity"])
def test_chunks_keep_masks_metadata_and_references(name: str, execution: Execution, backend: str) -> None:
    """Parts that begin and end within the examples of a point."""
    case = cases(3)[name]
    result = explain(case.model, case.given, IG, backend=backend, target=case.target, execution=execution)
    assert result.scores is not None
    expected = maps(case, TECHNIQUES["integrated_gradients"][1], result.scores.shape[1])
    assert off(dict(result.raw), expected) <= limit(IG, backend)


@BACKENDS
@pytest.mark.parametrize("name", ["image", "two", "region"])
def test_the_gap_is_what_is_missing(name: str, backend: str) -> None:
    case = cases(3)[name]
    result = explain(case.model, case.given, IG, backend=backend, target=case.target)
    for n in range(3):
        x = oracle.row(case, n)
        start = tuple(torch.full_like(v, BASELINE) if v.is_floating_point() else v for v in x)
        for t in range(result.extras["gap"].shape[1]):
            change = oracle.score(case, n, t, x) - oracle.score(case, n, t, start)
            gap = sum(map_[n, t].sum() for map_ in result.maps.values()) - change
            assert result.extras["gap"][n, t].item() == pytest.approx(float(gap), rel=1e-6, abs=1e-12)
            assert result.extras["relative_gap"][n, t].item() == pytest.approx(float(gap / change.abs()), rel=1e-6)


# What the comparisons above must see: each a way to be a little wrong.


def without_factor(case: Case, n: int, t: int) -> list[Tensor]:
    x = oracle.row(case, n)
    return [each / (x[place] - BASELINE) for place, each in zip(case.explained, right(case, n, t), strict=True)]


def one_step_too_few(case: Case, n: int, t: int) -> list[Tensor]:
    return oracle.integrated_gradients(STEPS - 1, "gausslegendre", BASELINE)(case, n, t)


def another_row(case: Case, n: int, t: int) -> list[Tensor]:
    return right(case, (n + 1) % 3, t)


def summed_over_examples(case: Case, n: int, t: int) -> list[Tensor]:
    return [torch.stack(each).sum(dim=0) for each in zip(*(right(case, m, t) for m in range(3)), strict=True)]


def another_baseline(case: Case, n: int, t: int) -> list[Tensor]:
    return oracle.integrated_gradients(STEPS, "gausslegendre", 0.0)(case, n, t)


def right(case: Case, n: int, t: int) -> list[Tensor]:
    return TECHNIQUES["integrated_gradients"][1](case, n, t)


@BACKENDS
@pytest.mark.parametrize("name", ["image", "two", "region"])
@pytest.mark.parametrize(
    "mutant", [without_factor, one_step_too_few, another_row, summed_over_examples, another_baseline]
)
def test_wrong_integrated_gradients_are_seen(mutant: Formula, name: str, backend: str) -> None:
    case = cases(3)[name]
    result = explain(case.model, case.given, IG, backend=backend, target=case.target)
    assert result.scores is not None
    assert off(dict(result.raw), maps(case, mutant, result.scores.shape[1])) > 1e-5


@BACKENDS
def test_wrong_saliency_is_seen(backend: str) -> None:
    case = cases(3)["image"]
    absolute, signed = (
        dict(explain(case.model, case.given, Saliency(absolute=each), backend=backend, target=case.target).raw)
        for each in (True, False)
    )
    plain = maps(case, lambda case, n, t: oracle.gradients(case, n, t, oracle.row(case, n)), 2)
    assert off(signed, plain) <= 1e-10
    assert off(absolute, plain) > 0.1
    product = dict(explain(case.model, case.given, InputXGradient(), backend=backend, target=case.target).raw)
    assert off(product, plain) > 0.1
