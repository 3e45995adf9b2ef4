"""Shapley values of segments: all orders in plain loops, additive models, standard errors, and what changes no map."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ClassScore, Execution, InputError, KernelSHAP, ShapleySampling, compare, explain
from attribution_hooks.perturbation import shapley
from attribution_hooks.perturbation.feature_ablation import spread
from tests.conftest import BACKENDS, noise

DOUBLE = torch.float64
LOGITS = ClassScore("all", of="logit")
PARTS = torch.tensor([[0, 0, 0, 5, 5], [0, 2, 2, 5, 5], [9, 9, 2, 2, 9]])
BOTH = pytest.mark.parametrize("question", [ShapleySampling(segments=PARTS), KernelSHAP(segments=PARTS, samples=40)])


class Bent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        weight = noise(3, flat.shape[1], dtype=x.dtype, seed=3)
        return ((flat + 0.4 * flat**2) @ weight.T / 2).tanh() + 0.1 * flat[:, :3]


class Additive(nn.Module):
    """Σ over places of a function of each, so that each segment's value is the sum of its own terms."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([terms(x, k).flatten(1).sum(1) for k in range(3)], dim=1)


def terms(x: Tensor, k: int) -> Tensor:
    return (x * (k + 1)).sin() + k * x**3


def scores(model: nn.Module, x: Tensor, cover: Tensor, there: set[int], labels: Tensor) -> Tensor:
    """(T,) of one example, place by place."""
    shown = cover.clone()
    for i in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            if int(labels[i, j]) in there:
                shown[:, i, j] = x[:, i, j]
    with torch.no_grad():
        return model(shown[None])[0]  # type: ignore[no-any-return]


def of_orders(
    model: nn.Module, x: Tensor, cover: Tensor, labels: Tensor, orders: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """(T, H, W): the mean of what each segment adds, and its standard error; segments by their integers."""
    added: dict[int, list[Tensor]] = {}
    for order in orders:
        there: set[int] = set()
        before = scores(model, x, cover, there, labels)
        for segment in order:
            there.add(segment)
            after = scores(model, x, cover, there, labels)
            added.setdefault(segment, []).append(after - before)
            before = after
    maps, errors = torch.zeros(3, *labels.shape, dtype=DOUBLE), torch.zeros(3, *labels.shape, dtype=DOUBLE)
    for segment, each in added.items():
        rows = torch.stack(each)
        maps[:, labels == segment] = rows.mean(0)[:, None]
        errors[:, labels == segment] = (rows.std(0, correction=0) / (len(rows) - 1) ** 0.5)[:, None]
    return maps, errors


def close(a: Tensor, b: Tensor, within: float = 1e-10) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= within * b.abs().max() and b.abs().max() > 1e-3)


@BACKENDS
@pytest.mark.parametrize("examples", [1, 3])
def test_orders_against_loops(examples: int, backend: str) -> None:
    model, x, question = (
        Bent(),
        noise(examples, 2, 3, 5, dtype=DOUBLE),
        ShapleySampling(segments=PARTS, permutations=5, baseline=0.3),
    )
    result = explain(model, x, question, target=LOGITS, backend=backend)
    numbers = [0, 2, 5, 9]
    orders = [[numbers[index] for index in order] for order in question.orders(4).tolist()]
    found = [of_orders(model, each, torch.full_like(each, 0.3), PARTS, orders) for each in x]
    within = 1e-10 if backend == "hooks" else 1e-6
    maps = torch.stack([map_ for map_, _ in found])
    assert close(result.map, maps, within)
    assert not close(result.map.roll(1, 1), maps, within)
    if backend == "hooks":
        assert close(result.extras["standard_error"], torch.stack([error for _, error in found]))


@BACKENDS
@BOTH
def test_of_an_additive_model_the_values_are_its_terms(question: Any, backend: str) -> None:
    model, x = Additive(), noise(2, 2, 3, 5, dtype=DOUBLE)
    result = explain(model, x, question, target=LOGITS, backend=backend)
    wanted = torch.zeros(2, 3, 3, 5, dtype=DOUBLE)
    for k in range(3):
        each = (terms(x, k) - terms(0 * x, k)).sum(1)
        for segment in (0, 2, 5, 9):
            wanted[:, k, segment == PARTS] = each[:, segment == PARTS].sum(1, keepdim=True)
    assert close(result.map, wanted, 1e-10 if backend == "hooks" else 1e-5)
    if backend == "hooks":
        assert result.extras["standard_error"].abs().max() <= 1e-7, "each order says the same"


