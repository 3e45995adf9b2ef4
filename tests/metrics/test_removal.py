"""Curves of removal: closed forms, float64 loops, and mutants of both; forwards counted."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Attribution,
    ClassScore,
    Execution,
    FunctionScore,
    GradCAM,
    InputError,
    Inputs,
    InputXGradient,
    NonFiniteError,
    RegionScore,
    Saliency,
    ValueScore,
    explain,
)
from attribution.metrics import Curves, removal_curves
from attribution.metrics.removal import counts
from attribution.testing import guard, small_cnn
from tests.conftest import noise
from tests.metrics import by_hand

SIZE = (17, 23)


def cnn() -> nn.Module:
    return small_cnn(dtype=torch.float64)


def photos(count: int = 3) -> Tensor:
    return noise(count, 3, *SIZE, dtype=torch.float64)


def a_map(*shape: int, seed: int = 1) -> Tensor:
    return noise(*shape, dtype=torch.float64, seed=seed)


def doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def only(found: dict[str, Curves]) -> Curves:
    (curves,) = found.values()
    return curves


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


def additive() -> tuple[nn.Module, Tensor, Tensor]:
    """Σ w · x + 1, three examples, and what each feature contributes against 0."""
    model = nn.Linear(12, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(noise(1, 12, dtype=torch.float64, seed=5))
        model.bias.fill_(1.0)
    x = noise(3, 12, dtype=torch.float64, seed=6)
    return model, x, x * model.weight.detach()


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


SEEN: list[int] = []
"""How many images each forward of `Counted` was shown; beside the model, since a copy of it is run."""


class Counted(nn.Module):
    """Counts the images it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = cnn()

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append(len(x))
        return self.inner(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("maps", "baselines"), [(1, 1), (4, 1), (4, 3)])
def test_forwards_are_counted(maps: int, baselines: int) -> None:
    model, x, steps = Counted(), photos(2), 8
    given = {str(k): a_map(2, 1, 5, 6, seed=k) for k in range(maps)}
    asked: dict[str, Any] = {"target": 1, "steps": steps, "baselines": ("mean", "blur", "noise")[:baselines]}
    removal_curves(model, x, given, **asked)  # what is found out about a model once
    SEEN.clear()
    removal_curves(model, x, given, **asked)
    needed = maps * baselines * (2 * steps - 2) + 1 + baselines
    assert needed <= sum(SEEN) / len(x) <= 1.1 * needed


def test_a_map_of_all_targets_is_as_cheap_as_one() -> None:
    model, x = Counted(), photos(1)
    shared = only(removal_curves(model, x, {"m": a_map(1, 1, 4, 4)}, target="all", steps=4))
    SEEN.clear()
    again = only(removal_curves(model, x, {"m": a_map(1, 1, 4, 4)}, target="all", steps=4))
    assert sum(SEEN) == 3 * 6 + 1 + 3
    assert torch.equal(shared.most, again.most)
    for t in range(shared.most.shape[1]):
        one = only(removal_curves(model, x, {"m": a_map(1, 1, 4, 4)}, target=t, steps=4))
        torch.testing.assert_close(shared.most[:, t], one.most[:, 0], rtol=0, atol=1e-12)


def test_baselines_are_what_they_are_called() -> None:
    model, x, map_ = cnn(), photos(), a_map(3, 1, 4, 5)
    grey = torch.full((3, 1, 1), 0.25, dtype=torch.float64)
    given: dict[str, Any] = {word: word for word in ("mean", "blur", "noise")}
    given |= {"zero": 0.0, "grey": grey, "each": a_map(3, 3, *SIZE)}
    found = only(removal_curves(model, x, {"m": map_}, target=1, baselines=given, steps=3))
    assert found.baselines == tuple(given)
    for n in range(3):
        score = by_hand.probability(model, 1)
        bases = {"mean": by_hand.mean_colour(x[n]), "zero": torch.zeros_like(x[n]), "grey": torch.full_like(x[n], 0.25)}
        bases["each"] = a_map(3, 3, *SIZE)[n]
        for name, base in bases.items():
            expected = doubles(by_hand.curve(score, x[n], base, map_[n, 0], 3, least=False))
            torch.testing.assert_close(found.most[n, 0, found.baselines.index(name)], expected, rtol=0, atol=1e-12)
    ends = found.most[..., -1]
    assert (ends[..., None] - ends[..., None, :] + torch.eye(6)).abs().min() > 1e-9  # no two are mixed up
    torch.testing.assert_close(found.most[..., -1], found.least[..., -1])


def test_noise_belongs_to_the_photo() -> None:
    model, x, map_ = cnn(), photos(), torch.zeros(3, 1, 4, 5, dtype=torch.float64)
    asked: dict[str, Any] = {"target": 1, "baselines": ("noise",), "steps": 3}
    found = only(removal_curves(model, x, {"m": map_}, **asked))
    last = only(removal_curves(model, x[2:], {"m": map_[2:]}, first=2, **asked))
    torch.testing.assert_close(found.most[2:], last.most, rtol=0, atol=1e-12)
    moved = only(removal_curves(model, x[2:], {"m": map_[2:]}, first=1, **asked))
    assert (found.most[2:] - moved.most).abs().max() > 1e-9


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


