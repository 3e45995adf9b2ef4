"""Intervals, paired comparisons and Kendall's tau: against scipy, closed forms, simulations and mutants."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from attribution import FunctionScore
from attribution.metrics import removal_curves
from attribution.metrics.statistics import (
    FEWEST,
    Array,
    half_sample_tau,
    intervals,
    kendall_tau,
    student,
    versus,
)


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("freedom", [5, 8, 20, 1000])
def test_students_percentile_is_scipys(freedom: int) -> None:
    assert student(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-3)


@pytest.mark.parametrize("photos", [8, 40])
def test_intervals_are_scipys_with_wider_tails(photos: int) -> None:
    values = drawn(photos, 1) ** 3
    (found,) = intervals(values)
    tail = scipy.stats.norm.cdf(-np.sqrt(photos / (photos - 1)) * scipy.stats.t.ppf(0.975, photos - 1))
    theirs = scipy.stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=20_000, confidence_level=1 - 2 * tail, method="percentile", rng=1
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_intervals_hold_the_mean_in_about_95_of_100_samples() -> None:
    held = plain = 0
    for seed in range(100):
        values = drawn(10, 1, seed=seed)
        (found,) = intervals(values, seed=seed)
        held += found.low <= 0 <= found.high
        narrow = np.quantile(np.random.default_rng(seed).choice(values[:, 0], (2000, 10)).mean(axis=1), [0.025, 0.975])
        plain += bool(narrow[0] <= 0 <= narrow[1])
    assert 90 <= held <= 99
    assert plain < held  # the tails without which few photos are too sure


def test_one_photo_has_no_interval() -> None:
    (found,) = intervals(np.array([[0.25]]))
    assert found.mean == 0.25
    assert np.isnan(found.low)
    assert str(found) == "0.250"


def test_pairing_sees_what_unpaired_photos_hide() -> None:
    photo = 3 * drawn(30)
    first, second = photo + 0.2 + 0.1 * drawn(30, seed=1), photo
    found = versus(("a", "b"), first, second)
    assert found.told_apart
    assert found.difference.low < 0.2 < found.difference.high
    shuffled = versus(("a", "b"), first, np.random.default_rng(0).permutation(second))
    assert not shuffled.told_apart  # the mutant: photos unpaired
    assert shuffled.needed is not None
    assert shuffled.needed > 100 * (found.needed or 0)


def test_the_same_photos_are_resampled_for_all_maps() -> None:
    values = drawn(20, 1)
    both = intervals(np.concatenate([values, values + 1], axis=1))
    assert both[1].low == pytest.approx(both[0].low + 1)


def test_sentences() -> None:
    first = np.array([1.0] * 71 + [-1.0] * 29)
    found = versus(("A", "B"), first, np.zeros(100))
    assert found.told_apart
    assert str(found).startswith("A beats B on 71 % of photos (6")
    turned = versus(("B", "A"), np.zeros(100), first)
    assert str(turned) == str(found)
    lower = versus(("A", "B"), -first, np.zeros(100), higher=False)
    assert str(lower) == str(found)
    noisy = versus(("A", "B"), drawn(40) + 0.1, np.zeros(40))
    delta = drawn(40) + 0.1
    needed = ((1.959964 + 0.841621) * delta.std(ddof=1) / delta.mean()) ** 2
    assert noisy.needed == int(np.ceil(needed))
    assert str(noisy) == f"A and B cannot be told apart with 40 photos; about {noisy.needed} would be needed"
    same = versus(("A", "B"), np.ones(9), np.ones(9))
    assert str(same) == "A and B cannot be told apart with 9 photos"
    assert same.share.mean == 0.5


def test_few_photos_tell_nothing() -> None:
    few, enough = (versus(("A", "B"), np.arange(1.0, n + 1), np.zeros(n)) for n in (FEWEST - 1, FEWEST))
    assert few.difference.low > 0
    assert not few.told_apart
    assert enough.told_apart


def test_as_many_photos_as_are_said_to_be_needed_tell_two_maps_apart() -> None:
    delta = 0.4 + drawn(2000)
    needed = versus(("A", "B"), delta[:50], np.zeros(50)).needed or 0
    assert 20 < needed < 250
    samples = [drawn(50, seed=seed) + 0.4 for seed in range(30)]
    assert sum(versus(("A", "B"), each, np.zeros(50)).told_apart for each in samples) >= 19  # power at d = 0.4 s: 0.8


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_scipys(seed: int) -> None:
    source = np.random.default_rng(seed)
    a, b = source.integers(0, 4, 9).astype(float), source.integers(0, 4, 9).astype(float)
    assert kendall_tau(a, b) == pytest.approx(scipy.stats.kendalltau(a, b).statistic)
    assert kendall_tau(a, a) == pytest.approx(1)
    assert kendall_tau(a, -a) == pytest.approx(-1)
    assert np.isnan(kendall_tau(np.ones(4), np.arange(4.0)))


def test_halves_agree_where_photos_do() -> None:
    stable = np.arange(5.0) + 0.01 * drawn(20, 5)
    assert half_sample_tau(stable) == pytest.approx(1)
    assert abs(half_sample_tau(drawn(20, 5))) < 0.4
    assert np.isnan(half_sample_tau(stable[:1]))


def test_the_gain_of_a_random_map_holds_0() -> None:
    model = nn.Linear(30, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(drawn(1, 30, seed=3)))
    x = torch.from_numpy(drawn(300, 30, seed=4))
    score = FunctionScore(lambda output: output)
    constant = torch.zeros(300, 1, 30, dtype=torch.float64)
    right = (x * model.weight.detach())[:, None]
    gains = {
        name: removal_curves(model, x, {"m": map_}, target=score, steps=10)["m"].srg[:, 0].numpy()
        for name, map_ in (("random", constant), ("right", right), ("reversed", -right))
    }
    (random,), (best,), (worst,) = (intervals(each) for each in gains.values())
    assert random.low <= 0 <= random.high
    assert best.low > 0 > worst.high
