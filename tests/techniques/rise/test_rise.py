"""RISE against loops, against what it estimates, and what changes no map: chunks, neighbours, more masks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import RISE, ClassScore, Execution, InputError, RegionScore, ValueScore, explain
from attribution.testing import small_cnn
from attribution_hooks.perturbation import masks as made
from attribution_hooks.perturbation import rise as hooks
from tests.conftest import noise
from tests.live import Live
from tests.techniques.rise.loop import rise, second_moments

DOUBLE = torch.float64


SEEN: list[int] = []
"""Rows of each forward of `Any_`."""


class Any_(nn.Module):
    """Of inputs of any rank, with a bend."""

    def __init__(self, shape: tuple[int, ...], classes: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(classes, *shape, dtype=DOUBLE, seed=3))

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append(len(x))
        return ((x + 0.3 * x**2).flatten(1) @ self.weight.flatten(1).T).tanh() * 2


FORMS: dict[str, tuple[tuple[int, ...], Any]] = {
    "features": ((11,), 4),
    "series": ((3, 13), 5),
    "image": ((3, 7, 11), (3, 4)),
    "image of other cells": ((2, 9, 6), 2),
    "volume": ((2, 4, 5, 3), 2),
}
LOGIT = ClassScore([[0, 3], [2, 1], [1, 1]], of="logit")


def exact(question: RISE, model: nn.Module, x: Tensor, score: Callable[[Tensor, int], Any]) -> tuple[Tensor, Tensor]:
    places = tuple(x.shape[2:] if x.ndim > 2 else x.shape[1:])
    cover, drawn = question.cover(x), question.drawn_masks(places)
    with torch.no_grad():
        found = [
            rise(lambda y, n=n: score(model(y), n), x[n], cover[n % len(cover)], drawn, question.keep)  # type: ignore[misc]
            for n in range(len(x))
        ]
    maps, errors = zip(*found, strict=True)
    return torch.stack(maps), torch.stack(errors)


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-10 * b.abs().max() and b.abs().max() > 1e-3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("examples", [1, 3])
def test_of_every_form(form: str, examples: int) -> None:
    shape, cells = FORMS[form]
    model, x = Any_(shape), noise(examples, *shape, dtype=DOUBLE)
    question = RISE(masks=16, cells=cells, keep=0.4, seed=5, baseline=0.5)
    targets = [[0, 3], [2, 1], [1, 1]][:examples]
    result = explain(model, x, question, target=ClassScore(targets, of="logit"))
    maps, errors = exact(question, model, x, lambda o, n: [float(o[0, t]) for t in targets[n]])
    assert close(result.map, maps)
    assert close(result.extras["standard_error"], errors)
    assert result.extras["masks"].tolist() == [16] * examples
    assert not close(result.map.flip(-1), maps)
    assert not close(result.map.roll(1, 1), maps)


def test_of_other_scores_and_baselines() -> None:
    shape = (3, 7, 11)
    model, x = Any_(shape), noise(3, *shape, dtype=DOUBLE)
    for baseline in ((0.5, -1.0, 2.0), noise(3, *shape, dtype=DOUBLE, seed=9), "blur"):
        question = RISE(masks=8, cells=3, baseline=baseline)
        result = explain(model, x, question, target=ClassScore(2))
        assert close(result.map, exact(question, model, x, lambda o, n: [float(o.softmax(1)[0, 2])])[0])
        assert not close(
            result.map, exact(RISE(masks=8, cells=3), model, x, lambda o, n: [float(o.softmax(1)[0, 2])])[0]
        )
    value = explain(model, x, RISE(masks=8, cells=3), target=ValueScore(1))
    assert close(value.map, exact(RISE(masks=8, cells=3), model, x, lambda o, n: [float(o[0, 1])])[0])


class Segments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


def test_a_region_of_each_image() -> None:
    mask = torch.zeros(3, 7, 11, dtype=torch.bool)
    mask[0, :3, :4] = mask[1, 2:, 5:] = mask[2, 6, :] = True
    model, x, question = Segments(), noise(3, 3, 7, 11, dtype=DOUBLE), RISE(masks=8, cells=3)
    result = explain(model, x, question, target=RegionScore(2, mask))
    assert close(result.map, exact(question, model, x, lambda o, n: [float(o[0, 2][mask[n]].mean())])[0])
    assert not close(result.map, exact(question, model, x, lambda o, n: [float(o[0, 2][mask[n - 1]].mean())])[0])


class Two(nn.Module):
    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        joined = image.sum((1, 3))[:, :4] * table
        return joined + joined.roll(1, 1).tanh()


def test_of_several_inputs_each_is_masked_alone() -> None:
    image, table, model = noise(2, 3, 5, 7, dtype=DOUBLE), noise(2, 4, dtype=DOUBLE, seed=2), Two()
    question = RISE(masks=30, cells=3)
    result = explain(model, (image, table), question, target=ClassScore(1, of="logit"))
    for key, x, call in (
        ("input.0", image, lambda y, n: model(y, table[n : n + 1])),
        ("input.1", table, lambda y, n: model(image[n : n + 1], y)),
    ):
        drawn = question.drawn_masks(tuple(x.shape[2:] if x.ndim > 2 else x.shape[1:]))
        for n in range(2):
            wanted, errors = rise(lambda y, n=n, call=call: [float(call(y, n)[0, 1])], x[n], 0 * x[n], drawn, 0.5)  # type: ignore[misc]
            assert close(result.maps[key][n], wanted)
            assert close(result.extras[f"standard_error {key}"][n], errors)
    alone = explain(model, (image, table), RISE(masks=30, cells=3, input=1), target=ClassScore(1, of="logit"))
    assert [*alone.maps] == ["input.1"]
    assert torch.equal(alone.maps["input.1"], result.maps["input.1"])


LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(3 * 7 * 9, 2)).double()
with torch.no_grad():
    LINEAR[1].weight.copy_(noise(2, 189, dtype=DOUBLE, seed=4))  # type: ignore[operator]
    LINEAR[1].bias.copy_(torch.tensor([3.0, -2.0]))  # type: ignore[operator]


def expectation(x: Tensor, keep: float) -> Tensor:
    """(N, 2, 7, 9): Σ over q of w·x[q] · E[M[p] M[q]] / keep + b."""
    evidence = torch.einsum("tcq,ncq->ntq", LINEAR[1].weight.detach().view(2, 3, -1), x.flatten(2))  # type: ignore[operator]
    moments = second_moments((7, 9), (3, 4), keep)
    return (evidence @ moments / keep + LINEAR[1].bias.detach()[:, None]).view(len(x), 2, 7, 9)  # type: ignore[operator]


@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_of_a_linear_model_it_estimates_what_is_known(keep: float) -> None:
    """Within three standard errors at 98 % of the places, and nowhere beyond five."""
    x = noise(2, 3, 7, 9, dtype=DOUBLE)
    found = explain(LINEAR, x, RISE(masks=3000, cells=(3, 4), keep=keep), target=ClassScore("all", of="logit"))
    off = (found.map - expectation(x, keep)).abs() / found.extras["standard_error"]
    assert (off <= 3).double().mean() >= 0.98
    assert off.max() <= 5
    other = (found.map - expectation(x, keep + 0.1)).abs() / found.extras["standard_error"]
    assert (other <= 3).double().mean() < 0.98, "masks that keep another part are told apart"


def test_the_standard_error_is_what_maps_of_other_seeds_differ_by() -> None:
    x, target = noise(1, 3, 7, 9, dtype=DOUBLE), ClassScore("all", of="logit")
    found = [explain(LINEAR, x, RISE(masks=64, cells=(3, 4), seed=seed), target=target) for seed in range(60)]
    spread = torch.stack([each.map for each in found]).std(0)
    told = torch.stack([each.extras["standard_error"] for each in found]).mean(0)
    assert 0.85 < float((spread / told).mean()) < 1.15


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_chunks_change_no_bit(size: int) -> None:
    """Of a model that says the same bits in every batch."""

    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([row.double().sum((1, 2)).float() for row in x])

    x, question = noise(3, 3, 7, 11), RISE(masks=150, cells=3)
    whole = explain(Rows(), x, question, target="all")
    found = explain(Rows(), x, question, target="all", execution=Execution(batch_size=size))
    assert torch.equal(found.map, whole.map)
    assert torch.equal(found.extras["standard_error"], whole.extras["standard_error"])


def test_neighbours_and_more_masks() -> None:
    model, x = small_cnn(dtype=DOUBLE), noise(3, 3, 17, 23, dtype=DOUBLE)
    question = RISE(masks=100, cells=4)
    whole = explain(model, x, question, target=2)
    for n in range(3):
        alone = explain(model, x[n : n + 1], question, target=2)
        assert (alone.map[0] - whole.map[n]).abs().max() <= 1e-12
    few, many = (RISE(masks=masks, seed=3).drawn_masks((17, 23)) for masks in (5, 5000))
    assert torch.equal(few.bits, many.bits[:5])
    assert torch.equal(few.offsets, many.offsets[:5])
    assert not torch.equal(few.bits, RISE(masks=5, seed=4).drawn_masks((17, 23)).bits)


def test_forwards_are_masks_for_any_number_of_classes() -> None:
    model, x = Any_((3, 7, 11)), noise(2, 3, 7, 11, dtype=DOUBLE)
    counts = []
    for target in (1, "all"):
        explain(model, x, RISE(masks=200, cells=3), target=target)
        SEEN.clear()
        explain(model, x, RISE(masks=200, cells=3), target=target)
        counts.append(sum(SEEN))
    assert counts[0] == counts[1]
    assert 2 * 200 + 2 <= counts[0] <= 2 * 200 + 2 + 8, "with what a call takes to know the model again"


def test_it_stops_for_each_example_when_the_error_is_small_enough() -> None:
    model, x = Any_((3, 7, 11)), noise(3, 3, 7, 11, dtype=DOUBLE) * torch.tensor([1.0, 0.02, 0.2]).view(3, 1, 1, 1)
    question, target = RISE(masks=700, cells=3, error=0.1), lambda output: output[:, 2] + 1
    result = explain(model, x, question, target=target)
    masks = result.extras["masks"].tolist()
    assert len({*masks}) > 1
    assert all(each % 64 == 0 or each == 700 for each in masks)
    for n, count in enumerate(masks):
        near = result.extras["standard_error"][n, 0].max() <= 0.1 * result.map[n, 0].abs().max()
        assert near or count == 700
        plain = explain(model, x[n : n + 1], RISE(masks=count, cells=3), target=target)
        assert (plain.map[0] - result.map[n]).abs().max() <= 1e-12
        if count > 64:
            earlier = explain(model, x[n : n + 1], RISE(masks=(count - 1) // 64 * 64, cells=3), target=target)
            assert earlier.extras["standard_error"].max() > 0.1 * earlier.map.abs().max(), "it might have stopped"


def test_memory_is_flat_in_the_number_of_masks() -> None:
    model, x = small_cnn(), noise(1, 3, 31, 37)
    peaks = []
    explain(model, x, RISE(masks=64), target=1)  # what is found out once
    for masks in (128, 384):
        with Live() as live:
            explain(model, x, RISE(masks=masks), target=1, execution=Execution(batch_size=16))
        held = masks * (49 + 2) * 8 + masks * (49 + 16)  # the numbers drawn, bits and offsets
        peaks.append(live.peak - held)
    assert peaks[1] <= 1.05 * peaks[0]


MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "aligned corners": lambda patch: patch.setattr(
        made, "_enlargement", lambda places, cells: _aligned(places, cells)),
    "masks not shifted": lambda patch: patch.setattr(
        made, "_enlargement", lambda places, cells, plain=made._enlargement: plain(places, cells)[:1].expand(
            -(-places // cells), -1, -1)),
    "not divided by what is kept": lambda patch: patch.setattr(RISE, "keep", property(lambda self: 1.0)),
    "the mask of the other places": lambda patch: patch.setattr(
        hooks._Estimate, "_add", lambda self, masks, *rest, plain=hooks._Estimate._add: plain(self, 1 - masks, *rest)),
    "the mask before": lambda patch: patch.setattr(
        hooks._Estimate, "_add", lambda self, masks, *rest, plain=hooks._Estimate._add: plain(
            self, masks.roll(1, 0), *rest)),
}  # fmt: skip


def _aligned(places: int, cells: int) -> Tensor:
    size = -(-places // cells)
    length = (cells + 1) * size
    at = torch.arange(length, dtype=DOUBLE) * (cells - 1) / (length - 1)
    weights = (1 - (at[:, None] - torch.arange(cells)).abs()).clamp(min=0)
    return torch.stack([weights[offset : offset + places] for offset in range(size)])


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, question = Any_((3, 7, 11)), noise(2, 3, 7, 11, dtype=DOUBLE), RISE(masks=10, cells=3, keep=0.4)
    wanted = exact(question, model, x, lambda o, n: [float(o[0, 1])])[0]
    asked = ClassScore(1, of="logit")
    assert close(explain(model, x, question, target=asked).map, wanted)
    if "kept" in name:
        monkeypatch.setattr(hooks._Estimate, "told", lambda self, plain=hooks._Estimate.told: tuple(
            each * 0.4 for each in plain(self)))  # fmt: skip
    else:
        MUTANTS[name](monkeypatch)
    assert not close(explain(model, x, question, target=asked).map, wanted)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"masks": 1}, "give an int of at least 2"),
        ({"cells": 0}, "give an int of at least 1"),
        ({"keep": 1.0}, "below 1"),
        ({"keep": 0.0}, "above 0"),
        ({"error": -1.0}, "above 0"),
        ({"seed": -1}, "at least 0"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        RISE(**fields)


@pytest.mark.parametrize("cells", [8, (3, 12), (3,), (2, 2, 2)])
def test_a_grid_that_does_not_fit_is_refused_before_any_work(cells: Any) -> None:
    model = Any_((3, 7, 11))
    SEEN.clear()
    with pytest.raises(InputError, match=r"RISE\.cells is .* give one int, or one for each place axis"):
        explain(model, noise(1, 3, 7, 11, dtype=DOUBLE), RISE(cells=cells))
    assert SEEN == []