class Lines(nn.Module):
    """Of series or volumes."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        kind: Any = {1: nn.Conv1d, 3: nn.Conv3d}[rank]
        self.conv = kind(2, 4, 3, padding=1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu().flatten(2).mean(2)  # type: ignore[no-any-return]


@pytest.mark.parametrize("places", [(19,), (5, 7, 6)])
def test_series_and_volumes(places: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, x = Lines(len(places)), noise(2, 2, *places, dtype=torch.float64)
    grid = tuple(size // 2 for size in places)
    map_ = a_map(2, 1, *grid)
    found = only(removal_curves(model, x, {"m": map_}, target=1, baselines=("mean",), steps=3))
    for n in range(2):
        score = by_hand.probability(model, 1)
        expected = by_hand.curve(score, x[n], by_hand.mean_colour(x[n]), map_[n, 0], 3, least=True)
        torch.testing.assert_close(found.least[n, 0, 0], doubles(expected), rtol=0, atol=1e-12)


class Segmenting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


def test_a_region_is_fixed_on_the_clean_output() -> None:
    torch.manual_seed(1)
    model, x = Segmenting(), photos(2)
    mask = model(x).argmax(1) == 2
    map_ = a_map(2, 1, 4, 5)
    found = only(removal_curves(model, x, {"m": map_}, target=RegionScore(2), baselines=("mean",), steps=3))
    for n in range(2):

        def score(image: Tensor, n: int = n) -> float:
            return float(model(image[None]).detach()[0, 2][mask[n]].mean())

        expected = by_hand.curve(score, x[n], by_hand.mean_colour(x[n]), map_[n, 0], 3, least=False)
        torch.testing.assert_close(found.most[n, 0, 0], doubles(expected), rtol=0, atol=1e-10)


class Two(nn.Module):
    def forward(self, image: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        return torch.stack([image.flatten(1).sum(1), (table * ids[:, None]).sum(1)], 1).sum(1)


def test_one_of_several_inputs_is_changed_and_the_rest_stays_with_its_example() -> None:
    image, table, ids = a_map(3, 1, 4, 4), a_map(3, 5, seed=2), torch.tensor([1, 2, 3])
    inputs = Inputs.of((image, table, ids))
    found = removal_curves(
        Two(),
        inputs,
        {"image": a_map(3, 1, 4, 4, seed=3)},
        target=FunctionScore(lambda y: y),
        baselines=(0.0,),
        steps=2,
    )
    rest = (table * ids[:, None]).sum(1)
    torch.testing.assert_close(only(found).most[:, 0, 0, -1], rest)
    torch.testing.assert_close(only(found).most[:, 0, 0, 0], image.flatten(1).sum(1) + rest)


def test_the_model_is_left_alone() -> None:
    model, x = small_cnn().train(), noise(2, 3, *SIZE)
    state = torch.get_rng_state()
    with guard(model):
        removal_curves(model, x, {"m": noise(2, 1, 4, 5)}, target=1, steps=3)
        with pytest.raises(InputError):
            removal_curves(model, x, {"m": noise(2, 3, 4, 5)}, target=1, steps=3)
    assert torch.equal(state, torch.get_rng_state())


def nan_map(model: nn.Module, x: Tensor) -> dict[str, Tensor | Attribution]:
    map_ = a_map(2, 1, 4, 5)
    map_[1, 0, 2, 2] = float("nan")
    return {"map": map_}


@pytest.mark.parametrize(
    ("maps", "changes", "error", "match"),
    [
        (nan_map, {}, NonFiniteError, "2.5% of the map 'map' is NaN"),
        ({}, {}, InputError, "no maps"),
        ({"m": [1.0]}, {}, InputError, "give an Attribution, or a tensor"),
        ({"m": a_map(3, 1, 4, 5)}, {}, InputError, "for 2 examples"),
        ({"m": a_map(2, 1, 30, 5)}, {}, InputError, "cells for places"),
        ({"m": a_map(2, 1, 4)}, {}, InputError, "give as many axes"),
        ({"m": a_map(2, 2, 4, 5)}, {}, InputError, "of 2 targets, and 1 are scored"),
        ({"m": a_map(2, 1, 4, 5)}, {"baselines": ("gray",)}, InputError, "'gray' is not known"),
        ({"m": a_map(2, 1, 4, 5)}, {"baselines": "mean"}, InputError, "give several"),
        ({"m": a_map(2, 1, 4, 5)}, {"baselines": ()}, InputError, "no baselines"),
        ({"m": a_map(2, 1, 4, 5)}, {"baselines": (torch.zeros(1),)}, InputError, "needs a name"),
        ({"m": a_map(2, 1, 4, 5)}, {"steps": 1}, InputError, "steps is 1"),
        ({"m": a_map(2, 1, 4, 5)}, {"cells": 0}, InputError, "cells is 0"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_model_runs(
    maps: Any, changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    model, x = Counted(), photos(2)
    given = maps(model, x) if callable(maps) else maps
    removal_curves(model, x, {"m": a_map(2, 1, 4, 5)}, target=1, steps=2)
    SEEN.clear()
    with pytest.raises(error, match=match):
        removal_curves(model, x, given, **{"target": 1, **changes})
    assert sum(SEEN) <= (2 if "targets" in match else 0)


def test_words_need_places() -> None:
    model, x, parts = additive()
    with pytest.raises(InputError, match="needs places"):
        removal_curves(model, x, {"m": parts[:, None]}, target=ValueScore(), baselines=("mean",))


def test_maps_of_different_targets_are_refused() -> None:
    model, x = cnn(), photos(2)
    a, b = (explain(model, x, Saliency(), target=t) for t in (1, 2))
    with pytest.raises(InputError, match="different targets"):
        removal_curves(model, x, {"a": a, "b": b})
