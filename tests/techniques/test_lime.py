"""LIME: weighted normal equations in plain loops, additive models, standard errors, and what changes no map."""

from dataclasses import replace
from math import exp, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import LIME, Execution, InputError, compare, explain
from attribution_captum import shapley as captum
from attribution_hooks.perturbation import shapley
from attribution_hooks.perturbation.feature_ablation import spread
from tests.conftest import BACKENDS, noise
from tests.techniques.test_shapley import DOUBLE, LOGITS, PARTS, Additive, Bent, close, scores, terms

NUMBERS = [0, 2, 5, 9]
QUESTION = LIME(segments=PARTS, samples=40, baseline=0.3)


def exact(question: LIME, model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(T, H, W) of one example and its errors: the normal equations, row by row; segments by their integers."""
    rows, numbers = question.coalitions(4).tolist(), sorted({*labels.flatten().tolist()})
    cover = torch.full_like(x, float(question.baseline))  # type: ignore[arg-type]
    gram, right = torch.zeros(5, 5, dtype=DOUBLE), torch.zeros(5, 3, dtype=DOUBLE)
    each = []
    for row in rows:
        there = {number for number, shown in zip(numbers, row, strict=True) if shown}
        weight = exp(-((1 - sqrt(len(there) / 4)) ** 2) / (2 * question.width**2))
        z, y = torch.tensor([*map(float, row), 1.0], dtype=DOUBLE), scores(model, x, cover, there, labels)
        gram += weight * torch.outer(z, z)
        right += weight * torch.outer(z, y)
        each.append((weight, z, y))
    values, inverse = torch.linalg.solve(gram, right), torch.linalg.inv(gram)
    errors = torch.zeros(5, 3, dtype=DOUBLE)
    for weight, z, y in each:
        errors += torch.outer((inverse @ z * weight) ** 2, (y - z @ values) ** 2)
    maps = [torch.zeros(3, *labels.shape, dtype=DOUBLE) for _ in range(2)]
    for k, number in enumerate(numbers):
        for map_, of in zip(maps, (values, errors.sqrt()), strict=True):
            map_[:, labels == number] = of[k][:, None]
    return maps[0], maps[1]


@BACKENDS
@pytest.mark.parametrize("examples", [1, 3])
def test_against_normal_equations(examples: int, backend: str) -> None:
    model, x = Bent(), noise(examples, 2, 3, 5, dtype=DOUBLE)
    result = explain(model, x, QUESTION, target=LOGITS, backend=backend)
    found = [exact(QUESTION, model, each, PARTS) for each in x]
    within, maps = (1e-10 if backend == "hooks" else 1e-6), torch.stack([map_ for map_, _ in found])
    assert close(result.map, maps, within)
    assert not close(result.map.roll(1, 1), maps, within)
    wider = replace(QUESTION, width=0.5)
    assert not close(result.map, torch.stack([exact(wider, model, each, PARTS)[0] for each in x]), within)
    if backend == "hooks":
        assert close(result.extras["standard_error"], torch.stack([error for _, error in found]))


@BACKENDS
def test_of_an_additive_model_the_values_are_its_terms(backend: str) -> None:
    """Whatever the weights: its score is a linear model of the segments."""
    model, x = Additive(), noise(2, 2, 3, 5, dtype=DOUBLE)
    wanted = torch.zeros(2, 3, 3, 5, dtype=DOUBLE)
    for k in range(3):
        each = (terms(x, k) - terms(0 * x, k)).sum(1)
        for segment in NUMBERS:
            wanted[:, k, segment == PARTS] = each[:, segment == PARTS].sum(1, keepdim=True)
    for width in (0.1, 0.25, 3):
        question = LIME(segments=PARTS, samples=30, width=width)
        result = explain(model, x, question, target=LOGITS, backend=backend)
        assert close(result.map, wanted, 1e-9 if backend == "hooks" else 1e-4)
        if backend == "hooks":
            assert result.extras["standard_error"].abs().max() <= 1e-7


def test_the_error_is_what_other_seeds_differ_by() -> None:
    model, x = Bent(), noise(1, 2, 3, 5, dtype=DOUBLE)
    found = [explain(model, x, LIME(segments=PARTS, seed=n, samples=150), target=LOGITS) for n in range(40)]
    differ = torch.stack([each.map for each in found]).std(0)
    told = torch.stack([each.extras["standard_error"] for each in found]).mean(0)
    assert 0.75 < float((differ / told).mean()) < 1.3


def test_backends_agree_and_mutants_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Bent(), noise(2, 2, 3, 5)
    own = replace(QUESTION, segments=torch.stack([PARTS, (PARTS > 2).long()]))
    assert compare(model, x, QUESTION, target=LOGITS).holds
    assert compare(model, x, own, target=LOGITS).holds
    mutants: dict[str, tuple[Any, str, Any]] = {
        "1 % too large": (shapley, "spread", lambda values, labels: spread(values * 1.01, labels)),
        "the neighbour's": (shapley, "spread", lambda values, labels: spread(values.roll(1, 0), labels)),
        "other coalitions": (captum.CaptumLIME, "coalitions", lambda self, of, n: of.coalitions(n).roll(1, 1)),
    }  # fmt: skip
    for name, mutant in mutants.items():
        with monkeypatch.context() as patch:
            patch.setattr(*mutant)
            assert not compare(model, x, QUESTION, target=LOGITS).holds, name
    with monkeypatch.context() as patch:  # both backends ask the technique, so that the oracle has to tell
        patch.setattr(LIME, "weights", lambda self, drawn: torch.ones(len(drawn), dtype=DOUBLE))
        wrong = explain(model, x.double(), QUESTION, target=LOGITS).map
    assert not close(wrong, torch.stack([exact(QUESTION, model, each, PARTS)[0] for each in x.double()]), 1e-3)


def test_chunks_neighbours_and_the_global_generator_change_no_map() -> None:
    model, x = Bent(), noise(3, 2, 3, 5, dtype=DOUBLE)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    whole = explain(model, x, QUESTION, target=LOGITS)
    assert torch.equal(torch.get_rng_state(), before)
    for size in (1, 5, 1000):
        assert close(explain(model, x, QUESTION, target=LOGITS, execution=Execution(batch_size=size)).map, whole.map)
    assert close(torch.cat([explain(model, x[n : n + 1], QUESTION, target=LOGITS).map for n in range(3)]), whole.map)
    few, many = (LIME(samples=count).coalitions(9) for count in (30, 300))
    assert torch.equal(few, many[:30])
    assert few[0].all()
    assert abs(float(LIME(samples=20_000).coalitions(5).double().mean()) - 0.5) < 0.01


def test_what_cannot_be_told_apart_is_refused() -> None:
    x = noise(1, 2, 3, 5)
    with pytest.raises(InputError, match="coalitions of that weight do not tell 15 segments apart; give more samples"):
        explain(Bent(), x, LIME(samples=10), target=1)
    with pytest.raises(InputError, match="or a larger width"):
        explain(Bent(), x, LIME(samples=100, width=0.001), target=1)
    for fields in ({"samples": 1}, {"seed": -1}, {"width": 0}, {"width": float("nan")}, {"segments": 0}):
        with pytest.raises(InputError):
            LIME(**fields)
