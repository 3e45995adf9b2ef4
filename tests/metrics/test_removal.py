"""Curves of removal: closed forms, float64 loops, and mutants of both."""

from typing import Any

import pytest
import torch

from attribution import (
    ClassScore,
    Execution,
    GradCAM,
    InputXGradient,
    Saliency,
    ValueScore,
    explain,
)
from attribution.metrics import (
    removal_curves,
)
from attribution.metrics.removal import counts
from tests.metrics import by_hand
from tests.metrics.asked import SIZE, a_map, additive, cnn, doubles, only, photos


@pytest.mark.parametrize("grid", [(3, 5), (7, 4), SIZE])
@pytest.mark.parametrize("count", [1, 3])
def test_curves_are_those_of_a_loop_over_images(grid: tuple[int, int], count: int) -> None:
    model, x, map_ = cnn(), photos(count), a_map(count, 2, *grid)
    target = [[1, 4], [0, 2], [3, 3]][:count]
    found = only(removal_curves(model, x, {"map": map_}, target=target, baselines=("mean",), steps=6, cells=None))
    for n in range(count):
        base = by_hand.mean_colour(x[n])
        for t in range(2):
            score = by_hand.probability(model, target[n][t])
            for values, least in ((found.most, False), (found.least, True)):
                expected = by_hand.curve(score, x[n], base, map_[n, t], 6, least=least)
                torch.testing.assert_close(values[n, t, 0], doubles(expected), rtol=0, atol=1e-12)
            most, least_ = (by_hand.curve(score, x[n], base, map_[n, t], 6, least=way) for way in (False, True))
            cells = map_[n, t].numel()
            expected_gain = by_hand.area(least_, cells, 6) - by_hand.area(most, cells, 6)
            assert float(found.srg[n, t, 0]) == pytest.approx(expected_gain, abs=1e-12)


@pytest.mark.parametrize("chunk", [1, 5, 16])
def test_many_maps_in_one_pass_are_each_alone_whatever_the_chunks(chunk: int) -> None:
    model, x = cnn(), photos()
    maps = {"a": a_map(3, 2, 3, 5), "b": a_map(3, 1, 6, 4, seed=2), "c": a_map(3, 2, *SIZE, seed=3)}
    asked: dict[str, Any] = {"target": [[1, 4]] * 3, "steps": 4, "cells": None}
    together = removal_curves(model, x, maps, execution=Execution(batch_size=chunk), **asked)
    for name, each in maps.items():
        alone = only(removal_curves(model, x, {name: each}, **asked))
        torch.testing.assert_close(together[name].most, alone.most, rtol=0, atol=1e-12)
        torch.testing.assert_close(together[name].least, alone.least, rtol=0, atol=1e-12)
        one_by_one = [
            only(removal_curves(model, x[n : n + 1], {name: each[n : n + 1]}, first=n, **{**asked, "target": [[1, 4]]}))
            for n in range(3)
        ]
        torch.testing.assert_close(together[name].most, torch.cat([c.most for c in one_by_one]), rtol=0, atol=1e-12)
    of_another = only(removal_curves(model, x, {"a": maps["a"].roll(1, 0)}, **asked))
    assert (together["a"].most - of_another.most).abs().max() > 1e-6
    other_target = only(removal_curves(model, x, {"a": maps["a"].flip(1)}, **asked))
    assert (together["a"].most - other_target.most).abs().max() > 1e-6


def test_reversing_the_map_exchanges_the_curves() -> None:
    model, x, map_ = cnn(), photos(), a_map(3, 1, 4, 5)
    found = only(removal_curves(model, x, {"map": map_}, target=2, steps=5))
    turned = only(removal_curves(model, x, {"map": -map_}, target=2, steps=5))
    torch.testing.assert_close(found.most, turned.least, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.srg, -turned.srg, rtol=0, atol=1e-12)
    assert found.srg.abs().min() > 1e-7


def test_an_additive_model_has_the_curves_of_the_sorted_sums() -> None:
    model, x, parts = additive()
    found = only(removal_curves(model, x, {"m": parts[:, None]}, target=ValueScore(), steps=12))
    for n in range(3):
        falling = parts[n].sort(descending=True).values
        whole = parts[n].sum() + 1
        expected = torch.cat([whole[None], whole - falling.cumsum(0)])
        torch.testing.assert_close(found.most[n, 0, 0], expected, rtol=0, atol=1e-12)
        rising = torch.cat([whole[None], whole - falling.flip(0).cumsum(0)])
        torch.testing.assert_close(found.least[n, 0, 0], rising, rtol=0, atol=1e-12)


