"""ROAD: imputation against a dense system in float64 and closed forms, the metric by hand, and mutants."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import FunctionScore, InputError, Saliency
from attribution.inputs.inputs import Inputs
from attribution.metrics import ROAD, SRG, Case, ROADLeRF, ROADMoRF, baselines, evaluate, removal_curves
from attribution.metrics.imputation import impute
from attribution.metrics.removal import counts
from attribution.testing import guard, small_cnn
from tests.conftest import noise
from tests.metrics import by_hand
from tests.metrics.asked import SEEN, SIZE, Counted, a_map, cnn, only, photos

PARTS = (0.2, 0.5, 0.9)


def holes(*shape: int, part: float, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < part


@pytest.mark.parametrize("part", [0.1, 0.6, 0.97])
@pytest.mark.parametrize("shape", [(1, 3, 17, 23), (3, 2, 30, 9), (3, 1, 1, 40)])
def test_imputation_is_that_of_a_dense_system(shape: tuple[int, ...], part: float) -> None:
    x, gone = noise(*shape, dtype=torch.bfloat16).double(), holes(shape[0], 1, *shape[2:], part=part)
    gone[..., 0, 0] = False
    expected = torch.stack([by_hand.imputed(x[n], gone[n, 0]) for n in range(shape[0])])
    kept = (~gone).expand_as(x)
    for dtype, close in ((torch.float64, 1e-11), (torch.float32, 2e-4), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)):
        found = impute(x.to(dtype), gone)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=close)
        assert torch.equal(found.double()[kept], x[kept])
    other = by_hand.imputed(x[0], gone[0, 0], diagonal=1 / 6)  # the mutant: all neighbours weigh the same
    assert shape[2] == 1 or (other - expected[0]).abs().max() > 1e-3


def test_neither_the_batch_nor_the_size_counts() -> None:
    x, gone = noise(3, 3, 61, 90), holes(3, 1, 61, 90, part=0.7)
    whole = impute(x, gone)
    for n in range(3):
        torch.testing.assert_close(whole[n : n + 1], impute(x[n : n + 1], gone[n : n + 1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.double(), impute(x.double(), gone), rtol=0, atol=1e-4)
    assert (impute(x, gone.roll(1, 0)) - whole).abs().max() > 0.1


def test_closed_forms() -> None:
    gone = holes(1, 1, 21, 34, part=0.8)
    constant = torch.full((1, 3, 21, 34), 0.7, dtype=torch.float64)
    torch.testing.assert_close(impute(constant, gone), constant, rtol=0, atol=1e-13)
    rows, columns = torch.meshgrid(torch.arange(21.0), torch.arange(34.0), indexing="ij")
    ramp = (3 * rows - 2 * columns + 5).double()[None, None]
    inside = gone.clone()
    inside[..., [0, -1], :] = inside[..., [0, -1]] = False
    torch.testing.assert_close(impute(ramp, inside), ramp, rtol=0, atol=1e-10)
    assert (impute(ramp, gone) - ramp).abs().max() > 0.1  # at the border there is no neighbour on one side
    bowl = rows.double().square()[None, None]
    assert (impute(bowl, inside) - bowl).abs().max() > 0.1
    assert torch.equal(impute(ramp, torch.zeros_like(gone)), ramp)
    torch.testing.assert_close(impute(ramp, torch.ones_like(gone)), ramp.mean().expand_as(ramp), rtol=0, atol=1e-10)
    far = impute(1e6 + 1e-3 * ramp, inside)
    torch.testing.assert_close(far, 1e6 + 1e-3 * ramp, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_road_is_that_of_a_loop(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "IMPUTED", 0.0)
    model, x, map_ = cnn(), noise(count, 3, 11, 14, dtype=torch.float64), a_map(count, 2, 5, 6)
    targets = [[1, 4], [0, 2], [3, 3]][:count]
    asked: dict[str, Any] = {"target": targets, "baselines": ("linear",), "removed": PARTS, "cells": None}
    found = only(removal_curves(model, x, {"m": map_}, **asked))
    assert found.removed.tolist() == [0, 6 / 30, 15 / 30, 27 / 30]
    blank = torch.zeros(1, 11, 14), torch.ones(1, 11, 14)
    for n in range(count):
        for t in range(2):
            score = by_hand.probability(model, targets[n][t])
            order = map_[n, t].flatten().argsort(descending=True).tolist()
            for cells, curve in ((order, found.most), (order[::-1], found.least)):
                for k, removed in enumerate(counts(30, PARTS)[1:], 1):
                    gone = by_hand.removed(*blank, places(cells[:removed]), (5, 6))
                    expected = score(by_hand.imputed(x[n], gone[0] > 0))
                    assert float(curve[n, t, 0, k]) == pytest.approx(expected, abs=1e-10)
                assert float(curve[n, t, 0, 0]) == pytest.approx(score(x[n]), abs=1e-12)
    mean = found.least[:, :, 0, 1:].mean(-1), found.most[:, :, 0, 1:].mean(-1)
    case = Case(model=model, inputs=Inputs.of(x), given=map_, target=targets)  # type: ignore[arg-type]
    for metric, expected_values in (
        (ROAD(removed=PARTS, cells=None), (mean[0] - mean[1]) / 2),
        (ROADLeRF(removed=PARTS, cells=None), mean[0]),
        (ROADMoRF(removed=PARTS, cells=None), mean[1]),
    ):
        torch.testing.assert_close(metric.measure(case)[""], expected_values, rtol=0, atol=1e-12)
    turned = only(removal_curves(model, x, {"m": -map_}, **asked))
    torch.testing.assert_close(turned.most, found.least, rtol=0, atol=1e-12)
    assert (found.least - found.most)[..., 1:].abs().min() > 1e-9  # the mutant: the ranking reversed


def places(cells: list[int]) -> set[tuple[int, ...]]:
    return {(cell // 6, cell % 6) for cell in cells}


class Kept(nn.Module):
    """Shows what it was shown."""

    def forward(self, x: Tensor) -> Tensor:
        SHOWN.append(x.clone())
        return x.flatten(1)[:, :5]


SHOWN: list[Tensor] = []


def test_noise_is_small_seeded_and_belongs_to_the_photo() -> None:
    x, map_ = photos(), a_map(3, 1, 4, 5)
    asked: dict[str, Any] = {"target": FunctionScore(lambda y: y[:, 0]), "baselines": ("linear",), "removed": (0.5,)}

    def shown(first: int, rows: slice, seed: int = 0) -> Tensor:
        SHOWN.clear()
        removal_curves(Kept(), x[rows], {"m": map_[rows]}, first=first, seed=seed, **asked)
        return torch.cat(SHOWN[-1:])

    whole = shown(0, slice(0, 3))
    assert len(whole) == 6
    for n in range(3):
        gone = (whole[n] != x[n]).any(0)
        assert 0.4 < float(gone.double().mean()) < 0.6
        rest = (whole[n] - by_hand.imputed(x[n], gone))[:, gone]
        assert float(rest.std()) == pytest.approx(0.01 * float(x[n].max() - x[n].min()), rel=0.1)
        assert abs(float(rest.mean())) < float(rest.std()) / 5
        assert torch.equal(shown(n, slice(n, n + 1))[0], whole[n])
    assert not torch.equal(shown(0, slice(0, 3), seed=1), whole)
    assert not torch.equal(shown(1, slice(0, 1))[0], whole[0])


def test_forwards_and_few_cells() -> None:
    model, x = Counted(), photos(2)
    asked: dict[str, Any] = {"target": 1, "baselines": ("linear",), "removed": ROAD().removed}
    removal_curves(model, x, {"m": a_map(2, 1, 5, 6)}, **asked)
    SEEN.clear()
    removal_curves(model, x, {"m": a_map(2, 1, 5, 6)}, **asked)
    assert sum(SEEN) == 2 * (2 * 9 + 1)  # nothing is ever removed whole
    assert counts(4, ROAD().removed) == [0, 0, 1, 1, 2, 2, 2, 3, 3, 3]
    assert counts(100, ROAD().removed) == list(range(0, 100, 10))
    one = only(removal_curves(model, x, {"m": a_map(2, 1, 1, 1)}, **asked))
    assert torch.equal(one.least, one.most)


def test_in_a_table_beside_others_and_by_hand() -> None:
    model, x = small_cnn(), noise(7, 3, *SIZE)
    with guard(model):
        table = evaluate(
            model,
            x,
            {"saliency": Saliency(), "none": lambda inputs: torch.zeros(len(inputs), 1, 4, 5)},
            target=2,
            metrics=(ROAD(removed=PARTS), ROADLeRF(removed=PARTS), ROADMoRF(removed=PARTS), SRG(steps=3)),
            baselines=("mean", "linear"),
            batch_size=4,
        )
    assert table.variants("road") == [""]
    assert table.variants("srg") == ["mean", "linear"]
    found = table.values("road")["saliency"]
    halves = table.values("road_lerf")["saliency"] - table.values("road_morf")["saliency"]
    np.testing.assert_allclose(found, halves / 2, atol=1e-7)
    random = table.means("road")["none"]  # ties go by chance: the mean of such a map is 0
    assert random.low < 0 < random.high
    assert {row.removed for row in table.curves if row.map == "none"} == {0.0, 4 / 20, 10 / 20, 18 / 20}
    assert "road ↑, road_lerf ↑, road_morf ↓" in table.text()


@pytest.mark.parametrize("removed", [(), (0.5, 0.2), (0.0, 0.5), (0.5, 1.0), (0.2, 0.2), "half", (0.1, float("nan"))])
def test_parts_that_are_none_are_refused(removed: Any) -> None:
    with pytest.raises(InputError, match=r"ROAD\.removed is .*; give rising parts"):
        ROAD(removed=removed)


def test_series_are_refused_by_name() -> None:
    model, x = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten()), noise(2, 2, 9)
    with pytest.raises(InputError, match="need images"):
        evaluate(model, x, [Saliency()], target=1, metrics=(ROAD(),))