@BACKENDS
@BOTH
def test_values_add_up_to_what_all_segments_change(question: Any, backend: str) -> None:
    model, x = Bent(), noise(2, 2, 3, 5, dtype=DOUBLE)
    result = explain(model, x, question, target=LOGITS, backend=backend)
    total = sum(result.map[:, :, segment == PARTS][..., 0] for segment in (0, 2, 5, 9))
    assert close(total, model(x) - model(0 * x), 1e-10 if backend == "hooks" else 1e-5)  # type: ignore[arg-type]


def test_both_come_near_the_mean_over_all_orders_within_their_errors() -> None:
    model, x = Bent(), noise(1, 2, 3, 5, dtype=DOUBLE)
    exact, _ = of_orders(model, x[0], 0 * x[0], PARTS, [list(order) for order in permutations([0, 2, 5, 9])])
    for question in (ShapleySampling(segments=PARTS, permutations=300), KernelSHAP(segments=PARTS, samples=3000)):
        result = explain(model, x, question, target=LOGITS)
        off = (result.map[0] - exact).abs()
        assert (off <= 4 * result.extras["standard_error"][0] + 1e-12).all()
        assert result.extras["standard_error"].max() <= 0.1 * exact.abs().max()


@pytest.mark.parametrize("kind", [ShapleySampling, KernelSHAP])
def test_the_error_is_what_other_seeds_differ_by(kind: Any) -> None:
    model, x = Bent(), noise(1, 2, 3, 5, dtype=DOUBLE)
    many = {"permutations": 12} if kind is ShapleySampling else {"samples": 120}
    found = [explain(model, x, kind(segments=PARTS, seed=seed, **many), target=LOGITS) for seed in range(40)]
    differ = torch.stack([each.map for each in found]).std(0)
    told = torch.stack([each.extras["standard_error"] for each in found]).mean(0)
    assert 0.75 < float((differ / told).mean()) < 1.3


@BOTH
def test_backends_agree_and_a_hundredth_is_seen(question: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of segments of each image, whose numbers differ."""
    model, x = Bent(), noise(2, 2, 3, 5)
    own = replace(question, segments=torch.stack([PARTS, (PARTS > 2).long()]))
    assert compare(model, x, question, target=LOGITS).holds
    assert compare(model, x, own, target=LOGITS).holds
    whole = explain(model, x, own, target=LOGITS).map
    for n in range(2):
        alone = replace(own, segments=own.segments[n])
        assert close(explain(model, x[n : n + 1], alone, target=LOGITS).map, whole[n : n + 1], 1e-5)
    for wrong in (
        lambda values, labels: spread(values * 1.01, labels),
        lambda values, labels: spread(values.roll(1, 0), labels),
    ):
        monkeypatch.setattr(shapley, "spread", wrong)
        assert not compare(model, x, question, target=LOGITS).holds


@BOTH
def test_chunks_neighbours_and_the_global_generator_change_no_map(question: Any) -> None:
    model, x = Bent(), noise(3, 2, 3, 5, dtype=DOUBLE)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    whole = explain(model, x, question, target=LOGITS)
    assert torch.equal(torch.get_rng_state(), before)
    for size in (1, 5, 1000):
        assert close(explain(model, x, question, target=LOGITS, execution=Execution(batch_size=size)).map, whole.map)
    alone = torch.cat([explain(model, x[n : n + 1], question, target=LOGITS).map for n in range(3)])
    assert close(alone, whole.map)
    few, many = (ShapleySampling(permutations=count).orders(9) for count in (3, 30))
    assert torch.equal(few, many[:3])


def test_coalitions_are_drawn_by_the_kernel() -> None:
    drawn = KernelSHAP(samples=20_000).coalitions(5)
    sizes = torch.bincount(drawn.sum(1), minlength=6).double() / len(drawn)
    chances = torch.tensor([0.0, *[1 / (k * (5 - k)) for k in range(1, 5)], 0.0], dtype=DOUBLE)
    assert torch.allclose(sizes, chances / chances.sum(), atol=0.015)
    assert (drawn.double().mean(0) - 0.5).abs().max() < 0.02


def test_what_cannot_be_told_apart_is_refused() -> None:
    x = noise(1, 2, 3, 5)
    with pytest.raises(InputError, match="these coalitions do not tell 15 segments apart"):
        explain(Bent(), x, KernelSHAP(samples=10), target=1)
    with pytest.raises(InputError, match="there is one; give segments of at least 2 parts"):
        explain(Bent(), x, KernelSHAP(segments=1), target=1)
    for fields in ({"permutations": 1}, {"seed": -1}, {"segments": 0}):
        with pytest.raises(InputError):
            ShapleySampling(**fields)