def test_the_perfect_order_has_the_largest_gain() -> None:
    model, x, parts = additive()
    maps = {f"random {seed}": a_map(3, 1, 12, seed=seed) for seed in range(50)}
    nearly = parts.clone()
    order = parts[0].argsort()
    nearly[0, order[5]], nearly[0, order[6]] = parts[0, order[6]], parts[0, order[5]]
    found = removal_curves(
        model, x, {"best": parts[:, None], "nearly": nearly[:, None], **maps}, target=ValueScore(), steps=12
    )
    best = found.pop("best").srg
    assert all(bool((best >= each.srg - 1e-12).all()) for each in found.values())
    assert best[0] > found["nearly"].srg[0] + 1e-9  # two neighbours exchanged are seen
    torch.testing.assert_close(best[1:], found["nearly"].srg[1:])
    explained = explain(model, x, InputXGradient(), target=ValueScore())
    torch.testing.assert_close(only(removal_curves(model, x, {"ixg": explained}, steps=12)).srg, best)


def test_ties_go_by_chance_and_not_by_place() -> None:
    model, x = cnn(), photos()
    flat = torch.zeros(3, 1, 6, 7, dtype=torch.float64)
    by_place = -torch.arange(42.0, dtype=torch.float64).reshape(1, 1, 6, 7).expand(3, -1, -1, -1)
    asked: dict[str, Any] = {"target": 1, "steps": 6}
    a, b = (only(removal_curves(model, x, {"m": flat}, seed=seed, **asked)) for seed in (0, 1))
    assert (a.most - b.most).abs().max() > 1e-9
    assert torch.equal(a.most, only(removal_curves(model, x, {"m": flat + 3}, **asked)).most)
    assert (a.most - only(removal_curves(model, x, {"m": by_place}, **asked)).most).abs().max() > 1e-9
    top = flat.clone()
    top[:, 0, 2, 3] = 1.0  # the only cell above the ties goes first
    first = only(removal_curves(model, x, {"m": top}, target=1, steps=42))
    for n in range(3):
        gone = by_hand.removed(x[n], by_hand.mean_colour(x[n]), {(2, 3)}, (6, 7))
        expected = by_hand.probability(model, 1)(gone)
        assert float(first.most[n, 0, 0, 1]) == pytest.approx(expected, abs=1e-12)


def test_maps_are_ordered_at_their_own_resolution() -> None:
    model, x = cnn(), photos()
    enlarged = explain(model, x, GradCAM(layers=("body",)), target=1)
    small = explain(model, x, GradCAM(layers=("body",), upsample=False), target=1)
    assert enlarged.map.shape[2:] == SIZE
    found = removal_curves(model, x, {"enlarged": enlarged, "small": small}, steps=4)
    assert torch.equal(found["enlarged"].most, found["small"].most)
    pooled = only(removal_curves(model, x, {"m": a_map(3, 1, *SIZE)}, target=1, steps=4, cells=5))
    assert pooled.removed.tolist() == [k / 25 for k in counts(25, 4)]
    assert len(only(removal_curves(model, x, {"m": a_map(3, 1, 1, 3)}, target=1, steps=9)).removed) == 4


def test_channels_are_added_up() -> None:
    model, x = cnn(), photos()
    kept = explain(model, x, Saliency(channels="none", absolute=False), target=1)
    added = explain(model, x, Saliency(channels="sum", absolute=False), target=1)
    found = removal_curves(model, x, {"kept": kept, "added": added}, steps=4)
    assert torch.equal(found["kept"].most, found["added"].most)


def test_classes_are_scored_by_probability_unless_told() -> None:
    model, x, map_ = cnn(), photos(), a_map(3, 1, 4, 5)
    by_default = only(removal_curves(model, x, {"m": map_}, target=1))
    logit = only(removal_curves(model, x, {"m": map_}, target=ClassScore(1, of="logit")))
    torch.testing.assert_close(
        by_default.most[..., 0], model(x).softmax(1)[:, 1].detach()[:, None, None].expand(-1, 1, 3)
    )
    torch.testing.assert_close(logit.most[..., 0], model(x)[:, 1].detach()[:, None, None].expand(-1, 1, 3))
    predicted = explain(model, x, Saliency())
    found = only(removal_curves(model, x, {"s": predicted}))
    expected = model(x).softmax(1).amax(1).detach()
    torch.testing.assert_close(found.most[:, 0, 0, 0], expected)
